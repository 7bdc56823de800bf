"""What a server process asks of the kernel."""

import ctypes
import os
import resource
import signal

_PR_SET_PDEATHSIG = 1

#: Enough for every connection a worker may have; a hard limit of millions would only make tables larger.
_WANTED_OPEN_FILES = 65_536


def die_with_parent(parent: int | None = None) -> None:
    """Have the kernel kill this process, without delay or cleanup, when the thread that started it ends.

    SIGKILL and not SIGTERM: whoever starts us again must find neither an old process that still drains nor one that
    hangs. Args: `parent`, its process id where it is known; if it has died meanwhile, we exit here.
    """
    expected = parent if parent is not None else os.getppid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != expected:
        os._exit(1)


def raise_open_files_limit() -> int:
    """Raise the soft limit of open files as far as it goes and is of use. Returns the limit now in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _WANTED_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _WANTED_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft if soft != resource.RLIM_INFINITY else wanted
