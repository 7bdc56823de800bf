"""A pool that speaks frames and has no devices: its models give every input back."""

import struct
from collections.abc import Callable
from pathlib import Path

import msgspec

from serai.ipc.messages import (
    Command,
    Commanded,
    Define,
    Infer,
    Inferred,
    Inspect,
    Inspected,
    Message,
    Stats,
    Unknown,
    VersionSpec,
    Written,
    decode,
    encode,
)
from serai_gateway.api.testing.daemon import FakeDaemon, FakeLink
from serai_gateway.api.v2.testing.views import snapshot

#: NumPy's names as struct has them.
_FORMATS = {
    "bool": "?", "uint8": "B", "uint16": "H", "uint32": "I", "uint64": "Q", "int8": "b", "int16": "h", "int32": "i",
    "int64": "q", "float16": "e", "float32": "f", "float64": "d",
}  # fmt: skip

#: What a test makes the pool say to an `Infer` instead of the usual; an empty list is silence.
Reply = Callable[[Infer, bytes], list[tuple[Message, bytes]]]


class FakePool(FakeDaemon["_FakeLink"]):
    """A pool whose models give every input back, its name in capital letters.

    `received` holds every message but `Define`, with its payload.
    """

    def __init__(self, run_dir: Path) -> None:
        super().__init__(run_dir / "pool.sock")
        self.received: list[tuple[Message, bytes]] = []
        self.versions: dict[str, VersionSpec] = {}
        self.reply: Reply | None = None
        self.snapshot = snapshot()

    def make_link(self) -> "_FakeLink":
        return _FakeLink(self)

    def cut(self) -> None:
        """Drop every connection, as a pool does that dies."""
        self.do(lambda: [link.close() for link in list(self.links)])

    def forget(self) -> None:
        """Know no version any more, as a pool does that dropped some."""
        for link in self.links:
            link.defined.clear()

    def last(self, kind: type[Message]) -> tuple[Message, bytes]:
        return next(pair for pair in reversed(self.received) if isinstance(pair[0], kind))


class _FakeLink(FakeLink):
    def __init__(self, pool: FakePool) -> None:
        super().__init__(pool)
        self._pool = pool
        self.defined: set[str] = set()

    def frame_received(self, header: bytes, payload: bytes) -> None:
        message = decode(header)
        if isinstance(message, Define):
            self.defined.add(message.spec.key)
            self._pool.versions[message.spec.key] = message.spec
            return
        self._pool.received.append((message, payload))
        for reply, its_payload in self._answer(message, payload):
            self.send_frame(encode(reply), its_payload)

    def _answer(self, message: Message, payload: bytes) -> list[tuple[Message, bytes]]:
        if isinstance(message, Infer | Command) and message.version not in self.defined:
            return [(Unknown(message.id), b"")]
        if isinstance(message, Infer):
            return self._pool.reply(message, payload) if self._pool.reply else [give_back(message, payload)]
        if isinstance(message, Inspect):
            return [(Inspected(message.id), msgspec.json.encode(self._pool.snapshot))]
        if isinstance(message, Stats):
            return [(Stats(message.id), b"")]
        if isinstance(message, Command):
            return [(Commanded(message.id), b"")]
        return []


def give_back(infer: Infer, payload: bytes) -> tuple[Inferred, bytes]:
    """The answer of a model whose outputs are its inputs, each in the form that was asked for."""
    wanted = {output.name: output.as_json for output in infer.outputs}
    outputs: list[Written] = []
    parts: list[bytes] = []
    at = 0
    for item in infer.inputs:
        form = _FORMATS[item.dtype]
        count = 1
        for dim in item.shape:
            count *= dim
        if item.json_bytes >= 0:
            part = payload[at : at + item.json_bytes]
            numbers = _flat(msgspec.json.decode(part))
        else:
            part = payload[at : at + count * struct.calcsize(form)]
            numbers = list(struct.unpack(f"<{count}{form}", part))
        at += len(part)
        assert len(numbers) == count, "as many numbers as the shape says"
        name = item.name.upper()
        if wanted and name not in wanted:
            continue
        as_json = wanted.get(name, infer.as_json)
        part = msgspec.json.encode(numbers) if as_json else struct.pack(f"<{count}{form}", *numbers)
        outputs.append(Written(name, item.dtype, item.shape, len(part) if as_json else -1))
        parts.append(part)
    assert at == len(payload), "nothing is left over"
    return Inferred(infer.id, tuple(outputs), 0.001), b"".join(parts)


def _flat(value: list | float) -> list[float]:
    return [number for item in value for number in _flat(item)] if isinstance(value, list) else [value]
