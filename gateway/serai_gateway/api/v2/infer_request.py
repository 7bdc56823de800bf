"""The body of an inference request: which tensors, where their bytes are, what is wanted back. Pure.

Either all of it is JSON, or a JSON part of `Inference-Header-Content-Length` bytes is followed by the raw little-endian
bytes of those inputs that say `binary_data_size`, in their order. A tensor's `data` stays text: no number is read here.
"""

import re
from dataclasses import dataclass
from typing import Annotated

import msgspec

from serai.ipc.frames import Buffer
from serai.ipc.messages import Wanted, Written
from serai_gateway.api.v2.datatypes import read_datatype
from serai_gateway.errors import InvalidRequest, TooLarge
from serai_gateway.settings import MAX_BODY_BYTES

#: Longest body: what the pool takes for the inputs of one run. JSON has a lower limit, see below.
MAX_INFER_BYTES = 64 * 1024 * 1024
#: Longest JSON part, as for calls: reading its numbers costs the worker 10 times what raw bytes do.
MAX_JSON_BYTES = MAX_BODY_BYTES
#: Most numbers, and most lists, in the `data` of one input. A worker that is shared by all reads them one by one: so
#: many take it 0.1 s, and 10 MiB of empty lists a second.
MAX_JSON_NUMBERS = 1_000_000
MAX_JSON_LISTS = 250_000
#: Most inputs or outputs of one request. Language models that take their caches as inputs have about a hundred.
MAX_TENSORS = 256
#: Most dimensions; also the deepest nesting of `data`. NumPy's own limit was this for decades.
MAX_RANK = 32
#: All that is said about the tensors, names and shapes, must fit into the head of one frame (64 KiB).
MAX_DESCRIPTION_BYTES = 48 * 1024
#: Lowest priority that is told apart; far more levels than anybody has a use for.
_MAX_PRIORITY = 1000

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]"))
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]


class _Parameters(msgspec.Struct):
    priority: int = 0
    timeout: int = 0
    binary_data_output: bool = False
    sequence_id: int | str = 0


class _InputParameters(msgspec.Struct):
    binary_data_size: int | None = None
    shared_memory_region: str | None = None


class _OutputParameters(msgspec.Struct):
    binary_data: bool | None = None
    classification: int = 0
    shared_memory_region: str | None = None


class _Input(msgspec.Struct):
    name: _Name
    shape: Annotated[list[int], msgspec.Meta(max_length=MAX_RANK)]
    datatype: str
    parameters: _InputParameters | None = None
    data: msgspec.Raw = msgspec.Raw()


class _Output(msgspec.Struct):
    name: _Name
    parameters: _OutputParameters | None = None


class _Head(msgspec.Struct):
    inputs: Annotated[list[_Input], msgspec.Meta(min_length=1, max_length=MAX_TENSORS)]
    id: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    parameters: _Parameters | None = None
    outputs: Annotated[list[_Output], msgspec.Meta(max_length=MAX_TENSORS)] | None = None


_decode = msgspec.json.Decoder(_Head).decode


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request as the pool takes it.

    Args:
        payload: the inputs, one after the other, each as `inputs` says.
        priority: of `Infer`: smaller goes first, 0 is ordinary.
        timeout_s: what the caller grants; None when they do not say.
    """

    id: str
    inputs: tuple[Written, ...]
    outputs: tuple[Wanted, ...]
    as_json: bool
    payload: Buffer
    priority: int
    timeout_s: float | None


def read_header_length(value: bytes | None) -> int | None:
    """`Inference-Header-Content-Length`; None: the whole body is JSON. Raises InvalidRequest."""
    if value is None:
        return None
    if not re.fullmatch(rb"[0-9]{1,10}", value) or int(value) == 0:
        raise InvalidRequest("Inference-Header-Content-Length must be the length in bytes of the JSON part, above 0")
    return int(value)


def parse_infer(body: bytes, header_length: int | None) -> InferRequest:
    """Raises InvalidRequest and TooLarge, which say where and what."""
    num_json = len(body) if header_length is None else header_length
    if num_json > len(body):
        raise InvalidRequest(f"Inference-Header-Content-Length is {num_json} and the body has {len(body)} bytes")
    if num_json > MAX_JSON_BYTES:
        raise TooLarge(f"the JSON part exceeds {MAX_JSON_BYTES} bytes (10 MiB); send large tensors as binary data")
    whole = memoryview(body)
    head = _decode_head(whole[:num_json])
    inputs, payload = _read_inputs(head.inputs, whole[num_json:], has_binary=header_length is not None)
    parameters = head.parameters or _Parameters()
    if parameters.sequence_id:
        raise InvalidRequest("sequences are not offered; leave sequence_id out")
    outputs = _read_outputs(head.outputs or [], parameters.binary_data_output)
    _check_description(inputs, outputs)
    return InferRequest(
        head.id,
        inputs,
        outputs,
        not parameters.binary_data_output,
        payload,
        _read_priority(parameters.priority),
        _read_timeout(parameters.timeout),
    )


def _decode_head(text: memoryview) -> _Head:
    try:
        return _decode(text)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"not an inference request: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the request is not JSON: {error}") from None
    except RecursionError:
        raise InvalidRequest(f"the request nests too deep; data may nest {MAX_RANK} deep, flat is best") from None


def _read_inputs(given: list[_Input], binary: memoryview, *, has_binary: bool) -> tuple[tuple[Written, ...], Buffer]:
    """What the inputs are, and their bytes one after the other."""
    _check_names([item.name for item in given], "input")
    inputs: list[Written] = []
    parts: list[Buffer] = []
    at = 0
    for item in given:
        where = f"input {item.name!r}"
        dtype, size = read_datatype(item.datatype, where)
        num_elements = _count_elements(item.shape, size, where)
        parameters = item.parameters or _InputParameters()
        if parameters.shared_memory_region is not None:
            raise InvalidRequest(f"{where}: shared memory is not offered; send the tensor in the request")
        num_binary = parameters.binary_data_size
        if (num_binary is None) == (not item.data):
            raise InvalidRequest(f"{where} needs either data or parameters.binary_data_size, and not both")
        if num_binary is None:
            text = bytes(item.data)
            _check_data(text, num_elements, where)
            inputs.append(Written(item.name, dtype, tuple(item.shape), len(text)))
            parts.append(text)
            continue
        if not has_binary:
            raise InvalidRequest(f"{where} has binary data; say with Inference-Header-Content-Length where it begins")
        if num_binary != num_elements * size:
            raise InvalidRequest(
                f"{where} has {num_elements * size} bytes by shape and datatype, and binary_data_size says {num_binary}"
            )
        inputs.append(Written(item.name, dtype, tuple(item.shape)))
        parts.append(binary[at : at + num_binary])
        at += num_binary
    if at != len(binary):
        raise InvalidRequest(
            f"{len(binary)} bytes follow the JSON part and the inputs' binary_data_size add up to {at}"
        )
    if all(item.json_bytes < 0 for item in inputs):
        return tuple(inputs), binary  # as it came: nothing is copied
    return tuple(inputs), parts[0] if len(parts) == 1 else b"".join(parts)


def _count_elements(shape: list[int], size: int, where: str) -> int:
    num_bytes = size
    for dim in shape:
        if dim < 0:
            raise InvalidRequest(f"{where} has the dimension {dim} in its shape; a request says all of them")
        num_bytes *= dim or 1  # an empty tensor may not have absurd dimensions either
        if num_bytes > MAX_INFER_BYTES:
            raise InvalidRequest(f"{where} is over {MAX_INFER_BYTES} bytes (64 MiB) by its shape; send less at once")
    return 0 if 0 in shape else num_bytes // size


def _check_data(text: bytes, num_elements: int, where: str) -> None:
    """`text` is JSON; is it nested arrays of so many numbers? Says no where that shows without reading them."""
    if text[:1] != b"[":
        raise InvalidRequest(f"{where}: data must be an array, nested as its shape or flat")
    if b'"' in text or b"{" in text:
        raise InvalidRequest(f"{where}: data may hold numbers, true and false only")
    if num_elements and text.count(b",") + 1 != num_elements:
        raise InvalidRequest(f"{where} has {num_elements} elements by its shape, and data has {text.count(b',') + 1}")
    lists = text.count(b"[")
    if lists > MAX_JSON_LISTS or text.count(b",") >= MAX_JSON_NUMBERS:
        most = f"{MAX_JSON_NUMBERS:,} numbers in {MAX_JSON_LISTS:,} lists"
        raise TooLarge(f"{where}: data holds more than {most}; send it as binary data")
    if lists == 1:
        return
    brackets = text.translate(None, _NOT_BRACKETS)
    for _ in range(MAX_RANK):
        brackets = brackets.replace(b"[]", b"")
        if not brackets:
            return
    raise InvalidRequest(f"{where}: data nests over {MAX_RANK} deep; send it flat")


def _read_outputs(given: list[_Output], is_binary: bool) -> tuple[Wanted, ...]:
    _check_names([item.name for item in given], "output")
    outputs: list[Wanted] = []
    for item in given:
        parameters = item.parameters or _OutputParameters()
        if parameters.classification:
            raise InvalidRequest("the classification extension is not offered; ask for the output and sort it yourself")
        if parameters.shared_memory_region is not None:
            raise InvalidRequest("shared memory is not offered; outputs come in the answer")
        wants_binary = is_binary if parameters.binary_data is None else parameters.binary_data
        outputs.append(Wanted(item.name, not wants_binary))
    return tuple(outputs)


def _check_names(names: list[str], what: str) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"{what} {twice!r} is given twice; give it once")


def _check_description(inputs: tuple[Written, ...], outputs: tuple[Wanted, ...]) -> None:
    num_bytes = sum(len(item.name.encode()) + 9 * len(item.shape) + 32 for item in inputs)
    num_bytes += sum(len(item.name.encode()) + 8 for item in outputs)
    if num_bytes > MAX_DESCRIPTION_BYTES:
        raise InvalidRequest(f"names and shapes take over {MAX_DESCRIPTION_BYTES} bytes (48 KiB); send fewer tensors")


def _read_priority(priority: int) -> int:
    """Triton: 1 is the highest, 0 none said. Here 1 goes before what is ordinary, 2 with it, 3 and more after it."""
    if priority < 0:
        raise InvalidRequest(f"priority must be 0 (none) or from 1 (highest) upwards, not {priority}")
    return min(priority, _MAX_PRIORITY) - 2 if priority else 0


def _read_timeout(microseconds: int) -> float | None:
    if microseconds < 0:
        raise InvalidRequest(f"timeout is in microseconds and must be above 0, not {microseconds}")
    return min(microseconds, 1 << 62) / 1e6 if microseconds else None
