"""What clients send to create, change and publish an algorithm. Fields that are not here count for nothing: ids,
owners, hashes and visibility are nobody's to send."""

import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.catalogue.algorithms import MAX_TAGLINE_CHARS

#: Longest texts, in characters. Samples may fill the rest of a body.
MAX_LABEL_CHARS = 200
MAX_SUMMARY_CHARS = 10_000
#: What fits into every database and client as a number.
MAX_ROYALTY = 2**31 - 1

_Short = Annotated[str, Meta(max_length=64)]


class Details(msgspec.Struct):
    label: Annotated[str, Meta(max_length=MAX_LABEL_CHARS)] | None = None
    summary: Annotated[str, Meta(max_length=MAX_SUMMARY_CHARS)] | None = None
    tagline: Annotated[str, Meta(max_length=MAX_TAGLINE_CHARS)] | None = None


class Settings(msgspec.Struct):
    algorithm_callability: Literal["public", "private"] | None = None
    source_visibility: Literal["open", "closed"] | None = None
    license: Literal["apl", "apache2", "gpl3", "mit"] | None = None
    network_access: Literal["isolated", "full"] | None = None
    pipeline_enabled: bool | None = None
    royalty_microcredits: Annotated[int, Meta(ge=0, le=MAX_ROYALTY)] | None = None
    insights_enabled: bool | None = None
    language: _Short | None = None
    environment: _Short | None = None
    package_set: _Short | None = None
    algorithm_environment: _Short | None = None


class VersionInfo(msgspec.Struct):
    version_type: Literal["major", "minor", "revision", "patch"] | None = None
    release_notes: Annotated[str, Meta(max_length=MAX_SUMMARY_CHARS)] | None = None
    sample_input: str | None = None
    sample_output: str | None = None
    insights_enabled: bool | None = None


class Source(msgspec.Struct):
    scm: str | None = None
    initial_commit_message: Annotated[str, Meta(max_length=MAX_SUMMARY_CHARS)] | None = None


class CreateBody(msgspec.Struct):
    name: str
    details: Details
    settings: Settings
    version_info: VersionInfo | None = None
    source: Source | None = None


class ChangeBody(msgspec.Struct):
    """To update and to publish."""

    name: str | None = None  # where the path says only whose it is
    details: Details | None = None
    settings: Settings | None = None
    version_info: VersionInfo | None = None


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
#: What may not change once there is code for it.
_FIXED = ("language", "environment", "package_set", "algorithm_environment")
_REQUIRED = ("source_visibility", "license", "network_access", "pipeline_enabled")


def settings_of_new(body: CreateBody) -> dict[str, Any]:
    """Raises ManagementError."""
    if not body.details.label:
        raise ManagementError(Codes.INVALID_INPUT, "details.label is missing: what people read above the algorithm")
    settings = _given(body.settings)
    missing = [key for key in _REQUIRED if key not in settings]
    if missing:
        raise ManagementError(Codes.INVALID_INPUT, f"settings.{missing[0]} is missing")
    if settings.pop("algorithm_callability", "private") != "private":
        raise ManagementError(Codes.INVALID_INPUT, "a new algorithm is private until a version is published publicly")
    return check_settings(settings)


def settings_of_change(body: Settings | None, now: dict[str, Any], visibility: str) -> dict[str, Any]:
    """What changes of the settings that are `now`. Raises ManagementError."""
    settings = _given(body)
    if settings.pop("algorithm_callability", visibility) != visibility:
        raise ManagementError(
            Codes.INVALID_INPUT,
            "settings.algorithm_callability: an algorithm is public when a version of it has been published publicly, "
            "and stays it",
        )
    for key in _FIXED:
        if settings.get(key, now.get(key)) != now.get(key) and key in now:
            raise ManagementError(
                Codes.INVALID_INPUT, f"settings.{key} is {now[key]!r} and does not change; create another algorithm"
            )
    check_settings(now | settings)
    return settings


def check_settings(settings: dict[str, Any]) -> dict[str, Any]:
    if settings.get("source_visibility") == "closed" and settings.get("license", "apl") != "apl":
        raise ManagementError(
            Codes.INVALID_INPUT, f'the license {settings["license"]} opens the source; a closed one has "apl"'
        )
    return settings


def texts_of(details: Details | None, info: VersionInfo | None = None) -> tuple[str | None, dict[str, Any]]:
    """The tagline, if one is given, and what else people read of an algorithm. Raises ManagementError."""
    texts = _given(details)
    for key in ("label", "tagline"):
        if not texts.get(key, "").replace("\xa0", " ").isprintable():
            raise ManagementError(Codes.INVALID_INPUT, f"details.{key} is one line of text")
    if info is not None and info.sample_input is not None:
        texts["sample_input"] = info.sample_input
    _check_texts(texts)
    return texts.pop("tagline", None), texts


def notes_of(info: VersionInfo | None) -> dict[str, Any]:
    """What a version says of itself. Raises ManagementError."""
    given = _given(info)
    notes = {key: given[key] for key in ("release_notes", "sample_input", "sample_output") if key in given}
    _check_texts(notes)
    return notes


def publish_settings(body: ChangeBody) -> dict[str, Any]:
    """What the version is published with, besides what the algorithm has."""
    settings = {key: value for key, value in _given(body.settings).items() if key not in _FIXED}
    settings.pop("algorithm_callability", None)
    if body.version_info is not None and body.version_info.insights_enabled is not None:
        settings["insights_enabled"] = body.version_info.insights_enabled
    return settings


def _given(body: msgspec.Struct | None) -> dict[str, Any]:
    """null and what is left out are the same, as the generated clients have it."""
    said = msgspec.structs.asdict(body) if body is not None else {}
    return {key: value for key, value in said.items() if value is not None and value != ""}


def _check_texts(texts: dict[str, Any]) -> None:
    for key, text in texts.items():
        if "\0" in text:
            raise ManagementError(Codes.INVALID_INPUT, f"{key} has a zero character in it")
        # A sample is given to the algorithm as it is; what people read is shown by terminals, too.
        if not key.startswith("sample_") and _CONTROL.search(text):
            raise ManagementError(Codes.INVALID_INPUT, f"{key} has control characters in it")
