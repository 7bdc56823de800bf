"""The owner of all builds: who waits, who runs, whose turn is kept. Lives on the daemon's loop; work is in threads."""

import asyncio
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from serai_gateway.build import BuildError
from serai_gateway.build.builder import this_builder
from serai_gateway.build.patience import Patience
from serai_gateway.builder.jobs import CommitJob, Job, Workshop
from serai_gateway.builder.messages import Ended, Made
from serai_gateway.builder.queue import MAX_RUNNING, Full, Queue, Ticket
from serai_gateway.builder.tidying import TIDY_EVERY_S, tidy
from serai_gateway.catalogue import CatalogueError, Version
from serai_gateway.files import FileStoreError
from serai_gateway.git import GitError
from serai_gateway.logs import get_logger
from serai_gateway.versions import InvalidVersion

_log = get_logger("builder")

#: What ends a build is either the author's affair, with a message, or a bug of ours.
AUTHORS_AFFAIRS = (BuildError, CatalogueError, FileStoreError, GitError, InvalidVersion)

_CALLED_OFF = "it was called off: whoever pushed has gone, or Serai was stopped"
_INTERRUPTED = "Serai is stopping; push or publish again"


@dataclass
class Build:
    """One request, from when it is taken until its turn is over."""

    job: Job
    say: Callable[[str], None]
    ended: Callable[[Ended], None]  # with `id` 0: whoever asked knows which
    keeps_turn: bool = False
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    patience: Patience | None = None  # while it runs


class Builds:
    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self._queue = Queue()
        self._builds: dict[str, Build] = {}
        self._threads = ThreadPoolExecutor(MAX_RUNNING, "build")
        self._loop = asyncio.get_running_loop()
        self._is_stopping = False
        self._tidied_at = time.monotonic()  # by whoever started us

    def submit(self, build: Build) -> None:
        """It runs when its turn comes; `build.ended` is called once, on the loop."""
        full = Full(_INTERRUPTED, False) if self._is_stopping else self._queue.add(_ticket(build))
        if full is not None:
            build.ended(Ended(0, "too_many" if full.is_own_limit else "busy", full.message))
            return
        self._builds[build.id] = build
        if isinstance(build.job, CommitJob):  # listed from now on; of a folder nobody knows the commit yet
            self._shop.catalogue.start_build(build.job.algorithm, build.job.commit, this_builder(), build.id)
        self._begin()
        if before := self._queue.before(build.id):
            build.say(f"waiting for {before} other build{'s' * (before > 1)} of this algorithm")
        elif self._queue.is_waiting(build.id):
            build.say("waiting for a free place")

    def release(self, id: str) -> None:
        """What came after the build is done, or whoever asked for it has gone: then it is called off."""
        build = self._builds.get(id)
        if build is None:
            return
        if build.patience is not None:
            build.keeps_turn = False  # it ends with the build
            build.patience.call_off(_CALLED_OFF)
            return
        was_waiting = self._queue.is_waiting(id)
        self._queue.release(id)
        del self._builds[id]
        if was_waiting:
            self._shop.catalogue.finish_build(id, "interrupted", f"interrupted: {_CALLED_OFF}")
        self._begin()

    def stop(self) -> None:
        """Call off what runs and drop what waits; `join` waits for that."""
        self._is_stopping = True
        for build in list(self._builds.values()):
            if build.patience is not None:
                build.patience.call_off(_INTERRUPTED)
            elif self._queue.is_waiting(build.id):
                self._queue.release(build.id)
                del self._builds[build.id]
                self._shop.catalogue.finish_build(build.id, "interrupted", f"interrupted: {_INTERRUPTED}")
                build.ended(Ended(0, "failed", _INTERRUPTED, build.id))

    async def join(self) -> None:
        await self._loop.run_in_executor(None, self._threads.shutdown)
        await asyncio.sleep(0)  # what the threads have said last is on the loop

    def _begin(self) -> None:
        while (ticket := self._queue.next()) is not None:
            build = self._builds[ticket.id]
            build.patience = Patience()
            self._threads.submit(self._run, build, build.patience)

    def _run(self, build: Build, patience: Patience) -> None:
        """In a thread of ours."""

        def say(line: str) -> None:
            if not line.startswith(("failed: ", "interrupted: ")):  # said with the end, too
                self._loop.call_soon_threadsafe(build.say, line)

        try:
            with patience.in_force():
                version = build.job.run(self._shop, build.id, say)
            ended = Ended(0, "built", "", build.id, _made(version))
        except AUTHORS_AFFAIRS as error:
            ended = Ended(0, "failed", str(error), build.id)
        except Exception:
            _log.exception("a build failed by our fault", action="build", build=build.id)
            ended = Ended(0, "internal", f"internal error; quote build {build.id} to the operator", build.id)
        self._loop.call_soon_threadsafe(self._ended, build, ended)

    def _ended(self, build: Build, ended: Ended) -> None:
        build.patience = None
        keeps_turn = build.keeps_turn and ended.outcome == "built"
        self._queue.ended(build.id, keeps_turn=keeps_turn)
        if not keeps_turn:
            del self._builds[build.id]
        build.ended(ended)
        self._begin()
        self._tidy()

    def _tidy(self) -> None:
        """While nobody builds or pushes: what they would have next is not looked at before it is there."""
        if not (self._builds or self._is_stopping) and time.monotonic() >= self._tidied_at + TIDY_EVERY_S:
            self._tidied_at = time.monotonic()
            self._threads.submit(tidy, self._shop.home, self._shop.catalogue)


def _ticket(build: Build) -> Ticket:
    return Ticket(build.id, build.job.algorithm.id, build.job.account.id)


def _made(version: Version) -> Made:
    return Made(version.owner, version.name, version.hash, version.semver, version.public)
