"""Which version a caller gets: what may be asked for, and how it is chosen. Pure.

    1.2.0            exactly that version, public, or private for the algorithm's owner
    1.2 1.2.* 1.2.x  the newest public 1.2 revision
    1 1.* 1.x.x      the newest public version with major 1
    latest           the newest public version
    (nothing)        the same; for the owner of an algorithm without one, the newest private version, and where nothing
                     has been published the newest build
    latestPrivate    the newest privately published version, for the owner
    40 hex digits    that build, published or not, for the owner

What is only partly specified never resolves to a private version, nor to a deprecated one while there is another.
An author who has pushed can so call `owner/name` at once; Algorithmia answered 404 there. `traffic.py` says how an
owner divides the calls that say `latest` or nothing.
"""

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple, Protocol, TypeVar

#: Largest number in a version: what every database's 32-bit integer and every client's parser holds.
MAX_NUMBER = 2**31 - 1

Increment = Literal["major", "minor", "revision", "patch"]


class Semver(NamedTuple):
    major: int
    minor: int
    revision: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.revision}"


class Exact(NamedTuple):
    semver: Semver


class Partial(NamedTuple):
    """The newest public version; `major` and `minor` narrow it where given."""

    major: int | None = None
    minor: int | None = None


class Unspecified(NamedTuple):
    """Nothing was said: the newest public version, or the owner's newest private one, or their newest build."""


class LatestPrivate(NamedTuple):
    """The newest privately published version."""


class Commit(NamedTuple):
    hash: str


Wanted = Exact | Partial | Unspecified | LatestPrivate | Commit


class InvalidVersion(ValueError):
    """This text names no version."""


class NoSuchVersion(LookupError):
    """No version that this caller may use fits what was asked for."""


class Fact(Protocol):
    """What resolution needs to know of a version."""

    @property
    def hash(self) -> str: ...
    @property
    def semver(self) -> str | None: ...
    @property
    def public(self) -> bool: ...
    @property
    def deprecation(self) -> str | None: ...
    @property
    def created_at(self) -> float: ...


_Fact = TypeVar("_Fact", bound=Fact)

_HASH = re.compile(r"[0-9a-fA-F]{40}\Z")
_NUMBER = re.compile(r"(0|[1-9][0-9]{0,9})\Z", re.ASCII)
_WILD = ("*", "x", "X")


def parse_semver(text: str) -> Semver:
    """`1.2.3` and nothing else. Raises InvalidVersion."""
    wanted = parse(text)
    if not isinstance(wanted, Exact):
        raise InvalidVersion(f"{_shown(text)} is not a whole version number; write it like 1.2.0")
    return wanted.semver


def stored_semver(text: str) -> Semver:
    """A number that has been checked when it was given: a list of algorithms reads hundreds."""
    major, minor, revision = text.split(".")
    return Semver(int(major), int(minor), int(revision))


def parse(text: str | None) -> Wanted:
    """What a caller wrote after the algorithm's name; None or empty when nothing. Raises InvalidVersion."""
    if not text:
        return Unspecified()
    if text.lower() == "latest":
        return Partial()
    if text.lower() == "latestprivate":
        return LatestPrivate()
    if _HASH.match(text):
        return Commit(text.lower())
    parts = text.split(".")
    numbers: list[int] = []
    for at, part in enumerate(parts):
        if part in _WILD and at > 0 and all(rest in _WILD for rest in parts[at:]):
            break
        if not _NUMBER.match(part) or int(part) > MAX_NUMBER:
            raise _invalid(text)
        numbers.append(int(part))
    if len(parts) > 3:
        raise _invalid(text)
    if len(numbers) == 3:
        return Exact(Semver(*numbers))
    return Partial(*numbers)


def follows_routing(wanted: Wanted) -> bool:
    """Whether the owner's routing decides what this means."""
    return isinstance(wanted, Unspecified) or wanted == Partial()


def resolve(wanted: Wanted, facts: Iterable[_Fact], *, is_owner: bool) -> _Fact:
    """The one version of an algorithm that `wanted` means for this caller. Raises NoSuchVersion with the reason.

    A caller who is not the owner gets the same reason for a version that is private and one that does not exist.
    """
    match wanted:
        case Commit(hash):
            fits = [fact for fact in facts if is_owner and fact.hash == hash]
            reason = f"no build {hash}"
        case Exact(semver):
            text = str(semver)
            fits = [fact for fact in facts if fact.semver == text and (fact.public or is_owner)]
            reason = f"no version {text}"
        case LatestPrivate():
            fits = [fact for fact in facts if is_owner and fact.semver and not fact.public]
            reason = "no privately published version"
        case Unspecified():
            facts = list(facts)
            fits = [fact for fact in facts if fact.public and fact.semver]
            if not fits and is_owner:
                fits = [fact for fact in facts if fact.semver] or facts
            reason = _no_public(None, None)
            if is_owner:
                reason += " and no build; push one"
        case Partial(major, minor):
            facts = list(facts)
            fits = [fact for fact in facts if fact.public and _is_within(fact, major, minor)]
            reason = _no_public(major, minor)
            if not fits and is_owner and facts:
                reason += "; its owner can call latestPrivate, or a build by its hash"
    if not fits:
        raise NoSuchVersion(reason)
    return max(fits, key=_order)


def next_version(current: str | None, increment: Increment) -> str:
    """The number after `current`; the count starts at 0.0.0, so a first minor version is 0.1.0.

    Raises InvalidVersion when `increment` is unknown or the number would grow past MAX_NUMBER.
    """
    major, minor, revision = parse_semver(current) if current else (0, 0, 0)
    match increment:
        case "major":
            following = Semver(major + 1, 0, 0)
        case "minor":
            following = Semver(major, minor + 1, 0)
        case "revision" | "patch":
            following = Semver(major, minor, revision + 1)
        case _:
            raise InvalidVersion(f"{_shown(str(increment))} is no increment; use major, minor or revision")
    if max(following) > MAX_NUMBER:
        raise InvalidVersion(f"no {increment} version can follow {current}: a number in it is at most {MAX_NUMBER}")
    return str(following)


def newest(semvers: Iterable[str | None]) -> str | None:
    """The highest of the numbers given, or None when there is none."""
    numbers = [stored_semver(text) for text in semvers if text]
    return str(max(numbers)) if numbers else None


def _is_within(fact: Fact, major: int | None, minor: int | None) -> bool:
    if fact.semver is None:
        return False
    semver = stored_semver(fact.semver)
    return (major is None or semver.major == major) and (minor is None or semver.minor == minor)


def _order(fact: Fact) -> tuple[bool, Semver, float]:
    semver = stored_semver(fact.semver) if fact.semver else Semver(0, 0, 0)
    return fact.deprecation is None, semver, fact.created_at


def _no_public(major: int | None, minor: int | None) -> str:
    if major is None:
        return "no public version"
    return f"no public version {major}" if minor is None else f"no public version {major}.{minor}"


def _invalid(text: str) -> InvalidVersion:
    return InvalidVersion(
        f"{_shown(text)} is not a version; write 1.2.0, 1.2, 1.*, latest, latestPrivate or a 40-digit hash"
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "…")
