"""Who reads logs over one gateway's connection: questions in, frames with lines out, each until its end."""

from collections.abc import Callable

from serai.ipc.frames import FrameProtocol
from serai.ipc.messages import Logged, ReadLog, Refusal, encode
from serai_runner.logs.entries import NEVER, Entry, encode_entry, last_time
from serai_runner.logs.logbook import Logbook

#: Bytes that may wait for a gateway to read them, answers of calls among them; whoever follows a log is then cut, and
#: asks again with what it has. Four times what one question is answered with.
MAX_WAITING_BYTES = 4 << 20
#: Followers over one connection. Each costs a line's bytes again and again, so their number has an end.
MAX_FOLLOWERS = 256
#: What a question may ask for at most; bytes are limited besides.
MAX_TAIL = 10_000

_CUT = "this reader was too slow and is cut off here: ask again for what came since"


class LogReaders:
    """The questions of one connection. `link` is how they are answered."""

    def __init__(self, logbook: Logbook, link: FrameProtocol) -> None:
        self._logbook = logbook
        self._link = link
        self._followers: dict[int, _Reader] = {}

    def on_read_log(self, message: ReadLog) -> None:
        """Answer with what there is; with `follow`, go on until `on_cancel` or `close`."""
        if message.follow and len(self._followers) >= MAX_FOLLOWERS:
            text = f"{MAX_FOLLOWERS} readers follow logs already; try again when one has left"
            self._link.send_frame(encode(Refusal(message.id, "busy", text, retriable=True, retry_after_s=5.0)))
            return
        lines = self._logbook.read(message.version, min(message.tail, MAX_TAIL))
        if not message.follow:
            self._link.send_frame(encode(Logged(message.id, is_end=True)), lines)
            return
        self.on_cancel(message.id)  # an id that is used again: the newest question counts
        self._link.send_frame(encode(Logged(message.id, is_end=False)), lines)  # empty, too: the question is taken
        reader = _Reader(self, message.id, lines)
        self._followers[message.id] = reader
        reader.unfollow = self._logbook.follow(message.version, reader.on_lines)

    def on_cancel(self, number: int) -> bool:
        """Whether this was the id of one who follows, who now does not any more."""
        reader = self._followers.pop(number, None)
        if reader is None:
            return False
        reader.unfollow()
        return True

    def close(self) -> None:
        """The connection is gone."""
        for number in list(self._followers):
            self.on_cancel(number)

    def send(self, reader: "_Reader", lines: bytes) -> None:
        transport = self._link.transport
        if transport is None:
            return
        if transport.get_write_buffer_size() <= MAX_WAITING_BYTES:
            reader.last_time = last_time(lines)
            self._link.send_frame(encode(Logged(reader.number, is_end=False)), lines)
            return
        self.on_cancel(reader.number)
        # With the time of the last line that was sent: who asks again for what came since then, misses nothing.
        cut = encode_entry(Entry(reader.last_time, "cut", text=_CUT)) + b"\n"
        self._link.send_frame(encode(Logged(reader.number, is_end=True)), cut)


class _Reader:
    __slots__ = ("_readers", "last_time", "number", "unfollow")

    def __init__(self, readers: LogReaders, number: int, lines: bytes) -> None:
        self._readers = readers
        self.number = number
        self.last_time = last_time(lines) if lines else NEVER
        self.unfollow: Callable[[], object] = lambda: None

    def on_lines(self, lines: bytes) -> None:
        self._readers.send(self, lines)
