"""The plain-Python frames of an author's interpreter against the real ones of our daemons."""

import socket
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai import _wire
from serai.ipc import messages
from serai.ipc.frames import MAX_FRAME_BYTES, FrameError, FrameProtocol, pack_frame

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)
number = st.floats(allow_nan=False)
call_id = st.integers(0, 2**63 - 1)
kinds = st.sampled_from(["json", "text", "binary", "void"])
tensors = st.lists(
    st.builds(messages.Tensor, text, text, st.lists(st.integers(0, 2**40), max_size=20).map(tuple)), max_size=20
).map(tuple)

from_replica = st.one_of(
    st.builds(messages.Ready, text, text),
    st.builds(messages.Result, call_id, kinds, number, st.integers(0, 2**40)),
    st.builds(messages.Failure, call_id, text, text, text, number, st.integers(0, 2**40)),
    st.builds(messages.Run, call_id, text, tensors, st.lists(text, max_size=20).map(tuple), number),
)
to_replica = st.one_of(
    st.builds(messages.Call, call_id, text, kinds, number, text, text, st.booleans()),
    st.builds(messages.Ran, call_id, tensors, number),
    st.builds(messages.Failure, call_id, text, text, text, number, st.integers(0, 2**40)),
    st.builds(messages.Refusal, call_id, st.sampled_from(["busy", "invalid"]), text, st.booleans(), number),
)


def as_lists(message: messages.Message) -> list:
    """A message as the plain side writes it: its tag, then its fields, tuples as lists."""
    return msgspec.msgpack.decode(messages.encode(message))


class Collector(FrameProtocol):
    def __init__(self) -> None:
        super().__init__()
        self.frames: list[tuple[bytes, bytes]] = []

    def frame_received(self, header: bytes, payload: bytes) -> None:
        self.frames.append((header, payload))


@given(from_replica)
def test_what_the_plain_side_packs_the_real_side_reads_as_the_same_message(message):
    assert messages.decode(_wire.pack_header(as_lists(message))) == message


@given(to_replica)
def test_what_the_real_side_packs_the_plain_side_reads_as_the_same_fields(message):
    assert _wire.unpack_header(messages.encode(message)) == as_lists(message)


@given(st.binary(max_size=60))
def test_no_bytes_make_the_plain_side_fail_other_than_by_saying_so(data):
    try:
        value = _wire.unpack_header(data)
    except _wire.WireError:
        return
    assert msgspec.msgpack.decode(data) == value or value != value or data[0] in (0xCA, 0xCB) or isinstance(value, list)


@given(
    st.lists(st.tuples(from_replica, st.binary(max_size=300)), max_size=5), st.lists(st.integers(1, 50), max_size=40)
)
def test_frames_cross_from_the_plain_side_however_the_stream_is_cut(sent, cuts):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for message, payload in sent:
            _wire.send_frame(ours, as_lists(message), payload[:3], payload[3:])
        ours.shutdown(socket.SHUT_WR)
        stream = b"".join(iter(lambda: theirs.recv(1 << 16), b""))
    collector = Collector()
    for cut in [*cuts, len(stream) or 1]:
        collector.data_received(stream[:cut])
        stream = stream[cut:]
    assert [(messages.decode(header), payload) for header, payload in collector.frames] == sent


@given(st.lists(st.tuples(to_replica, st.binary(max_size=300)), max_size=5))
def test_frames_cross_to_the_plain_side_and_its_end_is_seen(sent):
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            for message, payload in sent:
                ours.sendall(pack_frame(messages.encode(message), payload))
        reader = _wire.FrameReader(theirs)
        for message, payload in sent:
            assert reader.read() == (as_lists(message), payload)
        assert reader.read() is None


def test_a_payload_larger_than_the_sockets_buffer_arrives_whole():
    import threading

    ours, theirs = socket.socketpair()
    payload = bytes(range(256)) * 20_000
    with ours, theirs:
        sender = threading.Thread(target=_wire.send_frame, args=(ours, [4, 1, "binary", 0.5, 0], payload, payload[:5]))
        sender.start()
        assert _wire.FrameReader(theirs).read() == ([4, 1, "binary", 0.5, 0], payload + payload[:5])
        sender.join()


@pytest.mark.parametrize(
    "stream",
    [
        struct.pack("<IH", MAX_FRAME_BYTES + 1, 1) + b"\xc0",  # too long
        struct.pack("<IH", 2, 1) + b"\xc0",  # a header longer than its frame
        struct.pack("<IH", 3, 1) + b"\xc1",  # no msgpack
        struct.pack("<IH", 3, 0) + b"x",  # no header
        struct.pack("<IH", 30, 1) + b"\xc0",  # cut off
        b"\x01\x02",
    ],
)
def test_a_stream_that_is_broken_is_an_error_and_not_a_wait(stream):
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(stream)
        with pytest.raises(_wire.WireError):
            _wire.FrameReader(theirs).read()


def test_both_sides_refuse_the_same_length():
    errors: list[FrameError] = []
    collector = Collector()
    collector.frame_error = errors.append
    collector.data_received(struct.pack("<IH", MAX_FRAME_BYTES + 1, 1) + b"\xc0")
    assert len(errors) == 1 and _wire.MAX_FRAME_BYTES == MAX_FRAME_BYTES


def test_tags_are_those_of_the_messages():
    tags = {"CALL": messages.Call, "RESULT": messages.Result, "FAILURE": messages.Failure, "REFUSAL": messages.Refusal,
            "READY": messages.Ready, "RUN": messages.Run, "RAN": messages.Ran}  # fmt: skip
    assert {name: getattr(_wire, name) for name in tags} == {
        name: kind.__struct_config__.tag for name, kind in tags.items()
    }
