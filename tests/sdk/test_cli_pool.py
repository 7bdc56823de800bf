"""`serai pool`: what it shows of a pool, on terminals of any width, and what it asks the server to do."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import serai
from serai.cli import main
from serai.cli._pool_picture import MAX_OTHERS, draw, duration, size
from serai.testing import Answer, Received, error_answer, json_answer, run_server

Output = pytest.CaptureFixture[str]
MIB = 1 << 20


def model(name: str, mib: float = 0, state: str = "", **changes: Any) -> dict[str, Any]:
    stats = {"succeeded": 90, "failed": 10, "refused": 0, "last_used_s_ago": 2.0, "hits": 96}
    stats["batches"] = [{"size": 1, "count": 10, "total_s": 1.0}, {"size": 4, "count": 10, "total_s": 1.0}]
    return {
        "key": name, "name": name, "owner": "vision", "algorithm": f"vision/{name}", "state": state or ("resident" if
        mib else "disk"), "device": "cpu" if mib else "", "num_bytes": int(mib * MIB), "queued": 3, "pinned": False,
        "verdict": "", "loads": 4, "stats": stats, **changes,
    }  # fmt: skip


def pool(*models: dict[str, Any], reserved: int = 0, **changes: Any) -> dict[str, Any]:
    resident = sum(one["num_bytes"] for one in models)
    device = {"id": "cpu", "name": "CPU", "budget_bytes": 400 * MIB, "reserved_bytes": reserved * MIB, "running": 1}
    device |= {"resident_bytes": resident, "free_bytes": (400 - reserved) * MIB - resident}
    device["workers"] = [
        {"name": "onnx", "state": "up", "memory_bytes": 90 * MIB},
        {"name": "torch/alice", "state": "starting", "memory_bytes": 0},
    ]
    evicted = {
        "name": "old",
        "algorithm": "bob/old",
        "device": "cpu",
        "reason": "room for cutout",
        "s_ago": 3.0,
        "age_s": 60.0,
    }
    return {
        "devices": [device], "host": {"budget_bytes": 1024 * MIB, "used_bytes": 50 * MIB}, "models": list(models),
        "evictions": [evicted], "policy": "gdsf", "queued_calls": 7, "queued_bytes": 2048, **changes,
    }  # fmt: skip


def with_runtimes(mib: int, pool: dict[str, Any], budget: int = 400) -> dict[str, Any]:
    """The same pool with so much taken by workers, and another budget."""
    device = pool["devices"][0]
    device["resident_bytes"] += mib * MIB
    device["budget_bytes"] = budget * MIB
    device["free_bytes"] = budget * MIB - device["resident_bytes"] - device["reserved_bytes"]
    return pool


FULL = pool(model("classify", 100), model("cutout", 200), reserved=50)


STEERED = {"model": "vision/classify", "version": "1.0.0", "done": "pin"}


class PoolServer:
    """Answers as the gateway does at /v1/pool."""

    def __init__(self) -> None:
        self.pool: Any = FULL
        self.received: list[Received] = []

    def __call__(self, request: Received) -> Answer:
        self.received.append(request)
        if request.path == "/v1/pool":
            return json_answer(self.pool)
        if request.path.startswith("/v1/pool/models/vision/"):
            return json_answer(STEERED)
        return error_answer(404, "not_found", "model nobody/nothing not found")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PoolServer]:
    serving = PoolServer()
    with run_server(serving) as address:
        monkeypatch.setenv("SERAI_ADDRESS", address)
        monkeypatch.setenv("SERAI_API_KEY", "simkey")
        yield serving


def bar_of(picture: str) -> str:
    return next(line for line in picture.splitlines() if line.startswith("["))


@pytest.mark.parametrize("width", [10, 42, 82, None])
def test_a_bar_is_to_scale_and_exactly_full(width: int | None) -> None:
    bar = bar_of(draw(FULL, width))
    assert len(bar) == (102 if width is None else width)
    cells = len(bar) - 2
    for mark, share in (("a", 0.5), ("b", 0.25), ("/", 0.125), (".", 0.125)):
        assert abs(bar.count(mark) - share * cells) <= 1, mark
    assert bar == "[" + "".join(sorted(bar[1:-1], key="ab+#/.".index)) + "]"


def test_what_workers_take_without_models_has_a_sign_of_its_own() -> None:
    """As large PyTorch workers beside small models were: six cells of a hundred, not one."""
    models = [model(f"m{number}", 0.4) for number in range(7)]
    picture = draw(with_runtimes(343, pool(*models), budget=5940), None)
    assert bar_of(picture) == "[+" + "#" * 6 + "." * 93 + "]"
    legend = "+ 7 small models 2.8 MiB   # runtimes of workers 343 MiB   . free 5.5 GiB"
    assert picture.splitlines()[2:4] == [legend, "346 MiB resident of 5.8 GiB; 1 batch running"]


@pytest.mark.parametrize("width", [8, 12, 42, 82, None])
@pytest.mark.parametrize("runtimes", [0, 1, 50, 300])
def test_whatever_is_there_is_seen_and_letters_of_the_table_are_those_of_the_bar(
    width: int | None, runtimes: int
) -> None:
    models = [model(f"m{number}", mib) for number, mib in enumerate((1, 30, 0.01, 3.9, 4, 11, 4.1))]
    picture = draw(with_runtimes(runtimes, pool(*models, reserved=2), budget=400), width)
    bar = bar_of(picture)
    assert len(bar) == (102 if width is None else width)
    marks = [line[0] for line in picture.splitlines() if line[1:3] == " v" and line[0] != " "]
    assert len(marks) == 7
    assert set(marks) == set(bar) - set("[#/.]")
    assert ("#" in bar) == bool(runtimes)
    assert {"/", "."} <= set(bar)


def test_more_than_the_budget_is_a_full_bar() -> None:
    full = with_runtimes(100, pool(model("big", 350)), budget=400)
    assert full["devices"][0]["free_bytes"] < 0
    assert re.fullmatch(r"\[a{31}#{9}\]", bar_of(draw(full, 42)))


def test_a_legend_says_what_of_a_bar_is_how_much() -> None:
    lines = draw(FULL, None).splitlines()
    assert lines[2] == "a-b 2 models 300 MiB   / reserved for loads and runs 50 MiB   . free 50 MiB"
    assert draw(FULL, 40).splitlines()[2:4] == ["a-b 2 models 300 MiB", "/ reserved for loads and runs 50 MiB"]
    two = with_runtimes(10, pool(model("big", 100)))
    two["devices"].append({**two["devices"][0], "id": "cuda:0"})
    assert "# runtimes of workers, second copies 110 MiB" in draw(two, None)


def test_models_too_small_for_a_cell_are_shown_together() -> None:
    many = [model(f"m{number}", 0.5) for number in range(100)]
    bar = bar_of(draw(pool(model("big", 100), *many), 42))
    assert bar == "[" + "a" * 10 + "+" * 5 + "." * 25 + "]"


def test_a_small_model_alone_is_seen() -> None:
    assert bar_of(draw(pool(model("tiny", 0.001)), 42)) == "[+" + "." * 39 + "]"


def test_more_models_than_letters_are_no_error() -> None:
    picture = draw(pool(*(model(f"m{number}", 4) for number in range(90))), 102)
    assert "+" in bar_of(picture)
    assert sum(line.startswith("+ vision/m") for line in picture.splitlines()) == 90 - 52


def test_the_table_says_of_each_model_how_it_fares() -> None:
    models = (model("classify", 100, pinned=True), model("gone", pinned=True), model("up", 8, "loading"))
    picture = draw(pool(*models), None)
    rows = {line[2:].split()[0]: line.split() for line in picture.splitlines() if line[2:].startswith("vision/")}
    assert rows["vision/classify"] == ["a", "vision/classify", "pinned", "100", "MiB", "3", "4", "96%", "2.5", "2", "s"]
    assert rows["vision/up"][:3] == ["b", "vision/up", "loading"]
    assert rows["vision/gone"] == ["vision/gone", "disk,", "pinned", "-", "3", "4", "96%", "2.5", "2", "s"]


def test_a_model_that_nobody_has_called_has_no_rates() -> None:
    new = model("new")
    new["stats"] = {"succeeded": 0, "failed": 0, "refused": 0, "last_used_s_ago": None, "batches": [], "hits": 0}
    line = next(line for line in draw(pool(new), None).splitlines() if "vision/new" in line)
    assert line.split()[-3:] == ["-", "-", "never"]


def test_what_is_held_against_a_model_stands_under_it() -> None:
    lines = draw(pool(model("broken", verdict="crashed its worker\n3 times")), None).splitlines()
    at = next(number for number, line in enumerate(lines) if "vision/broken" in line)
    assert lines[at + 1] == "    not run: crashed its worker 3 times"


def test_of_models_out_of_memory_only_the_latest_used_are_shown() -> None:
    stats = model("x")["stats"]
    many = [model(f"m{n:03}", stats={**stats, "last_used_s_ago": float(n)}) for n in range(100, 0, -1)]
    picture = draw(pool(*many), None)
    shown = [line.split()[0] for line in picture.splitlines() if line.startswith("  vision/")]
    assert shown == [f"vision/m{n:03}" for n in range(1, MAX_OTHERS + 1)]
    assert f"and {100 - MAX_OTHERS} more" in picture
    assert sum("vision/m" in line for line in draw(pool(*many), None, show_all=True).splitlines()) == 100


@pytest.mark.parametrize("width", range(8, 130, 7))
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    full = pool(model("a-very-long-name-" * 4, 100, verdict="why " * 50), model("cutout", 60), reserved=10)
    full["evictions"][0]["reason"] = "because " * 30
    assert max(map(len, draw(full, width).splitlines())) <= width


def test_what_has_no_figure_is_explained_where_there_is_such() -> None:
    explained = "  - in no device's memory, or not called yet"
    assert explained in draw(pool(model("big", 100), model("gone")), None).splitlines()
    assert explained not in draw(pool(model("big", 100)), None).splitlines()


def test_one_of_something_is_not_several() -> None:
    picture = draw(pool(model("big", 100), model("tiny", 0.1), queued_calls=1), None)
    assert "a 1 model 100 MiB   + 1 small model 102 KiB" in picture
    assert "; 1 call waits (2.0 KiB)" in picture


def test_a_narrow_terminal_keeps_what_matters_most() -> None:
    line = next(line for line in draw(FULL, 40).splitlines() if "MODEL" in line)
    assert line.split() == ["MODEL", "STATE", "MEMORY"]
    line = next(line for line in draw(FULL, 80).splitlines() if "MODEL" in line)
    assert line.split() == ["MODEL", "STATE", "MEMORY", "QUEUE", "LOADS", "HITS", "BATCH", "USED"]


def test_evictions_and_tiers_are_told() -> None:
    picture = draw(FULL, None)
    assert "   3 s ago  bob/old left cpu after 60 s: room for cutout" in picture
    assert "latest evictions, by gdsf:" in picture
    assert "host tier: 50 MiB of 1.0 GiB; 7 calls wait (2.0 KiB)" in picture
    assert "300 MiB resident of 400 MiB; 1 batch running" in picture
    assert "worker processes: onnx 90 MiB, torch/alice starting" in picture


def test_an_empty_pool_says_how_models_get_there() -> None:
    picture = draw(pool(evictions=[]), 80)
    assert "the first call of one brings it here" in picture
    assert set(bar_of(picture)) == set("[.]")
    draw(pool(devices=[]), 80)


def test_colours_change_nothing_but_the_colours() -> None:
    coloured = draw(FULL, 60, colour=True)
    assert "\x1b[30;42ma" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == draw(FULL, 60)


def test_what_strangers_named_cannot_steer_the_terminal() -> None:
    evil = model("x\x1b[2J\r\nb", 10, verdict="\x1b]0;owned\x07")
    assert "\x1b" not in draw(pool(evil), 80)
    assert "\r" not in draw(pool(evil), 80)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (10 * MIB, "10 MiB"), (1.2 * 1024 * MIB, "1.2 GiB")],
)
def test_sizes_have_a_unit_that_fits(num_bytes: float, text: str) -> None:
    assert size(num_bytes) == text


def test_durations_have_a_unit_that_fits() -> None:
    assert [duration(s) for s in (0, 99, 100, 5000, 7200, 400_000)] == ["0 s", "99 s", "2 min", "83 min", "2 h", "5 d"]


def test_the_command_shows_the_picture(server: PoolServer, capfd: Output) -> None:
    assert main(["pool"]) == 0
    assert capfd.readouterr().out == draw(FULL, None) + "\n"
    assert server.received[-1].headers["authorization"] == "Simple simkey"


def test_json_is_what_the_server_said(server: PoolServer, capfd: Output) -> None:
    assert main(["pool", "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == FULL


@pytest.mark.parametrize("said", [{}, {**FULL, "devices": [{"id": "cpu"}]}, {**FULL, "host": 1}, {**FULL, "models": 5}])
def test_a_server_that_says_something_else_is_a_bad_answer(server: PoolServer, said: Any, capfd: Output) -> None:
    server.pool = said
    assert main(["pool"]) == 1
    assert "describes its pool in another way" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "path", "query"),
    [
        (["pin", "vision/classify"], "/v1/pool/models/vision/classify/pin", {}),
        (["load", "vision/x/m.v2", "--version", "1.0"], "/v1/pool/models/vision/x/m.v2/load", {"version": "1.0"}),
    ],
)
def test_models_are_steered_by_name(
    server: PoolServer, arguments: list[str], path: str, query: dict[str, str], capfd: Output
) -> None:
    assert main(["pool", *arguments]) == 0
    asked = server.received[-1]
    assert (asked.method, asked.path, asked.query) == ("POST", path, query)
    assert arguments[1] in capfd.readouterr().err
    assert main(["pool", *arguments, "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == STEERED


def test_what_the_server_refuses_is_said(server: PoolServer, capfd: Output) -> None:
    assert main(["pool", "unload", "nobody/nothing"]) == 1
    assert "model nobody/nothing not found" in capfd.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["pin"],
        ["pin", "vision"],
        ["pin", "vision/../pool"],
        ["pin", "a/b/c/d"],
        ["explode", "vision/x"],
        ["--version", "1.0"],
        ["--watch", "0"],
        ["pin", "vision/x", "--watch", "1"],
        ["pin", "vision/x", "--all"],
    ],
)
def test_wrong_usage_asks_nobody(server: PoolServer, arguments: list[str], capfd: Output) -> None:
    assert main(["pool", *arguments]) == 2
    assert server.received == []
    assert "serai pool" in capfd.readouterr().err


def test_watch_looks_again_until_it_is_interrupted(server: PoolServer) -> None:
    command = [sys.executable, "-m", "serai", "pool", "--watch", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            seen = 0
            while seen < 3:  # ends with the test's own patience: each look is a line that says cpu
                line = process.stdout.readline()
                assert line, process.stderr and process.stderr.read()
                seen += line.startswith(b"cpu")
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 130
        finally:
            process.kill()
    assert len(server.received) >= 3


def test_the_clients_can_do_it_too(server: PoolServer) -> None:
    with serai.client() as client:
        assert client.pool() == FULL
        client.steer("pin", "vision/classify", "1.0.0")
        with pytest.raises(serai.NotFound):
            client.steer("pin", "nobody/nothing")
        with pytest.raises(ValueError, match="there are load, unload, pin, unpin"):
            client.steer("explode", "vision/classify")

    async def asynchronously() -> None:
        async with serai.async_client() as client:
            assert await client.pool() == FULL
            await client.steer("unpin", "vision/classify")

    asyncio.run(asynchronously())
    assert server.received[-1].path == "/v1/pool/models/vision/classify/unpin"
