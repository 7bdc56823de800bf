"""What a worker asks of a framework, and of a model that a framework has opened.

One file per framework, each passing the behaviour suite in `tests/pool/test_frameworks.py`. They are imported inside
device workers only: the owner never loads one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.core import LoadFailure
from serai_gpu_pool.tensors.signature import Array, Signature

#: In which form a model is open: straight from its file; its weights as pages of a file, before and after they were
#: rearranged for the fastest run.
Form = Literal["plain", "mapped", "packed"]


class LoadError(Exception):
    """A model cannot be opened; says whose fault that is."""

    def __init__(self, failure: LoadFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


@dataclass(frozen=True)
class Source:
    """Where the bytes of a model are, as a worker in a sandbox sees them.

    Args:
        path: the published file; a worker reaches it through a descriptor, such as /proc/self/fd/7.
        prepared: folder with the prepared form, or empty.
    """

    path: str
    prepared: str = ""


class OpenModel(Protocol):
    """A model that can run.

    Its weights are in device memory or not: `page_in` and `page_out` move them, where `can_page`. What is left after
    `page_out` (a graph, file mappings) is its skeleton. Runs may be asked for from several threads; the other methods
    come from one thread, never `page_out` or `close` while a run goes on.
    """

    signature: Signature
    form: Form
    can_page: bool

    def run(self, inputs: dict[str, Array], outputs: tuple[str, ...]) -> list[Array]:
        """Wanted outputs in their order. Raises stacking.ModelRunError, with `out_of_memory` where that was it."""
        ...

    def page_in(self) -> None:
        """All weights in device memory. Raises LoadError (kind "memory")."""
        ...

    def page_out(self) -> None:
        """No weights in device memory: the bytes are free when this returns. Raises OSError when they are not."""
        ...

    def resident_bytes(self) -> int:
        """Device memory that this model holds now, skeleton included; measured where that is possible."""
        ...

    def kept_bytes(self) -> int:
        """Host memory that it holds on to while paged out."""
        ...

    def cached_bytes(self) -> int:
        """Weights that stay in the page cache while it is paged out, until it is closed."""
        ...

    def close(self) -> None:
        """Everything back."""
        ...


class Framework(Protocol):
    """Opens models. Made once per worker."""

    name: str  # "onnx", "torch", "tensorflow"
    runtime: str  # "onnxruntime 1.31.1"

    def open(self, spec: ModelSpec, source: Source) -> OpenModel:
        """The form that can answer soonest, weights paged in. Raises LoadError."""
        ...

    def improve(self, model: OpenModel, spec: ModelSpec, source: Source) -> OpenModel | None:
        """The same model in the form that runs fastest, opened beside the other one; None when that is it already."""
        ...


#: Makes a framework in a worker: which device ("cpu" or "cuda:0"), how many threads a run may use, and for a GPU how
#: many bytes its arena has.
MakeFramework = Callable[[str, int, int], Framework]
