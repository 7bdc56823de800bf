"""Between the pool's owner and a device's worker, over socket pairs: one for loads, one for each lane of batches.

Requests of one socket are answered in their order, except that loads and improvements go on beside the rest; so a long
run holds up neither a load nor the other lanes. Headers are msgpack arrays as in `serai.ipc`; payloads follow as raw
bytes.

    loads     Load ──▶ Loaded or LoadFailed     PageIn ──▶ the same     Improve ──▶ Improved
              PageOut, Close ──▶ Left           (first of all, unasked: WorkerReady)
    lane      Run ──▶ Done
"""

from typing import Literal

import msgspec

from serai.ipc.messages import ModelSpec, Wanted, Written
from serai_gpu_pool.core import Form, Outcome

#: Longest frame between owner and worker: a whole batch of the largest inputs, which the other end made itself.
MAX_LINK_BYTES = 1 << 30


class WorkerReady(msgspec.Struct, frozen=True, array_like=True, tag=1):
    base_bytes: int  # of the device, before anything is loaded
    process_bytes: int  # of the process, in RAM
    runtime: str  # for the log


class Load(msgspec.Struct, frozen=True, array_like=True, tag=2):
    model: ModelSpec
    path: str  # of the file, as the worker sees it


class Loaded(msgspec.Struct, frozen=True, array_like=True, tag=3):
    model: str
    num_bytes: int  # of device memory
    kept_bytes: int  # of host memory, once it is paged out
    can_page: bool
    can_improve: bool
    load_s: float
    process_bytes: int


class LoadFailed(msgspec.Struct, frozen=True, array_like=True, tag=4):
    model: str
    kind: Literal["broken", "damaged", "memory"]
    message: str


class PageIn(msgspec.Struct, frozen=True, array_like=True, tag=5):
    model: str


class PageOut(msgspec.Struct, frozen=True, array_like=True, tag=6):
    model: str


class Close(msgspec.Struct, frozen=True, array_like=True, tag=7):
    model: str


class Left(msgspec.Struct, frozen=True, array_like=True, tag=8):
    model: str
    kept_bytes: int
    process_bytes: int


class Improve(msgspec.Struct, frozen=True, array_like=True, tag=9):
    model: str


class Improved(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """num_bytes 0: there is no faster form."""

    model: str
    num_bytes: int
    kept_bytes: int
    can_page: bool
    process_bytes: int


class Item(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One ticket of a batch; its input's bytes lie in shared memory at `offset`, or in the payload, in order."""

    num_bytes: int
    form: Form
    offset: int = -1
    tensors: tuple[Written, ...] = ()
    outputs: tuple[Wanted, ...] = ()
    as_json: bool = False


class Run(msgspec.Struct, frozen=True, array_like=True, tag=11):
    batch: int
    model: str
    items: list[Item]
    wants_measure: bool = False


class Done(msgspec.Struct, frozen=True, array_like=True, tag=12):
    """Payload: the results' bytes, in the order of the items."""

    batch: int
    outcomes: list[Outcome]
    duration_s: float
    peak_bytes: int = 0  # beside the weights, when it was asked for


Request = Load | PageIn | PageOut | Close | Improve | Run
Answer = WorkerReady | Loaded | LoadFailed | Left | Improved | Done

encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_answer = msgspec.msgpack.Decoder(Answer).decode
