"""The pool's decisions on simulated devices, and the traces that drive them."""

import dataclasses
import io
import json
import re
import sys

import numpy as np
import pytest

from serai_gpu_pool.eviction import POLICIES
from serai_gpu_pool.settings import parse_bytes
from serai_gpu_pool.simulator.__main__ import main
from serai_gpu_pool.simulator.machine import Hardware
from serai_gpu_pool.simulator.reference import REFERENCES
from serai_gpu_pool.simulator.report import size
from serai_gpu_pool.simulator.run import Simulation, simulate
from serai_gpu_pool.simulator.traces import SimModel, Trace, TraceError, azure, read_csv, zipf

MB = 10**6


@pytest.fixture(scope="module")
def trace():
    return zipf(48, 60, 20, 1.0, seed=2)


def quarter(trace, **more):
    return Hardware(budget_bytes=trace.total_bytes // 4, **more)


@pytest.mark.parametrize("policy", [*POLICIES, *REFERENCES])
def test_every_call_has_one_end_and_is_answered_where_there_is_time(trace, policy):
    result = simulate(trace, quarter(trace), policy)
    assert result.calls == len(trace.calls)
    assert result.answered + sum(result.refused.values()) == result.calls
    if policy != "largest":
        assert not result.refused
    assert result.loads - result.evictions <= len(trace.models), "whatever was loaded went or is there"


def test_the_same_seed_gives_the_same_result_to_the_last_digit(trace):
    hardware = quarter(trace, noise=0.3)
    one, other = (simulate(trace, hardware, "reuse", seed=7) for _ in range(2))
    assert dataclasses.replace(one, wall_s=0) == dataclasses.replace(other, wall_s=0)
    assert simulate(trace, hardware, "reuse", seed=8).load_s != one.load_s


def test_with_room_for_all_each_model_is_loaded_once(trace):
    result = simulate(trace, Hardware(budget_bytes=3 * trace.total_bytes), "lru")
    assert result.loads == len(np.unique(trace.calls))
    assert result.evictions == 0


def test_knowing_more_means_loading_less(trace):
    load_s = {
        policy: simulate(trace, quarter(trace), policy).load_s for policy in ("offline", "known-rates", "reuse", "lru")
    }
    assert load_s["offline"] < load_s["known-rates"] < load_s["lru"]
    assert load_s["offline"] < load_s["reuse"] < load_s["lru"]


def test_a_host_tier_brings_models_back_for_a_copy(trace):
    without, beside = (simulate(trace, quarter(trace, host_bytes=host), "reuse") for host in (0, trace.total_bytes))
    assert without.page_ins == 0
    assert beside.page_ins > 0.5 * beside.loads
    assert beside.load_s < 0.5 * without.load_s


def test_several_devices_share_the_work_of_one():
    trace = zipf(60, 20, 200, 0.8, seed=3, work=2.0)
    one = simulate(trace, Hardware(1, trace.total_bytes), "reuse")
    four = simulate(trace, Hardware(4, trace.total_bytes // 4), "reuse")
    assert four.answered == four.calls
    assert four.p50_s <= one.p50_s


def test_a_load_that_no_device_can_keep_up_with_is_refused_and_not_forgotten():
    trace = zipf(12, 20, 100, 1.0, seed=3, work=30.0)
    result = simulate(trace, Hardware(budget_bytes=2 * trace.total_bytes), "reuse", timeout_s=2.0)
    assert sum(result.refused.values()) > 0
    assert result.answered + sum(result.refused.values()) == result.calls


def test_a_model_larger_than_the_budget_is_refused_and_the_others_are_served():
    models = [SimModel("huge", 500 * MB, 0.01, 0.001, 0.001), SimModel("small", 10 * MB, 0.01, 0.001, 0.001)]
    trace = Trace("two", models, np.arange(1.0, 21.0), np.arange(20) % 2)
    result = simulate(trace, Hardware(budget_bytes=100 * MB), "reuse")
    assert result.answered == 10
    assert sum(result.refused.values()) == 10


def timers():
    """Two timers among models that are always wanted; room for all of those but not for the timers as well."""
    models = [SimModel(f"m{number}", 40 * MB, 0.02, 0.001, 0.001) for number in range(8)]
    dice = np.random.default_rng(1)
    times = [(at, model) for model in (0, 1) for at in np.arange(20.0 + model, 900.0, 30.0)]
    times += [(at, int(dice.integers(2, 8))) for at in dice.uniform(0, 900, 3000)]
    times.sort()
    stamps, calls = np.array([at for at, _ in times]), np.array([model for _, model in times])
    return Trace("timers", models, stamps, calls, frozenset({0, 1}))


def test_prefetch_by_the_clock_hides_cold_calls_of_timers():
    trace, hardware = timers(), Hardware(budget_bytes=290 * MB)
    without = simulate(trace, hardware, "lru")
    ahead = simulate(trace, hardware, "lru", prefetch="clock")
    assert without.timer_cold > 0.8 * without.timer_calls
    assert ahead.timer_cold < 0.2 * without.timer_cold


def test_the_oracle_has_nearly_everything_there_in_time():
    trace = azure(40, 1800, seed=3)
    hardware = quarter(trace)
    on_demand, ahead = (simulate(trace, hardware, "offline", prefetch=one) for one in ("none", "oracle"))
    assert ahead.cold < 0.1 * on_demand.cold


def test_progress_is_told_and_goes_forward(trace):
    shares = []
    Simulation(zipf(20, 600, 60, seed=1), Hardware(budget_bytes=1 << 40), "lru", progress=shares.append).run()
    assert shares == sorted(shares)
    assert shares and 0 < shares[-1] <= 1


def test_a_policy_that_does_not_exist_is_named_with_those_that_do(trace):
    with pytest.raises(ValueError, match=r'"fifo"; there are .*gdsf.*offline'):
        Simulation(trace, quarter(trace), "fifo")


# ── traces ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_zipf_has_its_rate_its_order_and_its_popularity():
    trace = zipf(96, 1000, 30, 1.0, seed=1)
    assert 29_000 < len(trace.calls) < 31_000
    assert np.all(np.diff(trace.times) >= 0)
    counts = np.sort(np.bincount(trace.calls, minlength=96))[::-1]
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.25)
    sizes = [model.num_bytes for model in trace.models]
    costs = [model.open_s for model in trace.models]
    assert min(sizes) >= 5 * MB and max(sizes) <= 200 * MB
    assert abs(np.corrcoef(sizes, costs)[0, 1]) < 0.3, "cost is not proportional to size"


def test_drift_changes_who_is_popular():
    trace = zipf(50, 2000, 20, 1.2, seed=1, drift_every_s=5.0)
    half = len(trace.calls) // 2
    first, second = (np.bincount(part, minlength=50) for part in (trace.calls[:half], trace.calls[half:]))
    assert np.corrcoef(first, second)[0, 1] < 0.7


def test_azure_has_many_rare_models_a_heavy_head_and_timers():
    trace = azure(400, 4 * 3600, seed=1)
    per_minute = np.bincount(trace.calls, minlength=400) / 240
    assert 0.78 < np.mean(per_minute <= 1.0) < 0.92
    assert np.sort(per_minute)[-40:].sum() > 0.7 * per_minute.sum()
    clock = min(trace.timers, key=lambda model: abs(per_minute[model] - 0.5))
    gaps = np.diff(trace.times[trace.calls == clock])
    assert np.std(gaps) < 0.02 * np.mean(gaps)
    rest = [
        np.std(gaps) / np.mean(gaps)
        for model in set(range(400)) - trace.timers
        if len(gaps := np.diff(trace.times[trace.calls == model])) > 100
    ]
    assert np.median(rest) > 1.2
    squeezed = azure(400, 4 * 3600, seed=1, compress=24)
    assert squeezed.seconds == pytest.approx(trace.seconds / 24)
    assert np.array_equal(squeezed.calls, trace.calls)


def test_a_recorded_trace_is_read(tmp_path):
    path = tmp_path / "calls.csv"
    path.write_text("time,model,bytes,open_s\n100.5,a,1000000,0.25\n101,b,,\n103.5,a,1MB,0.25\n")
    trace = read_csv(path)
    assert trace.times.tolist() == [0.0, 0.5, 3.0]
    assert trace.calls.tolist() == [0, 1, 0]
    assert trace.models[0].num_bytes == MB and trace.models[0].open_s == 0.25
    assert trace.models[1].name == "b" and trace.models[1].num_bytes >= 5 * MB
    assert simulate(trace, Hardware(budget_bytes=1 << 30), "reuse").answered == 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("model,bytes\na,1\n", "no column time"),
        ("", "no column model and no time"),
        ("time,model\n", "no calls"),
        ("time,model\n1,a\nx,b\n", "line 3"),
        ("time,model\n1,a\n0.5,b\n", "line 3: time goes back from 1 to 0.5"),
        ("time,model\n1,\n", "line 2"),
        ("time,model\n-1,a\n", "line 2"),
        ("time,model\nnan,a\n", "line 2"),
        ("time,model\n1e999,a\n", "line 2"),
        ("time,model,bytes\n1,a,-5\n", "line 2"),
        ("time,model\n1\n", "line 2: column model is empty"),
        ("time,model,bytes\n1,a,1MB\n2,b,2MX\n", 'line 3: column bytes: "2MX" is not a size; write'),
        ("time,model,open_s\n1,a,soon\n", 'line 2: column open_s: "soon" is not a number of seconds'),
    ],
)
def test_a_recorded_trace_that_makes_no_sense_is_refused_with_its_line(tmp_path, text, complaint):
    path = tmp_path / "calls.csv"
    path.write_text(text)
    with pytest.raises(TraceError, match=complaint):
        read_csv(path)


def test_a_recorded_trace_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "calls.csv"
    path.write_bytes(b"time,model\n1,\xff\xfe\x00a\n")
    with pytest.raises(TraceError, match=r"calls\.csv"):
        read_csv(path)


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_prints_a_table_with_one_line_a_policy(capsys):
    arguments = "--models 20 --seconds 20 --policy gdsf,lru --devices 2 --host 50%"
    assert main(arguments.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "20 models" in lines[0] and "2 ×" in lines[0]
    assert [line.split("|")[1].strip() for line in lines[4:]] == ["gdsf", "lru"]


def test_the_command_prints_json(capsys):
    arguments = "--trace azure --models 20 --seconds 600 --policy reuse --prefetch none,clock --budget 300MB --json"
    assert main(arguments.split()) == 0
    said = json.loads(capsys.readouterr().out)
    assert [one["prefetch"] for one in said["results"]] == ["none", "clock"]
    assert said["hardware"]["budget_bytes"] == 300 * MB
    assert said["results"][0]["answered"] == said["trace"]["calls"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--policy fifo", '"fifo" is none of'),
        ("--budget lots", '"lots" is not a size'),
        ("--budget x%", "is not a share"),
        ("--models 0", "at least one model"),
        ("--rate 1e9", "change --rate"),
        ("--rate nan", "change --rate"),
        ("--seconds -5", "--seconds has to be more than 0"),
        ("--devices 0", "less than 1"),
        ("--trace bursty", "neither zipf nor azure, and there is no such file; a path to a CSV file"),
        ("--trace /", "cannot be read: Is a directory"),
        ("--budget 12", "--budget 12 is 12B for each device, and no model of this trace fits: the smallest takes 5MB"),
        ("--noise nan", '"nan" is not a number from 0 on'),
    ],
)
def test_the_command_says_what_cannot_be_in_one_line(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert complaint in line


def test_a_budget_in_which_no_model_fits_says_which_one_would_do(tmp_path, capsys):
    path = tmp_path / "calls.csv"
    path.write_text("time,model,bytes\n1,a,10MB\n2,b,20MB\n3,c,30MB\n")
    with pytest.raises(SystemExit):
        main(["--trace", str(path), "--budget", "10%"])
    way_out = re.search("write (--budget [0-9.]+MB) and all fit", capsys.readouterr().err)
    assert way_out is not None
    assert main(["--trace", str(path), *way_out[1].split()]) == 0
    assert "refused by" not in capsys.readouterr().out


def test_what_is_refused_is_told_with_its_reason(tmp_path, capsys):
    path = tmp_path / "calls.csv"
    path.write_text("time,model,bytes\n1,a,10MB\n2,b,20MB\n3,c,30MB\n4,c,30MB\n")
    assert main(["--trace", str(path), "--budget", "20MB"]) == 0
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last[0] == "refused by reuse, prefetch none: 2 too large"
    assert last[1] == "too large: 1 of 3 models for a device of 20MB; write --budget 30MB and they fit"


@pytest.mark.parametrize("num_bytes", [0, 12, 999, 1000, 999_999, 40_000_001, 10**9, 1_234_567_891, 10**16])
def test_a_size_that_is_told_can_be_given_and_is_no_smaller(num_bytes):
    assert num_bytes <= parse_bytes(size(num_bytes)) <= num_bytes * 1.1


class Listener(io.StringIO):
    """A stderr that is a terminal, or is not."""

    def __init__(self, is_terminal):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_drawn_on_terminals_only(is_terminal, monkeypatch, capsys):
    listener = Listener(is_terminal)
    monkeypatch.setattr(sys, "stderr", listener)
    monkeypatch.setattr("serai_gpu_pool.simulator.__main__._QUIET_S", 0.0)
    assert main(["--models", "20", "--seconds", "600", "--rate", "60", "--budget", "300%"]) == 0
    assert ("%" in listener.getvalue()) == is_terminal
    assert ("\r" in listener.getvalue()) == is_terminal
