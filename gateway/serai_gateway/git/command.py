"""Run one git command on a repository and take its output. Blocks; call it from a thread."""

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from serai_gateway.git.box import git_box
from serai_gateway.git.errors import GitError

#: Longest run of a plumbing command: the slowest one walks all objects of a push.
TIMEOUT_S = 120.0
#: Longest output that is taken as a whole.
MAX_OUTPUT_BYTES = 32 << 20
_BLOCK_BYTES = 64 * 1024

_QUARANTINE = re.compile(r"(incoming|tmp_objdir-incoming)-[A-Za-z0-9]{1,40}\Z")


def check_quarantine(name: str) -> str:
    """The folder below `objects` where git keeps what was pushed until it is accepted. Raises GitError."""
    if name and not _QUARANTINE.match(name):
        raise GitError("git keeps what was pushed at an unknown place")
    return name


def _variables(quarantine: str) -> dict[str, str]:
    """Where git finds its objects. Raises GitError."""
    variables = {"GIT_DIR": "{place}"}
    if check_quarantine(quarantine):
        variables["GIT_OBJECT_DIRECTORY"] = f"{{place}}/objects/{quarantine}"
        variables["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = "{place}/objects"
    return variables


def run_git(
    home: Path,
    repository: Path,
    *words: str,
    quarantine: str = "",
    writable: bool = False,
    expected: tuple[int, ...] = (0,),
    script: bool = False,
) -> bytes:
    """The standard output of `git words…`. Raises GitError when it ends with another code than `expected`.

    Args:
        quarantine: the name of the folder with objects that are not accepted yet, to be seen as well.
        script: `words` are a script for /bin/sh and its arguments, instead of git's.
    """
    command = ["/bin/sh", "-c", words[0], "sh", *words[1:]] if script else ["git", *words]
    with (
        git_box(home, repository, command, variables=_variables(quarantine), writable=writable) as started,
        _popen(started.words, started.environment, started.descriptors, repository) as process,
    ):
        output, complaint = _finish(process)
    if process.returncode not in expected:
        raise GitError(explain(complaint) or f"git ended with code {process.returncode}")
    return output


def _read(process: subprocess.Popen[bytes], deadline: float) -> tuple[bytes, bytes]:
    """All that it answers and the end of what it complains, while neither is too much for us. Raises GitError."""
    assert process.stdout is not None, "asked for a pipe"
    assert process.stderr is not None, "asked for a pipe"
    out, err = process.stdout.fileno(), process.stderr.fileno()
    read = {out: bytearray(), err: bytearray()}
    with selectors.DefaultSelector() as selector:
        for descriptor in read:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            if (left := deadline - time.monotonic()) <= 0:
                raise GitError(f"git took longer than {TIMEOUT_S:g} s and was stopped")
            for key, _ in selector.select(left):
                block = os.read(key.fd, _BLOCK_BYTES)
                if not block:
                    selector.unregister(key.fd)
                read[key.fd] += block
            del read[err][:-_BLOCK_BYTES]
            if len(read[out]) > MAX_OUTPUT_BYTES:
                raise GitError(f"git answered with more than {MAX_OUTPUT_BYTES >> 20} MiB and was stopped")
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise GitError(f"git took longer than {TIMEOUT_S:g} s and was stopped") from None
    return bytes(read[out]), bytes(read[err])


@contextlib.contextmanager
def talk_to_git(
    home: Path,
    repository: Path,
    *words: str,
    quarantine: str = "",
    writable: bool = False,
) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """Input and output of a git command that answers while it is written to. Raises GitError if it ends badly."""
    with (
        git_box(home, repository, ["git", *words], variables=_variables(quarantine), writable=writable) as started,
        _popen(started.words, started.environment, started.descriptors, repository) as process,
    ):
        assert process.stdin is not None, "asked for a pipe"
        assert process.stdout is not None, "asked for a pipe"
        is_broken = False
        try:
            yield process.stdin, process.stdout
        except BrokenPipeError:  # it has ended, and says itself why
            is_broken = True
        _, complaint = _finish(process)
    if is_broken or process.returncode != 0:
        raise GitError(explain(complaint) or f"git ended with code {process.returncode}")


def _finish(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """What it still says when it is told nothing more. Raises GitError."""
    assert process.stdin is not None, "asked for a pipe"
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    return _read(process, time.monotonic() + TIMEOUT_S)


@contextlib.contextmanager
def _popen(
    words: list[str], environment: dict[str, str], descriptors: tuple[int, ...], repository: Path
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        words,
        cwd=repository,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=descriptors,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        process.wait()


def explain(complaint: bytes) -> str:
    """git's own words, without colours, controls or more than a few lines."""
    text = "".join(char if char.isprintable() or char == "\n" else " " for char in complaint.decode("utf-8", "replace"))
    return "\n".join(line.strip()[:300] for line in text.split("\n")[-6:] if line.strip())
