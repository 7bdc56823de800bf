"""What tests of catalogue, file store and build share: folders to build, models, and deaths at chosen moments."""

import os
import signal
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import event

#: Moments at which a process that writes to disk can be caught, by Python's audit events.
MOMENTS = frozenset(
    {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.scandir", "sqlite3.connect"}
)

HELLO = {
    "algorithm.toml": '[algorithm]\nowner = "alice"\nname = "hello"\nlanguage = "python"\n',
    "src/hello.py": 'def apply(input):\n    return "Hello " + input\n',
    "README.md": "# Hello\n",
}


def write_tree(folder: Path, files: dict[str, str | bytes]) -> Path:
    """`files`: path to content."""
    for path, content in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def die_at(moment: int, action: Callable[[], object]) -> bool:
    """Run `action` in a child that is killed (SIGKILL) at its `moment`-th step to disk or database, counted from 1.

    Whether the child was killed; False when `action` came to its end before. An exception in it is an error here.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks in processes with threads; the child starts none
        child = os.fork()
    if child == 0:
        code = 1
        try:
            _die_in_here(moment)
            action()
            code = 0
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, "the child died of something else"
        return True
    assert os.WEXITSTATUS(status) == 0, "the action failed in the child"
    return False


def _die_in_here(moment: int) -> None:
    left = [moment]

    def step(*_: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def audited(name: str, _: object) -> None:
        if name in MOMENTS:
            step()

    sys.addaudithook(audited)
    event.listen(sa.Engine, "commit", step)
    event.listen(sa.Engine, "before_cursor_execute", step)


def tiny_onnx(operator: str = "Relu", domain: str = "", *, external: bool = False, dtype: int = 1) -> bytes:
    """An ONNX model of one operator, `x` [N, 3] to `y`, written field by field."""
    shape = _field(1, _field(2, b"N")) + _field(1, _number(1, 3))
    tensor = _field(1, _number(1, dtype) + _field(2, shape))
    node = _field(1, b"x") + _field(2, b"y") + _field(4, operator.encode()) + _field(7, domain.encode())
    graph = _field(1, node) + _field(2, b"g")
    if external:
        where = _field(1, b"location") + _field(2, b"../../etc/passwd")
        graph += _field(5, _number(1, 3) + _number(2, 1) + _field(8, b"w") + _field(13, where) + _number(14, 1))
    graph += _field(11, _field(1, b"x") + _field(2, tensor)) + _field(12, _field(1, b"y") + _field(2, tensor))
    return _number(1, 8) + _field(7, graph) + _field(8, _field(1, b"") + _number(2, 17))


def onnx_fields(*fields: tuple[int, bytes | int]) -> bytes:
    """A protobuf message, for models that no library would write."""
    return b"".join(_number(n, value) if isinstance(value, int) else _field(n, value) for n, value in fields)


def _field(number: int, value: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes((value,))


def write_wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Path:
    """A wheel that an installer takes, with `files` in it."""
    info = f"{name}-{version}.dist-info"
    members = dict(files)
    members[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    members[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    members[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*members, f"{info}/RECORD"]).encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return path
