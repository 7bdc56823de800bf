"""What the management API is asked about one algorithm."""

from collections.abc import Mapping, Sequence
from typing import Any

from serai import _wire_shapes as shapes
from serai._ask import Ask, Conversation, next_marker, nothing, page_of, path_of, reading, request
from serai._records import AlgorithmDetails, Build, CallError, Commit, Secret, Share, Version
from serai._requests import Reference, listing_request
from serai._responses import AlgorithmInfo, Page, read_page
from serai.errors import InvalidRequest, NotFound

#: Compiling answers when it is done: 15 minutes of building, and as long again for those before it.
COMPILE_TIMEOUT_S = 3600.0

NUMBERS = ("major", "minor", "revision")

_DETAILS = ("label", "summary", "tagline")


def listing(query: str, owner: str | None, marker: str | None) -> Ask[Page[AlgorithmInfo]]:
    return Ask(listing_request(query, owner, marker), read_page)


def info(reference: Reference) -> Ask[AlgorithmDetails]:
    version = () if reference.version is None else ("versions", reference.version)
    return Ask(
        request("GET", path_of(reference, *version)),
        reading(shapes.Algorithm, lambda found: found.record(reference.owner)),
        f"there is no algorithm {reference.owner}/{reference.name}, or it is private to somebody else",
    )


def create(reference: Reference, fields: Mapping[str, Any]) -> Ask[AlgorithmDetails]:
    details, settings = _split(fields)
    details.setdefault("label", reference.name)
    defaults = {
        "language": "python3",
        "source_visibility": "closed",
        "license": "apl",
        "network_access": "isolated",
        "pipeline_enabled": False,
    }
    body = {"name": reference.name, "details": details, "settings": defaults | settings}
    return Ask(
        request("POST", f"/v1/algorithms/{reference.owner}", body),
        reading(shapes.Algorithm, lambda made: made.record(reference.owner)),
    )


def update(reference: Reference, fields: Mapping[str, Any]) -> Ask[AlgorithmDetails]:
    details, settings = _split(fields)
    body = {"details": details, "settings": settings}
    return Ask(
        request("PUT", path_of(reference), body),
        reading(shapes.Algorithm, lambda changed: changed.record(reference.owner)),
    )


def delete(reference: Reference) -> Ask[None]:
    return Ask(request("DELETE", path_of(reference)), nothing)


def compile_head(reference: Reference) -> Ask[Build]:
    return Ask(
        request("POST", path_of(reference, "compile"), timeout_s=COMPILE_TIMEOUT_S),
        reading(shapes.Algorithm, shapes.Algorithm.compiled),
    )


def publish(reference: Reference, number: str, public: bool | None, info: Mapping[str, str]) -> Ask[Version]:
    """Raises ValueError when `number` is no part of a number."""
    if number not in NUMBERS:
        raise ValueError(f"a new version is the next {', '.join(NUMBERS[:-1])} or {NUMBERS[-1]}, not {number!r}")
    body: dict[str, Any] = {
        "version_info": {"version_type": number} | {key: text for key, text in info.items() if text}
    }
    if public is not None:
        body["settings"] = {"algorithm_callability": "public" if public else "private"}
    return Ask(
        request("POST", path_of(reference, "versions"), body), reading(shapes.Algorithm, shapes.Algorithm.version)
    )


def versions(reference: Reference, published: bool | None, marker: str | None) -> Ask[Page[Version]]:
    query = {} if published is None else {"published": str(published).lower()}
    return page_of(path_of(reference, "versions"), shapes.Algorithm, shapes.Algorithm.version, query, marker)


def deprecate(reference: Reference, version: str, message: str) -> Ask[Version]:
    return Ask(
        request("PUT", path_of(reference, "versions", version, "deprecation"), {"message": message}),
        reading(shapes.Algorithm, shapes.Algorithm.version),
    )


def undeprecate(reference: Reference, version: str) -> Ask[None]:
    return Ask(request("DELETE", path_of(reference, "versions", version, "deprecation")), nothing)


def routing(reference: Reference) -> Ask[tuple[Share, ...]]:
    return Ask(request("GET", path_of(reference, "routing")), reading(shapes.Routing, shapes.Routing.record))


def route(reference: Reference, shares: Mapping[str, int]) -> Ask[tuple[Share, ...]]:
    body = {"routing": [{"semantic_version": version, "percent": part} for version, part in shares.items()]}
    return Ask(request("PUT", path_of(reference, "routing"), body), reading(shapes.Routing, shapes.Routing.record))


def route_to_newest(reference: Reference) -> Ask[None]:
    return Ask(request("DELETE", path_of(reference, "routing")), nothing)


def canary(reference: Reference, version: str, percent: int) -> Conversation[tuple[Share, ...]]:
    """Raises ValueError when `percent` is not 1 to 99."""
    if not 1 <= percent <= 99:
        raise ValueError(f"a canary gets 1 to 99 percent of the calls, not {percent}")
    shares = {version: percent, (yield from _runs_most(reference, version)): 100 - percent}
    return (yield route(reference, shares))


def rollback(reference: Reference, version: str | None) -> Conversation[tuple[Share, ...]]:
    if version is None:
        shares: tuple[Share, ...] = yield routing(reference)
        running = [share.version for share in shares] or [(yield from _runs_most(reference, None))]
        now = max(running, key=_order)
        version = previous(now, (yield from _published(reference)))
        if version is None:
            raise NotFound(f"{reference} has no public version before {now}; name the one that is meant")
    return (yield route(reference, {version: 100}))


def previous(number: str, candidates: Sequence[Version]) -> str | None:
    """The highest number below `number` of those that are public and not deprecated."""
    fitting = [one.number for one in candidates if one.public and one.deprecation is None and one.number]
    below = [other for other in fitting if _order(other) < _order(number)]
    return max(below, key=_order, default=None)


def builds(reference: Reference, marker: str | None) -> Ask[Page[Build]]:
    return page_of(path_of(reference, "builds"), shapes.Build, shapes.Build.record, {}, marker)


def build_log(reference: Reference, build: str) -> Ask[str]:
    return Ask(request("GET", path_of(reference, "builds", build, "logs")), reading(shapes.Log, lambda log: log.logs))


def commits(reference: Reference) -> Ask[tuple[Commit, ...]]:
    return Ask(request("GET", path_of(reference, "log")), reading(shapes.Commits, shapes.Commits.record))


def secrets(reference: Reference) -> Ask[tuple[Secret, ...]]:
    return Ask(request("GET", path_of(reference, "secrets")), reading(shapes.Secrets, shapes.Secrets.record))


def set_secret(
    reference: Reference, key: str, value: str, name: str | None, description: str | None
) -> Conversation[Secret]:
    body = {"owner_type": "algorithm", "secret_key": key, "secret_value": value}
    if description is not None:
        body["description"] = description
    for secret in (yield secrets(reference)):
        if secret.key == key:
            path, method = path_of(reference, "secrets", secret.id), "PUT"
            body |= {"short_name": name} if name else {}
            break
    else:
        path, method = path_of(reference, "secrets"), "POST"
        body["short_name"] = name or key
    return (yield Ask(request(method, path, body), reading(shapes.Secret, shapes.Secret.record)))


def delete_secret(reference: Reference, key: str) -> Conversation[None]:
    for secret in (yield secrets(reference)):
        if secret.key == key:
            yield Ask(request("DELETE", path_of(reference, "secrets", secret.id)), nothing)
            return
    raise NotFound(f"{reference} has no secret {key}")


def errors(reference: Reference) -> Ask[tuple[CallError, ...]]:
    def records(found: list[shapes.CallError]) -> tuple[CallError, ...]:
        return tuple(one.record() for one in found)

    return Ask(request("GET", path_of(reference, "errors")), reading(list[shapes.CallError], records))


def _runs_most(reference: Reference, but: str | None) -> Conversation[str]:
    """The number of the version that most calls without a version run, of those that are not `but`."""
    shares: tuple[Share, ...] = yield routing(reference)
    others = [share for share in shares if share.version != but]
    if others:
        return max(others, key=lambda share: share.percent).version
    version = (yield info(Reference(reference.owner, reference.name))).version
    if version is not None and version.number is not None and version.number != but:
        return version.number
    other = previous(but, (yield from _published(reference))) if but else None
    if other is None:
        raise InvalidRequest(f"{reference} has no other public version to give the rest of the calls to")
    return other


def _published(reference: Reference) -> Conversation[list[Version]]:
    found: list[Version] = []
    marker: str | None = None
    while True:
        page: Page[Version] = yield versions(reference, True, marker)
        found += page.results
        if page.marker is None:
            return found
        marker = next_marker(page.marker, marker)


def _order(number: str) -> tuple[int, ...]:
    return tuple(int(part) for part in number.split(".") if part.isdecimal())


def _split(fields: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Details, and settings."""
    given = {key: value for key, value in fields.items() if value is not None}
    details = {key: given.pop(key) for key in _DETAILS if key in given}
    return details, given
