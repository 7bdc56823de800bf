"""Control groups of both versions. Version 1 on the real kernel where it is there; version 2 on a copy of its files."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serai.box.cgroup import Cgroup
from serai.box.cgroups import Cgroups

_WAIT_S = 30
_FORKS = "import os, signal\nwhile True:\n try: os.fork()\n except OSError: signal.pause()"


def eventually(is_true) -> bool:
    until = time.monotonic() + _WAIT_S
    while not is_true():
        if time.monotonic() > until:
            return False
        time.sleep(0.005)
    return True


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


# ── version 2, on copies of its files ────────────────────────────────────────────────────────────────────────────────


def make_v2_tree(root: Path, control: str) -> Path:
    own = root / "system.slice" / "serai.service"
    own.mkdir(parents=True)
    (root / "cgroup.controllers").write_text("cpu memory pids\n")
    (own / "cgroup.subtree_control").write_text(control)
    membership = root / "membership"
    membership.write_text("0::/system.slice/serai.service\n")
    return membership


def read(folder: Path, *names: str) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in names}


def test_version_2_limits_memory_swap_processes_and_cpus_in_one_folder(tmp_path):
    cgroups = Cgroups.detect("serai", tmp_path, make_v2_tree(tmp_path, "cpu memory pids\n"))
    assert cgroups.limits_memory and cgroups.limits_pids and cgroups.limits_cpus
    group = cgroups.create(7, 1 << 20, 50, 1.5)
    assert group is not None
    folder = Path(group.wrap([])[-1])
    assert folder.name == "7" and folder.parent.name.startswith(f"serai-{os.getpid()}")
    assert folder.parent.parent == tmp_path / "system.slice" / "serai.service"
    assert read(folder.parent, "cpu.weight", "cgroup.subtree_control") == {
        "cpu.weight": "200",
        "cgroup.subtree_control": "+memory +pids +cpu",
    }
    limits = ("memory.max", "memory.swap.max", "pids.max", "cpu.max", "memory.oom.group")
    assert read(folder, *limits) == dict(zip(limits, (str(1 << 20), "0", "50", "150000 100000", "1"), strict=True))
    group.limit(2 << 20, 60, None)
    assert read(folder, "memory.max", "pids.max", "cpu.max") == {
        "memory.max": str(2 << 20),
        "pids.max": "60",
        "cpu.max": "max 100000",
    }
    (folder / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 0\n")
    (folder / "memory.current").write_text("4096\n")
    assert group.num_oom_kills() == 2 and group.memory_bytes() == 4096
    assert group.wrap(["true"])[-3:] == ["1", str(folder), "true"]


def test_version_2_kills_in_one_go_where_the_kernel_can(tmp_path):
    (tmp_path / "cgroup.kill").write_text("")
    (tmp_path / "cgroup.procs").write_text("")
    Cgroup({"memory": tmp_path, "pids": tmp_path}, is_v2=True).kill()
    assert (tmp_path / "cgroup.kill").read_text() == "1" and not (tmp_path / "pids.max").exists()


def test_version_2_forbids_forks_and_kills_one_by_one_where_it_cannot(tmp_path):
    with subprocess.Popen(["sleep", "100"]) as process:
        (tmp_path / "cgroup.procs").write_text(f"0\n{process.pid}\n")  # 0: a process that we cannot see, and not "us"
        (tmp_path / "pids.max").write_text("max")
        Cgroup({"memory": tmp_path, "pids": tmp_path}, is_v2=True).kill()
        assert process.wait(_WAIT_S) == -signal.SIGKILL
    assert (tmp_path / "pids.max").read_text() == "0"


def test_a_group_beside_ours_is_used_where_all_of_the_unit_was_handed_to_us(tmp_path):
    membership = make_v2_tree(tmp_path, "cpu memory pids\n")
    unit = tmp_path / "system.slice" / "serai.service"
    (unit / "daemons").mkdir()
    membership.write_text("0::/system.slice/serai.service/daemons\n")
    if os.geteuid() == 0:
        assert not Cgroups.detect("serai", tmp_path, membership).limits_memory
        os.setxattr(unit, "trusted.delegate", b"1")
    (unit / "cgroup.procs").write_text("")
    group = Cgroups.detect("serai", tmp_path, membership).create(1, 1, 1, 1)
    assert group is not None and Path(group.wrap([])[-1]).parent.parent == unit


def test_without_a_delegated_tree_there_are_no_groups(tmp_path):
    membership = make_v2_tree(tmp_path, "")
    (tmp_path / "system.slice" / "serai.service" / "cgroup.subtree_control").unlink()
    cgroups = Cgroups.detect("serai", tmp_path, membership)
    assert not cgroups.limits_memory and cgroups.create(1, 1, 1, 1) is None
    assert Cgroups.detect("serai", tmp_path, tmp_path / "missing").create(1, 1, 1, 1) is None
    assert cgroups.remove_rest() and cgroups.close()


def test_groups_of_dead_daemons_are_removed_and_those_of_live_and_other_ones_kept(tmp_path):
    membership = make_v2_tree(tmp_path, "cpu memory pids\n")
    own = tmp_path / "system.slice" / "serai.service"
    dead = [own / "serai-999999999" / "1", own / "serai-999999998-2", own / f"serai-{os.getpid()}-9999"]
    kept = [own / f"serai-{os.getppid()}" / "1", own / "other-999999999", own / "serai-pool-999999999" / "1"]
    for folder in (*dead, *kept):
        folder.mkdir(parents=True)
    Cgroups.detect("serai", tmp_path, membership)
    assert [folder.exists() for folder in dead] == [False] * 3 and not (own / "serai-999999999").exists()
    assert [folder.exists() for folder in kept] == [True] * 3


def test_version_2_of_the_kernel_kills_many_at_once():
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    root = next((Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)
    folder = root / f"serai-test-{os.getpid()}" if root else None
    try:
        assert folder
        folder.mkdir()
    except (AssertionError, OSError):
        pytest.skip("no control group of version 2 can be created here")
    group = Cgroup({"": folder}, is_v2=True)
    thirty_two = "import os, signal\nfor _ in range(5): os.fork()\nsignal.pause()"
    try:
        with subprocess.Popen(group.wrap(python(thirty_two))) as process:
            assert eventually(lambda: len(group.processes()) > 8)
            group.kill()
            assert process.wait(_WAIT_S) == -signal.SIGKILL
        assert eventually(group.remove) and not folder.exists()
    finally:
        if folder.exists():
            folder.rmdir()


# ── the real kernel ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def cgroups():
    cgroups = Cgroups.detect("serai-test")
    if not (cgroups.limits_memory and cgroups.limits_pids and cgroups.limits_cpus):
        pytest.skip("not all control groups can be created here")
    yield cgroups
    assert eventually(cgroups.close)


def create(cgroups: Cgroups, number: int = 1, memory_bytes: int = 64 << 20, pids: int = 20, cpus: float | None = None):
    group = cgroups.create(number, memory_bytes, pids, cpus)
    assert group is not None
    return group


def test_a_group_takes_in_its_command_kills_it_and_is_removed(cgroups):
    group = create(cgroups)
    command = group.wrap(["cat", "/proc/self/cgroup", "-"])
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        said = process.stdout.readline().decode() + process.stdout.read1().decode()
        assert f"serai-test-{os.getpid()}" in said
        assert group.processes() == [process.pid] and group.memory_bytes() > 0
        assert not group.remove()
        group.kill()
        assert process.wait(_WAIT_S) == -signal.SIGKILL
    assert eventually(group.remove) and group.is_gone and group.num_oom_kills() == 0 and group.memory_bytes() == 0


def test_a_process_can_be_added_later(cgroups):
    group = create(cgroups)
    with subprocess.Popen(["sleep", "100"]) as process:
        assert group.processes() == []
        group.add(process.pid)
        assert group.processes() == [process.pid]
        group.kill()
    with pytest.raises(OSError):
        group.add(process.pid)


def test_a_fork_bomb_is_bounded_and_killed_whole(cgroups):
    group = create(cgroups, pids=60)
    with subprocess.Popen(group.wrap(python(_FORKS)), stderr=subprocess.DEVNULL) as process:
        assert eventually(lambda: len(group.processes()) == 60)
        group.kill()
        assert process.wait(_WAIT_S) == -signal.SIGKILL
    assert eventually(group.remove)


def test_a_fork_bomb_that_never_pauses_is_killed_whole(cgroups):
    """Each process dies as soon as it has made the next two, so no list of them is true for long."""
    group = create(cgroups, pids=200, memory_bytes=512 << 20)
    bomb = "import os\nwhile True:\n try:\n  if os.fork() and os.fork(): os._exit(0)\n except OSError: pass"
    with subprocess.Popen(group.wrap(python(bomb)), stderr=subprocess.DEVNULL):
        assert eventually(lambda: len(group.processes()) > 100)
        group.kill()
        assert eventually(group.remove)


def test_memory_beyond_the_limit_ends_the_process_and_is_counted(cgroups):
    group = create(cgroups, memory_bytes=32 << 20)
    done = subprocess.run(group.wrap(python("x = bytearray(b'x') * (64 << 20)")), timeout=_WAIT_S)
    assert done.returncode == -signal.SIGKILL and group.num_oom_kills() == 1


def test_limits_can_be_raised_and_lowered(cgroups):
    group = create(cgroups, memory_bytes=32 << 20)
    group.limit(96 << 20, 20, None)
    use = python("x = bytearray(b'x') * (64 << 20)")
    assert subprocess.run(group.wrap(use), timeout=_WAIT_S).returncode == 0
    group.limit(32 << 20, 20, None)
    assert subprocess.run(group.wrap(use), timeout=_WAIT_S).returncode == -signal.SIGKILL


def test_processor_time_is_shared_out_by_quota(cgroups):
    group = create(cgroups, cpus=0.1)
    folders = [Path(word) for word in group.wrap([])[5:]]
    code = "import time\nuntil = time.monotonic() + 0.5\nwhile time.monotonic() < until: pass"
    subprocess.run(group.wrap(python(code)), check=True, timeout=_WAIT_S)
    said = next(text for folder in folders if "nr_throttled" in (text := _text(folder / "cpu.stat")))
    throttled = next(int(line.split()[1]) for line in said.splitlines() if line.startswith("nr_throttled"))
    assert throttled > 0
    weight = {_text(folder.parent / name) for folder in folders for name in ("cpu.shares", "cpu.weight")} - {""}
    assert weight <= {"2048\n", "200\n"} and len(weight) == 1


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""


def test_what_outlived_a_killed_daemon_is_ended_and_removed_by_the_next_one(cgroups):
    code = """
import subprocess, signal
from serai.box.cgroups import Cgroups
group = Cgroups.detect("serai-test").create(1, 64 << 20, 20, None)
orphan = subprocess.Popen(group.wrap(["sleep", "100"]), stdout=subprocess.DEVNULL)
while group.processes() != [orphan.pid]: pass
print(orphan.pid, group.wrap([])[5], flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as daemon:
        assert daemon.stdout
        pid, folder = daemon.stdout.readline().split()
        watched = os.pidfd_open(int(pid))
        daemon.kill()
    assert Path(folder.decode()).exists()
    Cgroups.detect("serai-test-2")  # another kind of daemon
    assert not select.select([watched], [], [], 0)[0]
    Cgroups.detect("serai-test")
    assert select.select([watched], [], [], _WAIT_S)[0], "it lives on"
    os.close(watched)
    assert not Path(folder.decode()).parent.exists()


def test_close_ends_all_that_is_left(cgroups):
    group = create(cgroups)
    with subprocess.Popen(group.wrap(["sleep", "100"])) as process:
        assert eventually(lambda: group.processes() == [process.pid])
        assert not cgroups.remove_rest()
        assert eventually(cgroups.close)
        assert process.wait(_WAIT_S) == -signal.SIGKILL
    assert create(cgroups, 2).remove(), "it can be used again"
