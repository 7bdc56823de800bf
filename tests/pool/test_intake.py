"""Frames arrive whole however the stream is cut, small ones as bytes and large ones in shared memory."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serai.ipc.frames import FrameError, pack_frame
from serai_gpu_pool.arena import Arena, Slab
from serai_gpu_pool.intake import LARGE_BYTES, Intake


class Recorder(Intake):
    def __init__(self, arena, is_ours=False):
        super().__init__(arena, is_ours)
        self.frames = []
        self.errors: list[FrameError] = []

    def payload_received(self, header, payload):
        self.frames.append((header, payload))

    def frame_error(self, error):
        self.errors.append(error)


ARENA = Arena(1 << 20)


def feed(intake: Intake, data: bytes, sizes=(1 << 30,)) -> None:
    """Hand over a stream as a loop would, in pieces of these sizes, the last one again and again."""
    at, turn = 0, 0
    while at < len(data):
        buffer = intake.get_buffer(-1)
        assert len(buffer), "a loop that is given no room stops"
        count = min(len(buffer), sizes[min(turn, len(sizes) - 1)], len(data) - at)
        buffer[:count] = data[at : at + count]
        intake.buffer_updated(count)
        at, turn = at + count, turn + 1


def content(payload) -> bytes:
    return bytes(payload.view()) if isinstance(payload, Slab) else bytes(payload)


def test_a_claim_of_a_large_payload_takes_no_memory_before_its_bytes_come():
    arena = Arena(1 << 20)
    intake = Recorder(arena)
    frame = pack_frame(b"h", b"x" * (40 << 20))
    feed(intake, frame[:70_000])
    assert arena.take_heap(arena.size), "a block is held, and not what was claimed"
    assert not intake.errors
    intake.connection_lost(None)


def test_what_is_received_outside_the_arena_is_bounded_over_all_connections():
    arena = Arena(1 << 20)
    frame = pack_frame(b"h", b"x" * (4 << 20))
    intakes = [Recorder(arena) for _ in range(4)]
    for intake in intakes:
        feed(intake, frame[: 1 << 20])
    refused = [intake for intake in intakes if intake.errors]
    assert refused and len(refused) < len(intakes)
    assert "later" in str(refused[0].errors[0])
    for intake in intakes:
        intake.connection_lost(None)
    last = Recorder(arena)
    feed(last, pack_frame(b"h", b"y" * (2 << 20)))
    assert content(last.frames[0][1]) == b"y" * (2 << 20), "what was held is given back"


frames = st.lists(
    st.tuples(
        st.binary(min_size=1, max_size=300),
        st.one_of(
            st.binary(max_size=500),
            st.integers(LARGE_BYTES - 2, LARGE_BYTES + 2).map(lambda size: bytes([size % 251]) * size),
            st.just(b"L" * 300_000),
        ),
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=60)
@given(frames, st.lists(st.integers(1, 100_000), min_size=1, max_size=20))
def test_every_frame_arrives_whole_and_in_order(sent, sizes):
    intake = Recorder(ARENA)
    feed(intake, b"".join(pack_frame(header, payload) for header, payload in sent), [*sizes, 50_000])
    assert [(header, content(payload)) for header, payload in intake.frames] == sent


def test_byte_by_byte_is_as_good():
    intake = Recorder(ARENA)
    sent = [(b"head", b"x" * 10), (b"h" * 65_000, b""), (b"large", b"y" * LARGE_BYTES), (b"end", b"")]
    feed(intake, b"".join(pack_frame(*one) for one in sent), [1])
    assert [(header, content(payload)) for header, payload in intake.frames] == sent


def test_large_payloads_lie_in_shared_memory_until_they_are_let_go():
    arena = Arena(1 << 20)
    intake = Recorder(arena)
    feed(intake, pack_frame(b"h", b"z" * LARGE_BYTES))
    assert isinstance(intake.frames[0][1], Slab)
    assert arena.extents.free_bytes == arena.size - LARGE_BYTES
    intake.frames.clear()
    assert arena.extents.free_bytes == arena.size


def test_without_room_in_shared_memory_a_payload_comes_as_bytes():
    intake = Recorder(Arena(LARGE_BYTES))
    for _ in range(2):
        feed(intake, pack_frame(b"h", b"z" * LARGE_BYTES))
    assert [isinstance(payload, Slab) for _, payload in intake.frames] == [True, False]
    assert content(intake.frames[1][1]) == b"z" * LARGE_BYTES


def test_a_connection_lost_in_the_middle_gives_its_memory_back():
    arena = Arena(1 << 20)
    intake = Recorder(arena, is_ours=True)
    feed(intake, pack_frame(b"h", b"z" * LARGE_BYTES)[:-1])
    assert arena.extents.free_bytes < arena.size
    intake.connection_lost(None)
    assert arena.extents.free_bytes == arena.size


def test_what_a_stranger_claims_takes_no_shared_memory_before_it_is_whole():
    arena = Arena(1 << 20)
    intake = Recorder(arena)
    frame = pack_frame(b"h", b"z" * 600_000)
    feed(intake, frame[:-1])
    assert arena.extents.free_bytes == arena.size and intake.received_bytes == 600_000
    feed(intake, frame[-1:])
    assert intake.received_bytes == 0
    payload = intake.frames[0][1]
    assert isinstance(payload, Slab) and content(payload) == b"z" * 600_000


def test_our_own_processes_are_not_refused_for_what_strangers_hold():
    arena = Arena(1 << 20)
    strangers = [Recorder(arena) for _ in range(4)]
    for stranger in strangers:
        feed(stranger, pack_frame(b"h", b"x" * (4 << 20))[: 1 << 20])
    assert any(stranger.errors for stranger in strangers), "strangers have filled what there is"
    ours = Recorder(arena, is_ours=True)
    feed(ours, pack_frame(b"h", b"y" * (2 << 20)))
    assert not ours.errors and content(ours.frames[0][1]) == b"y" * (2 << 20)
    for stranger in strangers:
        stranger.connection_lost(None)


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff\x00\x00", b"\x03\x00\x00\x00\x09\x00", b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_frame_is_an_error_once(data):
    intake = Recorder(ARENA)
    feed(intake, data)
    assert len(intake.errors) == 1 and intake.frames == []
