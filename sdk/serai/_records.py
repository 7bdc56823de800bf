"""What the management calls give back. Times are UTC, with their zone; text that nobody wrote is empty."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

BuildStatus = Literal["in-progress", "succeeded", "failed"]


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: times as text, `2026-05-04T10:11:01.131000Z`."""
        return msgspec.to_builtins(self)


class Build(_Record, frozen=True, kw_only=True):
    """One run of the build, of one commit."""

    id: str
    status: BuildStatus
    commit: str  # hash, 40 hexadecimal digits
    started_at: datetime
    finished_at: datetime | None = None  # None while it runs
    version: str | None = None  # the number, if what it made has been published
    log: str | None = None  # of `compile` alone; `build_log` gives that of any


class Version(_Record, frozen=True, kw_only=True):
    """What one build has made. It never changes, but for its deprecation."""

    number: str | None  # None: built and callable by its hash, not published
    hash: str  # of the commit, 40 hexadecimal digits
    public: bool
    published_at: datetime | None = None
    notes: str = ""  # what its author says is new
    sample_input: str = ""  # as it would be typed: text, or JSON
    sample_output: str = ""
    deprecation: str | None = None  # what callers are told, where it is deprecated
    network: bool = False  # may reach the network
    calls: bool = False  # may call other algorithms
    language: str = ""
    alerts: tuple[str, ...] = ()  # of `publish` alone: what to know about what was done


class AlgorithmDetails(_Record, frozen=True, kw_only=True):
    """All about one algorithm."""

    id: str
    owner: str
    name: str
    label: str = ""
    summary: str = ""
    tagline: str = ""
    settings: Mapping[str, Any] = {}  # license, source_visibility and the like
    version: Version | None = None  # what a call without a version runs; None: nothing is published
    build: Build | None = None  # that made the version, or the newest one where nothing is published; its owner's


class Share(_Record, frozen=True, kw_only=True):
    """How much of the calls that name no version one version gets."""

    version: str
    percent: int  # 1 to 100


class Commit(_Record, frozen=True, kw_only=True):
    """One commit of the default branch."""

    hash: str
    message: str
    author: str = ""


class Secret(_Record, frozen=True, kw_only=True):
    """A variable that only the algorithm sees. No answer has its value."""

    id: str
    key: str  # name of the variable
    name: str  # what people call it
    description: str = ""
    created_at: datetime | None = None
    modified_at: datetime | None = None


class CallError(_Record, frozen=True, kw_only=True):
    """A call that failed, of the last seven days."""

    created_at: datetime
    request_id: str
    version: str
    error_type: str
    error: str  # message and stack trace
    input: str = ""  # its beginning
    caller: str = ""


class Key(_Record, frozen=True, kw_only=True):
    """An API key. `text` is there once: when the key is made."""

    id: str
    label: str
    owner: str
    mask: str  # its beginning and end
    may_manage: bool
    may_call: bool
    algorithms: tuple[str, ...] = ()  # that it may call: algo://OWNER/NAME/*, algo://OWNER/*, algo://*
    created_at: datetime | None = None
    text: str | None = None


class User(_Record, frozen=True, kw_only=True):
    id: str
    name: str
    email: str = ""
    fullname: str = ""


class Organization(_Record, frozen=True, kw_only=True):
    id: str
    name: str
    label: str = ""
    contact: str = ""
    email: str = ""
    url: str = ""
    created_at: datetime | None = None


class Member(_Record, frozen=True, kw_only=True):
    """`owner` decides for the organization, `member` works on what it has."""

    name: str
    role: str
