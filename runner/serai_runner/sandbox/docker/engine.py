"""The few things that are asked of a Docker engine. All of it blocks, and may be called from any thread."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import time
from typing import Any

from serai_runner.sandbox.base import SandboxUnavailable
from serai_runner.sandbox.docker.container import Machine

#: Of Docker 20.10. Older engines know no private control group namespaces.
_API_VERSION = "1.41"
#: An engine that starts hundreds of containers at once answers after tens of seconds.
_TIMEOUT_S = 60
_NUM_CONNECTIONS = 16
#: Lines and bytes of what a container printed, enough to see why it never stood.
_TAIL_LINES, _TAIL_BYTES = 50, 4096
#: Between two tries to hear from an engine that is gone.
_RETRY_S = 0.5


class EngineError(Exception):
    """The engine refused, or it does not answer."""


class ImageMissing(EngineError):
    """There is no such image."""


@dataclass(frozen=True)
class Happening:
    """What the engine said of a container that has our labels."""

    action: str  # "die", "oom"
    labels: dict[str, str]
    exit_code: int


@dataclass(frozen=True)
class Standing:
    """A container that is there."""

    id: str
    labels: dict[str, str]


class Engine:
    def __init__(self, url: str) -> None:
        """Raises SandboxUnavailable: no engine answers at `url`, or Python's `docker` package is missing."""
        try:
            import docker
            from docker import errors
            from requests.exceptions import RequestException
        except ImportError as error:
            raise SandboxUnavailable('the Python package docker is missing: pip install "serai[runner]"') from error
        self._not_found: type[Exception] = errors.NotFound
        self._no_image: type[Exception] = errors.ImageNotFound
        self._refusals: type[Exception] = errors.APIError
        self._failures = (errors.DockerException, RequestException, OSError)
        self._path = url.removeprefix("unix://") if url.startswith("unix://") else ""
        try:
            self.api = docker.APIClient(url, version=_API_VERSION, timeout=_TIMEOUT_S, max_pool_size=_NUM_CONNECTIONS)
        except self._failures as error:
            raise SandboxUnavailable(f"{url} is no Docker engine: {error}") from error
        try:
            with self._asking():
                info = self.api.info()
        except EngineError as error:
            self.close()
            raise SandboxUnavailable(f"no Docker engine answers at {url}: {error}") from error
        self.machine = Machine(info["NCPU"], bool(info.get("CpuCfsQuota")))
        self.runtimes: frozenset[str] = frozenset(info.get("Runtimes") or ())
        limits = {"MemoryLimit": "memory", "PidsLimit": "processes", "CpuCfsQuota": "processor time"}
        self.missing_limits = [word for key, word in limits.items() if not info.get(key)]

    def close(self) -> None:
        self.api.close()

    def create(self, name: str, config: dict[str, Any]) -> str:
        """The new container's id."""
        with self._asking():
            return self.api.create_container_from_config(config, name)["Id"]

    def start(self, id: str) -> None:
        with self._asking():
            self.api.start(id)

    def attach(self, id: str) -> Any:
        """A raw stream of what it prints, in the engine's frames. Closing it ends the container's input."""
        with self._asking():
            return self.api.attach_socket(id, params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})

    def kill(self, id: str) -> None:
        """SIGKILL to all of it; nothing where it has ended."""
        with self._asking(), contextlib.suppress(self._refusals):
            self.api.kill(id)

    def remove(self, id: str) -> None:
        """Killed first if it runs. Nothing where it is gone."""
        with self._asking():
            try:
                self.api.remove_container(id, force=True, v=True)
            except self._refusals as error:
                if getattr(error, "status_code", 0) not in (404, 409):  # gone, or somebody is at it
                    raise

    def wait(self, id: str) -> int:
        """The exit code, when it has ended."""
        with self._asking():
            return self.api.wait(id, timeout=_TIMEOUT_S)["StatusCode"]

    def ended(self, id: str) -> tuple[int, bool] | None:
        """Exit code, and whether its memory ran out; None while it runs."""
        with self._asking():
            state = self.api.inspect_container(id)["State"]
        return None if state["Running"] else (state["ExitCode"], bool(state["OOMKilled"]))

    def tail(self, id: str) -> str:
        """The last it printed."""
        with self._asking():
            return self.api.logs(id, tail=_TAIL_LINES)[-_TAIL_BYTES:].decode("utf-8", "replace")

    def containers(self, *labels: str) -> list[Standing]:
        """All that have these labels, ended ones too."""
        with self._asking():
            found = self.api.containers(all=True, filters={"label": list(labels)})
        return [Standing(each["Id"], each["Labels"]) for each in found]

    def tags(self, repository: str) -> list[str]:
        with self._asking():
            return [tag for image in self.api.images(repository) for tag in image["RepoTags"] or ()]

    def has_image(self, name: str) -> bool:
        with self._asking():
            try:
                self.api.inspect_image(name)
            except self._not_found:
                return False
        return True

    def network_options(self, name: str) -> dict[str, str] | None:
        """None: there is no network of this name."""
        with self._asking():
            found = [each for each in self.api.networks(names=[name]) if each["Name"] == name]
        return found[0]["Options"] or {} if found else None

    def create_network(self, name: str, options: dict[str, str]) -> None:
        """A bridge without IPv6. Nothing where one of this name is there already."""
        with self._asking():
            try:
                self.api.create_network(name, "bridge", options=options, check_duplicate=True, enable_ipv6=False)
            except self._refusals as error:
                if getattr(error, "status_code", 0) != 409:
                    raise

    def events(self, label: str, since: int) -> Any:
        """A stream to iterate and to `close()`, of events since then of containers with this label."""
        with self._asking():
            filters = {"type": ["container"], "label": [label], "event": ["die", "oom"]}
            return self.api.events(since=since, filters=filters, decode=True)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            self._knock()
            yield
        except self._no_image as error:
            raise ImageMissing(str(error)) from error
        except self._failures as error:
            raise EngineError(str(getattr(error, "explanation", None) or error)) from error

    def _knock(self) -> None:
        """Fail in plain words where nobody listens: the library's are long, and it leaves its socket open."""
        if self._path:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
                sock.settimeout(_TIMEOUT_S)
                try:
                    sock.connect(self._path)
                except OSError as error:
                    raise OSError(f"{self._path}: {error.strerror or error}") from error


class EventStream:
    """Listens to an engine in a thread of its own, for as long as it is not closed; reconnects.

    Args:
        hear: called in that thread with what happened; with None when the engine is heard again; with the reason, a
            string, each time the engine could not be heard.
    """

    def __init__(self, engine: Engine, label: str, hear: Callable[[Happening | str | None], None]) -> None:
        self._engine = engine
        self._label = label
        self._hear = hear
        self._is_closed = threading.Event()
        self._stream: Any = None
        self._thread = threading.Thread(target=self._listen, name="docker-events", daemon=True)
        self._since = int(time())  # what happens before we are connected is told afterwards

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._is_closed.set()
        stream = self._stream
        if stream is not None:
            with contextlib.suppress(Exception):  # it is broken already, or ends at this very moment
                stream.close()
        self._thread.join(_RETRY_S)

    def _listen(self) -> None:
        while not self._is_closed.is_set():
            why = self._hear_all()
            if not self._is_closed.is_set():
                self._hear(why)
                self._is_closed.wait(_RETRY_S)
                self._since = int(time())

    def _hear_all(self) -> str:
        """Until it breaks; why it did."""
        try:
            self._stream = self._engine.events(self._label, self._since)
            if self._is_closed.is_set():
                self._stream.close()
            self._hear(None)
            for event in self._stream:
                self._hear(_happening(event))
        except (EngineError, ValueError, OSError) as error:
            return str(error)
        return "it ended the stream of its events"


def _happening(event: dict[str, Any]) -> Happening:
    labels = event["Actor"]["Attributes"]
    code = str(labels.get("exitCode", ""))
    return Happening(event["Action"], labels, int(code) if code.isdigit() else -1)
