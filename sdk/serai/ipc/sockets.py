"""Unix sockets that only we may use, or we and the boxes they are mounted in: modes, and a check of the peer's uid."""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path

#: The kernel's limit on a Unix socket's path (108 with the closing NUL on Linux).
MAX_SOCKET_PATH_BYTES = 107
#: User of the processes in containers (`Dockerfile.runner`). Boxes of other kinds have ours, as the kernel sees them.
BOX_UID = 2222


def peer_uid(transport: asyncio.BaseTransport) -> int:
    """The uid of the process at the other end (SO_PEERCRED), or -1 if the kernel does not say."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return -1
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", raw)[1]


def is_own_peer(transport: asyncio.BaseTransport) -> bool:
    return peer_uid(transport) in (os.getuid(), 0)


def is_box_peer(transport: asyncio.BaseTransport) -> bool:
    """Whether it may be a replica. The folder of its socket says which: it is closed to everybody else."""
    return peer_uid(transport) in (os.getuid(), 0, BOX_UID)


def bind_unix(path: Path, mode: int = 0o600) -> socket.socket:
    """A listening socket at `path`, of this mode from its first moment; what a dead process left there is replaced.

    Raises:
        OSError: the path is too long or its folder is not writable.
    """
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        raise OSError(f"socket path {path} is longer than {MAX_SOCKET_PATH_BYTES} bytes: choose a shorter --home")
    staged = path.with_name(f"{path.name}.{os.getpid()}")
    if staged.is_socket():
        staged.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    before = os.umask(0o777 & ~mode)
    try:
        listener.bind(str(staged))
    finally:
        os.umask(before)
    listener.listen(1024)
    os.replace(staged, path)  # listening before it is visible: no window in which a client is refused
    return listener


async def serve_unix(
    path: Path, factory: Callable[[], asyncio.BaseProtocol], mode: int = 0o600
) -> asyncio.AbstractServer:
    return await asyncio.get_running_loop().create_unix_server(factory, sock=bind_unix(path, mode))
