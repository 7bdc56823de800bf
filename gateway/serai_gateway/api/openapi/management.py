"""The management API: algorithms, versions, builds, secrets, environments, people. One table; the rest is made of it.

What is said of /v1/algorithms/{owner}/{name} is true of /v1/algorithms/{id}, too, and listed once.
"""

import re
from typing import Any, NamedTuple

import msgspec

from serai_gateway.api.management import algorithm_bodies as bodies
from serai_gateway.api.openapi import management_shapes as shapes
from serai_gateway.api.openapi.parts import (
    ALGORITHM,
    ALWAYS,
    ERROR_REFERENCE,
    NAME,
    OWNER,
    WANTED,
    json_answer,
    path_parameter,
    query,
)

_ALGORITHM = "/v1/algorithms/{owner}/{name}"
_USER = "/v1/users/{user}"
_ORGANIZATION = "/v1/organizations/{organization}"
_MEMBER = f"{_ORGANIZATION}/members/{{user}}"
_EDGE = "/v1/algorithm-environments/edge"
_LIMIT = query("limit", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 50}, "most results")
_MARKER = query("marker", {"type": "string", "maxLength": 200}, "`marker` of the page before")
_FLAG = {"type": "boolean"}
_TEXT = {"type": "string", "maxLength": 200, "pattern": "^[^\\u0000]*$"}
_SEMVER = r"^(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})$"
_PAGE = (_LIMIT, _MARKER)
_ID = {"type": "string", "format": "uuid"}
_WORD = {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"}
_PARAMETERS = {
    "owner": OWNER,
    "name": ALGORITHM,
    "version": WANTED,
    "number": path_parameter("number", {"type": "string", "pattern": _SEMVER}, "1.2.0"),
    "language": path_parameter("language", _WORD, "python3, javascript, anaconda3"),
    "anybody": path_parameter(
        "anybody", {"type": "string", "minLength": 1}, "a name; of unknown ones there is nothing"
    ),
    "scm": path_parameter("scm", _WORD, "internal"),
}


class Operation(NamedTuple):
    method: str
    path: str
    id: str
    summary: str
    answer: Any  # a type; None: nothing
    body: Any = None  # a type
    status: str = "200"
    queries: tuple[dict[str, Any], ...] = ()
    is_open: bool = False  # answers without a key, as far as everybody may know

    def answers(self, method: str, path: str) -> bool:
        """Whether a request is one for this operation."""
        pattern = re.sub(r"\\{[a-z]+\\}", "[^/]+", re.escape(self.path))
        return method == self.method and re.fullmatch(pattern, path) is not None


OPERATIONS = (
    Operation(
        "GET",
        "/v1/algorithms",
        "listAlgorithms",
        "Public algorithms, and with a key your own",
        shapes.PagedAlgorithms,
        queries=(query("q", _TEXT, "words of owner, name, tagline or label"), query("owner", _TEXT, "whose"), *_PAGE),
        is_open=True,
    ),
    Operation(
        "POST",
        "/v1/algorithms/{owner}",
        "createAlgorithm",
        "Make an algorithm, with a repository that builds",
        shapes.HashResponse,
        bodies.CreateBody,
        "201",
    ),
    Operation(
        "PUT",
        "/v1/algorithms/{owner}",
        "updateNamedAlgorithm",
        "Change what is given; `name` says of which",
        shapes.HashResponse,
        bodies.ChangeBody,
    ),
    Operation("GET", _ALGORITHM, "getAlgorithm", "An algorithm and its version", shapes.VersionResponse, is_open=True),
    Operation("PUT", _ALGORITHM, "updateAlgorithm", "Change what is given", shapes.HashResponse, bodies.ChangeBody),
    Operation("DELETE", _ALGORITHM, "deleteAlgorithm", "Delete it, its code and its history", None, status="204"),
    Operation("POST", f"{_ALGORITHM}/compile", "compile", "Build, and wait for the end", shapes.VersionResponse),
    Operation("GET", f"{_ALGORITHM}/builds", "listBuilds", "Newest first", shapes.PagedBuilds, queries=_PAGE),
    Operation("GET", f"{_ALGORITHM}/builds/{{build}}", "getBuild", "One build", shapes.Build),
    Operation("GET", f"{_ALGORITHM}/builds/{{build}}/logs", "getBuildLog", "Its log at the end", shapes.BuildLogs),
    Operation("GET", f"{_ALGORITHM}/log", "listCommits", "What was pushed", shapes.CommitLog),
    Operation("GET", f"{_ALGORITHM}/scm/status", "getScmStatus", "Of the repository", shapes.ScmStatus),
    Operation(
        "POST",
        f"{_ALGORITHM}/versions",
        "publish",
        "Publish the newest build; also at …/version",
        shapes.VersionResponse,
        bodies.ChangeBody,
    ),
    Operation(
        "GET",
        f"{_ALGORITHM}/versions",
        "listVersions",
        "Newest first",
        shapes.PagedVersions,
        queries=(query("published", _FLAG, "only those with a number"), query("callable", _FLAG, "ignored"), *_PAGE),
        is_open=True,
    ),
    Operation(
        "GET",
        f"{_ALGORITHM}/versions/{{version}}",
        "getVersion",
        "One version, by number or hash",
        shapes.VersionResponse,
        is_open=True,
    ),
    Operation(
        "PUT",
        f"{_ALGORITHM}/versions/{{number}}/deprecation",
        "deprecate",
        "Tell callers to go elsewhere",
        shapes.VersionResponse,
        shapes.Deprecation,
    ),
    Operation(
        "DELETE", f"{_ALGORITHM}/versions/{{number}}/deprecation", "undeprecate", "Take it back", None, status="204"
    ),
    Operation("GET", f"{_ALGORITHM}/routing", "getRouting", "Which versions calls go to", shapes.Routing),
    Operation(
        "PUT", f"{_ALGORITHM}/routing", "setRouting", "Roll back, or try a canary", shapes.Routing, shapes.NewRouting
    ),
    Operation("DELETE", f"{_ALGORITHM}/routing", "clearRouting", "Back to the newest", None, status="204"),
    Operation(
        "GET", f"{_EDGE}/languages", "listLanguages", "Languages of algorithms", list[shapes.EnvironmentLanguage]
    ),
    Operation(
        "GET",
        f"{_EDGE}/languages/{{language}}/environments",
        "listEnvironments",
        "Environments of a language",
        shapes.Environments,
    ),
    Operation(
        "GET",
        f"{_EDGE}/languages/{{language}}/environments/current",
        "getCurrentEnvironment",
        "What a new algorithm of a language gets",
        shapes.Environment,
    ),
    Operation("GET", f"{_EDGE}/environments/available", "listAllEnvironments", "All environments", shapes.Environments),
    Operation("GET", f"{_EDGE}/environments/{{id}}", "getEnvironment", "One environment", shapes.Environment),
    Operation(
        "GET",
        f"{_EDGE}/environment-specifications/{{id}}/template",
        "getTemplate",
        "A repository to begin with, as a tar.gz; __USER__ and __ALGO__ stand for owner and name",
        bytes,
        is_open=True,
    ),
    Operation("GET", "/v1/scms", "listScms", "Places for source code: one", shapes.Scms),
    Operation("GET", "/v1/scms/{scm}", "getScm", "One place for source code", shapes.Scm),
    Operation(
        "GET", "/v1/scms/{scm}/oauth/status", "getScmLogin", "Whether you are logged in", shapes.ScmAuthorization
    ),
    Operation(
        "GET", "/v1/scms/{scm}/token/status", "getScmToken", "Whether you are logged in", shapes.ScmAuthorization
    ),
    Operation("GET", "/v1/secret-provider", "listSecretProviders", "Who keeps secrets", list[shapes.SecretProvider]),
    Operation("GET", f"{_ALGORITHM}/secrets", "listSecrets", "Secrets, without their values", shapes.Secrets),
    Operation("POST", f"{_ALGORITHM}/secrets", "addSecret", "Add a secret", shapes.Secret, shapes.NewSecret),
    Operation(
        "PUT", f"{_ALGORITHM}/secrets/{{secret}}", "changeSecret", "Change one", shapes.Secret, shapes.ChangedSecret
    ),
    Operation("DELETE", f"{_ALGORITHM}/secrets/{{secret}}", "removeSecret", "Remove one", None, status="204"),
    Operation("GET", f"{_ALGORITHM}/errors", "listErrors", "Failed calls of seven days", list[shapes.CallError]),
    Operation(
        "GET", f"{_ALGORITHM}/insights", "listInsights", "What calls reported", shapes.PagedInsights, queries=_PAGE
    ),
    Operation("GET", "/v1/users", "listUsers", "All users (operator only)", shapes.PagedUsers, queries=_PAGE),
    Operation("POST", "/v1/users", "createUser", "Make a user (operator only)", shapes.User, shapes.NewUser),
    Operation("GET", _USER, "getUser", "A user", shapes.User),
    Operation("PUT", _USER, "updateUser", "Change what is given of a user", shapes.User, shapes.ChangedUser),
    Operation("DELETE", _USER, "deleteUser", "Delete a user (operator only)", None, status="204"),
    Operation(
        "GET", "/v1/users/{anybody}/algorithms", "listAlgorithmsOfUser", "Algorithms", list[shapes.OwnedAlgorithm]
    ),
    Operation("GET", "/v1/users/{anybody}/errors", "listErrorsOfUser", "Failed calls of all", list[shapes.CallError]),
    Operation("GET", f"{_USER}/keys", "listKeys", "API keys, without their text", list[shapes.ApiKey]),
    Operation("POST", f"{_USER}/keys", "createKey", "Make an API key", shapes.ApiKey, shapes.NewKey),
    Operation("DELETE", f"{_USER}/keys/{{key}}", "revokeKey", "Revoke an API key", None, status="204"),
    Operation(
        "POST", "/v1/admin/users/{user}/keys", "createKeyForUser", "(operator only)", shapes.ApiKey, shapes.NewKey
    ),
    Operation("GET", "/v1/organization/types", "listTypes", "Types", list[shapes.OrganizationType], is_open=True),
    Operation(
        "GET", "/v1/organizations", "listOrganizations", "(operator only)", shapes.PagedOrganizations, queries=_PAGE
    ),
    Operation(
        "POST", "/v1/organizations", "createOrganization", "Make one", shapes.Organization, shapes.NewOrganization
    ),
    Operation("GET", _ORGANIZATION, "getOrganization", "An organization", shapes.Organization),
    Operation(
        "PUT", _ORGANIZATION, "updateOrganization", "Change what is given", None, shapes.ChangedOrganization, "204"
    ),
    Operation("DELETE", _ORGANIZATION, "deleteOrganization", "Delete one without algorithms", None, status="204"),
    Operation(
        "GET",
        "/v1/organizations/{anybody}/utility-algorithms",
        "listAlgorithmsOfOrganization",
        "Algorithms",
        list[shapes.OwnedAlgorithm],
    ),
    Operation(
        "GET",
        "/v1/organizations/{anybody}/errors",
        "listErrorsOfOrganization",
        "Failed calls of all",
        list[shapes.CallError],
    ),
    Operation("GET", f"{_ORGANIZATION}/keys", "listKeysOfOrganization", "Its API keys", list[shapes.ApiKey]),
    Operation("POST", f"{_ORGANIZATION}/keys", "createKeyOfOrganization", "Make a key", shapes.ApiKey, shapes.NewKey),
    Operation("DELETE", f"{_ORGANIZATION}/keys/{{key}}", "revokeKeyOfOrganization", "Revoke a key", None, status="204"),
    Operation(
        "GET", f"{_ORGANIZATION}/members", "listMembers", "Who belongs to it", shapes.PagedMembers, queries=_PAGE
    ),
    Operation("PUT", _MEMBER, "setMember", "Add a member, or change its role", None, shapes.MemberRole),
    Operation("DELETE", _MEMBER, "removeMember", "Remove a member, or leave", None, status="204"),
    Operation("POST", f"{_MEMBER}/keys", "createMemberKey", "Make a key of one's own", shapes.ApiKey, shapes.NewKey),
)


def _is_type(value: Any) -> bool:
    return value is not None and value is not bytes


_TYPES = [shapes.Refused, shapes.NoSuchAlgorithm]
_TYPES += [kind for one in OPERATIONS for kind in (one.answer, one.body) if _is_type(kind)]
_REFERENCES, SCHEMAS = msgspec.json.schema_components(_TYPES, ref_template="#/components/schemas/{name}")
#: What is said by the HTTP server itself, by the catalogue, and by the management API.
_REFUSED = {"anyOf": [{"$ref": "#/components/schemas/Refused"}, ERROR_REFERENCE, _REFERENCES[1]]}
_REFUSALS = {
    status: json_answer(why, _REFUSED)
    for status, why in {
        "400": "malformed, or it cannot be made here: `code` says why",
        "401": "no key, or not a key of this server",
        "403": "known, and not yours to do",
        "404": "unknown, or private to somebody else",
        "405": "wrong method",
        "409": "taken, or changed meanwhile",
        "422": "understood, and cannot be done",
        "429": "too many at once",
        "507": "the server's disk is full",
    }.items()
}
_REFUSALS |= {status: json_answer("refused by the server", _REFUSED) for status in ALWAYS if status not in _REFUSALS}


def _reference(kind: Any) -> dict[str, Any]:
    return _REFERENCES[_TYPES.index(kind)]


def _describe(one: Operation) -> dict[str, Any]:
    names = re.findall(r"\{([a-z]+)\}", one.path)
    parameters = [_PARAMETERS.get(name) or path_parameter(name, _default(name), "") for name in names]
    if one.answer is None:
        answered: dict[str, Any] = {"description": "done; nothing more to say"}
    elif one.answer is bytes:
        content = {"application/gzip": {"schema": {"type": "string", "format": "binary"}}}
        answered = {"description": "the archive", "content": content}
    else:
        answered = json_answer("done", _reference(one.answer))
    described: dict[str, Any] = {
        "operationId": one.id,
        "summary": one.summary,
        "tags": ["management"],
        "parameters": [*parameters, *one.queries],
        "responses": {one.status: answered, **_REFUSALS},
        "security": [{"key": []}, {"bearer": []}, *([{}] if one.is_open else [])],
    }
    if one.body is not None:
        is_required = any(field.required for field in msgspec.structs.fields(one.body))
        described["requestBody"] = {
            "required": is_required,
            "content": {"application/json": {"schema": _reference(one.body)}},
        }
    return described


def _default(name: str) -> dict[str, Any]:
    return _ID if name in ("id", "build", "key", "secret") else NAME


PATHS: dict[str, Any] = {}
for _one in OPERATIONS:
    PATHS.setdefault(_one.path, {})[_one.method.lower()] = _describe(_one)
