"""How long a build goes on: until its time is over, or nobody wants it any more. One for each build's thread."""

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar

from serai_gateway.build.errors import BuildError, CalledOff

#: Longest build, from its turn on, with all that it downloads, runs and tries.
BUILD_S = 15 * 60.0

_current: ContextVar["Patience | None"] = ContextVar("patience", default=None)


class Patience:
    """Ends a build that is too long, or that was called off. `call_off` may come from any thread."""

    def __init__(self, within_s: float = BUILD_S) -> None:
        self._within_s = within_s
        self._deadline = time.monotonic() + within_s
        self._reason = ""

    def call_off(self, reason: str) -> None:
        self._reason = self._reason or reason

    def check(self) -> None:
        """Raises BuildError."""
        if self._reason:
            raise CalledOff(self._reason)
        if time.monotonic() > self._deadline:
            raise BuildError(f"the build took longer than {self._within_s / 60:g} minutes and was stopped")

    @contextlib.contextmanager
    def in_force(self) -> Iterator[None]:
        """What this thread does inside ends when patience does."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)


def check_patience() -> None:
    """Called every second by what takes long. Raises BuildError."""
    patience = _current.get()
    if patience is not None:
        patience.check()
