"""What a worker says about itself, within bounds. Pure.

A worker that runs an owner's programs may say anything. Too much would drive others out of memory, too little would be
memory for nothing, and a time that is no number would mix up whose turn it is.
"""

from serai_gpu_pool.scheduling.copies import Residence, WorkerId
from serai_gpu_pool.scheduling.model import Model

#: What an open model takes whatever its weights: measured 27 to 70 KiB for the smallest, on nobody's account otherwise.
_LEAST_BYTES = 128 << 10
#: Host memory of a paged-out model relative to its file or its device memory: raw and packed weights, with room to
#: spare.
_MOST_KEPT = 4


def residence(said: Residence, model: Model) -> Residence:
    num_bytes = max(said.num_bytes, _LEAST_BYTES)
    return said._replace(num_bytes=num_bytes, kept_bytes=kept(said.kept_bytes, num_bytes, model))


def kept(said_bytes: int, held_bytes: int, model: Model) -> int:
    """Host memory of a model that is paged out. held_bytes: what it had of the device."""
    return min(max(said_bytes, 0), _MOST_KEPT * max(held_bytes, model.spec.num_bytes))


def base(said_bytes: int, most_bytes: int) -> int:
    """What a runtime takes of the device before anything is loaded."""
    return min(max(said_bytes, 0), most_bytes)


def seconds(said_s: float, id: WorkerId, elapsed_s: float, most_s: float) -> float:
    """How long something took. What an owner's worker did is timed from here: what it says decides what its calls cost
    and how long its models may stay."""
    elapsed_s = max(elapsed_s, 0.0)
    if id.owner or not 0 <= said_s <= most_s:
        return elapsed_s
    return said_s
