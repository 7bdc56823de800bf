"""Pushes whose client, gateway worker, builder or git is killed: the branch and its version move together or not at
all, nothing is left over, and the next push works (F43)."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from serai_gateway.catalogue import NotFound, open_catalogue
from serai_gateway.git import Repository
from serai_gateway.testing import Service, commit_all, run_git, until, write_algorithm

pytestmark = pytest.mark.needs_bubblewrap

#: A sample that takes as long as its file says: while it runs, the push waits for its build.
_SLOW = (
    "import time\n\ndef apply(input):\n    if input == 'sample':\n        time.sleep({seconds})\n    return {text!r}\n"
)


class Pushed:
    """One algorithm on a Serai of its own, and pushes to it."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service = service
        self.folder = folder
        self.name = f"operator/{folder.name}"
        self.catalogue = open_catalogue(service.home)
        self._count = 0

    def change(self, text: str, seconds: float = 0.0) -> str:
        (self.folder / "src" / f"{self.folder.name}.py").write_text(_SLOW.format(seconds=seconds, text=text))
        return commit_all(self.folder)

    def begin(self) -> subprocess.Popen[bytes]:
        command = ["git", "push", self.service.remote(self.name), "HEAD:main"]
        return subprocess.Popen(command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    @property
    def repository(self) -> Repository:
        algorithm = self.catalogue.find_algorithm("operator", self.folder.name, self.operator)
        return Repository(self.service.home, algorithm.id)

    @property
    def operator(self):
        return self.catalogue.account_named("operator")

    def statuses(self) -> dict[str, str]:
        try:
            algorithm = self.catalogue.find_algorithm("operator", self.folder.name, self.operator)
        except NotFound:  # its first push has not come so far
            return {}
        return {build.hash: build.status for build in self.catalogue.builds_of(algorithm)}

    def is_building(self, commit: str) -> bool:
        return self.statuses().get(commit) == "running" and bool(boxes(self.service))

    def head(self) -> str:
        return run_git(self.folder, "ls-remote", self.service.remote(self.name), "refs/heads/main").stdout[:40]

    def result(self) -> object:
        return self.service.call(self.name, b'"x"').json().get("result")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("faults") / "home", "--spares", "0") as service:
        yield service


@pytest.fixture
def pushed(service: Service, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Pushed]:
    """Pushed once, so that something serves. Afterwards nothing is left over, and the next push works."""
    name = "fault_" + "".join(char for char in request.node.name if char.isalnum())[-40:]
    folder = write_algorithm(tmp_path / name, "", extra='[sample]\ninput = "sample"\n')
    pushed = Pushed(service, folder)
    first = pushed.change("first")
    assert service.push(folder, pushed.name).returncode == 0
    assert pushed.head() == first
    yield pushed
    until(service.is_ready, "Serai is back")
    commit = pushed.change("next")
    done = service.push(folder, pushed.name)
    assert done.returncode == 0, done.stderr
    assert (pushed.head(), pushed.result()) == (commit, "next")
    until(lambda: not left_overs(service), f"nothing is left: {left_overs(service)}", 20)
    assert run_git(pushed.repository.path, "fsck", "--full", "--strict").returncode == 0
    assert pushed.catalogue.running_builds() == ()
    pushed.catalogue.close()


def processes(service: Service) -> list[psutil.Process]:
    return psutil.Process(service.pid).children(recursive=True)


def boxes(service: Service) -> list[psutil.Process]:
    """Of git: no request under way has none."""
    return [one for one in processes(service) if "git" in " ".join(_words(one))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def left_overs(service: Service, *, with_processes: bool = True) -> list[str]:
    home = service.home
    found = [str(path) for path in home.glob("run/push-*")] + [str(path) for path in home.glob("code/.part-*")]
    for pattern in ("objects/tmp_objdir*", "objects/incoming*", "objects/pack/tmp_*", "**/*.lock"):
        found += [str(path) for path in (home / "git").glob(f"*.git/{pattern}")]
    return found + [" ".join(_words(one)) for one in (boxes(service) if with_processes else ())]


def kill_client(pushed: Pushed, pushing: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in (*psutil.Process(pushing.pid).children(recursive=True), pushing):
            one.kill()


def kill_worker(pushed: Pushed, pushing: subprocess.Popen[bytes]) -> None:
    psutil.Process(pushed.service.daemon_pid("gateway")).children()[0].kill()


def kill_builder(pushed: Pushed, pushing: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has not come back from the last time
        os.kill(pushed.service.daemon_pid("builder"), signal.SIGKILL)


def end_builder(pushed: Pushed, pushing: subprocess.Popen[bytes]) -> None:
    os.kill(pushed.service.daemon_pid("builder"), signal.SIGTERM)


def kill_receive_pack(pushed: Pushed, pushing: subprocess.Popen[bytes]) -> None:
    _kill_git(pushed, "receive-pack")


def kill_hook(pushed: Pushed, pushing: subprocess.Popen[bytes]) -> None:
    _kill_git(pushed, "pre-receive")


def kill_box(pushed: Pushed, pushing: subprocess.Popen[bytes]) -> None:
    _kill_git(pushed, "http-backend")


def _kill_git(pushed: Pushed, word: str) -> None:
    for one in processes(pushed.service):
        if word in " ".join(_words(one)):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()


@pytest.mark.parametrize(
    "kill", [kill_client, kill_worker, kill_builder, end_builder, kill_receive_pack, kill_hook, kill_box]
)
def test_what_is_killed_while_it_builds_changes_nothing(pushed: Pushed, kill: Callable) -> None:
    before = pushed.head()
    commit = pushed.change("never", seconds=60)
    pushing = pushed.begin()
    until(lambda: pushed.is_building(commit), "the build runs")
    kill(pushed, pushing)
    _, said = pushing.communicate(timeout=30)
    assert pushing.returncode != 0, said
    until(lambda: pushed.statuses()[commit] != "running", "its build has ended", 30)
    assert pushed.statuses()[commit] in ("interrupted", "failed")
    until(pushed.service.is_ready, "Serai is back")
    assert (pushed.head(), pushed.result()) == (before, "first")
    algorithm = pushed.catalogue.find_algorithm("operator", pushed.folder.name, pushed.operator)
    assert [version.hash for version in pushed.catalogue.versions_of(algorithm)] == [before]
    if kill in (kill_builder, end_builder):
        assert b"push" in said and b"again" in said, said


def kill_any_git(pushed: Pushed, pushing: subprocess.Popen[bytes]) -> None:
    _kill_git(pushed, "git")


@pytest.mark.parametrize("kill", [kill_client, kill_worker, kill_builder, kill_any_git])
def test_what_is_killed_at_any_moment_moves_branch_and_version_together(pushed: Pushed, kill: Callable) -> None:
    """Later and later in a push, from its first bytes until it is through."""
    before = pushed.head()
    for number in range(3 if kill is kill_builder else 8):  # it comes back later each time
        commit = pushed.change(f"at {number}")
        pushing = pushed.begin()
        killer = threading.Timer(
            (0.12 if kill is kill_builder else 0.05) * number, lambda pushing=pushing: kill(pushed, pushing)
        )
        killer.start()
        pushing.communicate(timeout=60)
        killer.join()
        until(pushed.service.is_ready, "Serai is back")
        until(lambda commit=commit: pushed.statuses().get(commit) != "running", "its build has ended", 30)
        until(lambda: not boxes(pushed.service), "git has ended", 20)
        after = pushed.head()
        if after == commit:
            version = pushed.catalogue.find_version("operator", pushed.folder.name, commit, pushed.operator)
            assert version.hash == commit and pushed.statuses()[commit] == "succeeded"
            before = after
        else:
            assert after == before and pushing.returncode != 0


def test_a_stop_lets_a_push_end_and_leaves_nothing(tmp_path: Path) -> None:
    with Service(tmp_path / "home", "--spares", "0") as service:
        folder = write_algorithm(tmp_path / "stopped", "", extra='[sample]\ninput = "sample"\n')
        pushed = Pushed(service, folder)
        commit = pushed.change("in time", seconds=3)
        pushing = pushed.begin()
        until(lambda: boxes(service) and pushed.is_building(commit), "the build runs")
        before = processes(service)
        assert service.stop() == 0
        _, said = pushing.communicate(timeout=30)
        assert pushing.returncode == 0, said
        assert psutil.wait_procs(before, timeout=10)[1] == []
        assert pushed.statuses() == {commit: "succeeded"} and pushed.repository.head().commit == commit
        pushed.catalogue.close()
        groups = [path for path in Path("/sys/fs/cgroup").glob("*/serai-*") if path.is_dir()]
        pids = {str(one.pid) for one in before}
        ours = [group for group in groups if pids & set(group.name.split("-"))]
        assert not [file for group in ours for file in group.rglob("cgroup.procs") if file.read_text()]
        assert left_overs(service, with_processes=False) == []
