"""What is particular to Docker; what holds for every sandbox is in the suite that they share."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serai.ipc.messages import VersionSpec
from serai.ipc.sockets import peer_uid
from serai_runner.sandbox.base import NO_VERSION, Box, BuildBox, Limits, SandboxUnavailable
from serai_runner.sandbox.docker.cgroup import group_of
from serai_runner.sandbox.docker.container import BOX_UID
from serai_runner.sandbox.docker.engine import Engine
from serai_runner.sandbox.docker.labels import home_label, is_orphan, labels_of
from serai_runner.sandbox.docker.sandbox import Docker, DockerOptions
from serai_runner.sandbox.testing import RunningCode
from serai_runner.scheduling.calls import Ending
from serai_runner.testing import PATIENCE_S, python_version, write_algorithm

pytestmark = pytest.mark.needs_docker

LIMITS = Limits(memory_bytes=256 << 20, pids=64, cpus=1.0, tmp_bytes=8 << 20, rlimits={"nofile": 256})

LOOK = """
import ctypes, json, os, resource, socket
def listing(path): return sorted(os.listdir(path))
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
mounts = [line.split() for line in open("/proc/self/mounts")]
def write(path):
    try:
        open(path, "w")
    except OSError as error:
        return error.strerror
    return "written"
print(json.dumps({
    "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(), "host": socket.gethostname(),
    "capabilities": {status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16},
    "no_new_privileges": status["NoNewPrivs"], "seccomp": status["Seccomp"],
    "writable": sorted(where for _, where, _, options, *_ in mounts
                       if "rw" in options.split(",") and os.access(where, os.W_OK)),
    "tmp": [options for _, where, _, options, *_ in mounts if where in ("/tmp", "/dev/shm")],
    "interfaces": [name for _, name in socket.if_nameindex()], "link": listing("/run/serai/host"),
    "opt": listing("/opt"), "run": listing("/run/serai"), "engine": os.path.exists("/var/run/docker.sock"),
    "files": resource.getrlimit(resource.RLIMIT_NOFILE), "core": resource.getrlimit(resource.RLIMIT_CORE),
    "user_namespace": ctypes.CDLL(None).unshare(0x10000000),
    "processes": len([name for name in listing("/proc") if name.isdigit()]),
    "oom": open("/proc/self/oom_score_adj").read(),
    "writes": {path: write(path) for path in ("/x", "/etc/x", "/opt/algorithm/x", "/opt/serai/serai/x", "/run/serai/x",
                                              "/run/serai/host/x", "/proc/sys/kernel/domainname", "/tmp/x")},
}))
"""  # fmt: skip


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True)
    home.chmod(0o700)
    yield home
    assert containers_of(home) == []


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    engine = Engine(DockerOptions().engine)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def python(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> str:
    sandbox = Docker.probe(tmp_path_factory.mktemp("home"))
    asyncio.run(sandbox.close())
    return sandbox.default_python


def containers_of(home: Path) -> list[str]:
    engine = Engine(DockerOptions().engine)
    with contextlib.closing(engine):
        return [container.id for container in engine.containers(f"serai.home={home_label(home)}")]


def version(home: Path, source: str, **more) -> VersionSpec:
    return python_version(write_algorithm(home / "code", source), **more)


@contextlib.asynccontextmanager
async def docker(home: Path, python: str, options: DockerOptions | None = None):
    """A sandbox that has been probed; what is still there at the end is its fault."""
    options = options or DockerOptions()
    sandbox = Docker(home, options, Engine(options.engine), python)
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield sandbox
    finally:
        await sandbox.close()
        assert os.listdir(home / "run" / "boxes") == []


def test_a_box_can_do_nothing_but_compute(home, python):
    async def scenario():
        async with docker(home, python) as sandbox:
            code = RunningCode(sandbox, Box(1, version(home, LOOK + "def apply(i): pass"), LIMITS))
            seen = json.loads(await code.said())
            code.running.kill()
            await code.end()
        return seen

    seen = asyncio.run(scenario())
    assert seen["uid"] == seen["gid"] == [2222] * 3 and seen["groups"] in ([], [2222]) and seen["host"] == "serai"
    assert seen["capabilities"] and seen["no_new_privileges"] == "1" and seen["seccomp"] == "2"
    assert set(seen["writable"]) - {"/proc/kcore", "/proc/keys", "/proc/timer_list"} == {  # which are /dev/null there
        *("/tmp", "/dev/shm", "/dev/mqueue"),
    }
    assert all("nosuid" in options and "nodev" in options for options in seen["tmp"]) and len(seen["tmp"]) == 2
    assert seen["interfaces"] == ["lo"] and seen["link"] == [] and not seen["engine"]
    assert seen["opt"] == ["algorithm", "environment", "serai"] and seen["run"] == ["host", "pool"]
    assert seen["files"] == [256, 256] and seen["core"] == [0, 0] and seen["user_namespace"] == -1
    assert seen["processes"] <= 3 and int(seen["oom"]) > 0
    assert seen["writes"].pop("/tmp/x") == "written"
    assert set(seen["writes"].values()) <= {"Read-only file system", "Permission denied"}


@pytest.mark.parametrize(
    ("source", "how"),
    [
        ("import os; os._exit(3)", "exit code 3"),
        ("import os; os.kill(os.getpid(), 11)", "signal 11 (SIGSEGV)"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9 (SIGKILL)"),
        ("import os\nif os.fork() == 0:\n    os.setsid(); import time; time.sleep(600)\nos._exit(0)", "exit code 0"),
    ],
)
def test_how_it_ended_is_told_as_everywhere(home, python, source, how):
    async def scenario():
        async with docker(home, python) as sandbox:
            code = RunningCode(sandbox, Box(1, version(home, source), LIMITS))
            await code.boot()
            return await code.end()

    assert asyncio.run(scenario()) == Ending(how)


def test_memory_that_ran_out_is_told(home, python):
    async def scenario():
        async with docker(home, python) as sandbox:
            limits = Limits(memory_bytes=64 << 20, pids=64, cpus=1.0, tmp_bytes=8 << 20)
            code = RunningCode(sandbox, Box(1, version(home, "x = b'a' * (1 << 30)"), limits))
            await code.boot()
            return await code.end()

    assert asyncio.run(scenario()) == Ending("signal 9 (SIGKILL)", out_of_memory=True)


def test_at_whatever_moment_it_is_killed_it_ends_once_and_nothing_is_left(home, python):
    async def scenario():
        async with docker(home, python) as sandbox:
            loop = asyncio.get_running_loop()
            spec = version(home, "def apply(i): pass")
            codes = [RunningCode(sandbox, Box(number, spec, LIMITS)) for number in range(8)]
            for number, code in enumerate(codes):
                loop.call_later(0.06 * number, code.running.kill)  # before, in and after its creation and its start
            return [await code.end() for code in codes]

    endings = asyncio.run(scenario())
    assert not any(ending.out_of_memory or ending.is_platform for ending in endings)


def test_one_without_a_version_stands_and_takes_its_limits_later(home, python):
    async def scenario():
        async with docker(home, python) as sandbox:
            code = RunningCode(sandbox, Box(1, NO_VERSION, LIMITS))
            await code.events.connected
            pid = code.running.pid
            assert pid is not None
            code.running.limit(Limits(memory_bytes=96 << 20, pids=17, cpus=0.5, tmp_bytes=8 << 20))
            assert group_of(pid).memory_bytes() > 0
            code.running.kill()
            await code.end()
            assert code.running.pid is None
            with pytest.raises(OSError, match="gone"):
                code.running.limit(LIMITS)

    asyncio.run(scenario())


def test_it_reaches_the_socket_of_its_models_as_its_own_user(home, python):
    folder = home / "run" / "models"
    folder.mkdir()
    folder.chmod(0o755)
    source = """import socket
sock = socket.socket(socket.AF_UNIX)
sock.connect("/run/serai/pool/pool.sock")
print(sock.recv(10).decode())
def apply(i): pass"""

    async def scenario():
        uids: list[int] = []

        async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            uids.append(peer_uid(writer.transport))
            writer.write(b"hello")
            writer.close()

        server = await asyncio.start_unix_server(greet, folder / "pool.sock")
        (folder / "pool.sock").chmod(0o666)
        async with server, docker(home, python) as sandbox:
            code = RunningCode(sandbox, Box(1, version(home, source), LIMITS, models=str(folder)))
            said = await code.said()
            code.running.kill()
            await code.end()
        return said, uids

    assert asyncio.run(scenario()) == (b"hello\n", [BOX_UID])


def test_limits_that_come_later_hold(home, python):
    async def scenario():
        async with docker(home, python) as sandbox:
            code = RunningCode(sandbox, Box(1, version(home, "x = b'a' * (128 << 20)\ndef apply(i): pass"), LIMITS))
            await code.events.connected
            code.running.limit(Limits(memory_bytes=64 << 20, pids=64, cpus=1.0, tmp_bytes=8 << 20))
            await code.boot()
            return await code.end()

    assert asyncio.run(scenario()) == Ending("signal 9 (SIGKILL)", out_of_memory=True)


def test_its_folder_is_closed_to_others_and_empty_once_it_has_connected(home, python):
    async def scenario():
        async with docker(home, python) as sandbox:
            code = RunningCode(sandbox, Box(7, version(home, "def apply(i): pass"), LIMITS))
            folder = home / "run" / "boxes" / "7"
            assert (folder / "box.sock").stat().st_mode & 0o777 == 0o666
            assert folder.parent.stat().st_mode & 0o777 == 0o700
            await code.events.connected
            assert os.listdir(folder) == []
            code.running.kill()
            await code.end()
            assert not folder.exists()

    asyncio.run(scenario())


def test_a_home_with_a_path_longer_than_a_socket_may_have_works(tmp_path, python):
    home = tmp_path / ("long" * 40)
    (home / "run").mkdir(parents=True)

    async def scenario():
        async with docker(home, python) as sandbox:
            code = RunningCode(sandbox, Box(1, version(home, "print('here')\ndef apply(i): pass"), LIMITS))
            said = await code.said()
            code.running.kill()
            await code.end()
            return said

    assert asyncio.run(scenario()) == b"here\n"


@pytest.fixture
def broken_image(engine: Engine) -> Iterator[str]:
    """An image whose Python says a word and ends."""
    script = (
        "printf '#!/bin/sh\\necho not today >&2\\nexit 7\\n' > /usr/local/bin/python3; chmod 755 /usr/local/bin/python3"
    )
    config = {"Image": DockerOptions().image, "User": "0", "Entrypoint": ["sh"], "Cmd": ["-c", script]}
    id = engine.create(f"serai-test-{os.getpid()}", config)
    name = f"serai-test-{os.getpid()}"
    try:
        engine.start(id)
        assert engine.wait(id) == 0
        engine.api.commit(id, name, "broken", conf={"User": "2222"})
        yield f"{name}:broken"
    finally:
        engine.remove(id)
        engine.api.remove_image(f"{name}:broken", force=True)


def test_one_that_ends_before_it_connects_is_ours_to_explain_with_what_it_printed(home, python, broken_image):
    async def scenario():
        async with docker(home, python, DockerOptions(image=broken_image)) as sandbox:
            code = RunningCode(sandbox, Box(1, version(home, ""), LIMITS))
            return await code.end()

    assert asyncio.run(scenario()) == Ending("exit code 7", output="not today\n", is_platform=True)
    with pytest.raises(SandboxUnavailable, match="not today"):
        Docker.probe(home, DockerOptions(image=broken_image))


def test_a_python_without_an_image_is_ours_to_explain_and_says_how_to_make_one(home, python):
    async def scenario():
        async with docker(home, python) as sandbox:
            code = RunningCode(sandbox, Box(1, version(home, "", python="3.97"), LIMITS))
            ending = await code.end()
            with pytest.raises(SandboxUnavailable, match="is no version"):
                RunningCode(sandbox, Box(2, version(home, "", python="../x"), LIMITS))
            return ending

    ending = asyncio.run(scenario())
    assert ending.is_platform and "BASE=python:3.97-slim -t serai-runner:py3.97" in ending.how


def test_images_tagged_with_a_python_are_offered(home, python, engine):
    image = DockerOptions().image
    engine.api.tag(image, f"serai-test-{os.getpid()}", "py3.98")
    engine.api.tag(image, f"serai-test-{os.getpid()}", "latest")
    try:
        sandbox = Docker.probe(home, DockerOptions(image=f"serai-test-{os.getpid()}:latest"))
        assert sandbox.pythons() == (python, "3.98")
        asyncio.run(sandbox.close())
    finally:
        for tag in ("py3.98", "latest"):
            engine.api.remove_image(f"serai-test-{os.getpid()}:{tag}")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (DockerOptions(image="serai-missing:latest"), r"docker build -f Dockerfile.runner .* -t serai-missing:latest"),
        (DockerOptions(engine="unix:///nowhere/docker.sock"), "no Docker engine answers at unix:///nowhere"),
        (DockerOptions(runtime="no-such-runtime"), "no-such-runtime"),
        (DockerOptions(seccomp="/nowhere/profile.json"), "/nowhere/profile.json"),
    ],
)
def test_where_docker_does_not_work_the_reason_says_what_to_do(home, options, what):
    with pytest.raises(SandboxUnavailable, match=what):
        Docker.probe(home, options)


def test_only_containers_of_dead_hosts_of_this_home_are_removed(home, engine, python):
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    ours = labels_of(home_label(home))
    gone = ours | {"serai.host": f"{dead.pid}:1"}
    dead.wait()
    other = gone | {"serai.home": "another"}
    assert is_orphan(gone) and not is_orphan(ours)
    config = {"Image": DockerOptions().image, "Entrypoint": ["sleep"], "Cmd": ["600"], "HostConfig": {"Init": True}}
    ids = [engine.create(f"serai-test-{os.getpid()}-{n}", config | {"Labels": labels}) for n, labels in
           enumerate((ours, gone, other))]  # fmt: skip
    try:
        for id in ids:
            engine.start(id)
        asyncio.run(Docker.probe(home).close())
        assert containers_of(home) == [ids[0]]
        assert [each.id for each in engine.containers("serai.home=another")] == [ids[2]]
    finally:
        for id in ids:
            engine.remove(id)


HOST = """
import asyncio, sys
from pathlib import Path
from serai_runner.sandbox.base import Box, Limits
from serai_runner.sandbox.docker.sandbox import Docker, DockerOptions
from serai_runner.sandbox.docker.engine import Engine
from serai_runner.sandbox.testing import RunningCode
from serai_runner.testing import python_version

LIMITS = Limits(memory_bytes=256 << 20, pids=64, cpus=1.0, tmp_bytes=8 << 20)

async def main(home, python, code):
    sandbox = Docker(home, DockerOptions(), Engine(DockerOptions().engine), python)
    working = RunningCode(sandbox, Box(1, python_version(code), LIMITS))
    await working.said()
    waiting = RunningCode(sandbox, Box(2, python_version(code), LIMITS))  # connected, and not told what to do
    await waiting.events.connected
    print("ready", flush=True)
    await asyncio.sleep(600)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
"""


def test_boxes_die_with_a_host_that_is_killed_and_the_next_one_cleans_up(home, python, engine):
    code = write_algorithm(home / "code", "def apply(i): pass")
    host = subprocess.Popen([sys.executable, "-c", HOST, str(home), python, code], stdout=subprocess.PIPE)
    try:
        assert host.stdout is not None and host.stdout.readline() == b"ready\n"
    finally:
        host.kill()
        host.communicate()
    ids = containers_of(home)
    assert len(ids) == 2
    wait_until(lambda: all(engine.ended(id) is not None for id in ids))
    asyncio.run(Docker.probe(home).close())


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


class Wire:
    """Between us and the engine, so that the engine can be lost without harm to others."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._server: asyncio.AbstractServer | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def connect(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        self.path.unlink()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with contextlib.suppress(asyncio.CancelledError):
            there, back = await asyncio.open_unix_connection(DockerOptions().engine.removeprefix("unix://"))
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._pass(reader, back))
                    group.create_task(self._pass(there, writer))
            finally:
                back.transport.abort()
                writer.transport.abort()
        self._tasks.discard(task)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
            writer.write_eof()


def test_when_the_engine_is_lost_its_boxes_end_and_when_it_is_back_they_start_again(home, python, tmp_path):
    async def scenario():
        wire = Wire(tmp_path / "engine.sock")
        await wire.connect()
        options = DockerOptions(engine=f"unix://{wire.path}")
        engine = await asyncio.to_thread(Engine, options.engine)
        sandbox = Docker(home, options, engine, python)
        spec = version(home, "print('here')\ndef apply(i): pass")
        try:
            async with asyncio.timeout(PATIENCE_S):
                code = RunningCode(sandbox, Box(1, spec, LIMITS))
                await code.said()
                await wire.cut()
                ending = await code.end()
                assert ending.is_platform and "the Docker engine was lost" in ending.how
                with pytest.raises(SandboxUnavailable, match="the Docker engine does not answer"):
                    RunningCode(sandbox, Box(2, spec, LIMITS))
                await wire.connect()
                again = await _start_when_it_is_back(sandbox, Box(3, spec, LIMITS))
                assert await again.said() == b"here\n"
                while len(await asyncio.to_thread(containers_of, home)) > 1:
                    await asyncio.sleep(0.02)  # the lost one is removed when there is time for it
                again.running.kill()
                assert not (await again.end()).is_platform
        finally:
            await sandbox.close()
            await wire.cut()

    asyncio.run(scenario())


async def _start_when_it_is_back(sandbox: Docker, box: Box) -> RunningCode:
    while True:
        try:
            return RunningCode(sandbox, box)
        except SandboxUnavailable:
            await asyncio.sleep(0.02)


def test_closing_ends_every_box(home, python):
    async def scenario():
        sandbox = Docker(home, DockerOptions(), Engine(DockerOptions().engine), python)
        spec = version(home, "def apply(i): pass")
        codes = [RunningCode(sandbox, Box(number, spec, LIMITS)) for number in range(3)]
        await codes[0].events.connected
        await sandbox.close()
        assert all(code.events.ended.done() for code in codes)
        for code in codes:
            code.close()

    asyncio.run(scenario())


# Builds


def build(home: Path, command: list[str], **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(build_words(home, command, **more), capture_output=True, text=True, timeout=PATIENCE_S)


def build_words(home: Path, command: list[str], **more) -> list[str]:
    folder = home / "tree"
    folder.mkdir(exist_ok=True)
    sandbox = Docker(home, DockerOptions(), Engine(DockerOptions().engine), "")
    words = sandbox.build_command(BuildBox(command, folder, **{"memory_bytes": 128 << 20, "pids": 32, **more}))
    asyncio.run(sandbox.close())
    return words


def test_a_build_writes_into_its_folder_and_nowhere_else(home):
    script = (
        "echo said; echo complained >&2; touch made; chmod 4755 made; id -u > who; touch /opt/x /x; echo $KEY; exit 4"
    )
    done = build(home, ["sh", "-c", f"{script}; exit 4"], variables={"KEY": "value"})
    assert done.returncode == 4 and done.stdout == "said\nvalue\n"
    assert done.stderr.startswith("complained\n") and done.stderr.count("Read-only file system") == 2
    made = home / "tree" / "made"
    assert made.stat().st_uid == os.getuid() and made.stat().st_mode & 0o7777 == 0o755  # not as the root of anything
    assert (home / "tree" / "who").read_text() == "2222\n"


def test_a_build_has_no_network_and_folders_lent_to_it_are_read_only(home, tmp_path):
    (tmp_path / "lent").mkdir()
    (tmp_path / "lent" / "file").write_text("there")
    script = "ls /sys/class/net; cat /lent/file; touch /lent/x"
    done = build(home, ["sh", "-c", script], read_only=[(tmp_path / "lent", "/lent")])
    assert done.stdout == "lo\nthere" and "Read-only" in done.stderr


def test_a_build_ends_at_its_limits(home):
    done = build(home, ["python3", "-c", "b'a' * (1 << 30)"], memory_bytes=32 << 20)
    assert done.returncode == 137 and "ran out of its memory of 32 MiB" in done.stderr
    bomb = "import os\nwhile True:\n    if os.fork() == 0: import time; time.sleep(60)"
    done = build(home, ["python3", "-c", bomb])
    assert done.returncode == 1 and "Resource temporarily unavailable" in done.stderr


def test_a_build_whose_command_is_missing_says_so(home):
    done = build(home, ["no-such-program"])
    assert done.returncode == 127 and "no-such-program: No such file or directory" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_build_dies_with_its_command_whatever_it_does_against_it(home, engine, number):
    script = "import os, signal, time\nfor n in (9, 19, 15): os.kill(1, n)\nprint('up', flush=True); time.sleep(600)"
    with subprocess.Popen(build_words(home, ["python3", "-c", script]), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        (id,) = containers_of(home)
        process.send_signal(number)
        process.wait(PATIENCE_S)
    if number == signal.SIGKILL:
        wait_until(lambda: engine.ended(id) is not None)
        asyncio.run(Docker.probe(home).close())
    assert containers_of(home) == []
