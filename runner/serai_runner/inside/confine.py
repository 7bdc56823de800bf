"""Limits a replica puts on itself before it touches the author's code. Hard limits: nobody can raise them again."""

from __future__ import annotations

import os
import resource
import signal

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def limit(limits: dict[str, int]) -> None:
    """`limits`: name of a limit in lower case without its prefix ("nofile") to its value."""
    for name, value in limits.items():
        which = getattr(resource, f"RLIMIT_{name.upper()}")
        _, hard = resource.getrlimit(which)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))


def hide_memory() -> None:
    """Keep other processes of our user from reading our memory and our environment through /proc. Forks keep it so."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    except (ImportError, OSError):
        pass  # a Python without it: the siblings are one version's, and nothing worse than its author's code


def die_with(parent: int) -> None:
    """Ask the kernel to kill us when process `parent` ends. Where there is no sandbox that does it."""
    import ctypes  # slow to import, so only where it is needed

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)
