"""Shared memory for inputs: never given twice, all of it comes back, and a worker can only read inside of it."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai_gpu_pool.arena import Arena, Extents, ReadOnlyArena


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40_000))))
def test_shared_memory_is_never_given_twice_and_all_comes_back(steps):
    extents = Extents(64 * 4096)
    held: list[tuple[int, int]] = []
    for wants, size in steps:
        if wants:
            start = extents.take(size)
            if start is not None:
                assert start + size <= extents.size
                assert all(start >= other + length or start + size <= other for other, length in held)
                held.append((start, size))
        elif held:
            extents.give_back(*held.pop(size % len(held)))
    for one in held:
        extents.give_back(*one)
    assert extents.free_bytes == extents.size
    assert extents.take(extents.size) == 0, "the free parts are joined again"


def test_a_slab_is_free_again_when_nobody_holds_it_and_the_worker_stays_inside():
    arena = Arena(3 * 4096)
    slab = arena.take(5000)
    assert slab is not None and arena.take(5000) is None
    slab.view()[:4] = b"data"
    reader = ReadOnlyArena(os.dup(arena.read_only_fd))
    assert bytes(reader.read(slab.offset, 4)) == b"data"
    for offset, size in ((0, 4 * 4096), (-1, 2), (3 * 4096, 1), (1 << 62, 1 << 62)):
        with pytest.raises(ValueError, match="outside"):
            reader.read(offset, size)
    del slab
    assert arena.extents.free_bytes == arena.size


def test_what_workers_get_cannot_be_written_and_has_a_fixed_size():
    arena = Arena(4096)
    with pytest.raises(OSError):
        os.write(arena.read_only_fd, b"x")
    for size in (0, 1 << 20):
        with pytest.raises(OSError):
            os.ftruncate(arena.fd, size)


def test_what_is_received_elsewhere_is_bounded_too():
    arena = Arena(4096)
    assert arena.take_heap(2 * arena.size) and not arena.take_heap(1)
    arena.give_heap(2 * arena.size)
    assert arena.take_heap(1)
