"""The script that measures GPUs, where there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def _run(*options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_without_a_gpu_it_says_so_writes_nothing_and_exits_with_0(tmp_path):
    done = _run("--out", str(tmp_path / "result.json"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nothing measured: ")
    assert not (tmp_path / "result.json").exists()


def test_every_measurement_runs_on_the_cpu_with_tiny_sizes(tmp_path):
    pytest.importorskip("torch")
    done = _run("--device", "cpu", "--out", str(tmp_path / "result.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["ceilings"].keys() >= {"pinned_h2d_bytes_per_s", "d2d_bytes_per_s", "bf16_matmul_flop_per_s"}
    assert [row["bytes"] for row in found["G1"]] == found["sizes"]["ladder_bytes"]
    assert {"G2", "G3", "G4", "G5", "G6"} <= found.keys()
    assert found["G4"]["goodput_per_s"] > 0
    assert found["G5"]["pool_per_s"] > 0


@pytest.mark.gpu
def test_on_a_gpu_there_is_a_result_file_with_its_name_and_the_date(tmp_path):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA device here")
    command = [sys.executable, "-m", "benchmarks.gpu", "--out", str(tmp_path / "result.json")]
    subprocess.run(command, cwd=_ROOT, check=True, timeout=900)
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["device"] == torch.cuda.get_device_name(0) and found["date"]
