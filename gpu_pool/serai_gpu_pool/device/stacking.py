"""Runs the calls of one batch: stacked along the first dimension where that is sound, one by one where it is not.

A free first dimension is only a hint that calls may be stacked: in some models it is time, or the result of one row
depends on the others. So before the first stacked run a model is asked whether two calls together get the same answers
as each alone. One bad call fails alone: a stacked run that fails is repeated one by one.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from serai_gpu_pool.tensors.arguments import Arguments
from serai_gpu_pool.tensors.signature import Array, Signature

#: Runs a model: inputs by name and the wanted outputs to arrays in that order. Raises ModelRunError.
RunModel = Callable[[dict[str, Array], tuple[str, ...]], list[Array]]

#: Stacked and single runs sum in a different order; more than this is a different answer.
_RELATIVE, _ABSOLUTE = 1e-2, 1e-3


class ModelRunError(RuntimeError):
    """The model failed on this input. `keeps_state`: it would have on any, because it remembers what it was given."""

    def __init__(self, message: str, out_of_memory: bool = False, keeps_state: bool = False) -> None:
        super().__init__(message)
        self.out_of_memory = out_of_memory
        self.keeps_state = keeps_state


Answer = dict[str, Array] | ModelRunError


class Stacker:
    """Runs batches of one loaded model."""

    def __init__(self, signature: Signature, run: RunModel) -> None:
        self.signature = signature
        self._run = run
        self._may_stack: bool | None = None if signature.has_free_rows else False  # None: not asked yet
        self.asking_s = 0.0  # what finding that out took, in all

    def over(self, signature: Signature, run: RunModel) -> "Stacker":
        """The same for another form of the same model: what was learned about its rows holds."""
        other = Stacker(signature, run)
        other._may_stack = self._may_stack
        return other

    def run(self, calls: list[Arguments]) -> list[Answer]:
        """One answer a call, in their order."""
        if len(calls) == 1 or self._may_stack is False:
            return [self._alone(call) for call in calls]
        answers: list[Answer | None] = [None] * len(calls)
        for members in self._groups(calls):
            group = [calls[at] for at in members]
            for at, answer in zip(members, self._group(group), strict=True):
                answers[at] = answer
        return [answer for answer in answers if answer is not None]

    def _groups(self, calls: list[Arguments]) -> list[list[int]]:
        """Positions of calls that agree in everything but their number of rows."""
        groups: dict[Any, list[int]] = {}
        for at, call in enumerate(calls):
            key = (call.outputs, *[array.shape[1:] for array in call.arrays.values()])
            rows = {array.shape[0] for array in call.arrays.values()}
            groups.setdefault(key if len(rows) == 1 else ("alone", at), []).append(at)
        return list(groups.values())

    def _group(self, calls: list[Arguments]) -> list[Answer]:
        if len(calls) == 1:
            return [self._alone(calls[0])]
        if self._may_stack is None:
            began = time.perf_counter()
            self._may_stack = self._rows_are_independent(calls[0])
            self.asking_s += time.perf_counter() - began
        if self._may_stack:
            try:
                return self._stacked(calls)
            except ModelRunError:
                pass  # at least one of them is bad: each for itself
        return [self._alone(call) for call in calls]

    def _alone(self, call: Arguments) -> Answer:
        names = call.outputs or self.signature.output_names
        try:
            return dict(zip(names, self._run(call.arrays, names), strict=True))
        except ModelRunError as error:
            return error

    def _stacked(self, calls: list[Arguments]) -> list[Answer]:
        names = calls[0].outputs or self.signature.output_names
        stacked = {name: np.concatenate([call.arrays[name] for call in calls]) for name in calls[0].arrays}
        outputs = self._run(stacked, names)
        rows = [next(iter(call.arrays.values())).shape[0] for call in calls]
        if any(not output.ndim or output.shape[0] != sum(rows) for output in outputs):
            raise ModelRunError("outputs do not have one row for each row of input")
        answers: list[Answer] = []
        at = 0
        for count in rows:
            answers.append({name: output[at : at + count] for name, output in zip(names, outputs, strict=True)})
            at += count
        return answers

    def _rows_are_independent(self, call: Arguments) -> bool:
        """Ask the model: is its answer to this call the same beside another call as alone?"""
        other = Arguments({name: _different(array) for name, array in call.arrays.items()}, outputs=call.outputs)
        alone = [self._alone(one) for one in (call, other)]
        try:
            together = self._stacked([call, other])
        except ModelRunError:
            return False
        return all(map(_agree, alone, together))


def _different(array: Array) -> Array:
    """Another input of the same kind: in another order and smaller, so that indices stay where they may be."""
    other = array[tuple(slice(None, None, -1) for _ in array.shape)]
    if array.dtype.kind == "b":
        other = ~other
    else:
        other = (other / 2 if array.dtype.kind == "f" else other // 2).astype(array.dtype)
    return np.ascontiguousarray(other if not np.array_equal(other, array) else np.ones_like(array))


def _agree(one: Answer, other: Answer) -> bool:
    if isinstance(one, ModelRunError) or isinstance(other, ModelRunError):
        return False
    return all(
        np.allclose(one[name], other[name], rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
        if one[name].dtype.kind == "f"
        else np.array_equal(one[name], other[name])
        for name in one
    )
