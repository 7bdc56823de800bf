"""What a version is, as every part of Serai says it to another: its code, its models, its limits."""

import zlib
from typing import Literal

import msgspec

ContentType = Literal["json", "text", "binary", "void"]
#: A version's code: Python with our own runtime, an Algorithmia repository, or nothing but a model.
Kind = Literal["python", "algorithmia", "model"]


#: How a model file is written. Only "onnx" is data; loading any of the others may run what the file says.
ModelFormat = Literal["onnx", "torchscript", "torch_export", "saved_model"]


class TensorSpec(msgspec.Struct, frozen=True, array_like=True):
    """An input or output of a model. A free dimension is -1; no shape: not even the rank is known."""

    name: str
    dtype: str  # NumPy's name
    shape: tuple[int, ...] | None


class ModelSpec(msgspec.Struct, frozen=True, array_like=True):
    """A model file of one version, by content."""

    name: str
    sha256: str
    path: str  # absolute, inside the file store
    format: ModelFormat
    num_bytes: int
    owner: str = ""  # of the version; formats that are programs share a worker with this owner's models only
    prepared: str = ""  # folder with the form that loads fastest (see serai_gpu_pool.prepare); empty: there is none
    inputs: tuple[TensorSpec, ...] = ()  # as found or declared at publish time
    outputs: tuple[TensorSpec, ...] = ()
    algorithm: str = ""  # name of the algorithm that it belongs to

    @property
    def key(self) -> str:
        """What the pool knows this model by. A file that is only data is shared by all who published it.

        A program is its owner's, with the inputs and outputs that were declared for it: another version of the same
        file may declare others.
        """
        return self.sha256 if self.format == "onnx" else f"{self.of_whom}/{self.sha256}"

    @property
    def of_whom(self) -> str:
        """Whose program it is, and with which inputs and outputs: 8 hex digits, so that versions differ in them."""
        if not self.inputs and not self.outputs:
            return self.owner
        return f"{self.owner}/{zlib.crc32(_encode((self.inputs, self.outputs))):08x}"


class Limits(msgspec.Struct, frozen=True, array_like=True):
    timeout_s: float = 300.0
    memory_bytes: int = 1 << 30
    concurrency: int = 1  # calls a replica handles at once
    cpus: float = 1.0  # processor time a replica may use, in cores


class Scaling(msgspec.Struct, frozen=True, array_like=True):
    """How many replicas, as the author wishes; the operator's limits hold besides."""

    min_replicas: int = 0  # kept without calls, while this is its algorithm's newest version
    max_replicas: int = 0  # 0: as many as the operator allows
    idle_s: float = 0.0  # an idle replica ends after this; 0: as the operator says


class VersionSpec(msgspec.Struct, frozen=True, array_like=True):
    """All that a daemon needs to run one version. Immutable, so a daemon may keep it for ever."""

    key: str  # "owner/name@hash": unique for this code
    owner: str
    name: str
    kind: Kind
    code: str  # directory of the unpacked tree; empty for kind "model"
    environment: str | None = None  # directory of installed packages, or None
    entry: str = ""  # python: module under src/; algorithmia: algorithm name
    models: tuple[ModelSpec, ...] = ()
    limits: Limits = Limits()
    network: bool = False
    scaling: Scaling = Scaling()
    calls: bool = False  # may call other algorithms
    python: str = ""  # "3.12": the interpreter that `environment` was made for; empty: the one Serai runs on


_encode = msgspec.msgpack.Encoder().encode
