"""Pages of a mapped file: which are in memory, bringing them in, letting them go."""

import ctypes
import itertools
import mmap
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai_gpu_pool.frameworks import paging
from serai_gpu_pool.frameworks.paging import PAGE_BYTES, FilePages, private_bytes, spans_of

_PAGES = 256
#: The kernel maps what lies around a page and is in the page cache anyway: a folio, which is 2 MiB at most.
_AROUND = 4 << 20


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(_PAGES * PAGE_BYTES))
    return str(path)


def mapped(path, pages=_PAGES, offset=0):
    """Private and writable, as runtimes do it."""
    with open(path, "rb") as file:
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        return mmap.mmap(file.fileno(), pages * PAGE_BYTES, mmap.MAP_PRIVATE, protection, offset=offset * PAGE_BYTES)


def test_all_pages_come_in_and_go_out_and_hold_what_is_in_the_file(path):
    with mapped(path) as memory:
        pages = FilePages(path)
        assert pages.mapped_bytes == pages.wanted_bytes == _PAGES * PAGE_BYTES
        pages.populate()
        assert pages.resident_bytes() == _PAGES * PAGE_BYTES
        pages.drop()
        assert pages.resident_bytes() == 0
        with open(path, "rb") as file:
            assert memory[:] == file.read()
        assert pages.resident_bytes() == _PAGES * PAGE_BYTES


def test_only_the_wanted_ranges_come_in_rounded_to_whole_pages(path):
    ranges = [(10, 20), (3 * PAGE_BYTES, 4 * PAGE_BYTES), (130 * PAGE_BYTES - 1, 130 * PAGE_BYTES + 1)]
    with mapped(path):
        pages = FilePages(path, wanted=ranges)
        pages.drop()
        pages.populate()
        assert pages.wanted_bytes == 4 * PAGE_BYTES
        assert 4 * PAGE_BYTES <= pages.resident_bytes() <= pages.mapped_bytes
        pages.drop()
        assert pages.resident_bytes() == 0


def test_mappings_of_parts_of_the_file_are_found_where_they_are(path):
    with mapped(path, 4, offset=8), mapped(path, 2, offset=32):
        found = [(offset // PAGE_BYTES, (end - start) // PAGE_BYTES) for start, end, offset in spans_of(path)]
        assert sorted(found) == [(8, 4), (32, 2)]
        pages = FilePages(path, wanted=[(0, 9 * PAGE_BYTES), (33 * PAGE_BYTES, 60 * PAGE_BYTES)])
        assert pages.mapped_bytes == 6 * PAGE_BYTES
        assert pages.wanted_bytes == 2 * PAGE_BYTES


def test_two_users_of_one_file_do_not_take_pages_from_each_other(path):
    with mapped(path):
        first = FilePages(path)
        first.populate()
        with mapped(path):
            second = FilePages(path, besides=[first])
            assert second.mapped_bytes == _PAGES * PAGE_BYTES
            second.populate()
            second.drop()
            assert second.resident_bytes() == 0
            assert first.resident_bytes() == _PAGES * PAGE_BYTES


def test_a_file_is_known_by_its_descriptor_too_even_when_its_name_has_gone(path):
    with open(path, "rb") as file, mapped(path):
        os.unlink(path)
        pages = FilePages(file.fileno())
        pages.populate()
        assert pages.resident_bytes() == _PAGES * PAGE_BYTES


def test_a_file_that_is_not_mapped_has_no_pages(path):
    pages = FilePages(path)
    pages.populate()
    pages.drop()
    assert pages.mapped_bytes == pages.resident_bytes() == 0


def test_names_of_other_files_with_this_ones_number_in_them_are_not_taken_for_it(path, tmp_path):
    other = tmp_path / f"a {os.stat(path).st_ino} b"
    other.write_bytes(bytes(PAGE_BYTES))
    with mapped(other, 1), mapped(path, 2):
        assert [(end - start) // PAGE_BYTES for start, end, _ in spans_of(path)] == [2]


def test_what_was_written_into_private_pages_is_dropped_with_them(path):
    with mapped(path) as memory:
        pages = FilePages(path)
        before = private_bytes()
        memory[:] = bytes(len(memory))
        assert private_bytes() - before >= len(memory)
        pages.drop()
        assert pages.resident_bytes() == 0
        with open(path, "rb") as file:
            assert memory[:] == file.read()


def test_a_file_of_gigabytes_is_counted_in_more_than_one_go(tmp_path):
    path = tmp_path / "sparse"
    size = 5 << 30  # beyond the four that one reading of pagemap describes
    with open(path, "wb") as file:
        file.truncate(size)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ):
        pages = FilePages(str(path), wanted=[(0, PAGE_BYTES), (size - 3 * PAGE_BYTES, size)])
        pages.populate()
        assert pages.wanted_bytes == 4 * PAGE_BYTES
        assert 4 * PAGE_BYTES <= pages.resident_bytes() <= 4 * PAGE_BYTES + 2 * _AROUND


def test_a_file_that_has_become_shorter_is_an_error_and_not_a_crash(path):
    with mapped(path):
        pages = FilePages(path)
        pages.drop()
        os.truncate(path, PAGE_BYTES)
        with pytest.raises(OSError, match="madvise"):
            pages.populate()


def test_older_kernels_bring_pages_in_by_touching_them(path):
    with mapped(path) as memory:
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        pages = FilePages(path)
        pages.drop()
        paging._touch(address, address + 16 * PAGE_BYTES)
        assert pages.resident_bytes() >= 16 * PAGE_BYTES  # the kernel may bring in neighbours
        with open(path, "rb") as file:
            assert np.frombuffer(memory, np.uint8).tobytes() == file.read()


ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda one: (one[0], one[0] + one[1])))
spans = st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 60)), max_size=5)


def covered(given):
    return {at for start, end in given for at in range(start, end)}


@given(ranges)
def test_joined_ranges_cover_the_same_and_do_not_touch(given_ranges):
    merged = paging._merged([one for one in given_ranges if one[0] < one[1]])
    assert covered(merged) == covered(given_ranges)
    assert all(one[1] < other[0] for one, other in itertools.pairwise(merged))


def _laid_out(parts):
    """Mappings one after the other in memory, with gaps, of parts of a file."""
    at, laid = 100, []
    for gap, length, offset in parts:
        at += gap
        laid.append((at * PAGE_BYTES, (at + length) * PAGE_BYTES, offset * PAGE_BYTES))
        at += length
    return laid


@given(spans, ranges)
def test_what_others_have_is_left_out_page_by_page(parts, others):
    laid = _laid_out(parts)
    taken = paging._merged(
        [((100 + low) * PAGE_BYTES, (100 + high) * PAGE_BYTES) for low, high in others if low < high]
    )
    left = paging._without(laid, taken)
    want = {(at, offset + at - start) for start, end, offset in laid for at in range(start, end, PAGE_BYTES)}
    want = {(at, where) for at, where in want if not any(low <= at < high for low, high in taken)}
    have = {(at, offset + at - start) for start, end, offset in left for at in range(start, end, PAGE_BYTES)}
    assert have == want


@given(spans, st.lists(st.tuples(st.integers(0, 70 * PAGE_BYTES), st.integers(0, 5 * PAGE_BYTES)), max_size=8))
def test_ranges_of_the_file_are_found_in_memory_page_by_page(parts, pieces):
    laid = _laid_out(parts)
    wanted = [(low, low + length) for low, length in pieces]
    have = {at for start, end in paging._addresses(laid, wanted) for at in range(start, end, PAGE_BYTES)}
    want = {
        at
        for start, end, offset in laid
        for at in range(start, end, PAGE_BYTES)
        if any(
            low < offset + at - start + PAGE_BYTES and high > offset + at - start for low, high in wanted if low < high
        )
    }
    assert have == want
