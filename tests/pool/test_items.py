"""The items of a batch, from bytes to bytes."""

import numpy as np
import pytest

from serai_gpu_pool.device.items import run_items
from serai_gpu_pool.device.messages import Item
from serai_gpu_pool.device.stacking import Stacker
from serai_gpu_pool.tensors.results import MAX_OUTPUT_BYTES
from serai_gpu_pool.tensors.signature import Signature, Slot

_MIB = 1 << 20
_SIGNATURE = Signature((Slot("x", "int64", (1,)),), (Slot("y", "int8", None),))


def _zeros(inputs, outputs):
    """As many bytes as are asked for."""
    return [np.zeros(int(inputs["x"][0]), np.int8)]


def _run(*bodies: bytes, form="binary"):
    items = [Item(len(body), form) for body in bodies]
    return run_items(Stacker(_SIGNATURE, _zeros), items, [memoryview(body) for body in bodies])


def _ask(num_bytes: int) -> bytes:
    return np.int64(num_bytes).tobytes()


def test_a_result_for_which_the_others_left_no_room_may_come_alone_and_one_that_is_too_large_never():
    outcomes, parts = _run(_ask(60 * _MIB), _ask(1), _ask(60 * _MIB), _ask(60 * _MIB), _ask(MAX_OUTPUT_BYTES + 1))
    assert [one.kind for one in outcomes] == ["ok", "ok", "ok", "no_room", "too_large"]
    assert [len(part) for part in parts] == [60 * _MIB, 1, 60 * _MIB, 0, 0]
    assert _run(_ask(MAX_OUTPUT_BYTES))[0][0].kind == "ok", "alone there is room for the largest"


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [(b"[1", "ParsingError", "input is not JSON"), (b"[1.5]", "InputError", "fractions"), (b"{}", "InputError", "x")],
)
def test_text_that_is_no_json_is_told_from_json_that_does_not_fit(body, kind, says):
    (bad, good), _ = _run(body, b"[3]", form="json")
    assert bad.kind == kind and says in bad.message and good.kind == "ok"
