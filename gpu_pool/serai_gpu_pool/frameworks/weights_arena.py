"""Weights on a GPU: in one piece of device memory that is taken at the start and never given back.

Loading copies them from pinned host memory in chunks, on a stream of their own, so that batches run meanwhile. Letting
go of them gives their places back to the arena: nothing is copied, and the driver is not asked.
"""

from collections.abc import Sequence

import torch

from serai_gpu_pool.arena import Extents

#: Weights begin at multiples of this: what kernels for whole cache lines and tensor cores expect.
ALIGNMENT = 256
#: One copy to the device. Large enough for a bus's full speed, small enough that a batch's inputs wait a millisecond.
CHUNK_BYTES = 16 << 20


class Arena:
    """All the memory that weights may have on one device."""

    def __init__(self, device: torch.device, num_bytes: int) -> None:
        """Raises torch.OutOfMemoryError, or RuntimeError on the CPU."""
        self.device = device
        self.extents = Extents(num_bytes)
        self.memory = torch.empty(self.extents.size, dtype=torch.uint8, device=device)
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def copy(self, start: int, source: torch.Tensor) -> None:
        """Copy `source` (bytes, host) to `start`; complete when this returns."""
        target = self.memory[start : start + source.numel()]
        if self.stream is None:
            target.copy_(source)
            return
        with torch.cuda.stream(self.stream):
            for at in range(0, source.numel(), CHUNK_BYTES):
                target[at : at + CHUNK_BYTES].copy_(source[at : at + CHUNK_BYTES], non_blocking=True)
        self.stream.synchronize()

    def settle(self) -> None:
        """Wait until nothing runs that was started before: places may be given to others then."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class ArenaWeights:
    """The weights of one model, in host memory and, while paged in, in an arena."""

    def __init__(self, arena: Arena, blocks: Sequence[torch.Tensor]) -> None:
        """`blocks`: bytes in host memory; copied, for a GPU into pinned memory, from where the device fetches them."""
        self._arena = arena
        self._sizes = [block.numel() for block in blocks]
        self._starts = _starts(self._sizes)
        self.num_bytes = self._starts[-1]
        self._host = torch.empty(self.num_bytes, dtype=torch.uint8, pin_memory=arena.device.type == "cuda")
        for start, block in zip(self._starts, blocks, strict=False):
            self._host[start : start + block.numel()].copy_(block)
        self._place: int | None = None

    def page_in(self) -> list[torch.Tensor] | None:
        if self._place is not None:
            return None
        place = self._arena.extents.take(self.num_bytes)
        if place is None:
            raise MemoryError(f"no room for {self.num_bytes:,} bytes among the weights of other models")
        self._arena.copy(place, self._host)
        self._place = place
        views = zip(self._starts, self._sizes, strict=False)
        return [self._arena.memory[place + start : place + start + size] for start, size in views]

    def page_out(self) -> None:
        if self._place is not None:
            self._arena.settle()
            self._arena.extents.give_back(self._place, self.num_bytes)
            self._place = None

    def resident_bytes(self) -> int:
        return 0 if self._place is None else self.num_bytes

    def kept_bytes(self) -> int:
        return self.num_bytes

    def cached_bytes(self) -> int:
        return 0

    def close(self) -> None:
        self.page_out()
        self._host = torch.empty(0, dtype=torch.uint8)


def _starts(sizes: Sequence[int]) -> list[int]:
    """Where each block begins, and at the end how many bytes all take together."""
    starts = [0]
    for size in sizes:
        starts.append(-(-(starts[-1] + size) // ALIGNMENT) * ALIGNMENT)
    return starts
