"""What goes into a model and what comes out."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

Array = NDArray[Any]

#: Inputs that an error lists.
_MOST_SHOWN = 8

#: Numbers in one JSON input or result: each is a Python object for a moment, and up to 20 characters.
MAX_JSON_NUMBERS = 2_000_000

#: Element types that travel between processes: NumPy's names.
DTYPES = frozenset(
    ["float16", "float32", "float64", "bool"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)  # fmt: skip


@dataclass(frozen=True)
class Slot:
    """One input or output of a model. A dimension is a number, or None where it is free; no shape: nothing is known."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        dims = "any shape" if self.shape is None else "[" + ", ".join(str(d or "?") for d in self.shape) + "]"
        return f'"{self.name}": {self.dtype} {dims}'

    def fits(self, shape: tuple[int, ...]) -> bool:
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            want is None or want == have for want, have in zip(self.shape, shape, strict=True)
        )


@dataclass(frozen=True)
class Signature:
    """What goes into a model and what comes out, in its own order."""

    inputs: tuple[Slot, ...]
    outputs: tuple[Slot, ...]

    @cached_property
    def by_name(self) -> dict[str, Slot]:
        return {slot.name: slot for slot in self.inputs}

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        return tuple(slot.name for slot in self.outputs)

    @cached_property
    def expected(self) -> str:
        more = f" and {len(self.inputs) - _MOST_SHOWN} more" if len(self.inputs) > _MOST_SHOWN else ""
        return "the model expects " + ", ".join(map(str, self.inputs[:_MOST_SHOWN])) + more

    @property
    def has_free_rows(self) -> bool:
        """May calls be stacked along the first dimension, as far as the shapes say?"""
        return all(slot.shape and slot.shape[0] is None for slot in (*self.inputs, *self.outputs))
