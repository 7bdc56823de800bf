"""Who may do what with users, organizations, members and keys: every verb for everybody, as one table."""

from collections.abc import Iterator

import pytest

from serai_gateway.api.management.rights import RIGHTS
from serai_gateway.api.testing.people import People, code_of, organization, running_people

#: Who asks, in the order of the columns: the operator, the user or organization itself, an owner of the organization, a
#: member, a stranger, nobody, and the owner with a key that may not manage.
_WHO = ("operator", "itself", "olga", "mark", "sam", None, "limited")

_USER = {"username": "{new}", "email": "a@example.com"}
_ROLE = {"role": "member"}

#: Right, verb, path, body, and what each of them gets.
_TABLE = [
    ("list users", "GET", "/v1/users", None, (200, 403, 403, 403, 403, 401, 403)),
    ("create user", "POST", "/v1/users", _USER, (200, 403, 403, 403, 403, 401, 403)),
    ("read user", "GET", "/v1/users/{user}", None, (200, 200, 404, 404, 404, 401, 403)),
    ("update user", "PUT", "/v1/users/{user}", {"fullname": "X"}, (200, 200, 404, 404, 404, 401, 403)),
    ("delete user", "DELETE", "/v1/users/{user}", None, (204, 403, 404, 404, 404, 401, 403)),
    ("keys of user", "GET", "/v1/users/{user}/keys", None, (200, 200, 404, 404, 404, 401, 403)),
    ("keys of user", "POST", "/v1/users/{user}/keys", {}, (200, 200, 404, 404, 404, 401, 403)),
    ("keys of user", "DELETE", "/v1/users/{user}/keys/{key}", None, (204, 204, 404, 404, 404, 401, 403)),
    ("admin keys of user", "POST", "/v1/admin/users/{user}/keys", {}, (200, 403, 404, 404, 404, 401, 403)),
    ("list organizations", "GET", "/v1/organizations", None, (200, 403, 403, 403, 403, 401, 403)),
    ("", "POST", "/v1/organizations", organization("{new}"), (200, 403, 200, 200, 200, 401, 403)),
    ("read organization", "GET", "/v1/organizations/{org}", None, (200, 200, 200, 200, 404, 401, 403)),
    ("update organization", "PUT", "/v1/organizations/{org}", {}, (204, 204, 204, 403, 404, 401, 403)),
    ("delete organization", "DELETE", "/v1/organizations/{org}", None, (204, 204, 204, 403, 404, 401, 403)),
    ("read members", "GET", "/v1/organizations/{org}/members", None, (200, 200, 200, 200, 404, 401, 403)),
    ("set member", "PUT", "/v1/organizations/{org}/members/{user}", _ROLE, (200, 200, 200, 403, 404, 401, 403)),
    ("remove member", "DELETE", "/v1/organizations/{org}/members/other", None, (204, 204, 204, 403, 404, 401, 403)),
    ("remove member", "DELETE", "/v1/organizations/{org}/members/mark", None, (204, 204, 204, 204, 404, 401, 403)),
    ("keys of organization", "GET", "/v1/organizations/{org}/keys", None, (200, 200, 200, 403, 404, 401, 403)),
    ("keys of organization", "POST", "/v1/organizations/{org}/keys", {}, (200, 200, 200, 403, 404, 401, 403)),
    ("keys of organization", "DELETE", "/v1/organizations/{org}/keys/{key}", None, (204, 204, 204, 403, 404, 401, 403)),
    ("keys of user", "POST", "/v1/organizations/{org}/members/mark/keys", {}, (200, 403, 403, 200, 404, 401, 403)),
    ("", "GET", "/v1/organization/types", None, (200,) * 7),
    ("", "GET", "/v1/users/{user}/algorithms", None, (200, 200, 200, 200, 200, 401, 200)),
    ("", "GET", "/v1/organizations/{org}/utility-algorithms", None, (200, 200, 200, 200, 200, 401, 200)),
]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    with running_people(tmp_path_factory.mktemp("rights")) as people:
        assert people.ask("POST", "/v1/users", {"username": "other", "email": "o@example.com"}).status == 200
        yield people


@pytest.mark.parametrize("column", range(len(_WHO)), ids=[str(who) for who in _WHO])
@pytest.mark.parametrize("row", _TABLE, ids=[f"{verb} {path}" for _, verb, path, _, _ in _TABLE])
def test_the_table(people: People, row: tuple[str, str, str, object, tuple[int, ...]], column: int) -> None:
    _, verb, path, body, expected = row
    user, org = people.new_user(), "team"
    if "organizations" in path:
        org = people.new_organization("olga")
        for name in ("mark", "other"):
            assert people.ask("PUT", f"/v1/organizations/{org}/members/{name}").status == 200
    subject = f"/v1/organizations/{org}" if "organizations" in path else f"/v1/users/{user}"
    made = people.ask("POST", f"{subject}/keys", {"key_label": "own"}).json()
    people.keys["itself"] = made["api_key"]
    spare = people.ask("POST", f"{subject}/keys", {"key_label": "spare"}).json()["id"]
    if isinstance(body, dict):
        body = {name: value.replace("{new}", people.new_name()) for name, value in body.items()}
    who = _WHO[column]
    answer = people.ask(verb, path.format(user=user, org=org, key=spare), body, who)
    assert answer.status == expected[column], answer.body
    if answer.status >= 400:
        known = {401: (2002,), 403: (2001,), 404: (3000, 3100)}[answer.status]
        assert code_of(answer)[1] in known
    elif answer.status == 204 or (verb == "PUT" and "members" in path):
        assert answer.body == b""


def test_the_table_has_every_right() -> None:
    assert {right for right, *_ in _TABLE} - {""} == set(RIGHTS)


@pytest.mark.parametrize("path", ["/v1/users/{}", "/v1/users/{}/keys", "/v1/users/{}/algorithms"])
def test_a_stranger_cannot_tell_a_user_from_nobody(people: People, path: str) -> None:
    there, not_there = (people.ask("GET", path.format(name), key="sam") for name in ("olga", "nobody-here"))
    assert (there.status, _told(there)) == (not_there.status, _told(not_there))


@pytest.mark.parametrize("path", ["", "/members", "/keys", "/utility-algorithms"])
def test_a_stranger_cannot_tell_an_organization_from_nothing(people: People, path: str) -> None:
    names = ("team", "nothing-here", "olga")
    answers = [people.ask("GET", f"/v1/organizations/{name}{path}", key="sam") for name in names]
    assert len({(answer.status, _told(answer)) for answer in answers}) == 1


def _told(answer: object) -> str:
    """What an answer says, without what is different in each."""
    told = answer.json()  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(told, dict):
        told = {name: value for name, value in told["error"].items() if name not in ("id", "request_id")}
    return str(told)
