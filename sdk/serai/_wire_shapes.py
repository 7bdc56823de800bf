"""The management API's JSON, as far as the client reads it, and what is made of it."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from serai import _records as records


class _Details(msgspec.Struct):
    label: str = ""
    summary: str = ""
    tagline: str = ""


class _VersionInfo(msgspec.Struct):
    git_hash: str = ""
    semantic_version: str | None = None
    published_at: datetime | None = None
    release_notes: str = ""
    sample_input: str = ""
    sample_output: str = ""
    deprecation: str | None = None


class _Number(msgspec.Struct):
    semantic_version: str | None = None


class _Compilation(msgspec.Struct):
    output: str = ""


class Build(msgspec.Struct):
    build_id: str
    status: records.BuildStatus
    commit_sha: str
    started_at: datetime
    finished_at: datetime | None = None
    version_info: _Number = msgspec.field(default_factory=_Number)

    def record(self, log: str | None = None) -> records.Build:
        return records.Build(
            id=self.build_id,
            status=self.status,
            commit=self.commit_sha,
            started_at=self.started_at,
            finished_at=self.finished_at,
            version=self.version_info.semantic_version,
            log=log,
        )


class Algorithm(msgspec.Struct):
    """Also a version of one."""

    id: str
    name: str
    details: _Details = msgspec.field(default_factory=_Details)
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    version_info: _VersionInfo | None = None
    build: Build | None = None
    compilation: _Compilation | None = None
    alerts: list[str] = msgspec.field(default_factory=list)

    def record(self, owner: str) -> records.AlgorithmDetails:
        return records.AlgorithmDetails(
            id=self.id,
            owner=owner,
            name=self.name,
            label=self.details.label,
            summary=self.details.summary,
            tagline=self.details.tagline,
            settings=self.settings,
            version=self.version() if self.version_info else None,
            build=self.build.record() if self.build else None,
        )

    def version(self) -> records.Version:
        """Raises msgspec.ValidationError where there is none."""
        info = self.version_info
        if info is None:
            raise msgspec.ValidationError("the answer has no version_info")
        return records.Version(
            number=info.semantic_version,
            hash=info.git_hash,
            public=self.settings.get("algorithm_callability") == "public",
            published_at=info.published_at,
            notes=info.release_notes,
            sample_input=info.sample_input,
            sample_output=info.sample_output,
            deprecation=info.deprecation,
            network=self.settings.get("network_access") == "full",
            calls=self.settings.get("pipeline_enabled") is True,
            language=str(self.settings.get("language", "")),
            alerts=tuple(self.alerts),
        )

    def compiled(self) -> records.Build:
        """Raises msgspec.ValidationError where nothing was built."""
        if self.build is None:
            raise msgspec.ValidationError("the answer has no build")
        return self.build.record(self.compilation.output if self.compilation else "")


class _Share(msgspec.Struct):
    semantic_version: str
    percent: int


class Routing(msgspec.Struct):
    routing: list[_Share]

    def record(self) -> tuple[records.Share, ...]:
        return tuple(records.Share(version=one.semantic_version, percent=one.percent) for one in self.routing)


class Log(msgspec.Struct):
    logs: str


class _Commit(msgspec.Struct):
    id: str
    message: str = ""
    author: str = ""


class Commits(msgspec.Struct):
    commits: list[_Commit]

    def record(self) -> tuple[records.Commit, ...]:
        return tuple(records.Commit(hash=one.id, message=one.message, author=one.author) for one in self.commits)


class Secret(msgspec.Struct):
    id: str
    secret_key: str
    short_name: str = ""
    description: str = ""
    created: datetime | None = None
    modified: datetime | None = None

    def record(self) -> records.Secret:
        return records.Secret(
            id=self.id,
            key=self.secret_key,
            name=self.short_name,
            description=self.description,
            created_at=self.created,
            modified_at=self.modified,
        )


class Secrets(msgspec.Struct):
    results: list[Secret]

    def record(self) -> tuple[records.Secret, ...]:
        return tuple(one.record() for one in self.results)


class CallError(msgspec.Struct):
    created_at: int  # milliseconds since 1970
    request_id: str = ""
    algoversion: str | None = None
    error_type: str = ""
    error: str = ""
    input: str | None = None
    billable_to: str | None = None

    def record(self) -> records.CallError:
        return records.CallError(
            created_at=datetime.fromtimestamp(self.created_at / 1000, UTC),
            request_id=self.request_id,
            version=self.algoversion or "",
            error_type=self.error_type,
            error=self.error,
            input=self.input or "",
            caller=self.billable_to or "",
        )


class _Permissions(msgspec.Struct):
    allow_algo: bool = False
    allow_algo_management: bool = False
    algo_acl: list[str] = msgspec.field(default_factory=list)


class Key(msgspec.Struct):
    id: str
    key_label: str = ""
    owner_name: str = ""
    api_key_mask: str = ""
    created_at: datetime | None = None
    permissions: _Permissions = msgspec.field(default_factory=_Permissions)
    api_key: str | None = None

    def record(self) -> records.Key:
        return records.Key(
            id=self.id,
            label=self.key_label,
            owner=self.owner_name,
            mask=self.api_key_mask,
            may_manage=self.permissions.allow_algo_management,
            may_call=self.permissions.allow_algo,
            algorithms=tuple(self.permissions.algo_acl),
            created_at=self.created_at,
            text=self.api_key,
        )


class User(msgspec.Struct):
    id: str
    username: str
    email: str = ""
    fullname: str = ""

    def record(self) -> records.User:
        return records.User(id=self.id, name=self.username, email=self.email, fullname=self.fullname)


class Organization(msgspec.Struct):
    id: str
    org_name: str
    org_label: str = ""
    org_contact_name: str = ""
    org_email: str = ""
    org_url: str = ""
    org_created_at: datetime | None = None

    def record(self) -> records.Organization:
        return records.Organization(
            id=self.id,
            name=self.org_name,
            label=self.org_label,
            contact=self.org_contact_name,
            email=self.org_email,
            url=self.org_url,
            created_at=self.org_created_at,
        )


class Member(msgspec.Struct):
    username: str
    role: str = ""

    def record(self) -> records.Member:
        return records.Member(name=self.username, role=self.role)
