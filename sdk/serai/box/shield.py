"""For daemons that run as root: keeps the machine's devices out of reach of what they start.

A box of such a daemon has no capabilities, and yet it owns, as the kernel sees it, the machine's `/dev/null`, which is
mounted in it and is its input: it could forbid everybody else to use it. A view of `/dev` that cannot be changed
stops that; devices are used as before.
"""

import ctypes
import os

_CLONE_NEWNS = 0x0002_0000
_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_REC, _MS_SLAVE = 0x1, 0x20, 0x1000, 0x4000, 0x80000
#: What the mount of /dev forbids already, as `statvfs` names it and as `mount` does: it must be said again.
_KEPT = {os.ST_NOSUID: 0x2, os.ST_NODEV: 0x4, os.ST_NOEXEC: 0x8, os.ST_NOATIME: 0x400, os.ST_RELATIME: 0x200000}


def shield_devices() -> str:
    """Make /dev unchangeable for this process and all that it starts from now on, in a mount namespace of its own.

    To be called at the start of a daemon, before it has threads. Later mounts of the machine still appear here. Only
    root needs it; for others the kernel forbids it anyway.

    Returns:
        Why it is not done, for the log; empty where it is, or need not be.
    """
    if os.geteuid() != 0:
        return ""
    flags = os.statvfs("/dev").f_flag
    if flags & os.ST_RDONLY:
        return ""
    libc = ctypes.CDLL(None, use_errno=True)
    kept = sum(flag for known, flag in _KEPT.items() if flags & known)
    steps = (
        lambda: libc.unshare(_CLONE_NEWNS),
        lambda: libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None),
        lambda: libc.mount(b"/dev", b"/dev", None, ctypes.c_ulong(_MS_BIND | _MS_REC), None),
        lambda: libc.mount(None, b"/dev", None, ctypes.c_ulong(_MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept), None),
    )
    for step in steps:
        if step() != 0:
            return f"boxes can change the machine's devices: {os.strerror(ctypes.get_errno())}; do not run as root"
    return ""
