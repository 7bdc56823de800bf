"""Counters of several workers add up, and every outcome has its place."""

import inspect
import os
from pathlib import Path

import pytest

from serai_gateway import errors
from serai_gateway.api.tally import BUCKETS_S, OUTCOMES, Tally, Totals


def test_what_is_counted_is_found_in_its_outcome_and_bucket(tmp_path: Path) -> None:
    tally = Tally(tmp_path)
    tally.count("ok", 0.0004)
    tally.count("ok", 0.002)
    tally.count("crashed", 1000.0)
    totals = Totals(tmp_path)
    assert totals.outcomes["ok"] == 2
    assert totals.outcomes["crashed"] == 1
    assert (totals.buckets[0], totals.buckets[2], totals.buckets[-1]) == (1, 1, 1)
    assert sum(totals.buckets) == 3
    assert len(totals.buckets) == len(BUCKETS_S) + 1
    assert totals.sum_s == pytest.approx(1000.0024)


def test_workers_add_up_and_the_dead_are_not_forgotten(tmp_path: Path) -> None:
    Tally(tmp_path).count("ok", 0.1)
    child = os.fork()
    if child == 0:
        Tally(tmp_path).count("ok", 0.1)
        os._exit(0)
    os.waitpid(child, 0)
    assert Totals(tmp_path).outcomes["ok"] == 2


def test_a_file_that_is_not_whole_yet_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "calls-1").write_bytes(b"")
    assert sum(Totals(tmp_path).outcomes.values()) == 0


def test_every_platform_error_has_a_place() -> None:
    classes = [
        kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.PlatformError)
    ]
    assert len(classes) > 10
    assert {kind.code for kind in classes} <= set(OUTCOMES)
