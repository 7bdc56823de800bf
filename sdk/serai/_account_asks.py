"""What the management API is asked about users, organizations and their keys."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from serai import _wire_shapes as shapes
from serai._ask import Ask, join, nothing, page_of, reading, request
from serai._records import Key, Member, Organization, User
from serai._responses import Page

Kind = Literal["users", "organizations"]

#: The type that an organization gets which is not told apart from others.
_ORGANIZATION_TYPE = "basic"


def path_of(kind: Kind, name: str, *parts: str) -> str:
    return join(f"/v1/{kind}", name, *parts)


def users(marker: str | None) -> Ask[Page[User]]:
    return page_of("/v1/users", shapes.User, shapes.User.record, {}, marker)


def user(name: str) -> Ask[User]:
    return Ask(request("GET", path_of("users", name)), reading(shapes.User, shapes.User.record))


def create_user(name: str, email: str, fullname: str) -> Ask[User]:
    body = {"username": name, "email": email, "fullname": fullname}
    return Ask(request("POST", "/v1/users", body), reading(shapes.User, shapes.User.record))


def organizations(marker: str | None) -> Ask[Page[Organization]]:
    return page_of("/v1/organizations", shapes.Organization, shapes.Organization.record, {}, marker)


def organization(name: str) -> Ask[Organization]:
    return Ask(request("GET", path_of("organizations", name)), reading(shapes.Organization, shapes.Organization.record))


def create_organization(name: str, fields: Mapping[str, str]) -> Ask[Organization]:
    body = {"org_name": name, "type_id": _ORGANIZATION_TYPE} | {f"org_{key}": text for key, text in fields.items()}
    return Ask(request("POST", "/v1/organizations", body), reading(shapes.Organization, shapes.Organization.record))


def delete(kind: Kind, name: str) -> Ask[None]:
    return Ask(request("DELETE", path_of(kind, name)), nothing)


def members(name: str, marker: str | None) -> Ask[Page[Member]]:
    return page_of(path_of("organizations", name, "members"), shapes.Member, shapes.Member.record, {}, marker)


def set_member(name: str, user: str, role: str) -> Ask[None]:
    return Ask(request("PUT", path_of("organizations", name, "members", user), {"role": role}), nothing)


def remove_member(name: str, user: str) -> Ask[None]:
    return Ask(request("DELETE", path_of("organizations", name, "members", user)), nothing)


def keys(kind: Kind, name: str) -> Ask[tuple[Key, ...]]:
    def records(found: list[shapes.Key]) -> tuple[Key, ...]:
        return tuple(one.record() for one in found)

    return Ask(request("GET", path_of(kind, name, "keys")), reading(list[shapes.Key], records))


def create_key(kind: Kind, name: str, label: str, manage: bool, algorithms: Sequence[str]) -> Ask[Key]:
    body: dict[str, Any] = {"key_label": label, "key_type": "ManagementKey" if manage else "AlgorithmKey"}
    if algorithms:
        body["permissions"] = {
            "allow_algo": True,
            "allow_algo_management": manage,
            "algo_acl": [one if one.startswith("algo://") else f"algo://{one}" for one in algorithms],
        }
    return Ask(request("POST", path_of(kind, name, "keys"), body), reading(shapes.Key, shapes.Key.record))


def revoke_key(kind: Kind, name: str, key: str) -> Ask[None]:
    return Ask(request("DELETE", path_of(kind, name, "keys", key)), nothing)
