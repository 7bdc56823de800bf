"""No call sees another: what models remember is noticed, put back, or refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serai.ipc.messages import ModelSpec, TensorSpec
from serai_gpu_pool.device.stacking import ModelRunError
from serai_gpu_pool.frameworks.base import LoadError
from serai_gpu_pool.testing.formats import maker

X, Y = TensorSpec("x", "float32", (-1, 4)), TensorSpec("y", "float32", (-1, 4))


@pytest.fixture(scope="module")
def made():
    return maker("torchscript")


@pytest.fixture
def opened(tmp_path) -> Callable[..., Any]:
    def run(data: bytes, format: str = "torchscript", arena: bool = False):
        import hashlib

        import torch

        from serai_gpu_pool.frameworks import registry
        from serai_gpu_pool.frameworks.base import Source
        from serai_gpu_pool.frameworks.weights_arena import Arena

        path = tmp_path / "model"
        path.write_bytes(data)
        declared = ((X,), (Y,)) if format == "torchscript" else ((), ())
        sha256 = hashlib.sha256(data).hexdigest()
        spec = ModelSpec("m", sha256, str(path), format, len(data), "alice", "", *declared)
        framework: Any = registry.make("torch", "cpu", 1, 0)
        if arena:
            framework.use_arena(Arena(torch.device("cpu"), 1 << 20))
        return framework.open(spec, Source(str(path)))

    return run


def call(model, value: float, output: str = "y"):
    return model.run({"x": np.full((2, 4), value, np.float32)}, (output,))[0]


def modules():
    import torch
    from torch import nn

    class Buffer(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("last", torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            before = self.last.clone()
            if bool(x.sum() > 100.0):
                self.last.copy_(x[0])
            return before + 0 * x

    class View(Buffer):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            before = self.last.clone()
            if bool(x.sum() > 100.0):
                self.last.view(2, 2)[0].add_(x[0, 0])
            return before + 0 * x

    class Attribute(nn.Module):
        def __init__(self):
            super().__init__()
            self.plain = torch.zeros(4)  # neither a parameter nor a buffer

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            before = self.plain.clone()
            if bool(x.sum() > 100.0):
                self.plain.copy_(x[0])
            return before + 0 * x

    class Statistics(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(4))
            self.register_buffer("var", torch.ones(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            before = self.mean.clone()
            if bool(x.sum() > 100.0):
                torch.batch_norm(x, None, None, self.mean, self.var, True, 0.5, 1e-5, False)
            return before + 0 * x

    return {"Buffer": Buffer, "View": View, "Attribute": Attribute, "Statistics": Statistics}


@pytest.mark.parametrize("name", ["Buffer", "View", "Attribute", "Statistics"])
@pytest.mark.parametrize("arena", [False, True])
def test_a_script_that_writes_to_a_tensor_fails_and_tells_nobody_what_it_wrote(made, opened, name, arena):
    model = opened(made.script(modules()[name]()), arena=arena)
    assert call(model, 1.0).tolist() == [[0.0] * 4] * 2
    for value in (77.0, 1.0):  # the one that is remembered, and whoever comes after
        with pytest.raises(ModelRunError, match="changes its own weights while it runs"):
            call(model, value)
    model.close()
    again = opened(made.script(modules()[name]()), arena=arena)
    assert call(again, 1.0).tolist() == [[0.0] * 4] * 2
    again.close()


def test_a_script_that_writes_and_then_fails_is_noticed(made, opened):
    import torch

    class Fails(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("last", torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.last.copy_(x[0])
            return x.view(3, 3)

    model = opened(made.script(Fails()))
    with pytest.raises(ModelRunError, match="its own weights"):
        call(model, 77.0)
    model.close()


def test_attributes_that_a_script_assigns_are_as_published_at_each_call(made, opened):
    import torch

    class Assigns(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("last", torch.zeros(4))
            self.count = 0
            self.seen: list[torch.Tensor] = [torch.zeros(4)]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            before = self.last + self.count + len(self.seen) + self.seen[-1]
            self.last = x[0]
            self.count += 7
            self.seen.append(x[0])
            return before + 0 * x

    model = opened(made.script(Assigns()))
    for value in (77.0, 78.0, 79.0):
        assert call(model, value).tolist() == [[1.0] * 4] * 2
    model.close()


def test_normalisations_in_evaluation_mode_run(made, opened):
    import torch

    class Normal(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x)

    for data, format in (
        (made.script(Normal()), "torchscript"),
        (made.export(Normal().eval(), np.ones((2, 4), np.float32)), "torch_export"),
    ):
        model = opened(data, format)
        for _ in range(3):
            output = model.signature.outputs[0].name
            np.testing.assert_allclose(call(model, 1.0, output), 1.0, rtol=1e-4)
        model.close()


def test_what_hides_writes_is_refused(made, opened):
    import torch

    class Hides(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("last", torch.zeros(4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.last.data.copy_(x[0])
            return x

    with pytest.raises(LoadError, match="prim::data: models may neither"):
        opened(made.script(Hides()))


def test_an_exported_program_that_writes_its_statistics_is_refused(made, opened):
    import torch

    class Trains(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(4))
            self.register_buffer("var", torch.ones(4))

        def forward(self, x):
            return torch.batch_norm(x, None, None, self.mean, self.var, False, 0.5, 1e-5, False)

    def training(path, content):
        import json

        if not path.endswith("model.json"):
            return path, content
        value = json.loads(content)
        (node,) = [one for one in value["graph_module"]["graph"]["nodes"] if "batch_norm" in one["target"]]
        next(one for one in node["inputs"] if one["name"] == "training")["arg"] = {"as_bool": True}
        return path, json.dumps(value).encode()

    data = made.export(Trains(), np.ones((2, 4), np.float32))
    opened(data, "torch_export").close()
    with pytest.raises(LoadError, match=r"mean.* while it runs, and calls must not see each other"):
        opened(made.rewritten(data, training), "torch_export")


@pytest.mark.parametrize("hides", ["atleast_1d", "meshgrid", "broadcast_tensors"])
def test_an_exported_program_that_writes_to_what_looks_at_a_weight_fails(made, opened, hides):
    """The schemas of these operations do not say that they give a view."""
    import torch

    class Looks(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("last", torch.zeros(4))

        def forward(self, x):
            view = {
                "atleast_1d": lambda: torch.atleast_1d(self.last),
                "meshgrid": lambda: torch.meshgrid(self.last, indexing="ij")[0],
                "broadcast_tensors": lambda: torch.broadcast_tensors(self.last, x[0])[0],
            }[hides]()
            return (view + x[0]) + 0 * x

    def in_place(path, content):
        return path, content.replace(b"aten.add.Tensor", b"aten.add_.Tensor", 1) if path.endswith(
            "model.json"
        ) else content

    data = made.rewritten(made.export(Looks(), np.ones((2, 4), np.float32)), in_place)
    model = opened(data, "torch_export")
    for value in (77.0, 1.0):
        with pytest.raises(ModelRunError, match="changes its own weights"):
            call(model, value, "output")
    model.close()
