"""The link to a daemon: comes back by itself, keeps frames whole, trusts only our own uid."""

import asyncio
from pathlib import Path
from typing import ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st

from serai.ipc.frames import FrameError, FrameProtocol, pack_frame
from serai.ipc.link import Link
from serai.ipc.sockets import serve_unix


class Echo(FrameProtocol):
    live: ClassVar[set["Echo"]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        Echo.live.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        Echo.live.discard(self)

    def frame_received(self, header: bytes, payload: bytes) -> None:
        self.send_frame(header, payload)


class Client:
    def __init__(self, path: Path) -> None:
        self.frames: asyncio.Queue[tuple[bytes, bytes]] = asyncio.Queue()
        self.opened: asyncio.Queue[str] = asyncio.Queue()
        self.link = Link(
            path,
            lambda header, payload: self.frames.put_nowait((header, payload)),
            lambda: self.opened.put_nowait("open"),
            lambda: self.opened.put_nowait("lost"),
        )


async def _within(awaitable, seconds: float = 5.0):
    return await asyncio.wait_for(awaitable, seconds)


def test_a_link_opens_late_and_comes_back_after_the_daemon_died(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "d.sock"
        client = Client(path)
        client.link.start()
        assert client.link.send(b"x") is False
        assert await client.link.wait_open(0.02) is False
        for round_number in range(3):
            server = await serve_unix(path, Echo)
            assert await _within(client.opened.get()) == "open"
            assert client.link.send(b"h%d" % round_number, b"p" * 100_000)
            assert await _within(client.frames.get()) == (b"h%d" % round_number, b"p" * 100_000)
            server.close()
            for connection in list(Echo.live):
                assert connection.transport is not None
                connection.transport.abort()
            assert await _within(client.opened.get()) == "lost"
            await server.wait_closed()
        await client.link.close()

    asyncio.run(scenario())


def test_the_socket_is_private_from_its_first_moment(tmp_path: Path) -> None:
    async def scenario() -> None:
        path = tmp_path / "d.sock"
        server = await serve_unix(path, Echo)
        assert path.stat().st_mode & 0o777 == 0o600
        server.close()
        await server.wait_closed()

    asyncio.run(scenario())


class Collect(FrameProtocol):
    def __init__(self, max_frame_bytes: int = 1 << 20) -> None:
        super().__init__(max_frame_bytes)
        self.frames: list[tuple[bytes, bytes]] = []
        self.errors: list[FrameError] = []

    def frame_received(self, header: bytes, payload: bytes) -> None:
        self.frames.append((header, payload))

    def frame_error(self, error: FrameError) -> None:
        self.errors.append(error)


@settings(deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=2000)), max_size=8), st.data())
def test_frames_survive_any_cut_of_the_stream(frames: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    stream = b"".join(pack_frame(header, payload) for header, payload in frames)
    collect, at = Collect(), 0
    while at < len(stream):
        step = data.draw(st.integers(1, max(1, len(stream) - at)))
        collect.data_received(stream[at : at + step])
        at += step
    assert collect.frames == frames
    assert not collect.errors


def test_a_frame_over_the_limit_or_with_a_lying_header_length_is_an_error() -> None:
    for bad in (pack_frame(b"h", b"x" * 5000), b"\x03\x00\x00\x00\xff\xff\x00", b"\xff" * 64):
        collect = Collect(max_frame_bytes=1000)
        collect.data_received(bad)
        assert len(collect.errors) == 1
        assert not collect.frames
