"""What the worker asks of the kernel: die with the pool, stay within memory, give memory back, tell how much it has."""

import contextlib
import ctypes
import os
import resource
import signal

#: Threads and processes of a worker: ONNX Runtime makes some for each open session.
MOST_PROCESSES = 16_384

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def die_with(parent_pid: int) -> None:
    """End this process when its parent ends; at once if that has happened already."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def contain(most_processes: int) -> None:
    """For a process that runs what others wrote: it is the first to go when memory runs out, and makes few others."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("800")
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NPROC, (most_processes, most_processes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_memory(more_bytes: int) -> None:
    """No more than this beyond what the process has now: a greedy model gets an error, not the machine's memory.

    Only the soft limit: it is set anew after each load, because mapped weights count as data although they are pages
    of a file.
    """
    soft = _data_bytes() + more_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or soft < hard:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _data_bytes() -> int:
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[5]) * _PAGE_BYTES


def resident_bytes() -> int:
    """Memory of this process that is in RAM, without pages of files (the interpreter, libraries)."""
    with open("/proc/self/statm", "rb") as file:
        fields = file.read().split()
    return (int(fields[1]) - int(fields[2])) * _PAGE_BYTES


def reset_peak() -> None:
    """Forget the most memory that this process ever had; see `peak_growth`."""
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "wb") as file:
        file.write(b"5")


def peak_growth() -> int:
    """By how much the most that this process had since `reset_peak` is above what it has now, in bytes.

    What was there before the run and is there after it is not counted twice; at least a page, since 0 means not known.
    """
    with open("/proc/self/status", "rb") as file:
        fields = dict(line.split(b":", 1) for line in file if line.startswith((b"VmHWM:", b"VmRSS:")))
    peak, now = (int(fields[name].split()[0]) * 1024 for name in (b"VmHWM", b"VmRSS"))
    return max(peak - now, _PAGE_BYTES)


def return_free_memory() -> None:
    """Give freed pages back to the kernel: an eviction that keeps them has freed nothing."""
    with contextlib.suppress(AttributeError):  # only glibc has it
        _libc.malloc_trim(0)
