"""Write one commit with `git fast-import`: files go in as they are, no filter, no attribute, no index.

The format is that of git-fast-import(1).
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, NamedTuple

from serai_gateway.git.errors import GitError

#: What we commit ourselves is stored as it is: to compress a model costs more than its bytes, and gains nothing.
WORDS = ("-c", "core.compression=0", "-c", "fastimport.unpackLimit=0", "fast-import", "--quiet", "--force", "--done")

_CHUNK_BYTES = 1 << 20


class Author(NamedTuple):
    name: str

    def line(self, now: float) -> str:
        """As a commit has it. Accounts have no address that everybody may see, so none is written."""
        return f"{self.name} <{self.name.lower()}@users.noreply> {int(now)} +0000"


class Entry(NamedTuple):
    path: str  # relative, with slashes
    content: bytes | Path
    is_executable: bool


def write_commit(
    into: IO[bytes],
    out: IO[bytes],
    entries: Iterable[Entry],
    *,
    ref: str,
    parent: str | None,
    message: str,
    author: Author,
    now: float,
) -> str:
    """The new commit's hash; `ref` points to it. Its tree holds exactly `entries`."""
    into.write(b"feature done\n")
    marks: list[tuple[int, Entry]] = []
    for mark, entry in enumerate(entries, 2):
        into.write(b"blob\nmark :%d\n" % mark)
        _write_data(into, entry.content)
        marks.append((mark, entry))
    who = author.line(now).encode()
    into.write(b"commit %s\nmark :1\nauthor %s\ncommitter %s\n" % (ref.encode(), who, who))
    _write_data(into, message.encode())
    if parent:
        into.write(b"from %s\ndeleteall\n" % parent.encode())
    for mark, entry in marks:
        mode = b"100755" if entry.is_executable else b"100644"
        into.write(b"M %s :%d %s\n" % (mode, mark, _quote(entry.path)))
    into.write(b"\nget-mark :1\ndone\n")
    into.flush()
    answer = out.readline().decode("ascii", "replace").strip()
    if len(answer) != 40:
        raise GitError("the commit could not be made")
    return answer


def _write_data(into: IO[bytes], content: bytes | Path) -> None:
    if isinstance(content, bytes):
        into.write(b"data %d\n%s\n" % (len(content), content))
        return
    with content.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        into.write(b"data %d\n" % size)
        left = size
        while left:
            block = file.read(min(_CHUNK_BYTES, left))
            if not block:
                raise GitError("a file has become shorter while it was read")
            into.write(block)
            left -= len(block)
    into.write(b"\n")


def _quote(path: str) -> bytes:
    """A path as fast-import reads it: in quotes, so that none of it can be taken for a command."""
    raw = path.encode("utf-8", "surrogateescape").replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + raw + b'"'
