"""Weights in an arena of device memory: the same code on the CPU, and on a GPU where there is one."""

import importlib.util
import os

import numpy as np
import pytest

if importlib.util.find_spec("torch") is None:
    if os.environ.get("CI") == "true":
        pytest.fail("torch is not installed")
    pytest.skip("torch is not installed", allow_module_level=True)

import torch

from serai_gpu_pool.frameworks import registry, weights_arena
from serai_gpu_pool.frameworks.weights_arena import ALIGNMENT, Arena, ArenaWeights

DEVICES = [pytest.param("cpu"), pytest.param("cuda:0", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def arena(request):
    return Arena(torch.device(request.param), 1 << 20)


def blocks(*sizes, seed=0):
    random = np.random.default_rng(seed)
    return [torch.from_numpy(random.integers(0, 256, size, dtype=np.uint8)) for size in sizes]


def test_blocks_arrive_aligned_and_whole(arena):
    given = blocks(1, 255, 257, 0, 100_000)
    weights = ArenaWeights(arena, given)
    places = weights.page_in()
    assert places is not None
    for block, place in zip(given, places, strict=True):
        assert torch.equal(block, place.cpu())
        assert place.storage_offset() % ALIGNMENT == 0
    assert weights.page_in() is None
    assert weights.resident_bytes() == weights.kept_bytes() == weights.num_bytes >= 100_513


def test_what_leaves_gives_its_place_to_others_and_comes_back_the_same(arena, monkeypatch):
    monkeypatch.setattr(weights_arena, "CHUNK_BYTES", 1000)
    ones = [ArenaWeights(arena, blocks(400_000, seed=seed)) for seed in range(3)]
    assert ones[0].page_in() and ones[1].page_in()
    with pytest.raises(MemoryError, match="no room for"):
        ones[2].page_in()
    ones[0].page_out()
    assert ones[0].resident_bytes() == 0
    assert ones[2].page_in()
    ones[1].page_out()
    (back,) = ones[0].page_in() or ()
    assert torch.equal(back.cpu(), blocks(400_000, seed=0)[0])
    for one in ones:
        one.close()
    assert arena.extents.free_bytes == arena.extents.size


def test_a_model_in_an_arena_answers_before_and_after_it_left(request, tmp_path):
    """On the CPU too, by giving the framework an arena that it would make on a GPU."""
    check_model("cpu", tmp_path)


@pytest.mark.gpu
def test_models_on_a_gpu_answer_as_on_the_cpu(tmp_path):
    check_model("cuda:0", tmp_path)


def check_model(device: str, folder) -> None:
    import hashlib

    from serai.ipc.messages import ModelSpec
    from serai_gpu_pool.frameworks.base import Source
    from serai_gpu_pool.frameworks.torch import TorchFramework
    from serai_gpu_pool.testing import nets, torch_models

    framework = registry.make("torch", device, 1, 64 << 20)
    assert isinstance(framework, TorchFramework)
    framework.use_arena(framework.arena or Arena(torch.device(device), 64 << 20))
    plain = registry.make("torch", "cpu", 1, 0)
    for format, data in (("torchscript", torch_models.net_script()), ("torch_export", torch_models.net_export())):
        path = folder / format
        path.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        spec = ModelSpec("m", sha256, str(path), format, len(data), "alice", "", nets.INPUTS, nets.OUTPUTS)
        reference = plain.open(spec, Source(str(path)))
        expected = reference.run({"input": nets.example()}, ("output",))[0]
        reference.close()
        model = framework.open(spec, Source(str(path)))
        other = framework.open(spec, Source(str(path)))  # takes other places than the first one will come back to
        for _ in range(3):
            answer = model.run({"input": nets.example()}, ("output",))[0]
            np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-6)
            before = model.resident_bytes()
            model.page_out()
            assert model.resident_bytes() < before and model.kept_bytes() > 0
            model.page_in()
        model.close()
        other.close()
    assert framework.arena is not None
    assert framework.arena.extents.free_bytes == framework.arena.extents.size
