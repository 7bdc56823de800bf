"""Between the pool's owner and a device's worker, over two socket pairs: one for loads, one for batches.

Each is a sequence of requests and answers in the same order, so a long run does not hold up a load. Headers are
msgpack arrays as in `serai.ipc`; payloads follow as raw bytes.

    loads     Load ──▶ Loaded or LoadFailed     Drop ──▶ Dropped     (first of all, unasked: WorkerReady)
    batches   Run ──▶ Done
"""

from typing import Literal

import msgspec

from serai.ipc.messages import ModelSpec, Tensor
from serai_gpu_pool.core import Form, Outcome

#: Longest frame between owner and worker: a whole batch of the largest inputs, which the other end made itself.
MAX_LINK_BYTES = 1 << 30


class WorkerReady(msgspec.Struct, frozen=True, array_like=True, tag=1):
    base_bytes: int  # resident set before anything is loaded
    runtime: str  # for the log


class Load(msgspec.Struct, frozen=True, array_like=True, tag=2):
    model: ModelSpec


class Loaded(msgspec.Struct, frozen=True, array_like=True, tag=3):
    model: str
    resident_bytes: int
    load_s: float
    worker_bytes: int  # resident set of the whole worker, to hold the ledger against


class LoadFailed(msgspec.Struct, frozen=True, array_like=True, tag=4):
    model: str
    kind: Literal["broken", "damaged", "memory"]
    message: str


class Drop(msgspec.Struct, frozen=True, array_like=True, tag=5):
    model: str


class Dropped(msgspec.Struct, frozen=True, array_like=True, tag=6):
    model: str
    worker_bytes: int


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One ticket of a batch; its input's bytes lie in shared memory at `offset`, or in the payload, in order."""

    num_bytes: int
    form: Form
    offset: int = -1
    tensors: tuple[Tensor, ...] = ()
    outputs: tuple[str, ...] = ()


class Run(msgspec.Struct, frozen=True, array_like=True, tag=7):
    batch: int
    model: str
    items: list[Item]


class Done(msgspec.Struct, frozen=True, array_like=True, tag=8):
    """Payload: the results' bytes, in the order of the items."""

    batch: int
    outcomes: list[Outcome]
    duration_s: float


Request = Load | Drop | Run
Answer = WorkerReady | Loaded | LoadFailed | Dropped | Done

encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
