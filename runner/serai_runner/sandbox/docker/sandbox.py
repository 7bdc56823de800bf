"""Boxes in containers of a Docker engine on this machine."""

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from serai_runner.sandbox.base import (
    Box,
    BoxEvents,
    BuildBox,
    Job,
    RunningBox,
    SandboxUnavailable,
    box_variables,
    make_job,
)
from serai_runner.sandbox.docker.box import DockerBox
from serai_runner.sandbox.docker.build import build_command
from serai_runner.sandbox.docker.container import Network, box_config, trial_config
from serai_runner.sandbox.docker.engine import Engine, EngineError, EventStream, Happening, ImageMissing
from serai_runner.sandbox.docker.labels import home_label, is_orphan, labels_of
from serai_runner.sandbox.docker.options import DockerOptions, how_to_build, image_for, python_of_tag
from serai_runner.sandbox.egress.egress import Egress, EgressError

__all__ = ["Docker", "DockerOptions"]

#: Requests to the engine at once. It starts containers in parallel, and each start takes a core for a while.
_NUM_THREADS = 16
#: At the end, for containers to go.
_CLOSE_S = 10.0


class Docker:
    """Each box is a container: unprivileged, read-only, without capabilities, limited, with one socket to the host."""

    name = "docker"
    is_isolating = True
    can_fork = True

    def __init__(
        self, home: Path, options: DockerOptions, engine: Engine, default_python: str, egress: Egress | None = None
    ) -> None:
        self.engine = engine
        self.default_python = default_python
        self._home = home
        self._options = options
        self._egress = egress or Egress(home)
        #: Tells our containers from those of every other host; the engine tells us of events of the last second anew.
        self._token = secrets.token_hex(4)
        self._labels = labels_of(home_label(home)) | {"serai.run": self._token}
        self._boxes: dict[int, DockerBox] = {}
        self._threads = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="docker")
        self._stream: EventStream | None = None
        self._lost = ""

    @classmethod
    def probe(
        cls, home: Path, options: DockerOptions | None = None, log: Callable[[str], None] = lambda line: None
    ) -> "Docker":
        """One that works here: the engine answers, the image is there, and a container of it ran.

        Also removes what dead hosts of this home left. Blocks, about 0.5 s.

        Raises:
            SandboxUnavailable: it does not work, and why.
        """
        options = options or DockerOptions()
        engine = Engine(options.engine)
        try:
            sandbox = cls(home, options, engine, "")
            sandbox.ensure_image(log)
            sandbox.default_python = sandbox._try()
            sandbox._remove(is_orphan)
        except (EngineError, OSError) as error:
            engine.close()
            raise SandboxUnavailable(f"Docker does not work on this machine: {error}") from error
        except SandboxUnavailable:
            engine.close()
            raise
        if engine.missing_limits:
            log(f"the Docker engine cannot limit {', '.join(engine.missing_limits)} on this machine")
        return sandbox

    def ensure_image(self, log: Callable[[str], None]) -> None:
        """Raises SandboxUnavailable with the command that makes the image, where it is missing."""
        image = self._options.image
        if not self.engine.has_image(image):
            raise SandboxUnavailable(f"Docker has no image {image}; in the source of Serai: {how_to_build(image)}")
        log(f"containers run the image {image}")

    def pythons(self) -> tuple[str, ...]:
        """Versions of Python that have an image. Blocks."""
        found = {self.default_python} | {python_of_tag(tag) for tag in self.engine.tags(self._options.repository)}
        return tuple(sorted(found - {""}, key=lambda version: [int(part) for part in version.split(".")]))

    def python_problem(self, python: str) -> str:
        """Blocks."""
        image = image_for(self._options, python, self.default_python)
        if self.engine.has_image(image):
            return ""
        return f"containers with Python {python} need the image {image}; the operator makes it: {how_to_build(image)}"

    def network_problem(self) -> str:
        """Why versions that may use the network cannot run here; empty: they can. Blocks."""
        try:
            self._egress.docker_network(self.engine)
        except (EgressError, EngineError) as error:
            return str(error)
        return ""

    def start(self, box: Box, output: int, events: BoxEvents) -> RunningBox:
        self._listen()
        if self._lost:
            raise SandboxUnavailable(f"the Docker engine does not answer: {self._lost}")
        image_for(self._options, box.spec.python, self.default_python)
        started = DockerBox(self, box, self._home / "run" / "boxes" / str(box.number), events)
        self._boxes[box.number] = started
        return started

    def job(self, box: Box) -> Job:
        return make_job(box, box_variables(box, "/usr/local/bin"))

    def build_command(self, build: BuildBox) -> list[str]:
        return build_command(build, self._options, self._labels["serai.home"])

    async def close(self) -> None:
        for box in self._boxes.values():
            box.kill()
        if self._boxes:
            await asyncio.wait([box.life for box in self._boxes.values()], timeout=_CLOSE_S)
        if self._stream is not None:
            await self.ask(self._stream.close)
        self._threads.shutdown(wait=True, cancel_futures=True)
        self.engine.close()

    # What boxes ask

    def ask(self, do: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._threads, partial(do, *arguments))

    def create(self, box: Box, folder: Path) -> str:
        image = image_for(self._options, box.spec.python, self.default_python)
        network = None
        if box.spec.network:
            network = Network(self._egress.docker_network(self.engine), self._egress.name_servers())
        labels = self._labels | {"serai.box": str(box.number)}
        config = box_config(box, image, folder, network, labels, self._options, self.engine.machine)
        try:
            return self.engine.create(f"serai-{self._labels['serai.home']}-{self._token}-{box.number}", config)
        except ImageMissing as error:
            raise EngineError(f"no image {image}; in the source of Serai: {how_to_build(image)}") from error

    def on_gone(self, number: int) -> None:
        self._boxes.pop(number, None)

    # What the engine says

    def _listen(self) -> None:
        if self._stream is None:
            shutil.rmtree(self._home / "run" / "boxes", ignore_errors=True)  # of a host that was killed
            loop = asyncio.get_running_loop()

            def hear(what: Happening | str | None) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(self._heard, what)

            self._stream = EventStream(self.engine, f"serai.run={self._token}", hear)
            self._stream.start()

    def _heard(self, what: Happening | str | None) -> None:
        if isinstance(what, Happening):
            number = what.labels.get("serai.box", "")
            box = self._boxes.get(int(number)) if number.isdigit() else None
            if box is not None and what.action == "oom":
                box.on_out_of_memory()
            elif box is not None:
                box.on_death(what.exit_code)
        elif what is None:
            if self._lost:  # it is back, and may still have what we could not remove
                self._sweeping = self.ask(self._remove_lost)
            self._lost = ""
        else:
            self._lost = what
            for box in list(self._boxes.values()):
                box.on_death(-1, what)

    def _remove_lost(self) -> None:
        self._remove(lambda labels: is_orphan(labels) or self._is_lost(labels))

    def _is_lost(self, labels: dict[str, str]) -> bool:
        number = labels.get("serai.box", "")
        is_ours = labels.get("serai.run") == self._token
        return is_ours and number.isdigit() and int(number) not in self._boxes

    def _remove(self, is_left: Callable[[dict[str, str]], bool]) -> None:
        for container in self.engine.containers(f"serai.home={self._labels['serai.home']}"):
            if is_left(container.labels):
                self.engine.remove(container.id)

    def _try(self) -> str:
        """The version of the image's Python, from a container of it."""
        config = trial_config(self._options.image, self._labels, self._options, self.engine.machine)
        id = self.engine.create(f"serai-{self._labels['serai.home']}-{self._token}-trial", config)
        try:
            self.engine.start(id)
            code = self.engine.wait(id)
            said = self.engine.tail(id).strip()
        finally:
            self.engine.remove(id)
        if code or not python_of_tag(f":py{said}"):
            raise SandboxUnavailable(f"a container of {self._options.image} cannot run our part of a box: {said}")
        return said
