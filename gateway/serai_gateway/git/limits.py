"""What one repository, and one push to it, may hold: each limit where it is defined, as hosts of renown have them."""

from typing import NamedTuple

_MIB = 1024 * 1024


class GitLimits(NamedTuple):
    """The most of everything."""

    push_bytes: int = 500 * _MIB  # a pack, as it is sent
    blob_bytes: int = 100 * _MIB  # one file, in any commit that is pushed
    repository_bytes: int = 2048 * _MIB  # on our disk
    num_refs: int = 1000  # branches and tags
    refs_per_push: int = 100
    num_objects: int = 200_000  # new ones, in one push
    ref_name_chars: int = 200
    fetch_s: float = 600.0  # one clone or fetch
    push_s: float = 1800.0  # one push with its build and its wait for others


LIMITS = GitLimits()

#: Memory and processes of git itself, while it works for one request: a pack can be made to need much of both.
MEMORY_BYTES = 1 << 30
MAX_PIDS = 64
