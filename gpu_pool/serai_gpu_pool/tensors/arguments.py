"""Inputs: JSON, raw bytes, or named tensors, as arrays that a model can run.

What a caller did wrong is an InputError that says what the model expects.
"""

import math
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from serai.ipc.messages import Written
from serai_gpu_pool.tensors.signature import MAX_JSON_NUMBERS, Array, Signature, Slot

#: Lists, and quotes or objects, in one JSON input: each is a Python object for a moment too. Text is only in names.
_MAX_LISTS, _MAX_QUOTES = 250_000, 4096
#: A text below this is read without counting them.
_SMALL_TEXT_BYTES = 64 << 10


class InputError(ValueError):
    """The caller's input does not fit the model."""


class NotJson(InputError):
    """The caller's input is no JSON at all."""


@dataclass(slots=True)
class Arguments:
    """One call's inputs, ready to run."""

    arrays: dict[str, Array]
    squeezed: bool = False  # a missing batch dimension was added, and goes away again
    outputs: tuple[str, ...] = ()  # wanted; empty: all


def from_json(body: bytes | memoryview, signature: Signature) -> Arguments:
    """`{"name": nested lists}`, or the nested lists alone where there is one input. Raises InputError."""
    value = _decoded(body, "input")
    slots = signature.inputs
    if not isinstance(value, dict):
        if len(slots) != 1:
            raise InputError(f"the input is not an object; {signature.expected}")
        value = {slots[0].name: value}
    _check_names(value.keys(), signature)
    arrays = {slot.name: _nested(value[slot.name], slot, signature) for slot in slots}
    squeezed = _add_rows(arrays, signature)
    _check_shapes(arrays, signature)
    return Arguments(arrays, squeezed)


def _decoded(body: bytes | memoryview, what: str) -> Any:
    """JSON to Python objects, which holds up all other threads of the worker: so only what can be numbers in lists."""
    text = bytes(body)
    if len(text) > _SMALL_TEXT_BYTES:
        _check_counts(text, what)
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise NotJson(f"{what} is not JSON: {error}") from None


def _check_counts(text: bytes, what: str) -> None:
    for sign, most, of_them in (
        (b",", MAX_JSON_NUMBERS, "numbers"),
        (b"[", _MAX_LISTS, "lists"),
        (b'"', _MAX_QUOTES, "texts"),
        (b"{", _MAX_QUOTES, "objects"),
    ):
        if text.count(sign) > most:
            raise InputError(f"{what} has more than {most} {of_them}, too many for JSON: send application/octet-stream")


def from_binary(body: bytes | memoryview, signature: Signature) -> Arguments:
    """Raw little-endian numbers of the only input; its first free dimension follows from the length."""
    if len(signature.inputs) != 1 or len(signature.outputs) != 1:
        raise InputError(f"raw bytes need a model with one input and one output: send JSON; {signature.expected}")
    slot = signature.inputs[0]
    dtype = np.dtype(slot.dtype)
    if slot.shape is None:
        raise InputError(f"the shape of the input cannot be told from bytes: send JSON; {signature.expected}")
    free = [at for at, dim in enumerate(slot.shape) if dim is None]
    if len(free) > 1:
        raise InputError(
            f"more than one dimension is free, raw bytes do not say which: send JSON; {signature.expected}"
        )
    row_bytes = math.prod(dim for dim in slot.shape if dim is not None) * dtype.itemsize
    rows, rest = divmod(len(body), row_bytes) if row_bytes else (0, 1)
    if rest or (not free and rows != 1) or not rows:
        multiple = "a multiple of " if free else ""
        raise InputError(f"{len(body)} bytes are not {multiple}{row_bytes}; {signature.expected}")
    shape = tuple(rows if dim is None else dim for dim in slot.shape)
    return Arguments({slot.name: _array(body, dtype).reshape(shape)})


def from_tensors(
    body: memoryview, tensors: tuple[Written, ...], outputs: tuple[str, ...], signature: Signature
) -> Arguments:
    """Named tensors whose bytes follow each other, each raw or as a JSON array; the only input may go unnamed.

    Nothing about them is believed. Raises InputError.
    """
    if len(tensors) == len(signature.inputs) == 1 and not tensors[0].name:
        only = tensors[0]
        tensors = (Written(signature.inputs[0].name, only.dtype, only.shape, only.json_bytes),)
    _check_names([tensor.name for tensor in tensors], signature)
    for name in outputs:
        if name not in signature.output_names:
            raise InputError(f'no output "{name[:64]}"; the model has {", ".join(signature.output_names)}')
    arrays: dict[str, Array] = {}
    at = 0
    for tensor in tensors:
        slot = signature.by_name[tensor.name]
        if tensor.dtype != slot.dtype:
            raise InputError(
                f'input "{tensor.name}" is {tensor.dtype[:32]}: convert it, as np.asarray(…, "{slot.dtype}") does; '
                f"{signature.expected}"
            )
        if any(dim < 0 for dim in tensor.shape) or len(tensor.shape) > 32:
            raise InputError(f'input "{tensor.name}" has an impossible shape')
        if not slot.fits(tensor.shape):
            raise InputError(f'input "{slot.name}" has shape {list(tensor.shape)}; {signature.expected}')
        num_bytes = tensor.json_bytes
        if num_bytes < 0:
            num_bytes = math.prod(tensor.shape) * np.dtype(slot.dtype).itemsize
        if num_bytes > len(body) - at:
            raise InputError(f'input "{tensor.name}" is {num_bytes} bytes by its shape and {len(body) - at} were sent')
        part = body[at : at + num_bytes]
        arrays[tensor.name] = (
            _raw(part, tensor, slot) if tensor.json_bytes < 0 else _listed(part, tensor, slot, signature)
        )
        at += num_bytes
    if at != len(body):
        raise InputError(f"{len(body) - at} bytes are left over after the last input")
    return Arguments(arrays, outputs=outputs)


def _raw(part: memoryview, tensor: Written, slot: Slot) -> Array:
    try:
        return _array(part, np.dtype(slot.dtype)).reshape(tensor.shape)
    except ValueError:  # no elements, and yet dimensions beyond what an array may have
        raise InputError(f'input "{tensor.name}" has an impossible shape') from None


def _listed(part: memoryview, tensor: Written, slot: Slot, signature: Signature) -> Array:
    """A JSON array, flat or nested, of as many numbers as the shape says."""
    value = _decoded(part, f'the data of input "{tensor.name}"')
    if not isinstance(value, list):
        raise InputError(f'the data of input "{tensor.name}" is not a list')
    array = _nested(value, slot, signature)
    if array.size != math.prod(tensor.shape):
        raise InputError(
            f'input "{tensor.name}" holds {array.size} numbers; its shape {list(tensor.shape)} says another'
        )
    try:
        return array.reshape(tensor.shape)
    except ValueError:  # no elements, and yet dimensions beyond what an array may have
        raise InputError(f'input "{tensor.name}" has an impossible shape') from None


def _array(body: bytes | memoryview, dtype: np.dtype[Any]) -> Array:
    array = np.frombuffer(body, dtype)
    return array if array.flags.aligned else array.copy()


def _check_names(names: Any, signature: Signature) -> None:
    given = list(names)
    if len(given) != len(signature.inputs) or set(given) != signature.by_name.keys():
        if given == [""] and len(signature.inputs) > 1:
            raise InputError(
                "run1(array), or an array without a name, is for models with one input; "
                f"run({{name: array, …}}) is for several; {signature.expected}"
            )
        shown = ", ".join(f'"{str(name)[:64]}"' for name in given[:8]) or "nothing"
        raise InputError(f"the input names {shown}; {signature.expected}")


def _check_shapes(arrays: dict[str, Array], signature: Signature) -> None:
    for slot in signature.inputs:
        shape = arrays[slot.name].shape
        if not slot.fits(shape):
            raise InputError(f'input "{slot.name}" has shape {list(shape)}; {signature.expected}')


def _nested(value: Any, slot: Slot, signature: Signature) -> Array:
    """Nested lists to an array of the slot's type, without turning text or fractions into numbers silently."""
    try:
        array = np.array(value)
    except (ValueError, OverflowError, RecursionError):
        raise InputError(f'input "{slot.name}" is not a regular nested list of numbers; {signature.expected}') from None
    want = np.dtype(slot.dtype)
    kinds = {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}[want.kind]
    if array.size == 0 and array.dtype.kind == "f":
        return array.astype(want)
    if array.dtype.kind not in kinds:
        given = {"O": "something else", "U": "text", "b": "booleans", "f": "fractions"}.get(array.dtype.kind, "numbers")
        raise InputError(f'input "{slot.name}" holds {given}; {signature.expected}')
    with np.errstate(over="ignore"):
        converted = array.astype(want)
    if want.kind in "iu" and not np.array_equal(converted, array):
        raise InputError(f'input "{slot.name}" holds numbers outside of {slot.dtype}; {signature.expected}')
    return converted


def _add_rows(arrays: dict[str, Array], signature: Signature) -> bool:
    """Add the batch dimension where every input lacks exactly that one."""
    for slot in signature.inputs:
        if not slot.shape or slot.shape[0] not in (None, 1) or arrays[slot.name].ndim != len(slot.shape) - 1:
            return False
    for name, array in arrays.items():
        arrays[name] = array[None]
    return True
