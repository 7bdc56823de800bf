"""Shows folders of this machine in a box that stands already, read-only.

Linux's newer mount calls (open_tree(2), mount_setattr(2), move_mount(2)) do it without a moment in which the folder
could be written: a detached copy of the mount is made read-only first and attached then. It takes root on this
machine, and a kernel of 5.12 or newer; `problem` says what is missing.
"""

import concurrent.futures
import ctypes
import os
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)
#: Numbers of system calls, the same on all architectures that have them since 5.1.
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH = 4
_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000
_RDONLY, _NOSUID, _NODEV = 1, 2, 4
#: struct mount_attr: attr_set, attr_clr, propagation, userns_fd
_MOUNT_ATTR = struct.Struct("<QQQQ")


class MountError(OSError):
    """The kernel does not do it; says which step."""


class Mounts:
    """Attaches folders to boxes, from a thread of its own: whoever enters another mount namespace sees its files."""

    def __init__(self) -> None:
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "mounts", initializer=_leave_common_files)
        self._home = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)

    def attach(self, pid: int, folders: dict[str, str]) -> "concurrent.futures.Future[None]":
        """Show each folder (its path here -> its path there, an empty folder) in the box of process `pid`.

        Nothing of an author may have run in that box: its paths are believed. The future raises MountError.
        """
        return self._thread.submit(self._attach, pid, dict(folders))

    def problem(self) -> str:
        """Why it does not work here; empty: it does. Tries it on ourselves, without leaving a trace."""
        try:
            self._thread.submit(self._try).result()
        except OSError as error:
            return str(error)
        return ""

    def close(self) -> None:
        self._thread.shutdown()
        os.close(self._home)

    def _attach(self, pid: int, folders: dict[str, str]) -> None:
        copies = [(_read_only_copy(here), there) for here, there in folders.items()]
        try:
            box = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            try:
                _enter(box)
            finally:
                os.close(box)
            try:
                for copy, there in copies:
                    _call("move_mount", _MOVE_MOUNT, copy, b"", _AT_FDCWD, os.fsencode(there), _MOVE_MOUNT_F_EMPTY_PATH)
            finally:
                _enter(self._home)
        finally:
            for copy, _ in copies:
                os.close(copy)

    def _try(self) -> None:
        os.close(_read_only_copy("/proc/self"))
        _enter(self._home)


def _leave_common_files() -> None:
    """A thread that shares its root and working folder with others cannot enter another mount namespace."""
    if _LIBC.unshare(_CLONE_FS):
        raise MountError(ctypes.get_errno(), "unshare: " + os.strerror(ctypes.get_errno()))


def _read_only_copy(folder: str) -> int:
    """A descriptor of a copy of what is mounted at `folder`, alone and detached."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC
    copy = _call("open_tree", _OPEN_TREE, _AT_FDCWD, os.fsencode(folder), flags)
    attributes = _MOUNT_ATTR.pack(_RDONLY | _NOSUID | _NODEV, 0, 0, 0)
    try:
        _call("mount_setattr", _MOUNT_SETATTR, copy, b"", _AT_EMPTY_PATH, attributes, len(attributes))
    except MountError:
        os.close(copy)
        raise
    return copy


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNS):
        raise MountError(ctypes.get_errno(), "setns: " + os.strerror(ctypes.get_errno()))


def _call(name: str, number: int, *arguments: int | bytes) -> int:
    words = [ctypes.c_char_p(one) if isinstance(one, bytes) else ctypes.c_long(one) for one in arguments]
    result = _LIBC.syscall(ctypes.c_long(number), *words)
    if result < 0:
        raise MountError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
    return result
