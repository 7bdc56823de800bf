"""Commits that no client of ours would make, for tests: written object by object, with nobody looking at them."""

import subprocess
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from serai_gateway.git.repository import Repository

FILE, PROGRAM, LINK, MODULE, FOLDER = "100644", "100755", "120000", "160000", "40000"
_WHO = "a test <test@users.noreply> 1000000000 +0000"


class Raw(NamedTuple):
    """One entry of a tree, as git stores it."""

    mode: str
    name: bytes
    object: str


class Plumbing:
    """git itself, without our box and settings, on the repository of an algorithm."""

    def __init__(self, repository: Repository) -> None:
        repository.ensure()
        self.repository = repository

    def git(self, *words: str, text: bytes = b"") -> str:
        done = subprocess.run(["git", *words], cwd=self.repository.path, input=text, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().strip()

    def object(self, kind: str, content: bytes) -> str:
        """The hash of a new object, whatever is in it."""
        return self.git("hash-object", "-w", "--literally", "-t", kind, "--stdin", text=content)

    def blob(self, content: bytes) -> str:
        return self.object("blob", content)

    def tree(self, entries: Iterable[Raw]) -> str:
        """Entries in the given order, also the same name twice."""
        content = b"".join(b"%s %s\0%s" % (one.mode.encode(), one.name, bytes.fromhex(one.object)) for one in entries)
        return self.object("tree", content)

    def commit(self, tree: str, parent: str | None = None) -> str:
        parents = f"parent {parent}\n" if parent else ""
        return self.object("commit", f"tree {tree}\n{parents}author {_WHO}\ncommitter {_WHO}\n\na test\n".encode())

    def commit_of(self, files: Mapping[str, bytes | str | Raw], parent: str | None = None) -> str:
        """A commit that holds `files`: path to content, or to what stands there instead (its name is not looked at)."""
        return self.commit(self._tree_of(dict(files)), parent)

    def _tree_of(self, files: dict[str, bytes | str | Raw]) -> str:
        entries: list[Raw] = []
        for name in {path.partition("/")[0] for path in files}:
            raw, here = name.encode("utf-8", "surrogateescape"), files.get(name)
            if here is None:
                below = {path.partition("/")[2]: files[path] for path in files if path.partition("/")[0] == name}
                entries.append(Raw(FOLDER, raw, self._tree_of(below)))
            elif isinstance(here, Raw):
                entries.append(here._replace(name=raw))
            else:
                entries.append(Raw(FILE, raw, self.blob(here.encode() if isinstance(here, str) else here)))
        return self.tree(sorted(entries, key=lambda one: one.name + b"/" * (one.mode == FOLDER)))
