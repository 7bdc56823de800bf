"""Settings as people write them; what makes no sense is refused by name."""

from pathlib import Path

import pytest

from serai_gpu_pool.settings import Limits, SettingError, Settings, parse_bytes


@pytest.mark.parametrize(
    ("text", "value"), [("2GiB", 2 << 30), ("1048576", 1 << 20), ("1.5 MB", 1_500_000), ("512MiB", 512 << 20)]
)
def test_sizes_are_read_as_people_write_them(text, value):
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["1 potato", "", "-1", "GiB", "1e9", "1GiB2"])
def test_what_is_no_size_is_refused_by_name(text):
    with pytest.raises(SettingError, match="is not a size"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"cpu_budget_bytes": 1}, "--cpu-budget 1 is too small"),
        ({"policy": "by chance"}, "--eviction by chance is not one of"),
        ({"limits": Limits(placement="left")}, "--placement left"),
        ({"threads": 0}, "--threads 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_with_its_option(wrong, says):
    with pytest.raises(SettingError, match=says):
        Settings(**{"home": Path("/nowhere"), "cpu_budget_bytes": 1 << 30, **wrong})
