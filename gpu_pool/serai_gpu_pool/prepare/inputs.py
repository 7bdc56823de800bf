"""Inputs made up from a model's signature, to measure it with: nobody has to provide any.

What a free dimension means is not written anywhere, so values are tried until the model runs. A model that runs with
none of them gets no figures for batches.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from serai_gpu_pool.device.stacking import ModelRunError
from serai_gpu_pool.tensors.signature import Array, Signature, Slot

#: Tried for all free dimensions but the first, likely ones first: edges of pictures, lengths of texts and sounds.
_EDGES = (224, 256, 320, 512, 64, 32, 1)
_LENGTHS = (16, 128, 512, 256, 64, 576, 400, 1)
#: From so many dimensions on, an input is likely to be a picture.
_PICTURE_RANK = 4
#: And when no one value does for all inputs: these, each input for itself.
_MIXED = (1, 16, 512, 224, 128, 256)
_MAX_GUESSES = 120
#: An input of more elements is no reasonable guess.
_MAX_ELEMENTS = 1 << 26


Run = Callable[[dict[str, Array], tuple[str, ...]], list[Array]]


class TooHungry(Exception):
    """Whatever goes in, there is not enough memory for it to run."""


@dataclass(frozen=True)
class Guess:
    """How to fill what a signature leaves open."""

    free: tuple[int, ...]  # for each input: its free dimensions but the first
    unknown: int  # dimensions of an input whose shape is not known
    whole: int  # value of whole numbers: an index, a length, a switch

    def inputs(self, signature: Signature, batch: int, seed: int = 0) -> dict[str, Array]:
        random = np.random.default_rng(seed)
        return {
            slot.name: _filled(slot, self._shape(slot, free, batch), self.whole, random)
            for slot, free in zip(signature.inputs, self.free, strict=True)
        }

    def _shape(self, slot: Slot, free: int, batch: int) -> tuple[int, ...]:
        if slot.shape is None:
            return (1,) * self.unknown
        return tuple((batch if at == 0 else free) if dim is None else dim for at, dim in enumerate(slot.shape))

    def is_reasonable(self, signature: Signature) -> bool:
        shapes = [self._shape(slot, free, 1) for slot, free in zip(signature.inputs, self.free, strict=True)]
        return all(np.prod(shape, dtype=float) <= _MAX_ELEMENTS for shape in shapes)


def find_guess(signature: Signature, run: Run, has_time: Callable[[], bool]) -> Guess | None:
    """The first guess that the model runs with, as a batch of one; None: there is none.

    Raises TooHungry, and ModelRunError for a model that keeps state, which runs with none.
    """
    tried = hungry = 0
    for guess in itertools.islice(_guesses(signature), _MAX_GUESSES):
        if not has_time():
            break
        if not guess.is_reasonable(signature):
            continue
        try:
            run(guess.inputs(signature, 1), signature.output_names)
        except ModelRunError as error:
            if error.keeps_state:
                raise
            tried += 1
            hungry += error.out_of_memory
            continue
        return guess
    if tried and tried == hungry:
        raise TooHungry
    return None


def _guesses(signature: Signature) -> Iterator[Guess]:
    slots = signature.inputs
    unknown = (0, 1, 2) if any(slot.shape is None for slot in slots) else (0,)
    is_open = [slot.shape is not None and None in slot.shape[1:] for slot in slots]
    for at in range(max(len(_EDGES), len(_LENGTHS)) if any(is_open) else 1):
        free = tuple(_preferred(slot, at) for slot in slots)
        for rank, whole in itertools.product(unknown, (1, 0)):
            yield Guess(free, rank, whole)
    if sum(is_open) > 1:
        for values in itertools.product(*[_MIXED if one else (1,) for one in is_open]):
            for rank in unknown:
                yield Guess(values, rank, 1)


def _preferred(slot: Slot, at: int) -> int:
    values = _EDGES if slot.shape is not None and len(slot.shape) >= _PICTURE_RANK else _LENGTHS
    return values[min(at, len(values) - 1)]


def _filled(slot: Slot, shape: tuple[int, ...], whole: int, random: np.random.Generator) -> Array:
    dtype = np.dtype(slot.dtype)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    if dtype.kind == "b":
        return np.ones(shape, dtype)
    if dtype == np.uint8 and len(shape) >= _PICTURE_RANK - 1:
        return random.integers(0, 256, shape, dtype)  # a picture: all values are good ones
    return np.full(shape, whole, dtype)
