"""Who may read and write which repository: decided before a byte of a pack is read."""

import base64
import binascii
import re
from typing import Literal, NamedTuple

from serai_gateway.api.call_request import find_header
from serai_gateway.api.inside import Scope
from serai_gateway.caches import CatalogueCache
from serai_gateway.catalogue import Account, Algorithm, Caller, Catalogue, NotFound, may_manage
from serai_gateway.errors import Forbidden, Unauthenticated
from serai_gateway.errors import NotFound as NoSuchRepository

Service = Literal["git-upload-pack", "git-receive-pack"]

_PATH = re.compile(
    r"/git/(?P<owner>[A-Za-z][A-Za-z0-9_-]{0,63})/(?P<name>[A-Za-z][A-Za-z0-9_-]{0,63}?)(\.git)?"
    r"/(?P<what>info/refs|git-upload-pack|git-receive-pack)\Z"
)
_QUERY = re.compile(rb"service=(git-upload-pack|git-receive-pack)\Z")
#: Longest user name and password; ours have 64 and 28 characters.
_MAX_CREDENTIAL_BYTES = 4096

_CHALLENGE = ((b"www-authenticate", b'Basic realm="serai", charset="UTF-8"'),)


class Asked(NamedTuple):
    owner: str
    name: str
    service: Service
    is_discovery: bool  # which branches are there; what follows is the exchange itself


class Target(NamedTuple):
    """What somebody may read or write."""

    account: Account | None
    owner: Account
    algorithm: Algorithm | None  # None: a push would make it


def parse(path: str, query: bytes, method: str) -> Asked:
    """Raises NoSuchRepository for all that is not the smart protocol: files of a repository are served to nobody."""
    found = _PATH.match(path)
    if found is None:
        raise NoSuchRepository("no such repository; they are at /git/OWNER/NAME.git")
    what = found["what"]
    if what == "info/refs":
        service = _QUERY.match(query)
        if service is None or method != "GET":
            raise NoSuchRepository("this server speaks git's smart protocol only; use a newer git")
        return Asked(found["owner"], found["name"], service[1].decode(), True)  # pyright: ignore[reportArgumentType]
    if method != "POST" or query:
        raise NoSuchRepository("no such repository; they are at /git/OWNER/NAME.git")
    return Asked(found["owner"], found["name"], what, False)  # pyright: ignore[reportArgumentType]


async def caller_of(scope: Scope, cache: CatalogueCache) -> Caller | None:
    """The holder of the key that is the password; the user name is not looked at. None: nothing was sent.

    Raises Unauthenticated.
    """
    raw = find_header(scope["headers"], b"authorization")
    if raw is None:
        return None
    scheme, _, encoded = raw.partition(b" ")
    if scheme.lower() != b"basic" or len(encoded) > _MAX_CREDENTIAL_BYTES:
        raise _refuse()
    try:
        _, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise _refuse() from None
    caller = await cache.caller_of_key(password) if password.isascii() else None
    if caller is None:
        raise _refuse("unknown or revoked API key: ")
    return caller


def find_target(catalogue: Catalogue, caller: Caller | None, asked: Asked) -> Target:
    """Raises Unauthenticated, Forbidden, NoSuchRepository: the same for what is private and what does not exist."""
    account = caller.account if caller else None
    try:
        owner = catalogue.account_named(asked.owner)
    except NotFound:
        raise _no_such(caller, asked) from None
    try:
        algorithm = catalogue.find_algorithm(asked.owner, asked.name, account)
    except NotFound:
        algorithm = None
    manages = may_manage(account, owner)
    if asked.service == "git-receive-pack":
        if caller is None:
            raise _refuse()
        if not manages:
            if algorithm is None:
                raise _no_such(caller, asked)
            raise Forbidden(f"you may not push to {asked.owner}/{asked.name}")
        if not caller.key.permissions.manage:
            raise Forbidden("this key may not manage algorithms, so it cannot push; use one that may")
        return Target(account, owner, algorithm)
    if algorithm is None:
        raise _no_such(caller, asked)
    if not manages and algorithm.settings.get("source_visibility") != "open":
        if caller is None:
            raise _refuse()
        raise Forbidden(f"the source of {asked.owner}/{asked.name} is not open")
    return Target(account, owner, algorithm)


def _refuse(why: str = "") -> Unauthenticated:
    return Unauthenticated(f"{why}give your user name, and an API key as the password", headers=_CHALLENGE)


def _no_such(caller: Caller | None, asked: Asked) -> Unauthenticated | NoSuchRepository:
    """Nobody in particular learns nothing: whoever it is may come back with a key."""
    if caller is None:
        return _refuse()
    return NoSuchRepository(f"no repository {asked.owner}/{asked.name}.git, or none that you may see")
