"""What a check of a model file finds, and how it says no."""

from dataclasses import dataclass

import msgspec

from serai.ipc.messages import ModelFormat, TensorSpec


class ModelFileError(ValueError):
    """The file is no model that we run; the text says what it is and what to do."""


@dataclass(frozen=True)
class ModelFile:
    """A model file that may be opened.

    Args:
        inputs, outputs: what the file itself says of them; None where its format does not say.
        num_nodes: operations in it, or functions where the format has no list of operations.
    """

    format: ModelFormat
    inputs: tuple[TensorSpec, ...] | None
    outputs: tuple[TensorSpec, ...] | None
    num_nodes: int


class Tensor(msgspec.Struct, frozen=True):
    """An input or output as a file describes it. A free dimension is its name, or "" where it has none."""

    name: str
    dtype: str  # NumPy's name, "string" for text
    shape: tuple[int | str, ...] | None  # None: not even the rank is known


#: Inputs and outputs of a model together.
MAX_TENSORS = 1024


def shown(text: str, most: int = 100) -> str:
    """A name out of a file as it may stand in a message."""
    text = text[:most]
    return text if text.isprintable() else ascii(text)[1:-1]
