"""Models of the formats that are programs, through whole builds: opened once in a box before anybody can call them."""

import numpy as np
import pytest

from serai.ipc.messages import TensorSpec
from serai_gateway.build import InvalidModel, Publish, build_folder, to_spec
from serai_gateway.build.testing import write_tree
from serai_gpu_pool.profile import read
from serai_gpu_pool.testing import nets
from serai_gpu_pool.testing.formats import maker

pytestmark = pytest.mark.needs_bubblewrap

HEAD = '[algorithm]\nowner = "alice"\nname = "net"\n[models.m]\n'
DECLARED = nets.declared("m")


@pytest.fixture
def torch_made():
    return maker("torchscript")


@pytest.fixture
def tf_made():
    return maker("saved_model")


@pytest.fixture
def publish(home, catalogue, alice, tmp_path):
    def run(files, entry):
        lines = []
        folder = write_tree(tmp_path / "source", {"algorithm.toml": HEAD + entry, **files})
        version = build_folder(folder, home, catalogue, alice, lines.append, publish=Publish())
        return to_spec(version, home), lines

    return run


def check(home, spec, lines, format):
    (model,) = spec.models
    assert (model.format, model.owner, model.inputs, model.outputs) == (format, "alice", nets.INPUTS, nets.OUTPUTS)
    assert model.key == f"{model.of_whom}/{model.sha256}" and model.of_whom.startswith("alice/")
    profile = read(home / "prepared" / model.prepared.rpartition("/")[2])
    assert profile is not None and profile.sha256 == model.sha256
    form = profile.forms[profile.first]
    assert form.batch_s[1] > 0 and form.resident_bytes >= 4 * sum(array.size for array in nets.weights().values())
    assert any("model m: opens in " in line for line in lines)


def test_torchscript_is_published(home, publish, torch_made):
    spec, lines = publish({"models/net.pt": torch_made.net_script()}, 'file = "models/net.pt"' + DECLARED)
    check(home, spec, lines, "torchscript")


def test_an_exported_program_is_published_with_nothing_declared(home, publish, torch_made):
    spec, lines = publish({"models/net.pt2": torch_made.net_export()}, 'file = "models/net.pt2"')
    check(home, spec, lines, "torch_export")


def test_declared_names_are_the_outputs_of_an_exported_program(publish, torch_made):
    renamed = DECLARED.replace('"output"', '"scores"')
    spec, _ = publish({"net.pt2": torch_made.net_export()}, 'file = "net.pt2"' + renamed)
    assert spec.models[0].outputs == (TensorSpec("scores", "float32", (-1, 10)),)


def test_a_saved_model_is_published(home, publish, tf_made, tmp_path):
    folder = tf_made.save(tf_made.Net(), tmp_path / "saved")
    files = {f"net/{path.relative_to(folder)}": path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    spec, lines = publish(files, 'file = "net"')
    check(home, spec, lines, "saved_model")


def test_a_model_that_cannot_be_opened_fails_the_build_with_what_the_framework_said(publish, torch_made):
    def broken(path, content):
        return path, content.replace(b"torch.softmax", b"torch.softmin") if path.endswith(".py") else content

    data = torch_made.rewritten(torch_made.net_script(), broken)
    with pytest.raises(InvalidModel, match=r"models\.m: model \"m\" cannot be loaded: .*softmin") as error:
        publish({"net.pt": data}, 'file = "net.pt"' + DECLARED)
    assert "/model" not in str(error.value)


def test_weights_that_a_model_writes_to_fail_the_build(publish, torch_made):
    import torch

    class Counts(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("calls", torch.zeros(2))

        def forward(self, x):
            self.calls.view(1, 2)[0].add_(1)
            return x + self.calls.sum()

    data = torch_made.export(Counts(), np.zeros((2, 3), np.float32))
    with pytest.raises(InvalidModel, match="calls must not see each other"):
        publish({"net.pt2": data}, 'file = "net.pt2"')


def test_a_program_that_would_show_one_caller_what_another_sent_is_refused(publish, torch_made):
    import torch

    class Remembers(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("last", torch.zeros(10))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            before = self.last.clone()
            self.last.copy_(x.reshape(-1)[:10])
            return before.unsqueeze(0).repeat(x.shape[0], 1)

    with pytest.raises(InvalidModel, match="changes its own weights while it runs"):
        publish({"models/net.pt": torch_made.script(Remembers())}, 'file = "models/net.pt"' + DECLARED)
