"""Run one command of ours for a build: with a deadline, limits, its output in the log, and no life beyond ours."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from serai_gateway.build.errors import BuildError
from serai_gateway.build.patience import check_patience

Log = Callable[[str], None]

#: Longest line of output that reaches a log.
MAX_LINE_CHARS = 2000
#: Lines kept for the error message of a command that failed.
_TAIL_LINES = 8
#: Of output beyond the first number, more than any log holds, only the last lines are looked at: a line costs far more
#: than its bytes. Beyond the second the command is stopped.
_LINES_UP_TO_BYTES, MAX_OUTPUT_BYTES = 4 << 20, 64 << 20

#: Time between looks at what a command writes. A disk of ours takes 2 GB/s: what it can overshoot stays bearable.
_CHECK_S = 1.0
#: Given to a command to end by itself: a sandbox does when all of its processes are gone.
_END_S = 2.0

#: Runs in a fresh interpreter between fork and exec, where a thread's preexec_fn would be unsafe. The kernel kills
#: the command when the thread that waits for it dies (PR_SET_PDEATHSIG, 1).
_LAUNCHER = """
import ctypes, os, resource, signal, sys
parent, file_bytes, memory_bytes = map(int, sys.argv[1:4])
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != parent:
    os._exit(137)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if file_bytes:
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
if memory_bytes:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
os.execvp(sys.argv[4], sys.argv[4:])
"""

#: Colours and the like, and all controls but tab and newline, the second set of them included.
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Finished(NamedTuple):
    code: int
    tail: str  # the last lines of output


def run_command(
    argv: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    timeout_s: float,
    log: Log,
    max_file_bytes: int = 0,
    max_memory_bytes: int = 0,
    check: Callable[[], None] = lambda: None,
    what: str = "",
) -> Finished:
    """Run `argv` to its end. Zero limits are none.

    Args:
        check: called about every second; raises BuildError when it has had enough.
        what: what messages call it; else by its program.

    Raises BuildError when it takes longer than `timeout_s`. However it ends, nothing of it runs on then.
    """
    what = what or Path(argv[0]).name
    launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER]
    limits = [str(os.getpid()), str(max_file_bytes), str(max_memory_bytes)]
    process = subprocess.Popen(
        [*launcher, *limits, *argv],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        bufsize=0,
    )
    tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def keep(line: str) -> None:
        tail.append(line)
        log(line)

    deadline = time.monotonic() + timeout_s
    try:
        assert process.stdout is not None, "the pipe was asked for"
        if not _copy_lines(process.stdout.fileno(), keep, deadline, check, what):
            raise BuildError(f"{what} took longer than {timeout_s:g} s and was stopped")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        if process.poll() is None:
            raise BuildError(f"{what} took longer than {timeout_s:g} s and was stopped")
    finally:
        _end(process)
        if process.stdout is not None:
            process.stdout.close()
    return Finished(process.returncode, "\n".join(tail))


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of it, its group too."""
    if process.poll() is None:
        # A sandbox's first process, if this is one: with it the kernel ends all of the sandbox, and only then the
        # sandbox command. Killed the other way round, something inside could still write for a moment.
        children = _children(process.pid)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        if not children:
            process.terminate()  # one that has something to tidy up elsewhere, like a container, does it now
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # also what it may have left running
    process.wait()


def _children(pid: int) -> list[int]:
    """They cannot be other processes by now: only their parent, which lives, could have freed their numbers."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _copy_lines(descriptor: int, keep: Log, deadline: float, check: Callable[[], None], what: str) -> bool:
    """Until the output ends; False when the deadline comes first. Raises BuildError for output without end."""
    next_check = time.monotonic() + _CHECK_S
    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    rest, num_bytes = b"", 0
    while True:
        now = time.monotonic()
        if now >= next_check:
            check()
            check_patience()
            next_check = time.monotonic() + _CHECK_S
        if now >= deadline:
            return False
        if not poll.poll(max(0.0, min(deadline, next_check) - now) * 1000):
            continue
        data = os.read(descriptor, 64 * 1024)
        num_bytes += len(data)
        if num_bytes > MAX_OUTPUT_BYTES:
            raise BuildError(f"{what} printed more than {MAX_OUTPUT_BYTES >> 20} MiB and was stopped")
        *lines, rest = (rest + data).split(b"\n")
        if num_bytes > _LINES_UP_TO_BYTES:
            lines = lines[-_TAIL_LINES:]
        if not data or len(rest) > MAX_LINE_CHARS:
            lines, rest = [*lines, rest], b""
        for line in lines:
            if text := clean_line(line.decode("utf-8", "replace")):
                keep(text)
        if not data:
            return True


def clean_line(text: str) -> str:
    """One line as a log may hold it: short, and nothing in it that moves a cursor."""
    text = _ESCAPES.sub("", text).rstrip()
    return text if len(text) <= MAX_LINE_CHARS else text[: MAX_LINE_CHARS - 1] + "…"
