"""A real Serai for tests and benchmarks: `serai up` in a process of its own, and what to call it with."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

#: How long a start, a stop or a recovery may take before a test gives up; generous, for busy machines.
PATIENCE_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Callable[[], Any], what: str, within_s: float = PATIENCE_S) -> Any:
    """The first true value of `condition`. Raises AssertionError with `what` when there is none in time."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what}")
        time.sleep(0.01)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Service:
    """`serai up` on a home of its own. Use as a context manager."""

    def __init__(self, home: Path, *options: str, port: int | None = None) -> None:
        self.home = home
        self.port = port or free_port()
        #: Not whatever this machine has: containers start slowly, and they have tests of their own.
        self._options = options if "--sandbox" in options else ("--sandbox", "bubblewrap", *options)
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def key(self) -> str:
        return (self.home / "operator.key").read_text().strip()

    @property
    def pid(self) -> int:
        assert self._process is not None, "started before it has a pid"
        return self._process.pid

    @property
    def output(self) -> str:
        return (self.home.parent / f"{self.home.name}.out").read_text()

    def start(self) -> "Service":
        """Returns when everything is published and ready."""
        command = [str(Path(sys.executable).with_name("serai")), "up", "--home", str(self.home)]
        command += ["--port", str(self.port), *self._options]
        self._output = (self.home.parent / f"{self.home.name}.out").open("wb")
        self._process = subprocess.Popen(command, stdout=self._output, stderr=subprocess.STDOUT)
        until(lambda: self._has_started() or self._process_ended(), f"Serai is up:\n{self._tail()}")
        assert not self._process_ended(), f"serai up ended:\n{self.output}\n{self._tail()}"
        return self

    def stop(self, number: int = signal.SIGTERM, within_s: float = PATIENCE_S) -> int:
        assert self._process is not None, "started before it is stopped"
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            return self._process.wait(within_s)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            if self._output is not None:
                self._output.close()

    def __enter__(self) -> "Service":
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def daemon_pid(self, name: str) -> int:
        """gateway, runner or pool."""
        return int((self.home / "run" / f"{name}.pid").read_text())

    def publish(self, folder: Path, *, public: bool = True, key: str | None = None) -> str:
        """What was said while it was built; with the operator's key unless told otherwise."""
        visibility = "--public" if public else "--private"
        command = [str(Path(sys.executable).with_name("serai")), "publish", str(folder), visibility]
        environment = self.environment() | {"SERAI_API_KEY": key or self.key}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def remote(self, name: str, *, key: str | None = None, user: str = "me") -> str:
        """The address of a repository ("owner/name"), with a key in it: the operator's unless told otherwise."""
        credentials = f"{user}:{key or self.key}@" if key != "" else ""
        return f"http://{credentials}127.0.0.1:{self.port}/git/{name}.git"

    def push(self, folder: Path, name: str, *words: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
        """`git push` from the repository in `folder`: HEAD to main, unless told otherwise."""
        return run_git(folder, "push", self.remote(name, key=key), *(words or ("HEAD:main",)))

    def environment(self) -> dict[str, str]:
        return {**os.environ, "SERAI_ADDRESS": self.address, "SERAI_API_KEY": self.key}

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def call(
        self, algorithm: str, body: bytes, content_type: str = "application/json", key: str | None = None
    ) -> Answer:
        """POST to `algorithm` ("owner/name[/version][?options]")."""
        headers = {"Authorization": f"Simple {self.key if key is None else key}", "Content-Type": content_type}
        return self.request("POST", f"/v1/algo/{algorithm}", body, headers)

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.request("GET", "/readyz").status == 200
        return False

    def _has_started(self) -> bool:
        return "Serai is up" in self.output

    def _process_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None

    def _tail(self) -> str:
        logs = sorted((self.home / "logs").glob("*.log")) if self.home.exists() else []
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}" for log in logs)


def run_git(folder: Path, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """git as its users run it, but with no settings of this machine, and without asking anybody anything."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_AUTHOR_NAME": "Ann Author",
        "GIT_AUTHOR_EMAIL": "ann@users.noreply",
        "GIT_COMMITTER_NAME": "Ann Author",
        "GIT_COMMITTER_EMAIL": "ann@users.noreply",
    }
    command = ["git", "-c", "init.defaultBranch=main", *words]
    settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": PATIENCE_S, "env": environment}
    return subprocess.run(command, cwd=folder, check=False, **(settings | options))


def commit_all(folder: Path, message: str = "a change") -> str:
    """The hash of a new commit of all that is in `folder`, which becomes a repository if it is none."""
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--allow-empty", "-m", message]):
        done = run_git(folder, *words)
        assert done.returncode == 0, done.stderr
    return run_git(folder, "rev-parse", "HEAD").stdout.strip()


def write_algorithm(
    folder: Path, source: str, *, owner: str = "operator", name: str | None = None, extra: str = ""
) -> Path:
    """A folder with one Python algorithm; `extra` is added to its algorithm.toml."""
    name = name or folder.name
    (folder / "src").mkdir(parents=True, exist_ok=True)
    (folder / "algorithm.toml").write_text(
        f'[algorithm]\nowner = "{owner}"\nname = "{name}"\ntagline = "for a test"\nlanguage = "python"\n\n{extra}'
    )
    (folder / "src" / f"{name}.py").write_text(source)
    (folder / "README.md").write_text(f"# {name}\n")
    return folder
