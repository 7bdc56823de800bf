"""What tests of the runner host and of its callers need: recorded effects, a real host, a blocking caller."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from serai.ipc.frames import pack_frame
from serai.ipc.messages import (
    Call,
    Cancel,
    ContentType,
    Define,
    Failure,
    Item,
    Limits,
    Logged,
    Message,
    More,
    Progress,
    Refusal,
    Result,
    Stats,
    Unknown,
    VersionSpec,
    Waiting,
    decode,
    encode,
)  # fmt: skip
from serai.ipc.secrets import NO_SECRETS, Secrets
from serai_runner.scheduling.calls import Ending, PendingCall, ReplicaState
from serai_runner.scheduling.version import VersionState

#: Nothing in a test takes this long unless it hangs.
PATIENCE_S = 30.0


@dataclass
class RecordedEffects:
    """Effects that only write down what the scheduler asked for."""

    started: list[ReplicaState] = field(default_factory=list)
    sent: list[tuple[ReplicaState, PendingCall]] = field(default_factory=list)
    killed: list[ReplicaState] = field(default_factory=list)
    replies: list[tuple[PendingCall, Result | Failure | Refusal, bytes]] = field(default_factory=list)
    told_replicas: list[tuple[ReplicaState, Cancel | More]] = field(default_factory=list)
    told_callers: list[tuple[PendingCall, Item | Progress | Waiting, bytes]] = field(default_factory=list)
    pauses: list[tuple[VersionState, str, float]] = field(default_factory=list)

    def start(self, replica: ReplicaState) -> None:
        self.started.append(replica)

    def send(self, replica: ReplicaState, call: PendingCall) -> None:
        self.sent.append((replica, call))

    def kill(self, replica: ReplicaState) -> None:
        self.killed.append(replica)

    def reply(self, call: PendingCall, message: Result | Failure | Refusal, payload: bytes) -> None:
        self.replies.append((call, message, payload))

    def tell_replica(self, replica: ReplicaState, message: Cancel | More) -> None:
        self.told_replicas.append((replica, message))

    def tell_caller(self, call: PendingCall, message: Item | Progress | Waiting, payload: bytes) -> None:
        self.told_callers.append((call, message, payload))

    def paused(self, version: VersionState, why: str, pause_s: float) -> None:
        self.pauses.append((version, why, pause_s))


@dataclass
class RecordedBox:
    """Events of one box, written down."""

    sockets: list[socket.socket] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)

    def on_connected(self, sock: socket.socket) -> None:
        self.sockets.append(sock)

    def on_ended(self, ending: Ending) -> None:
        self.endings.append(ending)


def write_algorithm(folder: Path, source: str, name: str = "main", **more: str) -> str:
    """A version's code tree with `src/NAME.py` and further files (`_` in their names for `/`); its path."""
    (folder / "src").mkdir(parents=True, exist_ok=True)
    (folder / "src" / f"{name}.py").write_text(source)
    for path, text in more.items():
        file = folder / path.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return str(folder)


def python_version(code: str, key: str = "acme/demo@1", limits: Limits | None = None, **more) -> VersionSpec:
    limits = limits or Limits(memory_bytes=256 << 20)
    return VersionSpec(**{"key": key, "owner": "acme", "name": "demo", "kind": "python", "code": code,
                          "entry": "main", "limits": limits, **more})  # fmt: skip


#: What may come any number of times for one id.
_MANY = Item | Progress | Waiting | Logged


@dataclass(frozen=True)
class Answer:
    message: Message
    payload: bytes

    @property
    def stdout(self) -> bytes:
        num_bytes = getattr(self.message, "stdout_bytes", 0)
        return self.payload[len(self.payload) - num_bytes :]

    @property
    def result(self) -> bytes:
        return self.payload[: len(self.payload) - len(self.stdout)]


class Caller:
    """A gateway's connection, one thread, answers in any order."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(PATIENCE_S)
        self._sock.connect(str(path))
        self._buffer = bytearray()
        self._answers: dict[int, list[Answer]] = {}  # several for calls that stream and for logs
        self._next_id = 0

    def close(self) -> None:
        self._sock.close()

    def send(self, message: Message, payload: bytes = b"") -> None:
        self._sock.sendall(pack_frame(encode(message), payload))

    def define(self, spec: VersionSpec, secrets: Secrets = NO_SECRETS) -> None:
        self.send(Define(spec), secrets.encode())

    def start_call(
        self, key: str, payload: bytes = b"", content_type: ContentType = "json", timeout_s: float = 20.0,
        payer: str = "alice", wants_stdout: bool = False, **more,
    ) -> int:  # fmt: skip
        self._next_id += 1
        deadline = time.monotonic() + timeout_s
        call = Call(self._next_id, key, content_type, deadline, f"req-{self._next_id}", payer, wants_stdout, **more)
        self.send(call, payload)
        return self._next_id

    def call(self, key: str, payload: bytes = b"", content_type: ContentType = "json", **more) -> Answer:
        return self.wait(self.start_call(key, payload, content_type, **more))

    def cancel(self, call_id: int) -> None:
        self.send(Cancel(call_id))

    def stats(self) -> str:
        self._next_id += 1
        self.send(Stats(self._next_id), b"{}")
        return self.wait(self._next_id).payload.decode()

    def wait(self, call_id: int) -> Answer:
        """What comes next for this call. Raises TimeoutError after PATIENCE_S, EOFError when the host has gone."""
        while call_id not in self._answers:
            self._read_frame()
        answers = self._answers[call_id]
        answer = answers.pop(0)
        if not answers:
            del self._answers[call_id]
        return answer

    def num_unread(self) -> int:
        return len(self._answers)

    def _read_frame(self) -> None:
        self._fill(6)
        length = int.from_bytes(self._buffer[:4], "little")
        header_length = int.from_bytes(self._buffer[4:6], "little")
        self._fill(4 + length)
        header = bytes(self._buffer[6 : 6 + header_length])
        payload = bytes(self._buffer[6 + header_length : 4 + length])
        del self._buffer[: 4 + length]
        message = decode(header)
        assert isinstance(message, Result | Failure | Refusal | Unknown | Stats | _MANY), message
        before = self._answers.setdefault(message.id, [])
        assert not before or isinstance(before[-1].message, _MANY), "a call was answered twice"
        before.append(Answer(message, payload))

    def _fill(self, wanted: int) -> None:
        while len(self._buffer) < wanted:
            data = self._sock.recv(1 << 20)
            if not data:
                raise EOFError("the host closed the connection")
            self._buffer += data


class HostProcess:
    """A real runner host in its own process."""

    def __init__(self, home: Path, *options: str) -> None:
        self.home = home
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._log = (home / "runner.log").open("ab")
        words = [sys.executable, "-m", "serai_runner", "--home", str(home), *options]
        self._process = subprocess.Popen(words, stderr=self._log, stdin=subprocess.DEVNULL)
        self.pid = self._process.pid
        self._callers: list[Caller] = []
        self.wait_for(self._is_listening, "the host listens")

    def _is_listening(self) -> bool:
        assert self._process.poll() is None, f"the host ended: {self.log()}"
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(str(self.home / "run" / "runner.sock")) == 0

    def connect(self) -> Caller:
        caller = Caller(self.home / "run" / "runner.sock")
        self._callers.append(caller)
        return caller

    def log(self) -> str:
        return (self.home / "runner.log").read_text()

    def terminate(self) -> int:
        """SIGTERM, then its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(PATIENCE_S)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def close(self) -> None:
        for caller in self._callers:
            caller.close()
        if self._process.poll() is None:
            self.kill()
        self._log.close()
        if Path(self.home / "run" / "boxes").exists():  # it has had containers
            from serai_runner.sandbox.testing import sweep_containers

            sweep_containers(self.home)

    def replica_pids(self) -> list[int]:
        """Every process of a box, outer ones first."""
        outermost = containers_of(self.pid)
        return descendants(self.pid) + outermost + [pid for outer in outermost for pid in descendants(outer)]

    def replica_pid(self) -> int:
        """The innermost process: the newest replica itself, none of those that hold it."""
        return self.replica_pids()[-1]

    @staticmethod
    def wait_for(condition, what: str) -> None:
        """Look again until it holds. Only for states that nothing announces."""
        until = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < until, f"waited in vain until {what}"
            time.sleep(0.005)


@contextmanager
def run_host(home: Path, *options: str) -> Iterator[HostProcess]:
    host = HostProcess(home, *options)
    try:
        yield host
    finally:
        host.close()


def descendants(pid: int) -> list[int]:
    """Process ids of all children and their children, read from /proc."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def containers_of(host: int) -> list[int]:
    """The first processes of the host's containers; none where there is no engine."""
    if not Path("/var/run/docker.sock").is_socket():
        return []
    import docker

    engine = docker.from_env()
    try:
        containers = engine.containers.list(filters={"label": "serai.host"}, ignore_removed=True)
        ours = [one for one in containers if one.labels["serai.host"].partition(":")[0] == str(host)]
        return [int(one.attrs["State"]["Pid"]) for one in ours if one.attrs["State"]["Pid"]]
    finally:
        engine.close()


def is_alive(pid: int) -> bool:
    """Whether it exists and is no zombie."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


__all__ = [
    "PATIENCE_S", "Answer", "Caller", "HostProcess", "RecordedEffects", "descendants", "is_alive", "python_version",
    "run_host", "write_algorithm",
]  # fmt: skip
