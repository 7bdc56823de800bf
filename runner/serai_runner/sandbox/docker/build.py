"""Runs one command of a build in a container: `python -m serai_runner.sandbox.docker.build JSON`.

Output and exit status are the command's; 125 where the engine failed. The container ends with this process, however
that ends: its first process watches its input, which the engine closes when we are gone.
"""

import contextlib
import json
import os
import secrets
import signal
import struct
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

from serai_runner.sandbox.base import BuildBox, SandboxUnavailable
from serai_runner.sandbox.docker.container import BOX_UID, build_config
from serai_runner.sandbox.docker.engine import Engine, EngineError
from serai_runner.sandbox.docker.labels import labels_of
from serai_runner.sandbox.docker.options import DockerOptions

#: The exit status of `docker run` itself when the engine failed.
_ENGINE_FAILED = 125
_OUT_OF_MEMORY = 128 + signal.SIGKILL
#: Of the engine's frames: which stream, three zeros, how many bytes.
_FRAME = struct.Struct(">B3xI")
_STDERR = 2
#: The first process of a build's container: starts the command, reaps what others leave, ends when its input does. The
#: kernel lets nothing inside kill or stop the first process; not being dumpable, it cannot be traced either.
_WATCH = """
import ctypes, os, select, signal, sys
ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
hear, tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
signal.signal(signal.SIGCHLD, lambda number, frame: None)
signal.set_wakeup_fd(tell)
child = os.fork()
if child == 0:
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    try:
        os.execvp(sys.argv[1], sys.argv[1:])
    except OSError as error:
        print(f"{sys.argv[1]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)
poll = select.poll()
for fd in (0, hear):
    poll.register(fd, select.POLLIN)
while True:
    for fd, _ in poll.poll():
        if not os.read(fd, 4096):
            os._exit(137)
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == child:
                code = os.waitstatus_to_exitcode(status)
                os._exit(code if code >= 0 else 128 - code)
    except ChildProcessError:
        os._exit(1)
"""


def build_command(build: BuildBox, options: DockerOptions, home: str) -> list[str]:
    """A command line that runs `build.command` in a container, for the Serai whose containers are labelled `home`."""
    what = asdict(replace(build, command=list(build.command), variables=dict(build.variables)))
    what["folder"] = str(build.folder)
    what["read_only"] = [[str(folder), inside] for folder, inside in build.read_only]
    request = json.dumps({"build": what, "options": asdict(options), "home": home})
    return [sys.executable, "-I", "-m", "serai_runner.sandbox.docker.build", request]


def main() -> int:
    request = json.loads(sys.argv[1])
    what = request["build"]
    read_only = [(Path(folder), inside) for folder, inside in what.pop("read_only")]
    build = BuildBox(**what | {"folder": Path(what["folder"]), "read_only": read_only})
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        return _run(build, DockerOptions(**request["options"]), request["home"])
    except (EngineError, SandboxUnavailable, OSError, RecursionError) as error:  # the last: folders without end
        sys.stderr.write(f"the container of this build failed: {error}\n")
        return _ENGINE_FAILED


def _run(build: BuildBox, options: DockerOptions, home: str) -> int:
    engine = Engine(options.engine)
    with contextlib.closing(engine), _lent(build.folder) as user:
        words = ["python3", "-I", "-S", "-B", "-c", _WATCH, *build.command]
        config = build_config(build, words, user, options.image, labels_of(home), options, engine.machine)
        id = engine.create(f"serai-{home}-build-{secrets.token_hex(6)}", config)
        try:
            with contextlib.closing(engine.attach(id)) as stream:
                engine.start(id)
                _copy(stream)
            code = engine.wait(id)
            if code == _OUT_OF_MEMORY and (engine.ended(id) or (0, False))[1]:
                sys.stderr.write(f"the build ran out of its memory of {build.memory_bytes >> 20} MiB\n")
            return code
        finally:
            engine.remove(id)


@contextlib.contextmanager
def _lent(folder: Path) -> Iterator[str]:
    """Who a build of this folder runs as: its owner, or, if that is root, the user of boxes, for as long as it runs.

    Root inside a container could leave programs that run as root outside.
    """
    owner = folder.stat()
    if owner.st_uid != 0:
        yield f"{owner.st_uid}:{owner.st_gid}"
        return
    _give(folder, BOX_UID, BOX_UID)
    try:
        yield f"{BOX_UID}:{BOX_UID}"
    finally:
        _give(folder, owner.st_uid, owner.st_gid)  # and with a change of owner the kernel takes away setuid bits


def _give(folder: Path, uid: int, gid: int) -> None:
    os.chown(folder, uid, gid)
    for _, folders, files, place in os.fwalk(folder):
        for name in (*folders, *files):
            os.chown(name, uid, gid, dir_fd=place, follow_symlinks=False)


def _copy(stream: IO[bytes]) -> None:
    """What the container prints, to where it belongs, until it ends."""
    while True:
        head = _read(stream, _FRAME.size)
        if len(head) < _FRAME.size:
            return
        which, length = _FRAME.unpack(head)
        out = sys.stderr.buffer if which == _STDERR else sys.stdout.buffer
        while length:
            part = _read(stream, min(length, 1 << 16))
            if not part:
                return
            out.write(part)
            length -= len(part)
        out.flush()


def _read(stream: IO[bytes], length: int) -> bytes:
    parts: list[bytes] = []
    while length:
        part = stream.read(length)
        if not part:
            break
        parts.append(part)
        length -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    sys.exit(main())
