"""Has model files checked by a process of their own: what somebody sends can cost that process, never this one."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

import msgspec

from serai_gateway.build.errors import InvalidModel
from serai_gpu_pool.formats.inspector import MAX_MEMORY_BYTES, MAX_SECONDS, Report

#: Time for all models of a build together: 64 that each take as long as they may would keep a core for half an hour.
MAX_BUILD_SECONDS = 120
#: Longest answer: 1024 inputs and outputs with names of a thousand characters.
MAX_ANSWER_BYTES = 1 << 20
#: A process whose socket is closed has nothing left to do but to end.
_END_S = 5.0


class Inspector:
    """One process for the models of one build, started with the first of them. Used from one thread."""

    def __init__(self, *, max_seconds: float = MAX_SECONDS) -> None:
        self._max_seconds = max_seconds
        self._left_s = float(MAX_BUILD_SECONDS)
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def inspect(self, path: Path) -> Report:
        """What the file is. Blocks for as long as that takes. It must not change meanwhile.

        Raises InvalidModel when finding that out takes too much.
        """
        started = time.monotonic()
        channel = self._channel or self._start()
        try:
            with path.open("rb") as file:
                socket.send_fds(channel, [b"?"], [file.fileno()])
            answer = _line(channel, started + min(self._max_seconds, self._left_s))
            return msgspec.json.decode(answer, type=Report)
        except TimeoutError:
            raise self._stopped("SIGXCPU") from None
        except (ConnectionError, EOFError):
            raise self._stopped(self._wait()) from None
        finally:
            self._left_s -= time.monotonic() - started

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._channel is not None:
            self._channel.close()
        if self._process is not None:
            if self._process.poll() is None:
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._channel = self._process = None

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-m", "serai_gpu_pool.formats.inspector", str(os.getpid())],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,  # what it complains about is the program, not a file: that is for our log
                env={"ORT_DISABLE_TELEMETRY": "1", "LANG": "C.UTF-8"},
                cwd="/",
                start_new_session=True,
            )
        self._channel = ours
        return ours

    def _wait(self) -> str:
        """How the process has ended: a signal's name, or an exit status."""
        assert self._process is not None, "it was started"
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = self._process.wait(_END_S)
            return signal.Signals(-code).name if code < 0 else f"status {code}"
        return "no answer"

    def _stopped(self, how: str) -> InvalidModel:
        is_last = self._left_s < self._max_seconds
        self.close()
        if how != "SIGXCPU":
            return InvalidModel(
                f"it cannot be checked within {MAX_MEMORY_BYTES >> 30} GiB of memory ({how}): "
                "export it with fewer operations, or again if it is damaged"
            )
        if is_last:
            return InvalidModel(
                f"checking the models of one build may take {MAX_BUILD_SECONDS} s, and they take longer: publish fewer "
                "of them together"
            )
        return InvalidModel(
            f"checking it takes longer than {self._max_seconds:g} s, the most there is for a model: export it with "
            "fewer operations, or in several models"
        )


def _line(channel: socket.socket, deadline: float) -> bytes:
    """The answer. Raises TimeoutError, EOFError when there is none, InvalidModel, OSError."""
    answer = bytearray()
    while not answer.endswith(b"\n"):
        channel.settimeout(max(deadline - time.monotonic(), 0.001))
        part = channel.recv(1 << 16)
        if not part:
            raise EOFError
        answer += part
        if len(answer) > MAX_ANSWER_BYTES:
            raise InvalidModel(
                f"its inputs and outputs take more than {MAX_ANSWER_BYTES >> 20} MiB to name; shorten the names"
            )
    return bytes(answer)
