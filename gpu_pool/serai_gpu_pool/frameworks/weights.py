"""Where the weights of a PyTorch model are, and how they come and go. `MappedWeights`: pages of the published file."""

import mmap
import os
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from serai_gpu_pool.frameworks.paging import PAGE_BYTES, FilePages


class Block(NamedTuple):
    """Some bytes of the published file that are weights."""

    offset: int
    num_bytes: int


class Weights(Protocol):
    """The blocks of one model as tensors of bytes, in device memory or not."""

    def page_in(self) -> list[torch.Tensor] | None:
        """All blocks in device memory; where they are now, None where they have not moved. Raises MemoryError."""
        ...

    def page_out(self) -> None:
        """No block in device memory. Raises OSError when it cannot be."""
        ...

    def resident_bytes(self) -> int: ...

    def kept_bytes(self) -> int:
        """Host memory that is held on to while paged out."""
        ...

    def cached_bytes(self) -> int:
        """What stays in the page cache while paged out."""
        ...

    def close(self) -> None: ...


def host_tensors(mapped: mmap.mmap, blocks: Sequence[Block]) -> list[torch.Tensor]:
    """Blocks of a mapped file as one-dimensional tensors of uint8. A write goes to a copy of the page, not the file."""
    content = np.frombuffer(mapped, np.uint8)
    return [torch.from_numpy(content[block.offset : block.offset + block.num_bytes]) for block in blocks]


def strided(
    place: torch.Tensor, dtype: torch.dtype, sizes: Sequence[int], strides: Sequence[int], start: int
) -> torch.Tensor:
    """Bytes as a tensor, beginning with the `start`-th element of them."""
    whole = place[: place.numel() // dtype.itemsize * dtype.itemsize].view(dtype)
    return torch.as_strided(whole, sizes, strides, int(whole.storage_offset()) + start)


class OwnPages(FilePages):
    """The pages of one mapping that this process made itself, and keeps for as long as this is used."""

    def __init__(self, mapped: mmap.mmap, wanted: Sequence[Block]) -> None:
        self._kept = np.frombuffer(mapped, np.uint8)
        start = self._kept.ctypes.data
        self._mapped = [(start, start + _whole_pages(len(mapped)))]
        self._wanted: list[tuple[int, int]] = []
        for block in sorted(wanted):
            low = start + block.offset - block.offset % PAGE_BYTES
            high = start + _whole_pages(block.offset + block.num_bytes)
            if self._wanted and low <= self._wanted[-1][1]:
                low = self._wanted.pop()[0]
            self._wanted.append((low, high))


class MappedWeights:
    """Weights on the CPU as pages of the file: to let go of them is one call, and they come back from the page cache.

    Pages that a model has written to are its own; they are as published again after they have been let go.
    """

    def __init__(self, mapped: mmap.mmap, path: str, blocks: Sequence[Block]) -> None:
        """`mapped`: the file at `path`, privately."""
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - the path may name something else when this ends
        self._pages = OwnPages(mapped, blocks)

    def page_in(self) -> None:
        self._pages.populate()

    def page_out(self) -> None:
        self._pages.drop()

    def resident_bytes(self) -> int:
        return self._pages.resident_bytes()

    def kept_bytes(self) -> int:
        return 0

    def cached_bytes(self) -> int:
        return self._pages.wanted_bytes

    def close(self) -> None:
        if not self._file.closed:
            self._pages.drop()  # unmapped with the last tensor that looks at it
            os.posix_fadvise(self._file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            self._file.close()


def _whole_pages(num_bytes: int) -> int:
    return -(-num_bytes // PAGE_BYTES) * PAGE_BYTES
