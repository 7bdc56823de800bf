"""Which changes of branches and tags a push may make, and which commit it asks to have built. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from serai_gateway.git import NO_COMMIT, Head, PushRefused
from serai_gateway.git.limits import LIMITS, GitLimits

_HASH = re.compile(r"[0-9a-f]{40}\Z")
#: Stricter than git: nothing that could be taken for an option, a path upwards or a control character by anybody.
_REF = re.compile(r"refs/(heads|tags)/[A-Za-z0-9_][A-Za-z0-9._+@/-]*\Z")
#: What becomes the default branch when a first push brings several.
_PREFERRED = ("refs/heads/main", "refs/heads/master")


class Update(NamedTuple):
    ref: str
    old: str  # NO_COMMIT: it is new
    new: str  # NO_COMMIT: it is to be deleted


class Plan(NamedTuple):
    updates: tuple[Update, ...]
    built: Update | None  # of the default branch, if it moves
    branch: str  # the default one after this push


def parse_updates(lines: Sequence[str], limits: GitLimits = LIMITS) -> tuple[Update, ...]:
    """What git hands to its hook: `old new ref`, a line each. Raises PushRefused."""
    if len(lines) > limits.refs_per_push:
        raise PushRefused(f"{len(lines)} branches and tags in one push; at most {limits.refs_per_push}")
    return tuple(_parse(line, limits) for line in lines)


def _parse(line: str, limits: GitLimits) -> Update:
    parts = line.split(" ", 2)
    if len(parts) != 3 or not _HASH.match(parts[0]) or not _HASH.match(parts[1]):
        raise PushRefused("git says something else than what changes")
    old, new, ref = parts
    if not _REF.match(ref) or ".." in ref or "//" in ref or "@{" in ref or ref.endswith(("/", ".", ".lock")):
        raise PushRefused(
            f"{_shown(ref)}: only branches and tags can be pushed, named with letters, digits and . _ + @ / -"
        )
    if len(ref) > limits.ref_name_chars:
        raise PushRefused(f"{_shown(ref)}: a name of {len(ref)} characters; at most {limits.ref_name_chars}")
    return Update(ref, old, new)


def plan(updates: Sequence[Update], head: Head, existing: Mapping[str, str], limits: GitLimits = LIMITS) -> Plan:
    """What to do about a push. Raises PushRefused.

    Args:
        head: the default branch as it is.
        existing: all branches and tags as they are.
    """
    after = dict(existing)
    for update in updates:
        _check_change(update, head)
        if update.new == NO_COMMIT:
            after.pop(update.ref, None)
        else:
            after[update.ref] = update.new
    if len(after) > limits.num_refs:
        raise PushRefused(f"{len(after)} branches and tags in all; at most {limits.num_refs}: delete some")
    branch = head.branch if head.commit else _default_branch(updates, head.branch)
    built = next((update for update in updates if update.ref == branch and update.new != NO_COMMIT), None)
    return Plan(tuple(updates), built, branch)


def _check_change(update: Update, head: Head) -> None:
    if update.new == NO_COMMIT and update.ref == head.branch:
        raise PushRefused(f"{_shown(update.ref)}: the default branch cannot be deleted: it is what is built")
    if update.ref.startswith("refs/tags/") and NO_COMMIT not in (update.old, update.new):
        raise PushRefused(f"{_shown(update.ref)}: a tag stays where it is; take another name")


def _default_branch(updates: Sequence[Update], otherwise: str) -> str:
    pushed = [update.ref for update in updates if update.ref.startswith("refs/heads/") and update.new != NO_COMMIT]
    for ref in (*_PREFERRED, *pushed):
        if ref in pushed:
            return ref
    return otherwise


def _shown(ref: str) -> str:
    text = ascii(ref)[1:-1] if not ref.isprintable() else ref
    return text if len(text) <= 100 else text[:99] + "…"
