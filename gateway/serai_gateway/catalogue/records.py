"""What the catalogue keeps, as small frozen records. Times are seconds since 1970, UTC."""

from typing import Any, Literal, NamedTuple

import msgspec

from serai.ipc.messages import Kind

AccountKind = Literal["operator", "user", "organization"]
Role = Literal["owner", "member"]
Visibility = Literal["public", "private"]
DataAccess = Literal["none", "read", "write"]
BuildStatus = Literal["running", "succeeded", "failed", "interrupted"]


class Account(msgspec.Struct, frozen=True):
    """A user or an organization: the first half of an algorithm's name."""

    id: str
    name: str  # as written; looked up case-insensitively
    kind: AccountKind
    owner_id: str | None  # the account that manages this one
    created_at: float
    profile: dict[
        str, Any
    ] = {}  # email, fullname, company_name, company_role; of organizations org_label, org_email, …
    memberships: tuple[tuple[str, Role], ...] = ()  # id of each organization it belongs to or manages; not in lists


class Member(msgspec.Struct, frozen=True):
    """Somebody who belongs to an organization."""

    account_id: str
    name: str
    role: Role


class Permissions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a key may do."""

    call: bool = True  # run algorithms
    manage: bool = True  # create, push, publish; look at builds
    data: DataAccess = "write"
    algorithms: tuple[str, ...] = ("*",)  # which it may call: "*", "owner/*", "owner/name"


class Key(msgspec.Struct, frozen=True):
    """An API key. Its text is known to its holder only."""

    id: str
    account_id: str
    label: str
    mask: str  # enough of the text to recognise it
    permissions: Permissions
    created_at: float
    revoked_at: float | None


class NewKey(msgspec.Struct, frozen=True):
    key: Key
    text: str  # the only time that anybody sees it


class Caller(msgspec.Struct, frozen=True):
    """Who is calling, and what the key that was used may do."""

    account: Account
    key: Key
    helpers: Account | None = None  # for an algorithm that calls: its owner, whose private algorithms it may use

    def seen_as(self, owner: str) -> Account:
        """Who looks, where the algorithms of `owner` are looked at."""
        helpers = self.helpers
        return helpers if helpers is not None and helpers.name.lower() == owner.lower() else self.account

    @property
    def lists_as(self) -> Account:
        """Who looks, where all that there is is listed. Code may call what is private to who pays for it if it was told
        the name; it is not told the names."""
        return self.helpers or self.account


class Algorithm(msgspec.Struct, frozen=True):
    id: str
    owner_id: str
    owner: str
    name: str
    visibility: Visibility
    tagline: str
    created_at: float
    details: dict[str, Any] = {}  # label, summary, sample_input
    settings: dict[str, Any] = {}  # as `catalogue.algorithm_settings` writes them
    routing: tuple[tuple[str, int], ...] = ()  # (number, percent) of the calls that name no version; (): the newest


class TensorInfo(msgspec.Struct, frozen=True):
    """An input or output of a model. A free dimension is its name, or "" where it has none."""

    name: str
    dtype: str  # NumPy's name, "string" for text
    shape: tuple[int | str, ...] | None  # None: not even the rank is known


class Model(msgspec.Struct, frozen=True):
    """A model file of a version, by content."""

    name: str
    sha256: str
    format: str
    num_bytes: int
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()


class ContentInUse(NamedTuple):
    """What versions refer to by its content."""

    code: frozenset[str]  # keys of folders
    environments: frozenset[str]
    files: frozenset[str]  # SHA-256 of files in the store


class NewVersion(msgspec.Struct, frozen=True):
    """A finished build, as the builder hands it over."""

    hash: str  # 40 hex: the commit, or made from the tree
    kind: Kind
    manifest: dict[str, Any]
    code_sha: str  # HOME/code/<code_sha>
    environment: str | None = None  # HOME/environments/<environment>
    models: tuple[Model, ...] = ()
    commit: str | None = None  # where it is not the hash: the same commit has been published before


class Version(msgspec.Struct, frozen=True):
    """One version of one algorithm. `semver`, `public`, `published_at` and `details` are filled in later, and once;
    a `deprecation` may come and go."""

    id: str
    algorithm_id: str
    owner_id: str
    owner: str
    name: str
    hash: str
    semver: str | None
    public: bool
    kind: Kind
    manifest: dict[str, Any]
    code_sha: str
    environment: str | None
    models: tuple[Model, ...]
    created_at: float
    published_at: float | None
    commit: str | None = None  # where it is not the hash
    details: dict[str, Any] = {}  # settings, notes and samples, as it was published
    deprecation: str | None = None  # what its callers are told

    @property
    def git_hash(self) -> str:
        """The commit that it was built from, as its author knows it."""
        return self.commit or self.hash

    @property
    def key(self) -> str:
        """Unique for this code, on every machine."""
        return f"{self.owner}/{self.name}@{self.hash}"


class Listing(msgspec.Struct, frozen=True):
    """An algorithm in a list, with the version that a call without a version gets, where there is one."""

    algorithm: Algorithm
    semver: str | None
    hash: str | None  # without a number: of one of its builds

    @property
    def state(self) -> str:
        """published; built, but without a number yet; or empty, as nothing was built."""
        return "published" if self.semver else "built" if self.hash else "empty"


class Page(msgspec.Struct, frozen=True):
    results: tuple[Listing, ...]
    marker: str | None  # hand it in again for the next page; None on the last


class VersionPage(msgspec.Struct, frozen=True):
    results: tuple[Version, ...]
    marker: str | None


class AccountPage(msgspec.Struct, frozen=True):
    results: tuple[Account, ...]
    marker: str | None


class MemberPage(msgspec.Struct, frozen=True):
    results: tuple[Member, ...]
    marker: str | None


class Build(msgspec.Struct, frozen=True):
    """One attempt to make a commit runnable."""

    id: str
    algorithm_id: str
    hash: str
    status: BuildStatus
    log: str
    builder: str  # the process that runs it, as `serai_gateway.build.builder` writes it
    started_at: float
    finished_at: float | None


class Secret(msgspec.Struct, frozen=True):
    """A variable that only the processes of one algorithm see."""

    id: str
    algorithm_id: str
    short_name: str  # for people
    description: str
    key: str  # the variable
    sealed: bytes  # its value, encrypted
    created_at: float = 0.0
    modified_at: float = 0.0


class SecretsOf(msgspec.Struct, frozen=True):
    """All of one algorithm, as of one moment."""

    changed_at: float  # grows with every change, also that of the last one's removal
    secrets: tuple[Secret, ...]


class CallError(msgspec.Struct, frozen=True):
    """A call that failed."""

    id: str  # of the request
    algorithm_id: str
    version: str  # number or hash
    caller: str  # name of the account
    error_type: str
    message: str
    stacktrace: str
    input: str  # its beginning, where the caller manages the algorithm; else empty
    created_at: float


class ListedError(msgspec.Struct, frozen=True):
    error: CallError
    owner: str  # of the algorithm, and its name
    name: str


class Reported(msgspec.Struct, frozen=True):
    """What a running call of a version says of itself."""

    owner: str
    name: str
    hash: str
    call_id: str
    metrics: dict[str, Any]
    duration_s: float  # for how long the call had run
    created_at: float


class Insight(msgspec.Struct, frozen=True):
    """The same, kept."""

    id: str
    algorithm_id: str
    version: str  # number or hash
    call_id: str
    metrics: dict[str, Any]
    duration_s: float
    created_at: float


class InsightPage(msgspec.Struct, frozen=True):
    results: tuple[Insight, ...]
    marker: str | None
