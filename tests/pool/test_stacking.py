"""Calls are stacked only where that gives the answers that each would get alone."""

import numpy as np
import pytest

from serai_gpu_pool.device.stacking import ModelRunError, Stacker
from serai_gpu_pool.tensors.arguments import Arguments
from serai_gpu_pool.tensors.signature import Signature, Slot


class Runs:
    """A model as a function, and the number of rows of each run."""

    def __init__(self, function, free: bool = True):
        shape = (None if free else 1, 2)
        self.rows: list[int] = []
        self.function = function
        self.stacker = Stacker(Signature((Slot("x", "float32", shape),), (Slot("y", "float32", shape),)), self.run)

    def run(self, inputs, outputs):
        self.rows.append(len(inputs["x"]))
        return [self.function(inputs["x"])]

    def answers(self, *values):
        calls = [Arguments({"x": np.array(value, np.float32)}) for value in values]
        answers = self.stacker.run(calls)
        return [one if isinstance(one, ModelRunError) else one["y"].tolist() for one in answers]


def test_calls_run_together_and_each_gets_its_own_rows():
    model = Runs(lambda x: x * 2)
    assert model.answers([[1, 2]], [[3, 4], [5, 6]]) == [[[2, 4]], [[6, 8], [10, 12]]]
    model.rows.clear()
    model.answers([[1, 2]], [[3, 4]], [[5, 6]])
    assert model.rows == [3]


@pytest.mark.parametrize(
    "function",
    [lambda x: x - x.mean(axis=0), lambda x: np.cumsum(x, axis=0), lambda x: x / np.abs(x).max(), lambda x: x[::-1]],
)
def test_a_model_whose_rows_depend_on_each_other_is_never_stacked(function):
    model = Runs(function)
    values = [[[1, 2]], [[1, 2]], [[5, 9], [3, 1]]]
    assert model.answers(*values) == [function(np.array(value, np.float32)).tolist() for value in values]


def test_a_model_with_a_fixed_first_dimension_runs_call_by_call():
    model = Runs(lambda x: x * 2, free=False)
    assert model.answers([[1, 2]], [[3, 4]]) == [[[2, 4]], [[6, 8]]]
    assert model.rows == [1, 1]


def test_one_bad_call_fails_alone():
    def picky(x):
        if (x < 0).any():
            raise ModelRunError("negative")
        return x

    model = Runs(picky)
    good, bad, better = model.answers([[1, 2]], [[-1, 2]], [[3, 4]])
    assert (good, better) == ([[1, 2]], [[3, 4]]) and isinstance(bad, ModelRunError)


def test_calls_of_different_shapes_are_stacked_apart():
    shape = (None, None)
    rows = []

    def run(inputs, outputs):
        rows.append(inputs["x"].shape)
        return [inputs["x"] + 1]

    stacker = Stacker(Signature((Slot("x", "float32", shape),), (Slot("y", "float32", shape),)), run)
    calls = [Arguments({"x": np.full((1, width), at, np.float32)}) for at, width in enumerate((2, 3, 2, 3))]
    answers = stacker.run(calls)
    assert [one["y"][0, 0] for one in answers] == [1, 2, 3, 4]
    assert {(2, 2), (2, 3)} <= set(rows)


def test_outputs_without_a_row_for_each_input_row_are_not_split():
    model = Runs(lambda x: x[:1])
    assert model.answers([[1, 2]], [[3, 4]]) == [[[1, 2]], [[3, 4]]]
