"""Results: arrays as JSON, raw bytes, or named tensors."""

import msgspec
import numpy as np

from serai.ipc.messages import Wanted, Written
from serai_gpu_pool.tensors.signature import MAX_JSON_NUMBERS, Array

#: Longest result of one call as raw bytes. A model may answer one byte with a gigabyte.
MAX_OUTPUT_BYTES = 64 << 20


class OutputError(ValueError):
    """The model's result cannot be sent in the form that was asked for."""


class OutputTooLarge(ValueError):
    """The model's result is over a limit."""


def to_json(outputs: dict[str, Array], squeezed: bool) -> bytes:
    """The nested list alone where there is one output, else an object. Raises OutputError, OutputTooLarge."""
    if sum(array.size for array in outputs.values()) > MAX_JSON_NUMBERS:
        raise OutputTooLarge(
            f"the result is more than {MAX_JSON_NUMBERS} numbers, too many for JSON: send application/octet-stream"
        )
    for name, array in outputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise OutputError(f'output "{name}" holds NaN or infinity, which JSON cannot say')
    lists = {name: _without_rows(array, squeezed).tolist() for name, array in outputs.items()}
    return msgspec.json.encode(lists if len(lists) > 1 else next(iter(lists.values())))


def to_bytes(outputs: dict[str, Array]) -> bytes:
    """Raw little-endian bytes, one output after the other. Raises OutputTooLarge."""
    _check_size(outputs)
    return b"".join([array.tobytes() for array in outputs.values()])


def to_tensors(
    outputs: dict[str, Array], wanted: tuple[Wanted, ...] = (), as_json: bool = False
) -> tuple[tuple[Written, ...], bytes]:
    """One output after the other, raw or as flat JSON arrays, and what they are.

    Args:
        wanted: how each output is to be written; those that are not named as `as_json` says.

    Raises OutputError, OutputTooLarge.
    """
    _check_size(outputs)
    in_json = {one.name: one.as_json for one in wanted}
    written: list[Written] = []
    parts: list[bytes] = []
    for name, array in outputs.items():
        is_json = in_json.get(name, as_json)
        part = _flat_json(name, array) if is_json else array.tobytes()
        written.append(Written(name, array.dtype.name, array.shape, len(part) if is_json else -1))
        parts.append(part)
    return tuple(written), b"".join(parts)


def _check_size(outputs: dict[str, Array]) -> None:
    num_bytes = sum(array.nbytes for array in outputs.values())
    if num_bytes > MAX_OUTPUT_BYTES:
        raise OutputTooLarge(f"the result is {num_bytes} bytes, over the limit of {MAX_OUTPUT_BYTES}")


def _flat_json(name: str, array: Array) -> bytes:
    if array.size > MAX_JSON_NUMBERS:
        raise OutputTooLarge(
            f"the result is more than {MAX_JSON_NUMBERS} numbers, too many for JSON: ask for binary data"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise OutputError(f'output "{name}" holds NaN or infinity, which JSON cannot say: ask for binary data')
    return msgspec.json.encode(array.ravel().tolist())


def _without_rows(array: Array, squeezed: bool) -> Array:
    return array[0] if squeezed and array.ndim and array.shape[0] == 1 else array
