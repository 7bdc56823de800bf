"""Small PyTorch models for tests, as bytes of files. Importing this imports PyTorch."""

import io
import warnings
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from serai_gpu_pool.testing.nets import example, weights


class Net(nn.Module):
    """The net of `nets`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.linear = nn.Linear(256, 10)
        given = weights()
        for parameter, name in zip(self.parameters(), ("kernel", "shift", "linear", "bias"), strict=True):
            parameter.data = torch.from_numpy(given[name])

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.linear(torch.relu(self.conv(input)).flatten(1)), -1)


def net_script() -> bytes:
    return script(Net())


def net_export() -> bytes:
    return export(Net(), example(2))


def script(module: nn.Module) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces the end of TorchScript
        torch.jit.save(torch.jit.script(module.train(False)), file)
    return file.getvalue()


def trace(module: nn.Module, *inputs: Any) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(module.train(False), tuple(map(torch.from_numpy, inputs))), file)
    return file.getvalue()


def export(module: nn.Module, *inputs: Any, free_rows: bool = True) -> bytes:
    """`inputs`: NumPy arrays whose first dimension is free."""
    tensors = tuple(map(torch.from_numpy, inputs))
    shapes = tuple({0: torch.export.Dim("rows")} for _ in tensors) if free_rows else None
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, tensors, dynamic_shapes=shapes)
        torch.export.save(program, file)
    return file.getvalue()


class Loop(nn.Module):
    """Counts to x (int64, [1]): as slow as it is told to be."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = torch.ones(1)
        for _ in range(int(x[0])):
            value = torch.sin(value)
        return value


class Explosion(nn.Module):
    """As many zeros as x (int64, [1]) says."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(int(x[0]))


class Scaled(nn.Module):
    """x [N, 4] * factor, with `num_bytes` of weights that are all in use."""

    def __init__(self, factor: float, num_bytes: int) -> None:
        super().__init__()
        ballast = np.random.default_rng(0).standard_normal((num_bytes // 16, 4)).astype(np.float32)
        self.ballast = nn.Parameter(torch.from_numpy(ballast))
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor + self.ballast.sum(0) * 0.0


class TakesRow(nn.Module):
    """Row x of a table with 4 rows; an index outside of it fails when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(4, dtype=torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.table[x]  # pyright: ignore[reportIndexIssue]


def rewritten(data: bytes, change: Callable[[str, bytes], tuple[str, bytes] | None]) -> bytes:
    """An archive with other members: `change` gets name and content of each, and gives both, or None to leave it out.

    Written as PyTorch does: uncompressed, contents at multiples of 64.
    """
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as new:
        for member in old.infolist():
            changed = change(member.filename, old.read(member))
            if changed is not None:
                add_member(new, *changed)
    return target.getvalue()


def with_member(data: bytes, name: str, content: bytes) -> bytes:
    """An archive with one more member; `name` begins below the archive's own folder."""
    target = io.BytesIO(rewritten(data, lambda path, old: (path, old)))
    with zipfile.ZipFile(target, "a", zipfile.ZIP_STORED) as archive:
        add_member(archive, f"{archive.namelist()[0].partition('/')[0]}/{name}", content)
    return target.getvalue()


def add_member(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    member = zipfile.ZipInfo(name)
    gap = -(archive.start_dir + 30 + len(name.encode()) + 4) % 64
    member.extra = b"FB" + gap.to_bytes(2, "little") + bytes(gap)
    archive.writestr(member, content)
