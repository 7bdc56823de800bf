"""The folder that holds everything: made private, locked by one `serai up`, swept at start."""

import fcntl
import os
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

#: Folders of a home; the rest is made by the part that owns it.
_FOLDERS = ("run", "logs", "tmp")


class HomeError(Exception):
    """The home cannot be used; the message says why and what to do."""


@dataclass
class Home:
    path: Path
    _lock: TextIO | None = field(default=None, repr=False)

    @property
    def run(self) -> Path:
        return self.path / "run"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def key_file(self) -> Path:
        return self.path / "operator.key"

    def open(self) -> None:
        """Make it, lock it, empty what belongs to a running service.

        Raises:
            HomeError: it is not writable, or another `serai up` runs on it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if stat.S_IMODE(self.path.stat().st_mode) & 0o077:
                self.path.chmod(0o700)
            lock = (self.path / "lock").open("a+")
        except OSError as error:
            raise HomeError(f"cannot use {self.path}: {error.strerror}; choose another folder with --home") from error
        self._take(lock)
        try:
            for name in _FOLDERS:
                if name != "logs":
                    shutil.rmtree(self.path / name, ignore_errors=True)
                (self.path / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise HomeError(
                f"cannot write to {self.path}: {error.strerror}; choose another folder with --home"
            ) from error

    def _take(self, lock: TextIO) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise HomeError(
                f"{self.path} is in use by another `serai up` (process {holder}); stop it, or choose another --home"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
