"""The builder's socket: takes requests of gateway workers, tells them what is said and how it ended."""

import asyncio
import shutil
from collections.abc import Coroutine

import msgspec

from serai.ipc.frames import FrameProtocol
from serai.ipc.sockets import is_own_peer
from serai_gateway.builder.builds import AUTHORS_AFFAIRS, Build, Builds
from serai_gateway.builder.first_party import publish_all
from serai_gateway.builder.jobs import Workshop, compile_job, push_job, take_archive
from serai_gateway.builder.messages import (
    Compile,
    Ended,
    FirstParty,
    Publish,
    Push,
    Release,
    Said,
    decode,
    encode,
)
from serai_gateway.logs import get_logger

_log = get_logger("builder")


class BuilderConnection(FrameProtocol):
    """One gateway worker, or whoever prepares the start."""

    def __init__(self, shop: Workshop, builds: Builds) -> None:
        super().__init__()
        self._shop = shop
        self._builds = builds
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pushes: dict[int, str] = {}  # build ids, empty before there is a build: turns kept for this connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not is_own_peer(transport):
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for number in list(self._pushes):  # git goes with its worker, so nobody will move the branch
            self._release(number)

    def frame_received(self, header: bytes, payload: bytes) -> None:
        try:
            message = decode(header)
        except msgspec.DecodeError:
            _log.error("not a message of ours", action="builder_message")
            self.close()
            return
        match message:
            case Push() | Publish() | Compile():
                if isinstance(message, Push):
                    self._pushes[message.id] = ""
                self._begin(self._build(message))
            case FirstParty():
                self._begin(self._first_party(message))
            case Release():
                self._release(message.id)
            case Said() | Ended():
                _log.error("only the builder says this", action="builder_message")

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _release(self, number: int) -> None:
        if build_id := self._pushes.pop(number, ""):
            self._builds.release(build_id)

    async def _build(self, message: Push | Publish | Compile) -> None:
        try:
            ended = await self._run(message)
        except AUTHORS_AFFAIRS as error:
            ended = Ended(message.id, "failed", str(error))
        except Exception:
            _log.exception("a request failed by our fault", action="build")
            ended = Ended(message.id, "internal", "internal error; the operator finds it in the builder's log")
        finally:
            if isinstance(message, Publish):
                await asyncio.to_thread(shutil.rmtree, message.folder, ignore_errors=True)
        if ended.outcome != "built":
            self._pushes.pop(message.id, None)
        self.send_frame(encode(msgspec.structs.replace(ended, id=message.id)))

    async def _run(self, message: Push | Publish | Compile) -> Ended:
        make = {Push: push_job, Publish: take_archive, Compile: compile_job}[type(message)]
        job = await asyncio.to_thread(make, self._shop, message)
        end: asyncio.Future[Ended] = self._loop.create_future()

        def say(text: str) -> None:
            self.send_frame(encode(Said(message.id, text)))

        build = Build(job, say, end.set_result, keeps_turn=isinstance(message, Push))
        if isinstance(message, Push):
            if message.id not in self._pushes:
                return Ended(message.id, "failed", "whoever pushed has gone")
            self._pushes[message.id] = build.id
        self._builds.submit(build)
        return await end

    async def _first_party(self, message: FirstParty) -> None:
        def say(text: str) -> None:
            self._loop.call_soon_threadsafe(self.send_frame, encode(Said(message.id, text)))

        failed = await publish_all(self._shop, self._builds, say)
        self.send_frame(encode(Ended(message.id, "built", failed=failed)))
