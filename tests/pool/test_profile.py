"""What a profile says of batches that were not measured, and what is no profile."""

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai_gpu_pool.profile import (
    FILE_NAME,
    FormProfile,
    Profile,
    ProfileError,
    decode,
    encode,
    interpolated,
    merged,
    read,
)

_PLAIN = Profile("a" * 64, "r", 1, "plain", "plain", {"plain": FormProfile(0.1, 1000)})

points = st.dictionaries(st.integers(1, 64), st.floats(0, 1e3), min_size=1)
growing = points.map(lambda one: dict(zip(sorted(one), sorted(one.values()), strict=True)))


@given(points)
def test_measured_sizes_are_told_as_measured(measured):
    assert all(interpolated(measured, size) == value for size, value in measured.items())


@given(growing, st.integers(1, 1000))
def test_more_items_never_take_less_where_none_of_the_measured_did(measured, size):
    one, other = interpolated(measured, size), interpolated(measured, size + 1)
    assert one is not None
    assert other is not None
    assert one <= other + 1e-9


@given(points, st.integers(1, 1000))
def test_between_two_measured_sizes_a_guess_lies_between_their_values(measured, size):
    guess = interpolated(measured, size)
    assert guess is not None
    for low, high in itertools.pairwise(sorted(measured)):
        if low <= size <= high:
            values = sorted((measured[low], measured[high]))
            assert values[0] - 1e-9 <= guess <= values[1] + 1e-9


def test_beyond_the_last_size_it_goes_on_as_before_and_one_figure_grows_by_the_item():
    assert interpolated({1: 2.0, 2: 3.0, 4: 5.0}, 8) == 9.0
    assert interpolated({1: 2.0, 2: 1.0}, 8) == 1.0
    assert interpolated({1: 2.0}, 8) == 16.0
    assert interpolated({4: 2.0}, 1) == 2.0
    assert interpolated({}, 1) is None
    form = FormProfile(0.1, 10, batch_s={1: 2.0, 2: 3.0}, activation_bytes={1: 10, 3: 30})
    assert form.seconds(3) == 4.0
    assert form.activation(2) == 20
    assert FormProfile(0.1, 10).seconds(1) is None
    assert FormProfile(0.1, 10).activation(1) is None


def test_newer_figures_win_and_older_ones_fill_what_they_lack():
    old = FormProfile(1.0, 100, page_in_s=0.5, batch_s={1: 1.0, 2: 2.0})
    new = FormProfile(0.5, 120, batch_s={2: 3.0, 4: 6.0})
    only_old = FormProfile(9.0, 900)
    first = msgspec.structs.replace(_PLAIN, forms={"plain": old, "packed": only_old})
    second = msgspec.structs.replace(_PLAIN, forms={"plain": new})
    both = merged(first, second)
    assert both.forms["plain"] == FormProfile(0.5, 120, page_in_s=0.5, batch_s={1: 1.0, 2: 3.0, 4: 6.0})
    assert both.forms["packed"] == only_old
    assert merged(first, msgspec.structs.replace(second, runtime="another")).forms == {"plain": new}
    assert merged(first, msgspec.structs.replace(second, threads=2)).forms == {"plain": new}


def test_a_profile_survives_being_stored(tmp_path):
    form = FormProfile(0.1, 10, 1, 2, 0.001, {1: 0.5, 32: 1.0}, {1: 4})
    profile = msgspec.structs.replace(_PLAIN, forms={"plain": form})
    (tmp_path / FILE_NAME).write_bytes(encode(profile))
    assert read(tmp_path) == profile
    assert read(tmp_path / "nothing here") is None


@pytest.mark.parametrize(
    "change",
    [
        {"first": "mapped"},
        {"threads": -1},
        {"weights_bytes": 1 << 60},
        {"forms": {"plain": FormProfile(-0.1, 1)}},
        {"forms": {"plain": FormProfile(0.1, -1)}},
        {"forms": {"plain": FormProfile(0.1, 1, page_in_s=1e9)}},
        {"forms": {"plain": FormProfile(0.1, 1, batch_s={-1: 1.0})}},
        {"forms": {"plain": FormProfile(0.1, 1, activation_bytes={1 << 40: 1})}},
    ],
)
def test_what_cannot_be_is_no_profile(change):
    with pytest.raises(ProfileError):
        decode(msgspec.json.encode(msgspec.structs.replace(_PLAIN, **change)))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_profile_are_an_error_and_nothing_worse(data):
    with pytest.raises(ProfileError):
        decode(data)
