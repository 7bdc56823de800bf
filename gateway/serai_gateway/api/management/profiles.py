"""What people and organizations say of themselves: checked when it comes in, and shown in Algorithmia's shapes."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.api.management.ids import public_id
from serai_gateway.api.management.times import iso_time
from serai_gateway.catalogue import Account, Member

#: Longest field of a profile, in characters. An address of mail has at most 254, most names of people fewer than 100.
MAX_FIELD_CHARS = 300

#: Ids of the types of organizations, the same on every server; clients send them for the names.
TYPES = {
    "basic": "d0c85ea6-ddfa-11ea-a0c8-12a811be4db3",
    "legacy": "d0bff917-ddfa-11ea-a0c8-12a811be4db3",
    "pro": "d0c9d825-ddfa-11ea-a0c8-12a811be4db3",
}

_MAIL = re.compile(r"[^@\s]+@[^@\s]+")
_LINK = re.compile(r"https?://\S+")

_USER_FIELDS = ("email", "fullname", "company_name", "company_role")
_ORGANIZATION_FIELDS = ("org_label", "org_contact_name", "org_email", "org_url", "type_id")


class UserBody(msgspec.Struct):
    """What a request may say of a user. Whatever else it says, such as an id or a kind, is not read."""

    username: str | None = None
    email: str | None = None
    fullname: str | None = None
    company_name: str | None = None
    company_role: str | None = None


class OrganizationBody(msgspec.Struct):
    """What a request may say of an organization; nothing else is read."""

    org_name: str | None = None
    org_label: str | None = None
    org_contact_name: str | None = None
    org_email: str | None = None
    org_url: str | None = None
    type_id: str | None = None


def check_present(body: msgspec.Struct, *fields: str) -> None:
    """Raises ManagementError with the names of those that are missing or empty."""
    missing = [field for field in fields if not getattr(body, field)]
    if missing:
        raise ManagementError(Codes.MISSING_FIELDS, f"required fields are missing: {', '.join(missing)}")


def user_profile(body: UserBody) -> dict[str, str]:
    """What is given of it. Raises ManagementError."""
    return _checked(body, _USER_FIELDS)


def organization_profile(body: OrganizationBody) -> dict[str, str]:
    """What is given of it. Raises ManagementError."""
    profile = _checked(body, _ORGANIZATION_FIELDS)
    if "type_id" in profile:
        profile["type_id"] = _type_id(profile["type_id"])
    return profile


def check_text(text: str, field: str, max_chars: int = MAX_FIELD_CHARS) -> str:
    """`text` itself. Raises ManagementError unless it is a short line that shows what it is."""
    if len(text) > max_chars:
        raise ManagementError(Codes.INVALID_INPUT, f"{field} has {len(text)} characters, at most {max_chars} are kept")
    if not text.isprintable():
        raise ManagementError(Codes.INVALID_INPUT, f"{field} is one line of printable characters")
    return text


def user_object(user: Account, base_url: str) -> dict[str, Any]:
    profile = user.profile
    return {
        "id": public_id(user.id),
        "username": user.name,
        "email": profile.get("email", ""),
        "fullname": profile.get("fullname", ""),
        **{key: profile[key] for key in ("company_name", "company_role") if key in profile},
        "self_link": user_link(user.name, base_url),
        "resource_type": "user",
    }


def organization_object(organization: Account, owner_ids: tuple[str, ...], base_url: str) -> dict[str, Any]:
    profile: Mapping[str, str] = organization.profile
    return {
        "id": public_id(organization.id),
        "org_name": organization.name,
        "org_label": profile.get("org_label", organization.name),
        "org_contact_name": profile.get("org_contact_name", ""),
        "org_email": profile.get("org_email", ""),
        "org_url": profile.get("org_url", ""),
        "org_created_at": iso_time(organization.created_at),
        "type_id": profile.get("type_id", TYPES["basic"]),
        "owner_ids": [public_id(id) for id in owner_ids],
        "stripe_customer_id": None,
        "external_admin_group": None,
        "external_member_group": None,
        "external_id": None,
        "self_link": f"{base_url}/v1/organizations/{organization.name}",
        "resource_type": "organization",
    }


def member_object(member: Member, base_url: str) -> dict[str, Any]:
    return {
        "username": member.name,
        "role": member.role,
        "user_link": user_link(member.name, base_url),
        "resource_type": "organization_member",
    }


def user_link(name: str, base_url: str) -> str:
    return f"{base_url}/v1/users/{name}"


def _checked(body: msgspec.Struct, fields: tuple[str, ...]) -> dict[str, str]:
    given = {field: getattr(body, field) for field in fields}
    profile = {field: check_text(text, field) for field, text in given.items() if text is not None}
    for field in ("email", "org_email"):
        if profile.get(field) and not _MAIL.fullmatch(profile[field]):
            raise ManagementError(Codes.INVALID_INPUT, f"{field} is an address like name@example.com")
    if profile.get("org_url") and not _LINK.fullmatch(profile["org_url"]):
        raise ManagementError(Codes.INVALID_INPUT, "org_url is an address like https://example.com")
    return profile


def _type_id(wanted: str) -> str:
    """By id, or by name as people write it. Raises ManagementError."""
    if wanted in TYPES:
        return TYPES[wanted]
    if wanted.lower() in TYPES.values():
        return wanted.lower()
    raise ManagementError(
        Codes.ORGANIZATION_TYPE_NOT_FOUND, f"there is no such type of organization; there are {', '.join(TYPES)}"
    )
