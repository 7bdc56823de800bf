"""One algorithm's repository: HOME/git/<algorithm id>.git, bare. Names of owners and algorithms never reach the disk.

Everything blocks; call it from a thread. What changes a branch is done by one at a time: the builder's turn.
"""

import contextlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from serai_gateway.git import fast_import
from serai_gateway.git.command import run_git, talk_to_git
from serai_gateway.git.errors import GitError
from serai_gateway.git.fast_import import Author, Entry

__all__ = ["NO_COMMIT", "NO_REPOSITORY", "Author", "Commit", "Head", "Repository", "repositories"]

#: The branch of a repository that we make ourselves. A first push brings its own.
DEFAULT_BRANCH = "master"
#: What stands for "there was none" and "there will be none" in a push.
NO_COMMIT = "0" * 40
#: The id of a repository that stays empty: what there is before a first push makes one.
NO_REPOSITORY = "0" * 32
#: Where a commit waits that we have made and nobody has accepted yet. Hidden from clients.
_WAITING_REF = "refs/serai/waiting"
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")
_ID = re.compile(r"[0-9a-f]{32}\Z")
#: Most commits that a history answers with.
MAX_COMMITS = 1000


class Head(NamedTuple):
    branch: str  # refs/heads/…
    commit: str | None  # None: nothing was pushed yet


class Commit(NamedTuple):
    hash: str
    author: str
    message: str


class Repository:
    def __init__(self, home: Path, algorithm_id: str) -> None:
        if not _ID.match(algorithm_id):
            raise GitError("not the id of an algorithm")
        self.home = home
        self.path = home / "git" / f"{algorithm_id}.git"

    @property
    def exists(self) -> bool:
        return self.path.is_dir()

    def ensure(self) -> None:
        """Have it, empty at first. Whole or not there, and once, whoever asks."""
        if self.exists:
            return
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        part = self.path.parent / f".part-{os.getpid()}-{uuid.uuid4().hex}"
        part.mkdir()
        try:
            words = ("init", "--bare", "--quiet", "--template=", f"--initial-branch={DEFAULT_BRANCH}", ".")
            run_git(self.home, part, *words, writable=True)
            with contextlib.suppress(OSError):  # somebody else was faster
                os.rename(part, self.path)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def create(self, files: Mapping[str, bytes], message: str, author: Author) -> str:
        """The hash of the first commit, on the default branch. Raises GitError, also when there is one already."""
        self.ensure()
        head = self.head()
        if head.commit is not None:
            raise GitError("the repository has commits already")
        entries = [Entry(path, content, path.startswith("bin/")) for path, content in sorted(files.items())]
        commit = self._commit(entries, message, author, None)
        self.accept(head, commit)
        return commit

    def commit(self, entries: Iterable[Entry], message: str, author: Author) -> str:
        """The hash of a commit after the head that holds `entries` alone; the head itself if that is the same.

        It waits, on no branch, until `accept`. Raises GitError, and what `entries` raises.
        """
        self.ensure()
        head = self.head().commit
        commit = self._commit(entries, message, author, head)
        if head is not None and self._tree(head) == self._tree(commit):
            return head
        return commit

    def accept(self, head: Head, commit: str) -> None:
        """Move the head from where it was to `commit`. Raises GitError if it is somewhere else by now."""
        if commit != head.commit:
            run_git(
                self.home, self.path, "update-ref", head.branch, commit, head.commit or NO_COMMIT, writable=True
            )  # fmt: skip

    def head(self) -> Head:
        script = 'git symbolic-ref HEAD && git rev-parse --quiet --verify "HEAD^{commit}"'
        branch, _, commit = run_git(self.home, self.path, script, script=True, expected=(0, 1)).decode().partition("\n")
        return Head(branch, commit.strip() or None)

    def set_branch(self, branch: str) -> None:
        """Make `branch` (refs/heads/…) the default: the one that is built."""
        run_git(self.home, self.path, "symbolic-ref", "HEAD", branch, writable=True)

    def refs(self) -> dict[str, str]:
        """Branches and tags, as they stand."""
        lines = run_git(
            self.home, self.path, "for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags"
        )
        pairs = (line.split(" ", 1) for line in lines.decode("utf-8", "replace").splitlines())
        return {name: commit for commit, name in pairs}

    def history(self, since: str | None, until: str | None, limit: int = 100) -> list[Commit]:
        """Commits of the default branch, newest first: after `since`, up to `until` (hashes). Raises GitError."""
        for given in (since, until):
            if given is not None and not _COMMIT.match(given):
                raise GitError("since and until are hashes of commits, 40 hexadecimal digits")
        head = self.head().commit
        if head is None:
            return []
        limit = max(1, min(limit, MAX_COMMITS))
        words = ["log", "-z", f"--max-count={limit}", "--format=%H%n%an%n%B", "--end-of-options", until or head]
        if since:
            words.append(f"^{since}")
        output = run_git(self.home, self.path, *words, "--").decode("utf-8", "replace")
        found = (entry.split("\n", 2) for entry in output.split("\0") if entry)
        return [Commit(hash, author, message.strip("\n")) for hash, author, message in found]

    def size_bytes(self) -> int:
        return sum(
            os.lstat(os.path.join(parent, name)).st_size for parent, _, names in os.walk(self.path) for name in names
        )

    def tidy(self) -> None:
        """Pack what has become many small files; nothing to do is quick. What nobody refers to goes after two weeks."""
        run_git(self.home, self.path, "-c", "gc.auto=1000", "gc", "--auto", "--quiet", writable=True)

    def remove(self) -> None:
        """Gone at once; its files soon after."""
        gone = self.path.with_name(f".gone-{uuid.uuid4().hex}")
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _tree(self, commit: str) -> str:
        return run_git(self.home, self.path, "rev-parse", "--verify", f"{commit}^{{tree}}").decode().strip()

    def _commit(self, entries: Iterable[Entry], message: str, author: Author, parent: str | None) -> str:
        with talk_to_git(self.home, self.path, *fast_import.WORDS, writable=True) as (into, out):
            return fast_import.write_commit(
                into, out, entries, ref=_WAITING_REF, parent=parent, message=message, author=author, now=time.time()
            )


def repositories(home: Path) -> list[str]:
    """The algorithm ids of all repositories of this home."""
    folder = home / "git"
    names = os.listdir(folder) if folder.is_dir() else ()
    return sorted(name.removesuffix(".git") for name in names if name.endswith(".git") and not name.startswith("."))
