"""What our processes say to each other: the header of every frame, one class a message.

    gateway ──▶ runner host or pool     Define, Call, Cancel, Drain, Stats
    runner host or pool ──▶ gateway     Result, Failure, Refusal, Unknown, Stats
    gateway ──▶ pool                    Infer, Inspect, Command
    pool ──▶ gateway                    Inferred, Inspected, Commanded
    runner host ──▶ pool                Admit, Withdraw
    pool ──▶ runner host                Admitted
    runner host ──▶ replica             Call (version left empty)
    replica ──▶ runner host             Ready, Result, Failure
    replica ──▶ pool                    Run, Share
    pool ──▶ replica                    Ran, Shared, Failure, Refusal

A payload, where there is one, follows the header as raw bytes and is never decoded on the way.
Headers are msgpack arrays: [tag, field, field, …] in the order written here. Times are CLOCK_MONOTONIC seconds,
which all processes of one machine share.
"""

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


class Define(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Before the first Call of a version on a connection. Each connection starts with none defined."""

    spec: VersionSpec


class Call(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Run one input. Payload: the input as it came from the caller."""

    id: int  # chosen by the sender, unique on the connection
    version: str  # VersionSpec.key
    content_type: ContentType
    deadline: float
    call_id: str  # "req-…", for logs
    payer: str  # account, for fair shares
    wants_stdout: bool = False


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The caller has gone: drop the call if it is queued, ignore its answer if it runs."""

    id: int


class Result(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """The call succeeded. Payload: the result, then `stdout_bytes` of captured output."""

    id: int
    content_type: ContentType
    duration_s: float  # inside the algorithm
    stdout_bytes: int = 0


class Failure(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """The algorithm failed: an outcome, not a fault of the platform. Payload: captured output."""

    id: int
    error_type: str  # "AlgorithmError", "InputError", "OutOfMemoryError", …
    message: str
    stacktrace: str = ""
    duration_s: float = 0.0
    stdout_bytes: int = 0


RefusalCode = Literal[
    "busy",  # queue full or the deadline cannot be met
    "deadline",  # the deadline passed
    "crashed",  # the replica or worker died with the call in it
    "draining",  # the daemon is stopping
    "unavailable",  # it cannot be started now: a sandbox, a model, a device is missing
    "invalid",  # the input is well-formed for us but not for this model
    "too_large",  # input or output over a limit
]


class Refusal(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """The platform could not do it; the algorithm is not to blame."""

    id: int
    code: RefusalCode
    message: str
    retriable: bool = False
    retry_after_s: float = 0.0


class Unknown(msgspec.Struct, frozen=True, array_like=True, tag=7):
    """The call names a version that was not defined on this connection: define it and send the call again."""

    id: int


class Drain(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Finish what runs, refuse what comes, then stop."""


class Ready(msgspec.Struct, frozen=True, array_like=True, tag=9):
    """A replica has loaded its code and takes calls. With `error` it has not, and never will."""

    error: str = ""
    stacktrace: str = ""


class Admit(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """Open a socket that admits exactly this version's models; `directory` is then mounted into its replicas."""

    version: str
    owner: str
    models: tuple[ModelSpec, ...]


class Admitted(msgspec.Struct, frozen=True, array_like=True, tag=11):
    version: str
    directory: str  # holds `pool.sock`; empty when the pool could not open it


class Withdraw(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Close a version's socket."""

    version: str


class Tensor(msgspec.Struct, frozen=True, array_like=True):
    """One tensor; its bytes lie in the payload, row-major, little-endian, in the order of the list."""

    name: str
    dtype: str  # NumPy's name: "float32", "int64", "uint8", "bool", …
    shape: tuple[int, ...]


class Run(msgspec.Struct, frozen=True, array_like=True, tag=13):
    """Run a model of this socket's version. Payload: the inputs' bytes, one after the other."""

    id: int
    model: str  # its name in algorithm.toml; empty: the only one
    inputs: tuple[Tensor, ...]
    outputs: tuple[str, ...] = ()  # empty: all
    timeout_s: float = 30.0
    shared_bytes: int = (
        0  # more than 0: the inputs lie at the beginning of the memory that was shared, and the payload is empty
    )


class Ran(msgspec.Struct, frozen=True, array_like=True, tag=14):
    """Payload: the outputs' bytes, one after the other."""

    id: int
    outputs: tuple[Tensor, ...]
    duration_s: float
    shared_bytes: int = 0  # more than 0: they lie at the beginning of the shared memory instead


class Share(msgspec.Struct, frozen=True, array_like=True, tag=22):
    """Ask for memory that both sides see, for large inputs and outputs. It takes the place of what was shared
    before.
    """

    id: int
    num_bytes: int


class Shared(msgspec.Struct, frozen=True, array_like=True, tag=23):
    """The descriptor of an anonymous file of so many bytes comes with this frame; 0: there is none to be had."""

    id: int
    num_bytes: int


class Stats(msgspec.Struct, frozen=True, array_like=True, tag=15):
    """Ask a daemon for its figures (`{}` payload) or answer with them: payload is Prometheus text."""

    id: int


class Written(msgspec.Struct, frozen=True, array_like=True):
    """One tensor of an `Infer`; its part of the payload is raw bytes, or a JSON array (nested or flat)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    json_bytes: int = -1  # length of the JSON text; -1: raw bytes, as many as type and shape say


class Wanted(msgspec.Struct, frozen=True, array_like=True):
    name: str
    as_json: bool = False


class Infer(msgspec.Struct, frozen=True, array_like=True, tag=16):
    """Run a model of a defined version for an outside caller. Payload: the inputs, one after the other."""

    id: int
    version: str  # VersionSpec.key
    model: str  # its name in algorithm.toml; empty: the only one
    inputs: tuple[Written, ...]
    outputs: tuple[Wanted, ...]  # empty: all, as `as_json` says
    as_json: bool
    deadline: float
    call_id: str
    payer: str
    priority: int = 0  # among the calls of one payer: smaller goes first, 0 is ordinary


class Inferred(msgspec.Struct, frozen=True, array_like=True, tag=17):
    """Payload: the outputs, one after the other."""

    id: int
    outputs: tuple[Written, ...]
    duration_s: float


class Inspect(msgspec.Struct, frozen=True, array_like=True, tag=18):
    """Ask the pool what it holds."""

    id: int


class Inspected(msgspec.Struct, frozen=True, array_like=True, tag=19):
    """Payload: a `serai_gpu_pool.snapshot.Snapshot` as JSON."""

    id: int


class Command(msgspec.Struct, frozen=True, array_like=True, tag=20):
    """Make it so for one model of a defined version: loaded, out of memory, kept there, or free to go again.

    "release" is what an owner means by unloading: out of memory, unless somebody else uses the same file.
    """

    id: int
    verb: Literal["load", "unload", "pin", "unpin", "release"]
    version: str
    model: str
    deadline: float


class Commanded(msgspec.Struct, frozen=True, array_like=True, tag=21):
    """It is so. Otherwise a Refusal or Failure with this id says why not."""

    id: int


Message = (
    Define
    | Call
    | Cancel
    | Result
    | Failure
    | Refusal
    | Unknown
    | Drain
    | Ready
    | Admit
    | Admitted
    | Withdraw
    | Run
    | Ran
    | Stats
    | Infer
    | Inferred
    | Inspect
    | Inspected
    | Command
    | Commanded
    | Share
    | Shared
)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


def encode(message: Message) -> bytes:
    return _encode(message)


def decode(header: bytes) -> Message:
    """Raises msgspec.DecodeError (or its ValidationError) for anything that is no message of ours."""
    return _decode(header)
