"""What our processes say to each other: the header of every frame, one class a message.

    gateway ──▶ runner host or pool     Define, Call, Cancel, Drain, Stats
    runner host or pool ──▶ gateway     Result, Failure, Refusal, Unknown, Stats
    gateway ──▶ runner host             More, Keep, ReadLog
    runner host ──▶ gateway             Item, Progress, Waiting, Logged; on a connection of its own: Bound
    gateway ──▶ pool                    Infer, Inspect, Command
    pool ──▶ gateway                    Inferred, Inspected, Commanded
    runner host ──▶ pool                Admit, Withdraw
    pool ──▶ runner host                Admitted
    runner host ──▶ replica             Call (version left empty), Cancel, More
    replica ──▶ runner host             Booted, Ready, Result, Failure, Item, Progress
    runner host ──▶ template            Fork
    template ──▶ runner host            Booted, Ready, Forked, Ended
    replica ──▶ pool                    Run, Share
    pool ──▶ replica                    Ran, Shared, Failure, Refusal

A payload, where there is one, follows the header as raw bytes and is never decoded on the way.
Headers are msgpack arrays: [tag, field, field, …] in the order written here. Times are CLOCK_MONOTONIC seconds,
which all processes of one machine share.
"""

from typing import Literal

import msgspec

from serai.ipc.specs import ContentType, Kind, Limits, ModelFormat, ModelSpec, Scaling, TensorSpec, VersionSpec

__all__ = [  # the specs are what messages are made of: one import brings both
    "ContentType", "Kind", "Limits", "ModelFormat", "ModelSpec", "Scaling", "TensorSpec", "VersionSpec",
]  # fmt: skip


class Define(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Before the first Call of a version on a connection. Each connection starts with none defined.

    Payload, to the runner host alone: the algorithm's `serai.ipc.secrets.Secrets`, or nothing. Said again when they
    have changed.
    """

    spec: VersionSpec


#: What a template does before replicas are forked from it. Empty: there is none, each box is a replica.
ForkPoint = Literal["", "import", "load"]


class Call(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Run one input. Payload: the input as it came from the caller."""

    id: int  # chosen by the sender, unique on the connection
    version: str  # VersionSpec.key
    content_type: ContentType
    deadline: float
    call_id: str  # "req-…", for logs
    payer: str  # account, for fair shares
    wants_stdout: bool = False
    wants_items: bool = False  # send what the algorithm yields as it comes, and how the call is doing
    root: str = ""  # call_id of the call that this one was made for; empty: it is nobody's child
    depth: int = 0  # calls above this one
    only_load: bool = False  # run nothing: the answer is that a replica has loaded its code, or why it cannot


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """The caller has gone: drop the call if it is queued, end it if it runs."""

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
    is_template: bool = False  # it takes no calls, but Fork
    fork_after: ForkPoint = ""  # from where the next box of this version should fork, as this one has learnt
    complaint: str = ""  # it takes calls, and has said why it will fail every one of them


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


class Item(msgspec.Struct, frozen=True, array_like=True, tag=24):
    """One thing that the algorithm yielded, for a call with `wants_items`. Payload: the item.

    At most WINDOW of them, or WINDOW_BYTES, are on their way: after that the replica waits for a More.
    """

    id: int
    content_type: ContentType


class More(msgspec.Struct, frozen=True, array_like=True, tag=25):
    """The caller has taken so many items of this call, the oldest ones."""

    id: int
    num_items: int


#: Items of a call that may be on their way, unacknowledged…
WINDOW = 16
#: …and what they may hold together. One is always let through, so that items of 10 MiB go one by one.
WINDOW_BYTES = 1 << 20


class Progress(msgspec.Struct, frozen=True, array_like=True, tag=26):
    """How far the algorithm is, in its own words, for a call with `wants_items`."""

    id: int
    fraction: float  # 0 to 1; -1: it does not know
    text: str = ""


class Waiting(msgspec.Struct, frozen=True, array_like=True, tag=27):
    """Why a call with `wants_items` has not begun: sent when it queues, and when that changes."""

    id: int
    state: Literal["queued", "starting"]
    position: int  # calls before it
    estimate_s: float  # until it begins; 0: unknown


class Keep(msgspec.Struct, frozen=True, array_like=True, tag=28):
    """The versions (defined before) that are to have their `scaling.min_replicas`; all others need not."""

    versions: tuple[str, ...]


class Fork(msgspec.Struct, frozen=True, array_like=True, tag=29):
    """To a template: make a replica of yourself. Its socket and its output file come with this frame."""

    number: int


class Forked(msgspec.Struct, frozen=True, array_like=True, tag=30):
    """From a template, with the new process's pidfd; without one it could not: `error` says why."""

    number: int
    error: str = ""


class Ended(msgspec.Struct, frozen=True, array_like=True, tag=31):
    """From a template: a replica that it made has ended, with this status of waitpid(2)."""

    number: int
    status: int


class ReadLog(msgspec.Struct, frozen=True, array_like=True, tag=32):
    """Ask the runner host for a version's log: the last `tail` lines, then, with `follow`, what comes until Cancel."""

    id: int
    version: str
    tail: int = 100
    follow: bool = False


class Logged(msgspec.Struct, frozen=True, array_like=True, tag=33):
    """Payload: lines of a log, each a JSON object and a newline. The last one of a question says `is_end`."""

    id: int
    is_end: bool


class Booted(msgspec.Struct, frozen=True, array_like=True, tag=35):
    """First from a box: our part of it stands and waits for its Job.

    With it comes a listening TCP socket of the box's own loopback, which the host accepts connections from: what the
    author's code sends there goes to the gateway in the name of the call that runs.
    """


class Bound(msgspec.Struct, frozen=True, array_like=True, tag=34):
    """First on a connection from the runner host to the gateway: what follows is HTTP that a running call sends.

    It is this call's right to ask; when the call ends, the host ends the connection.
    """

    payer: str  # account whose call it is
    version: str  # VersionSpec.key of the algorithm that asks
    call_id: str
    root: str
    depth: int  # of the call itself
    deadline: float
    may_call: bool
    key: str = ""  # what its HTTP bears, which other processes of the same version cannot know; empty: anything
    sent_at: float = 0.0  # when its replica got it


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
    | Item
    | More
    | Progress
    | Waiting
    | Keep
    | Fork
    | Forked
    | Ended
    | ReadLog
    | Logged
    | Bound
    | Booted
)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Message).decode


def encode(message: Message) -> bytes:
    return _encode(message)


def decode(header: bytes) -> Message:
    """Raises msgspec.DecodeError (or its ValidationError) for anything that is no message of ours."""
    return _decode(header)
