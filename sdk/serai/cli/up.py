"""Start everything on this machine. All options are the server's own: `serai up --help` asks it."""

import os
import sys
from importlib.util import find_spec

from serai.errors import SeraiError

#: The server's part of the distribution, and one of the libraries that only the `server` extra installs.
_NEEDED = ("serai_gateway", "starlette")


def start(arguments: list[str]) -> int:
    """Become the server. Returns only by an error: this process is replaced, so that signals reach it directly."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise SeraiError(f"the server is not installed ({missing[0]} is missing): run `make install` in the checkout")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "serai_gateway.up", *arguments])  # noqa: S606
