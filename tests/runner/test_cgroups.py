"""Control groups of both versions. Version 1 on the real kernel where it is there; version 2 on a copy of its files."""

import os
from pathlib import Path

import pytest

from serai_runner.cgroups import Cgroups


def make_v2_tree(root: Path, control: str) -> Path:
    own = root / "system.slice" / "serai.service"
    own.mkdir(parents=True)
    (root / "cgroup.controllers").write_text("cpu memory pids\n")
    (own / "cgroup.subtree_control").write_text(control)
    membership = root / "membership"
    membership.write_text("0::/system.slice/serai.service\n")
    return membership


def test_version_2_limits_memory_swap_and_processes_in_one_folder(tmp_path):
    cgroups = Cgroups.detect(tmp_path, make_v2_tree(tmp_path, "memory pids\n"))
    assert cgroups.limits_memory and cgroups.limits_pids
    group = cgroups.create(7, 1 << 20, 50)
    folder = tmp_path / "system.slice" / "serai.service" / f"serai-{os.getpid()}-7"
    assert group is not None
    written = {name: (folder / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max")}
    assert written == {"memory.max": str(1 << 20), "memory.swap.max": "0", "pids.max": "50"}
    (folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert group.num_oom_kills() == 2
    assert group.wrap(["true"])[-3:] == ["1", str(folder), "true"]


def test_without_a_delegated_tree_there_are_no_groups(tmp_path):
    membership = make_v2_tree(tmp_path, "")
    (tmp_path / "system.slice" / "serai.service" / "cgroup.subtree_control").unlink()
    cgroups = Cgroups.detect(tmp_path, membership)
    assert not cgroups.limits_memory and cgroups.create(1, 1, 1) is None
    assert Cgroups.detect(tmp_path, tmp_path / "missing").create(1, 1, 1) is None


def test_groups_of_dead_hosts_are_removed_and_those_of_live_ones_kept(tmp_path):
    membership = make_v2_tree(tmp_path, "memory pids\n")
    own = tmp_path / "system.slice" / "serai.service"
    dead, alive, foreign = own / "serai-999999999-1", own / f"serai-{os.getpid()}-1", own / "other-1-1"
    for folder in (dead, alive, foreign):
        folder.mkdir()
    Cgroups.detect(tmp_path, membership)
    assert (dead.exists(), alive.exists(), foreign.exists()) == (False, True, True)


def test_a_real_group_takes_in_its_command_kills_it_and_is_removed():
    import subprocess

    cgroups = Cgroups.detect()
    group = cgroups.create(0, 64 << 20, 20)
    if group is None:
        pytest.skip("no control group can be created here")
    process = subprocess.Popen(
        group.wrap(["cat", "/proc/self/cgroup", "-"]), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process:
        assert f"serai-{os.getpid()}-0" in process.stdout.readline().decode() + process.stdout.read1().decode()
        assert not group.remove()
        group.kill()
        assert process.wait(10) == -9
    assert group.remove() and group.num_oom_kills() == 0
