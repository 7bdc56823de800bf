import copy

import pytest

from serai import errors

CLASSES = [getattr(errors, name) for name in errors.__all__]


def test_the_drawn_tree_names_every_class_below_its_parent():
    drawn = errors.__doc__ or ""
    for kind in CLASSES:
        assert f" {kind.__name__} " in drawn.replace("\n", " ")


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_survive_being_rebuilt_as_process_pools_do(kind: type[errors.SeraiError]):
    error = kind("why")
    error.__dict__["code"] = "kept"
    again = copy.copy(error)  # by the same protocol that sends them to another process
    assert type(again) is kind
    assert (again.message, again.__dict__["code"]) == ("why", "kept")


def test_an_algorithm_can_choose_the_error_type_its_callers_see():
    error = errors.AlgorithmError("no face in it", "InputError")
    assert (str(error), error.error_type) == ("no face in it", "InputError")
