"""The author's process behind the pipe protocol."""

from __future__ import annotations

import os
import select
import subprocess
import threading
from typing import NoReturn

from serai_runner.inside.output import Output

#: Where every process of the protocol writes its answers; it is the same for all, so each needs its own /tmp.
FIFO = "/tmp/algoout"  # noqa: S108
_READY_MARK = b"PIPE_INIT_COMPLETE"
#: Base64 of the largest result, with room for its wrapping.
_MAX_REPLY_BYTES = 24 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
#: So long after an answer that nobody asked for, the process says that it is ready, or is taken for broken.
_EARLY_MS = 1000


class PipeEnded(Exception):
    """The process ended, or gave up, before it was ready."""

    def __init__(self, message: str, answer: bytes = b"") -> None:
        super().__init__(message)
        self.answer = answer  # that it gave before it was asked


class PipeProcess:
    """One request at a time. A thread moves what the process prints into `output`, so that it never blocks.

    Raises:
        OSError: the process cannot be started.
    """

    def __init__(self, command: list[str], environment: dict[str, str], output: Output) -> None:
        self._output = output
        os.mkfifo(FIFO, 0o644)
        self._fifo = self._open_fifo()  # before the start: a process that fails to load may answer at once
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert self._process.stdin and self._process.stdout and self._process.stderr
        self._stdin = self._process.stdin.fileno()
        self._printed = [self._process.stdout.fileno(), self._process.stderr.fileno()]
        for fd in self._printed:
            os.set_blocking(fd, False)
        self._exited = os.pidfd_open(self._process.pid)
        self._ready_read, self._ready_write = os.pipe2(os.O_CLOEXEC)
        self._before_ready: bytes | None = b""  # the unfinished last line of stdout; None: is ready
        self._lock = threading.Lock()  # guards the moving of output
        self._busy = threading.Lock()  # held while a request runs
        threading.Thread(target=self._watch, daemon=True).start()

    def wait_ready(self) -> bytes:
        """What it has answered before it was asked, if it has. Raises PipeEnded."""
        has_answered, answer = False, b""
        poller = _poller(self._ready_read, self._exited, self._fifo)
        while True:
            ready = {fd for fd, _ in poller.poll(_EARLY_MS if has_answered else None)}
            if self._fifo in ready and not has_answered:
                has_answered, answer = True, self._read_early_answer()
                poller.unregister(self._fifo)
                self._fifo = self._open_fifo(replacing=self._fifo)
            elif self._ready_read in ready:
                return answer
            elif self._exited in ready:
                self.collect_output()
                if self._before_ready is None:  # ready, and ended right after: the first request will tell
                    return answer
                self._output.write(self._before_ready)
                how = (
                    "answered before it was ready"
                    if has_answered
                    else f"exited with code {_code(self._process.wait())}"
                )
                raise PipeEnded(how, answer)
            elif not ready:
                raise PipeEnded("answered before it was ready", answer)

    def request(self, line: bytes) -> bytes:
        """Send one request; the raw answer. When the process dies instead, so do we, in the same way."""
        with self._busy:
            self._fifo = self._open_fifo(replacing=self._fifo)  # a fresh one has no hang-up pending
            try:
                self._write(line)
            except BrokenPipeError:
                self._die_alike()
            return self._read_answer()

    def collect_output(self) -> None:
        """Move what has been printed until now."""
        with self._lock:
            for fd in list(self._printed):
                self._move(fd)

    def stop(self) -> None:
        """Close its stdin and give it a moment to end by itself."""
        os.close(self._stdin)
        try:
            self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _write(self, line: bytes) -> None:
        view = memoryview(line)
        while view:
            view = view[os.write(self._stdin, view) :]

    def _read_answer(self) -> bytes:
        parts: list[bytes] = []
        num_bytes = 0
        poller = _poller(self._fifo, self._exited)
        while True:
            ready = {fd for fd, _ in poller.poll()}
            if self._fifo in ready:
                data = _read(self._fifo)
                if data:
                    parts.append(data)
                    num_bytes += len(data)
                    if num_bytes > _MAX_REPLY_BYTES:
                        self._process.kill()
                        self._die_alike()
                elif data == b"" and parts:
                    return b"".join(parts)
                elif data == b"":  # opened and closed without a word
                    poller.unregister(self._fifo)
                    self._fifo = self._open_fifo(replacing=self._fifo)
                    poller.register(self._fifo, select.POLLIN)
            elif self._exited in ready:  # and it has left nothing to read
                self._die_alike()

    def _read_early_answer(self) -> bytes:
        """To its end: its writer closes the FIFO, or ends."""
        data = b""
        poller = _poller(self._fifo)
        while len(data) <= _MAX_REPLY_BYTES and poller.poll(_EARLY_MS):
            part = _read(self._fifo)
            if part == b"":
                break
            data += part or b""
        return data

    @staticmethod
    def _open_fifo(replacing: int | None = None) -> int:
        fifo = os.open(FIFO, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if replacing is not None:
            os.close(replacing)  # only now: a writer must always find a reader
        return fifo

    def _watch(self) -> None:
        poller = _poller(*self._printed, self._exited)
        while True:
            ready = {fd for fd, _ in poller.poll()}
            with self._lock:
                for fd in [fd for fd in self._printed if fd in ready]:
                    if not self._move(fd):
                        poller.unregister(fd)
                        self._printed.remove(fd)
            if self._exited in ready:
                poller.unregister(self._exited)
                # A running request notices by itself, and start-up too. Idle, nobody else would.
                if self._before_ready is None and self._busy.acquire(blocking=False):
                    self._die_alike()
                if not self._printed:
                    return

    def _move(self, fd: int) -> bool:
        """Move all that can be read from `fd`; whether more may follow."""
        while data := _read(fd):
            if self._before_ready is not None and fd == self._printed[0]:
                data = self._look_for_mark(data)
            self._output.write(data)
        return data is None

    def _look_for_mark(self, data: bytes) -> bytes:
        """`data` without the line that says ready."""
        assert self._before_ready is not None
        data = self._before_ready + data
        before, mark, after = data.partition(_READY_MARK)
        if mark:
            self._before_ready = None
            os.write(self._ready_write, b"1")
            return before + after.lstrip(b"\r\n")
        self._before_ready = data[-len(_READY_MARK) :]
        return data[: -len(_READY_MARK)]

    def _die_alike(self) -> NoReturn:
        code = self._process.wait()
        if code < 0:
            os.kill(os.getpid(), -code)
        os._exit(_code(code))


def _poller(*fds: int) -> select.poll:
    poller = select.poll()
    for fd in fds:
        poller.register(fd, select.POLLIN)
    return poller


def _read(fd: int) -> bytes | None:
    """b"" at the end, None when there is nothing now."""
    try:
        return os.read(fd, _CHUNK_BYTES)
    except BlockingIOError:
        return None


def _code(returncode: int) -> int:
    return returncode if returncode >= 0 else 128 - returncode
