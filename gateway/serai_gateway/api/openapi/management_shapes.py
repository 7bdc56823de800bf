"""What the management API answers with, as types: the document is made of them, and tests decode every answer as one.

Names, required fields and enumerations are those of Algorithmia's own document; what clients ignore stands beside.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from serai_gateway.catalogue.callers import MAX_LABEL_CHARS

Id = Annotated[str, Meta(pattern="^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", description="a UUID")]
Time = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$", description="UTC, to the millisecond")]
Hash = Annotated[str, Meta(pattern="^[0-9a-f]{40}$")]
Role = Literal["owner", "member", "invited", "unknown"]
Callability = Literal["public", "private"]
#: What people write of themselves.
Line = Annotated[str, Meta(max_length=300, pattern="^[ -~]*$")]
Required = Annotated[str, Meta(min_length=1, max_length=300, pattern="^[ -~]+$")]
Mail = Annotated[str, Meta(max_length=300, pattern="^[A-Za-z0-9.]+@[A-Za-z0-9.]+$")]
Name = Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
OrganizationTypeName = Literal["basic", "legacy", "pro"]
#: The last ones are what later environments were called there.
Language = Literal[
    "java", "javascript", "python2-langpack", "python3-1", "r", "ruby", "rust", "scala", "python3", "anaconda3"
]  # fmt: skip


class Details(Struct):
    label: str
    summary: str = ""
    tagline: str = ""


class Settings(Struct):
    algorithm_callability: Callability
    source_visibility: Literal["open", "closed"]
    license: Literal["apl", "apache2", "gpl3", "mit"]
    network_access: Literal["isolated", "full"]
    pipeline_enabled: bool
    royalty_microcredits: int = 0
    insights_enabled: bool = False
    language: str | None = None
    environment: Literal["cpu", "gpu"] | None = None
    package_set: str | None = None
    algorithm_environment: str | None = None


class Scm(Struct):
    id: Literal["internal"]
    name: str
    provider: Literal["internal"]
    enabled: bool
    default: bool


class Source(Struct):
    scm: Scm


class BuildVersionInfo(Struct):
    semantic_version: str


class Build(Struct):
    build_id: Id
    status: Literal["in-progress", "succeeded", "failed"]
    commit_sha: Hash
    started_at: Time
    resource_type: Literal["algorithm_build"]
    finished_at: Time | None = None
    version_info: BuildVersionInfo | None = None


class Compilation(Struct):
    successful: bool
    output: str = ""


class VersionInfo(Struct):
    git_hash: Hash
    version_uuid: Id
    insights_enabled: bool
    semantic_version: str | None = None
    published_at: Time | None = None
    release_notes: str | None = None
    sample_input: str | None = None
    sample_output: str | None = None
    deprecation: Annotated[str | None, Meta(description="what callers are told")] = None


class HashResponse(Struct):
    id: Id
    name: str
    details: Details
    settings: Settings
    source: Source
    self_link: str
    resource_type: Literal["algorithm"]


class VersionResponse(HashResponse):
    version_info: VersionInfo | None = None
    build: Build | None = None
    compilation: Compilation | None = None


class ListedAlgorithm(Struct):
    owner: str
    name: str
    version: str | None
    tagline: str
    visibility: Callability
    state: Annotated[
        Literal["published", "built", "empty"], Meta(description="built, but not published; or not even that")
    ]


class PagedAlgorithms(Struct):
    marker: str | None
    next_link: str | None
    results: list[ListedAlgorithm]


class Deprecation(Struct):
    message: Annotated[str, Meta(min_length=1, max_length=500, pattern="^[ -~]+$")]


class Share(Struct):
    semantic_version: str
    percent: int


class NewRouting(Struct):
    routing: Annotated[list[Share], Meta(min_length=1)]


class Routing(Struct):
    routing: list[Share]
    resource_type: Literal["routing"]


class PagedVersions(Struct):
    marker: str | None
    next_link: str | None
    results: list[VersionResponse]


class PagedBuilds(Struct):
    marker: str | None
    next_link: str | None
    results: list[Build]


class BuildLogs(Struct):
    logs: str


class Commit(Struct):
    id: str
    short_message: str
    message: str
    author: str


class CommitLog(Struct):
    commits: list[Commit]


class ScmStatus(Struct):
    scm_connection_status: Literal["active", "deploy_key_error", "provider_internal_error"]


class ScmAuthorization(Struct):
    authorization_status: Literal["authorized", "unauthorized"]


class Scms(Struct):
    results: list[Scm]


class EnvironmentLanguage(Struct):
    name: str
    display_name: str
    configuration: str


class Environment(Struct):
    id: Id
    environment_specification_id: Id
    display_name: str
    description: str
    created_at: Time
    language: EnvironmentLanguage
    machine_type: Literal["CPU", "GPU"]


class Environments(Struct):
    environments: list[Environment]


class Secret(Struct):
    id: Id
    short_name: str
    description: str
    secret_key: str
    owner_type: Literal["algorithm"]
    owner_id: Id
    provider_id: Id
    created: str
    modified: str


class Secrets(Struct):
    results: list[Secret]
    secrets: list[Secret]


class NewSecret(Struct):
    short_name: Annotated[str, Meta(min_length=1, max_length=100)]
    secret_key: Annotated[str, Meta(pattern="^[A-Za-z_][A-Za-z0-9_]{0,99}$", description="of the variable")]
    secret_value: Annotated[str, Meta(min_length=1, max_length=1000)]
    description: Annotated[str, Meta(max_length=200)] = ""
    owner_type: Literal["algorithm"] = "algorithm"


class ChangedSecret(Struct):
    short_name: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    secret_value: Annotated[str, Meta(min_length=1, max_length=1000)] | None = None
    description: Annotated[str, Meta(max_length=200)] | None = None


class SecretProvider(Struct):
    id: Id
    name: str
    description: str
    moduleName: str
    factoryClassName: str
    interfaceVersion: str
    isEnabled: bool
    isDefault: bool
    created: str
    modified: str


class CallError(Struct):
    created_at: int
    request_id: str
    username: str
    algoname: str
    algoversion: str
    input: str
    error: str
    error_type: str
    billable_to: str
    worker: str


class PagedInsights(Struct):
    marker: str | None
    next_link: str | None
    results: list[dict[str, Any]]


class User(Struct):
    id: Id
    username: str
    email: str
    resource_type: Literal["user"]
    self_link: str
    fullname: str | None = None
    company_name: str | None = None
    company_role: str | None = None


class NewUser(Struct):
    username: Name
    email: Mail
    fullname: Line = ""
    company_name: Line = ""
    company_role: Line = ""


class ChangedUser(Struct):
    email: Mail | None = None
    fullname: Line | None = None
    company_name: Line | None = None
    company_role: Line | None = None


class PagedUsers(Struct):
    marker: str | None
    next_link: str | None
    results: list[User]


class OwnedAlgorithm(Struct):
    id: Id
    algoname: str
    username: str


class Organization(Struct):
    org_name: str
    org_email: str
    org_label: str
    org_contact_name: str
    type_id: Id
    resource_type: Literal["organization"]
    self_link: str
    org_url: str | None = None
    owner_ids: list[str] | None = None


class NewOrganization(Struct):
    org_name: Name
    org_label: Required
    org_contact_name: Required
    org_email: Mail
    type_id: OrganizationTypeName


class ChangedOrganization(Struct):
    org_label: Required | None = None
    org_contact_name: Required | None = None
    org_email: Mail | None = None
    type_id: OrganizationTypeName | None = None


class PagedOrganizations(Struct):
    marker: str | None
    next_link: str | None
    results: list[Organization]


class OrganizationType(Struct):
    id: Id
    name: str


class Member(Struct):
    username: str
    role: Role
    user_link: str
    resource_type: Literal["organization_member"]


class MemberRole(Struct):
    role: Literal["owner", "member"] | None = None


class PagedMembers(Struct):
    marker: str | None
    next_link: str | None
    results: list[Member]


class Permissions(Struct):
    allow_data: bool
    allow_data_write: bool
    allow_algo: bool
    allow_web_algo: bool
    algo_acl: list[str]
    allow_algo_management: bool | None = None
    referer_host: str | None = None


class WantedPermissions(Struct):
    allow_algo: bool = False
    allow_algo_management: bool | None = None
    allow_data: bool = False
    allow_data_write: bool = False
    algo_acl: list[Annotated[str, Meta(pattern="^algo://[*]$")]] = []


class NewKey(Struct):
    key_label: Annotated[str, Meta(max_length=MAX_LABEL_CHARS, pattern="^[ -~]*$")] = ""
    key_type: Literal["ManagementKey", "AlgorithmKey"] | None = None
    permissions: WantedPermissions | None = None


class ApiKey(Struct):
    id: Id
    username: str
    key_label: str
    created_at: Time
    api_key_mask: str
    key_type: Literal["ManagementKey", "PlatformAdminKey", "AlgorithmKey"]
    api_key: Annotated[str | None, Meta(description="only in the answer that makes it")] = None
    permissions: Permissions | None = None
    owner_name: str | None = None


class ManagementError(Struct):
    id: Id
    code: Annotated[int, Meta(description="Algorithmia's number of it")]
    message: str
    type: str
    error_type: str
    status: int
    retriable: bool
    request_id: str
    reason: str


class Refused(Struct):
    error: ManagementError


class OnlyMessage(Struct):
    message: str


class NoSuchAlgorithm(Struct):
    error: Literal["No such algorithm"] | OnlyMessage
