"""The answer to an inference request: `Inferred` as the protocol writes it, JSON, with raw bytes after it where wanted.

A worker may run its owner's code, so what it answers is checked like what a caller sends: sizes, and that JSON is JSON.
"""

import math
from dataclasses import dataclass

import msgspec

from serai.ipc.frames import Buffer
from serai.ipc.messages import Inferred, Written
from serai_gateway.api.v2.datatypes import BY_DTYPE
from serai_gateway.errors import Internal

_encode = msgspec.json.encode
_skip = msgspec.json.Decoder(msgspec.Raw).decode  # grammar alone: numbers are not read


@dataclass(frozen=True, slots=True)
class InferAnswer:
    """`head` is JSON; `binary` follows it, and then the answer says how long the head is."""

    head: bytes
    binary: Buffer | None  # None: the answer is JSON alone


def write_answer(name: str, version: str, request_id: str, inferred: Inferred, payload: bytes) -> InferAnswer:
    """Raises Internal when what the pool sent is no answer."""
    outputs: list[bytes] = []
    binary: list[Buffer] = []
    whole = memoryview(payload)
    at = 0
    for item in inferred.outputs:
        known = BY_DTYPE.get(item.dtype)
        if known is None:
            raise Internal(f"output {item.name[:64]!r} has the type {item.dtype[:32]}, which cannot be sent")
        datatype, size = known
        num_bytes = math.prod(item.shape) * size if item.json_bytes < 0 else item.json_bytes
        part = whole[at : at + num_bytes]
        if min(item.shape, default=0) < 0 or len(part) != num_bytes:
            raise Internal("the outputs are longer than what came of them")
        at += num_bytes
        if item.json_bytes < 0:
            tail = b'"parameters":{"binary_data_size":%d}}' % num_bytes
            binary.append(part)
        else:
            _check_text(part, item)
            tail = b'"data":%b}' % part
        shape = ",".join(map(str, item.shape)).encode()
        outputs.append(
            b'{"name":%b,"datatype":"%b","shape":[%b],' % (_encode(item.name), datatype.encode(), shape) + tail
        )
    if at != len(payload):
        raise Internal("the outputs are shorter than what came of them")
    about = b'{"model_name":%b,"model_version":%b,' % (_encode(name), _encode(version))
    if request_id:
        about += b'"id":%b,' % _encode(request_id)
    head = b'%b"outputs":[%b]}' % (about, b",".join(outputs))
    if not binary:
        return InferAnswer(head, None)
    return InferAnswer(head, payload if len(binary) == len(outputs) else b"".join(binary))


def _check_text(text: memoryview, item: Written) -> None:
    raw = bytes(text)
    try:
        _skip(raw)
    except (msgspec.DecodeError, RecursionError):
        raw = b""
    if raw[:1] != b"[" or b'"' in raw or b"{" in raw:
        raise Internal(f"output {item.name[:64]!r} came as something else than nested arrays of numbers")
