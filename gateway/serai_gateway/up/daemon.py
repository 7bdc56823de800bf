"""One supervised daemon: started, restarted when it dies, stopped when asked."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path

#: A daemon that dies is started again at once; one that keeps dying, with pauses that double up to the last.
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 10.0

#: A daemon that ran this long was well: its next death is again a first one.
_WELL_AFTER_S = 10.0

#: How a daemon ends that cannot work with what it was told, as argparse does; starting it again helps nobody.
_WRONG_SETTINGS = 2
#: Its last words are looked for in so much of its log.
_LAST_WORDS_BYTES = 4096


class Daemon:
    """Keeps one process running.

    Args:
        command: argument list; the process inherits `descriptors`.
        log: file its output is appended to.
        pid_file: says which process it is now.
        on_event: told what happened, as one line for the operator.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        log: Path,
        pid_file: Path,
        environment: dict[str, str],
        descriptors: tuple[int, ...] = (),
        on_event: Callable[[str], None],
    ) -> None:
        self.name = name
        self._command = command
        self._log = log
        self._pid_file = pid_file
        self._environment = environment
        self._descriptors = descriptors
        self._on_event = on_event
        self._process: asyncio.subprocess.Process | None = None
        self._is_stopping = False
        self._task: asyncio.Task[None] | None = None
        self.refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()  # why it does not start

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        await self._spawn()
        self._task = asyncio.create_task(self._keep_running())

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after `grace_s`."""
        self._is_stopping = True
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(grace_s):
                    await process.wait()
            except TimeoutError:
                self._on_event(f"{self.name} did not stop within {grace_s:g} s; killed")
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def kill(self) -> None:
        """At once, without grace: for a supervisor that is itself in a hurry."""
        self._is_stopping = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _spawn(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                pass_fds=self._descriptors,
                start_new_session=True,  # Ctrl-C is for the supervisor, which then stops them in order
            )
        self._write_pid(self._process.pid)

    def _write_pid(self, pid: int) -> None:
        staged = self._pid_file.with_suffix(".new")
        staged.write_text(f"{pid}\n")
        staged.replace(self._pid_file)

    async def _keep_running(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._is_stopping:
            assert self._process is not None, "started before it is kept running"
            started = time.monotonic()
            code = await self._process.wait()
            if self._is_stopping:
                return
            if code == _WRONG_SETTINGS and not self.refused.done():
                self.refused.set_result(self._last_words())
                return
            ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
            self._on_event(f"{self.name} {ended}; starting it again (see {self._log})")
            if time.monotonic() - started > _WELL_AFTER_S:
                pause_s = _FIRST_PAUSE_S
            else:
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
            if not self._is_stopping:
                await self._spawn()

    def _last_words(self) -> str:
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - _LAST_WORDS_BYTES))
            lines = log.read().decode("utf-8", "replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "it does not say why")
