"""bin/build in its box: what it makes, what it cannot do, and that nothing is left of it."""

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from serai_gateway.build import BuildError, Publish, build_folder, built_tree, to_spec
from serai_gateway.build import box as box_module
from serai_gateway.build.box import run_in_box
from serai_gateway.build.built_tree import take_built
from serai_gateway.build.errors import UnsafeTree
from serai_gateway.build.testing import write_tree, write_wheel

pytestmark = [pytest.mark.needs_bubblewrap, pytest.mark.usefixtures("boxes")]

CONF = json.dumps({"username": "alice", "algoname": "Tool", "language": "sh"})
PIPE = "#!/bin/sh\necho PIPE_INIT_COMPLETE\n"


@pytest.fixture
def publish(home, catalogue, alice, tmp_path):
    def publish(script, **files):
        lines = []
        source = tmp_path / "source"
        texts = {"algorithmia.conf": CONF, "bin/build": "#!/bin/sh\nset -e\n" + script}
        write_tree(source, texts | {name.replace("__", "/"): text for name, text in files.items()})
        for program in (source / "bin").iterdir():
            program.chmod(0o755)
        version = build_folder(source, home, catalogue, alice, lines.append, publish=Publish())
        return home / "code" / version.code_sha, version, lines

    return publish


def left_overs(home):
    return [name for name in os.listdir(home / "code") if name.startswith(".part")]


def running(word: str) -> list[int]:
    """Processes with this word in their command line."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and int(place.name) != os.getpid():
            try:
                if word.encode() in (place / "cmdline").read_bytes():
                    found.append(int(place.name))
            except OSError:
                continue
    return found


def wait_until(condition, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.01)


def test_a_program_in_c_is_built_and_answers(home, catalogue, alice, operator, repository):
    catalogue.ensure_account("acme", "organization", operator)
    lines = []
    source = repository("compiled")
    version = build_folder(source, home, catalogue, operator, lines.append, publish=Publish())
    spec = to_spec(version, home)
    assert (spec.kind, spec.entry, spec.environment, spec.calls) == ("algorithmia", "", None, True)
    assert "running bin/build" in lines and any(line.startswith("made cc") for line in lines)
    code = Path(spec.code)
    assert stat.S_IMODE((code / "bin/pipe").stat().st_mode) == 0o555
    ask = """
        mkfifo /tmp/algoout
        (printf '{"content_type":"json","data":[1, 2.5, -3e0]}\\n'; sleep 1) | bin/pipe &
        cat /tmp/algoout
        wait
    """
    said = []
    run_in_box(home, "sh", ["sh", "-c", ask], code, said.append)
    (answer,) = (json.loads(line) for line in said if line.startswith("{"))
    assert "PIPE_INIT_COMPLETE" in said
    assert answer["result"] | {"deviation": 0, "mean": 0} == {
        "count": 3,
        "min": -3,
        "max": 2.5,
        "mean": 0,
        "deviation": 0,
    }
    again = build_folder(source, home, catalogue, operator, lines.append, publish=Publish())
    assert again == version, "the same commit is the same code"


def test_what_the_build_makes_is_part_of_the_code_and_of_its_hash(publish, home):
    code, version, _ = publish("echo one > made; echo more >> src/pipe; install src/pipe bin/pipe", src__pipe=PIPE)
    assert (code / "made").read_text() == "one\n" and (code / "bin/pipe").is_file()
    other, later, _ = publish("echo two > made; install src/pipe bin/pipe", src__pipe=PIPE)
    assert (other / "made").read_text() == "two\n"
    assert (later.semver, later.code_sha != version.code_sha) == ("1.0.1", True)
    assert left_overs(home) == []


def test_what_it_left_is_made_safe(publish):
    code, _, _ = publish(
        "install src/pipe bin/pipe; chmod 6777 bin/pipe; mkdir -p a/b; echo x > a/b/c; chmod 0 a/b/c a/b; chmod 0 a;"
        " ln -s a/b/c near; ln -s /opt/algorithm/a/b/c far; mkdir d; ln -s /opt/algorithm/a d/up; ln -s far about",
        src__pipe=PIPE,
    )
    assert stat.S_IMODE((code / "bin/pipe").stat().st_mode) == 0o555
    assert stat.S_IMODE((code / "a/b/c").stat().st_mode) == 0o444
    assert [os.readlink(code / name) for name in ("near", "far", "d/up")] == ["a/b/c", "a/b/c", "../a"]
    assert (code / "about").read_text() == "x\n"
    assert (code / "d/up/b/c").read_text() == "x\n"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("ln -s /etc/passwd leak", "leak: the build left a link to /etc/passwd"),
        ("ln -s ../../operator.key README.md", "README.md: the build left a link that leads out"),
        ("ln -s . here; ln -s here/../../.. leak", "leak: the build left a link that leads out"),
        ("mkfifo pipe", "pipe: the build left something that is neither a file nor a folder"),
        ("touch \"$(printf 'a\\nb')\"", "a control or invisible character in a name"),
        ("touch $(printf 'a\\377b')", "not UTF-8"),
    ],
)
def test_what_it_may_not_leave_is_refused(publish, home, script, message):
    with pytest.raises(UnsafeTree) as error:
        publish(script + "\ninstall src/pipe bin/pipe", src__pipe=PIPE)
    assert message in str(error.value)
    assert left_overs(home) == []


def test_one_that_fails_shows_its_last_lines_and_the_version_before_serves_on(publish, catalogue, home):
    _, version, _ = publish("install src/pipe bin/pipe", src__pipe=PIPE)
    with pytest.raises(BuildError, match=r"(?s)bin/build ended with code 7 .*no network.*the reason") as error:
        publish("seq 1000; echo the reason >&2; exit 7")
    assert len(str(error.value)) < 1000
    assert catalogue.find_version("alice", "Tool", None, None) == version
    with pytest.raises(BuildError, match="there is no bin/pipe after bin/build ran"):
        publish("rm -f bin/pipe")
    with pytest.raises(BuildError, match=r"bin/pipe is not executable: chmod \+x bin/pipe, or git update-index"):
        publish("install src/pipe bin/pipe; chmod -x bin/pipe", src__pipe=PIPE)
    assert left_overs(home) == []


def test_programs_that_are_not_executable_are_refused_before_they_run(home, catalogue, alice, tmp_path):
    files = {"algorithmia.conf": CONF, "bin/build": "#!/bin/sh\n", "bin/pipe": PIPE}
    source = write_tree(tmp_path / "source", files)
    with pytest.raises(BuildError, match=r"bin/build is not executable"):
        build_folder(source, home, catalogue, alice, print)
    (source / "bin/build").unlink()
    with pytest.raises(BuildError, match=r"bin/pipe is not executable"):
        build_folder(source, home, catalogue, alice, print)
    (source / "bin/pipe").chmod(0o755)
    assert build_folder(source, home, catalogue, alice, print).kind == "algorithmia", "nothing needs to be built"


def test_it_sees_nothing_of_ours_and_has_no_network(publish, home, monkeypatch):
    monkeypatch.setenv("SOME_SECRET", "secret-of-this-machine")
    (home / "operator.key").write_text("secret-of-this-machine")
    script = f"""
        env > seen; cat {home}/operator.key >> seen 2>&1 || true
        ls / /opt /root /home >> seen 2>&1 || true
        ps ax >> seen 2>&1 || true
        cat /proc/net/dev >> seen
        id -u >> seen; pwd >> seen
        (echo x > /usr/x || echo x > /x || echo x > /opt/x) 2>> seen || true
        install src/pipe bin/pipe
    """
    code, _, _ = publish(textwrap.dedent(script), src__pipe=PIPE)
    seen = (code / "seen").read_text()
    assert "of-this-machine" not in seen and str(home) not in seen.replace(f"{home}/operator.key", "")
    assert "/opt/algorithm" in seen and "\n65534\n" in seen
    devices = [line.split(":")[0].strip() for line in seen.splitlines() if ":" in line and "|" not in line]
    assert "eth0" not in devices
    assert sorted(os.listdir(code)) == ["algorithmia.conf", "bin", "seen", "src"]


def test_one_without_end_is_stopped_with_all_that_it_started(home, tmp_path):
    word = f"31536{os.getpid()}"
    script = f"setsid sleep {word} & (while :; do date > file; done) & sleep {word}"
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(BuildError, match=r"^bin/build took longer than 1 s and was stopped"):
        run_in_box(home, "bin/build", ["sh", "-c", script], folder, print, timeout_s=1.0)
    (folder / "file").unlink(missing_ok=True)
    assert running(word) == [] and os.listdir(folder) == []


def test_what_it_leaves_running_ends_with_it(home, tmp_path):
    word = f"41536{os.getpid()}"
    done = run_in_box(home, "x", ["sh", "-c", f"setsid sleep {word} > /dev/null 2>&1 & echo ok"], tmp_path, print)
    assert done == (0, "ok") and running(word) == []


KILLED = """
import sys
from pathlib import Path
from serai.box.cgroups import Cgroups
from serai_gateway.build import box
from serai_runner.sandbox import choose_sandbox
from serai_runner.settings import Settings
home = Path(sys.argv[1])
cgroups = Cgroups.detect("serai-build-test")
chosen = choose_sandbox(Settings(home, sandbox="bubblewrap"), cgroups)
box._choose = lambda home: chosen
box.run_in_box(home, "x", ["sh", "-c", f"setsid sleep {sys.argv[2]} & sleep {sys.argv[2]}"], home, print)
"""


def test_it_dies_with_the_worker_that_builds(home):
    word = f"51536{os.getpid()}"
    worker = subprocess.Popen([sys.executable, "-c", KILLED, str(home), word])
    sleeping = lambda: [pid for pid in running(word) if _program(pid) == "sleep"]  # noqa: E731
    try:
        wait_until(lambda: len(sleeping()) == 2)
    finally:
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait()
    wait_until(lambda: not running(word))


def _program(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def test_one_that_fills_the_disk_is_stopped(home, tmp_path, monkeypatch):
    limits = built_tree.LIMITS._replace(total_bytes=8 << 20)
    monkeypatch.setattr(built_tree, "LIMITS", limits)
    script = "i=0; while :; do head -c 1000000 /dev/zero > file$i; i=$((i+1)); sleep 0.05; done"
    with pytest.raises(BuildError, match="x writes more than a build may leave, 8 MiB"):
        run_in_box(home, "x", ["sh", "-c", script], tmp_path, print, timeout_s=60.0)


def test_nothing_is_hidden_by_nesting_it_deeply(publish, home):
    nest = """python3 -c 'import os, time
for _ in range(3000): os.mkdir("d"); os.chdir("d")
time.sleep(1000)'"""
    with pytest.raises(BuildError, match="bin/build nests folders deeper than a build may leave them"):
        publish(nest)
    with pytest.raises(UnsafeTree, match="nested more than 100 folders deep"):
        publish(nest.replace("time.sleep(1000)", ""))
    with pytest.raises(UnsafeTree, match="a path of more than 3000 bytes"):
        publish(nest.replace("time.sleep(1000)", "").replace("3000", "30").replace('"d"', '"d" * 250'))
    assert left_overs(home) == []


def test_it_is_stopped_before_the_disk_is_full(home, tmp_path, monkeypatch):
    monkeypatch.setattr(built_tree, "DISK_RESERVE_BYTES", 1 << 60)
    with pytest.raises(BuildError, match="x was stopped: the disk of this server is nearly full"):
        run_in_box(home, "x", ["sleep", "1000"], tmp_path, print)


def test_a_file_without_end_is_stopped_by_the_kernel(home, tmp_path, monkeypatch):
    monkeypatch.setattr(box_module, "LIMITS", built_tree.LIMITS._replace(file_bytes=1 << 20))
    done = run_in_box(home, "x", ["sh", "-c", "head -c 100000000 /dev/zero > file"], tmp_path, print)
    assert done.code != 0 and (tmp_path / "file").stat().st_size == 1 << 20


def test_memory_and_processes_are_limited(home, tmp_path, monkeypatch, bubblewrap):
    cgroups = box_module._groups.detected()
    if not (cgroups.limits_memory and cgroups.limits_pids):
        pytest.skip("control groups cannot be made here")
    monkeypatch.setattr(box_module, "MEMORY_BYTES", 64 << 20)
    monkeypatch.setattr(box_module, "MAX_PIDS", 20)
    hog = "import sys; x = bytearray(300 << 20); x[::4096] = b'x' * len(x[::4096])"
    with pytest.raises(BuildError, match="x needs more than 64 MiB of memory and was stopped"):
        run_in_box(home, "x", ["python3", "-c", hog], tmp_path, print)
    word = f"61536{os.getpid()}"
    bomb = f"for i in $(seq 50); do sleep {word} & done; echo all"
    done = run_in_box(home, "x", ["sh", "-c", bomb], tmp_path, lambda line: None)
    assert done.code != 0 and "fork" in done.tail and running(word) == []


def test_without_a_sandbox_nothing_of_it_runs(publish, monkeypatch, bubblewrap):
    plain = type("Plain", (), {"is_isolating": False})()
    monkeypatch.setattr(box_module, "_choose", lambda home: (plain, "bwrap is missing"))
    with pytest.raises(
        BuildError, match="bin/build runs in a sandbox only, and this server has none: bwrap is missing"
    ):
        publish("exit 1")


def test_an_old_repository_of_python_finds_its_packages_installed(home, catalogue, alice, tmp_path, index):
    write_wheel(index, "greet", "1.0", {"greet.py": b""})
    files = {
        "algorithmia.conf": CONF.replace('"sh"', '"python3"'),
        "requirements.txt": "greet\n",
        "src/Tool.py": "def apply(input):\n    return input\n",
        "bin/build": "#!/bin/sh\nset -e\npython3 -c 'import greet; print(greet.__file__)'\n",
        "bin/pipe": "#!/bin/sh\nexec python3 bin/pipe.py\n",
    }
    source = write_tree(tmp_path / "source", files)
    for name in ("build", "pipe"):
        (source / "bin" / name).chmod(0o755)
    lines = []
    version = build_folder(source, home, catalogue, alice, lines.append)
    assert "/opt/environment/greet.py" in lines
    assert version.environment and list((home / "code" / version.code_sha).rglob("Tool.*.pyc"))
    (source / "bin/pipe").unlink()
    lines.clear()
    build_folder(source, home, catalogue, alice, lines.append)
    assert any(line.startswith("bin/build is not run: packages are installed already") for line in lines)


def test_a_tree_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(built_tree, "LIMITS", built_tree.LIMITS._replace(num_files=3, total_bytes=100))
    write_tree(tmp_path / "many", {f"f{n}": "" for n in range(4)})
    with pytest.raises(UnsafeTree, match="more than 3 files"):
        take_built(tmp_path / "many", "/opt/algorithm")
    write_tree(tmp_path / "large", {"f": "x" * 101})
    with pytest.raises(UnsafeTree, match="MiB in all"):
        take_built(tmp_path / "large", "/opt/algorithm")
