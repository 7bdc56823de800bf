"""The conversation with git's pre-receive hook: it says what is pushed, we say what to print and whether to take it.

The hook is a few lines of shell that run where git runs. It knows two pipes in a folder made for this push: it can
neither reach the gateway otherwise nor decide anything.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from serai_gateway.git import PushRefused

#: Where the folder with the pipes and the hook is, inside git's box.
INSIDE = "/push"
#: Most that a hook says before it waits: the limit on refs is below.
_MAX_BYTES = 1 << 20

_PREFIX = "push-"

_SCRIPT = """\
#!/bin/sh
# Says what is pushed, prints what it is told, and ends as it is told. Without an end, nothing is taken.
{ printf '%s\\n' "$GIT_QUARANTINE_PATH"; cat; echo end; } > "$SERAI_PUSH/asked" || exit 1
while IFS= read -r line; do
  case $line in
    take) exit 0 ;;
    refuse) exit 1 ;;
    *) printf '%s\\n' "${line#?}" >&2 ;;
  esac
done < "$SERAI_PUSH/answers"
echo "the server went away" >&2
exit 1
"""


class Hook:
    """Pipes to one hook. `asked` returns once; then `say` any number of times, and `take` or `refuse`."""

    def __init__(self, run_dir: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-", dir=run_dir))
        script = self.folder / "pre-receive"
        script.write_text(_SCRIPT)
        script.chmod(0o555)
        os.mkfifo(self.folder / "asked", 0o600)
        os.mkfifo(self.folder / "answers", 0o600)
        # Both ends of each, so that neither side waits for the other to open it.
        self._asked = os.open(self.folder / "asked", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._answers = os.open(self.folder / "answers", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop = asyncio.get_running_loop()

    async def asked(self) -> tuple[str, list[str]]:
        """The name of the quarantine's folder, and `old new ref` of each change."""
        raw = b""
        while not raw.endswith(b"\nend\n"):
            await self._ready(self._asked, writing=False)
            with contextlib.suppress(BlockingIOError):
                raw += os.read(self._asked, 64 * 1024)
            if len(raw) > _MAX_BYTES:
                raise PushRefused(f"more than {_MAX_BYTES >> 20} MiB of names of branches and tags")
        quarantine, *changes, _ = raw.decode("utf-8", "surrogateescape").removesuffix("\n").split("\n")
        return os.path.basename(quarantine), changes

    async def say(self, text: str) -> None:
        """Print it in the terminal of who pushes."""
        await self._write("".join(f":{line}\n" for line in text.split("\n")))

    async def take(self) -> None:
        await self._write("take\n")

    async def refuse(self) -> None:
        await self._write("refuse\n")

    def give_up(self) -> None:
        """Nobody waits for the end any more: a hook that runs, or that git is yet to start, refuses."""
        with contextlib.suppress(BlockingIOError):  # full: then it is killed with git
            os.write(self._answers, b"refuse\n")

    def close(self) -> None:
        """Only after git has ended: without a hook it would take whatever it has got."""
        for descriptor in (self._asked, self._answers):
            if descriptor >= 0:
                os.close(descriptor)
        self._asked = self._answers = -1
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _write(self, text: str) -> None:
        raw = text.encode()
        while raw:
            await self._ready(self._answers, writing=True)
            with contextlib.suppress(BlockingIOError):
                raw = raw[os.write(self._answers, raw) :]

    async def _ready(self, descriptor: int, *, writing: bool) -> None:
        ready: asyncio.Future[None] = self._loop.create_future()
        add, remove = (
            (self._loop.add_writer, self._loop.remove_writer)
            if writing
            else (self._loop.add_reader, self._loop.remove_reader)
        )
        add(descriptor, lambda: ready.done() or ready.set_result(None))
        try:
            await ready
        finally:
            remove(descriptor)


def remove_abandoned(run_dir: Path) -> None:
    """What killed gateway workers have left of their pushes."""
    for folder in run_dir.glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if not Path("/proc", pid).exists():
            shutil.rmtree(folder, ignore_errors=True)
