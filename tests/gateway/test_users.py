"""Users, organizations and members over HTTP: shapes, codes, and what hostile input gets."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from serai_gateway.api.management.profiles import TYPES
from serai_gateway.api.testing.people import People, code_of, organization, running_people


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    with running_people(tmp_path_factory.mktemp("people")) as people:
        yield people


def _all(people: People, path: str, **more: str) -> list[dict[str, Any]]:
    """All pages of two, following the links."""
    results, link = [], f"{path}?limit=2"
    while link:
        answer = people.ask("GET", link, **more).json()
        assert set(answer) == {"results", "marker", "next_link"} and len(answer["results"]) <= 2
        assert (answer["marker"] is None) == (answer["next_link"] is None)
        results += answer["results"]
        link = answer["next_link"] and answer["next_link"][answer["next_link"].index("/v1/") :]
    return results


def test_a_new_user_has_the_documented_shape(people: People) -> None:
    body = {"username": "Ada", "email": "ada@example.com", "fullname": "Ada L.", "passwordHash": "", "id": "1" * 32}
    made = people.ask("POST", "/v1/users", body | {"shouldCreateHello": False}).json()
    assert uuid.UUID(made.pop("id")) != uuid.UUID("1" * 32)
    assert made.pop("self_link").endswith("/v1/users/Ada")
    assert made == {"username": "Ada", "email": "ada@example.com", "fullname": "Ada L.", "resource_type": "user"}
    assert people.ask("GET", "/v1/users/ADA").json()["fullname"] == "Ada L."
    assert code_of(people.ask("POST", "/v1/users", body | {"username": "aDA"})) == (409, 3003)
    assert code_of(people.ask("POST", "/v1/users", {"username": "bert"})) == (400, 3005)
    assert code_of(people.ask("POST", "/v1/users")) == (400, 3005)


def test_a_user_changes_what_it_says_of_itself_and_nothing_else(people: People) -> None:
    name = people.new_user()
    before = people.ask("GET", f"/v1/users/{name}", key=name).json()
    hostile = {
        "id": "0" * 32, "kind": "operator", "is_admin": True, "owner_id": None, "memberships": [["x", "owner"]],
        "profile": {"email": "x"}, "self_link": "http://evil", "resource_type": "organization", "created_at": 0,
    }  # fmt: skip
    changed = people.ask("PUT", f"/v1/users/{name}", hostile | {"company_name": "Acme"}, name).json()
    assert changed == before | {"company_name": "Acme"}
    assert people.ask("GET", "/v1/users", key=name).status == 403
    assert code_of(people.ask("PUT", f"/v1/users/{name}", {"username": "other"}, name)) == (400, 3007)
    assert people.ask("PUT", f"/v1/users/{name}", {"username": name.upper(), "email": "n@x.org"}, name).status == 200
    assert people.ask("GET", f"/v1/users/{name}", key=name).json()["email"] == "n@x.org"
    assert code_of(people.ask("PUT", f"/v1/users/{name}", {"email": ""}, name)) == (400, 3005)


def test_me_is_whoever_asks(people: People) -> None:
    name = people.new_user()
    assert people.ask("GET", "/v1/users/me", key=name).json() == people.ask("GET", f"/v1/users/{name}").json()
    assert people.ask("GET", "/v1/users/me/keys", key=name).json()[0]["username"] == name
    assert people.ask("PUT", "/v1/users/me", {"company_name": "Acme"}, name).json()["company_name"] == "Acme"
    assert people.ask("DELETE", "/v1/users/me", key=name).status == 403
    assert code_of(people.ask("POST", "/v1/users", {"username": "me", "email": "a@x.org"})) == (409, 3003)


def test_a_deleted_user_comes_in_no_more_and_the_name_is_nobodys(people: People) -> None:
    name = people.new_user()
    assert people.ask("DELETE", f"/v1/users/{name}").status == 204
    assert code_of(people.ask("GET", f"/v1/users/{name}", key=name)) == (401, 2002)
    assert code_of(people.ask("GET", f"/v1/users/{name}")) == (404, 3000)
    assert code_of(people.ask("DELETE", f"/v1/users/{name}")) == (404, 3000)
    assert code_of(people.ask("POST", "/v1/users", {"username": name, "email": "a@x.org"})) == (409, 3003)
    assert code_of(people.ask("POST", "/v1/organizations", organization(name), "sam")) == (409, 3101)


def test_what_still_belongs_to_an_account_must_go_before_it(people: People) -> None:
    name = people.new_user()
    people.add_algorithm(name, "tool")
    refused = people.ask("DELETE", f"/v1/users/{name}")
    assert code_of(refused) == (409, 2015) and f"owns {name}/tool" in refused.json()["error"]["message"]
    owner = people.new_user()
    team = people.new_organization(owner)
    assert code_of(people.ask("DELETE", f"/v1/users/{owner}")) == (409, 3102)
    people.add_algorithm(team, "tool")
    assert code_of(people.ask("DELETE", f"/v1/organizations/{team}", key=owner)) == (409, 2015)
    assert code_of(people.ask("DELETE", "/v1/users/operator")) == (409, 2015)
    assert people.ask("GET", "/v1/users").status == 200


def test_lists_of_people_are_paged(people: People) -> None:
    names = [people.new_user() for _ in range(5)]
    listed = [user["username"] for user in _all(people, "/v1/users")]
    assert set(names) | {"operator", "olga"} <= set(listed) and listed == sorted(listed, key=str.lower)
    organizations = [people.new_organization("sam") for _ in range(3)]
    listed = [one["org_name"] for one in _all(people, "/v1/organizations")]
    assert set(organizations) | {"team"} <= set(listed) and "olga" not in listed
    for name in names:
        assert people.ask("PUT", f"/v1/organizations/team/members/{name}", key="olga").status == 200
    members = _all(people, "/v1/organizations/team/members", key="mark")
    assert {"olga", "mark", *names} <= {one["username"] for one in members}
    assert {one["username"]: one["role"] for one in members}["olga"] == "owner"
    assert set(members[0]) == {"username", "role", "user_link", "resource_type"}
    for query in ("limit=0", "limit=1001", "limit=x", "limit=-1", "limit=1000000000"):
        assert code_of(people.ask("GET", f"/v1/users?{query}")) == (400, 5003)
    assert code_of(people.ask("GET", f"/v1/users?marker={'x' * 1000}")) == (400, 5002)
    assert code_of(people.ask("GET", "/v1/users?marker=%00")) == (400, 5002)


def test_types_of_organizations_are_taken_by_id_and_by_name(people: People) -> None:
    types = people.ask("GET", "/v1/organization/types", key=None).json()
    assert types == [{"id": TYPES[name], "name": name} for name in ("basic", "legacy", "pro")]
    body = organization(people.new_name())
    made = people.ask("POST", "/v1/organizations", body | {"type_id": TYPES["pro"]}, "sam").json()
    assert made["type_id"] == TYPES["pro"]
    body = organization(people.new_name())
    assert people.ask("POST", "/v1/organizations", body, "sam").json()["type_id"] == TYPES["basic"]
    for type_id in ("golden", "0" * 32):
        answer = people.ask("POST", "/v1/organizations", organization("unmade") | {"type_id": type_id}, "sam")
        assert code_of(answer) == (404, 3108)
    assert code_of(people.ask("POST", "/v1/organizations", organization("unmade") | {"type_id": ""}, "sam")) == (
        400, 3005,
    )  # fmt: skip


def test_an_organization_has_the_documented_shape(people: People) -> None:
    body = organization(people.new_name())
    made = people.ask("POST", "/v1/organizations", body | {"id": "1" * 32, "owner_ids": []}, "sam").json()
    sam = people.ask("GET", "/v1/users/sam").json()["id"]
    assert {name: made[name] for name in body} == body | {"type_id": TYPES["basic"]}
    assert (made["owner_ids"], made["resource_type"]) == ([sam], "organization")
    for field in ("stripe_customer_id", "external_admin_group", "external_member_group", "external_id"):
        assert made[field] is None
    assert made["org_created_at"][-5] == "." and made["org_created_at"].endswith("Z")
    name = body["org_name"]
    assert people.ask("GET", f"/v1/organizations/{name.upper()}", key="sam").json() == made
    changed = people.ask("PUT", f"/v1/organizations/{name}", body | {"org_label": "Other", "org_url": ""}, "sam")
    assert (changed.status, changed.body) == (204, b"")
    assert people.ask("GET", f"/v1/organizations/{name}", key="sam").json() == made | {
        "org_label": "Other",
        "org_url": "",
    }
    assert code_of(people.ask("PUT", f"/v1/organizations/{name}", {"org_label": ""}, "sam")) == (400, 3005)
    assert code_of(people.ask("PUT", f"/v1/organizations/{name}", {"org_name": "other"}, "sam")) == (400, 6001)
    assert code_of(people.ask("POST", "/v1/organizations", body, "mark")) == (409, 3101)
    assert code_of(people.ask("GET", "/v1/organizations/sam")) == (404, 3100)
    assert code_of(people.ask("GET", f"/v1/users/{name}")) == (404, 3000)


def test_a_role_is_given_and_the_last_owner_stays(people: People) -> None:
    team, name = people.new_organization("sam"), people.new_user()
    path = f"/v1/organizations/{team}/members"
    assert people.ask("PUT", f"{path}/{name}", key="sam").status == 200
    assert code_of(people.ask("DELETE", f"{path}/sam", key="sam")) == (409, 3102)
    assert code_of(people.ask("PUT", f"{path}/sam", {"role": "member"}, "sam")) == (409, 3102)
    assert people.ask("PUT", f"{path}/{name}", {"role": "owner"}, "sam").status == 200
    assert people.ask("PUT", f"{path}/{name}", b"", "sam").status == 200  # as clients invite: the role stays
    assert people.ask("DELETE", f"{path}/sam", key="sam").status == 204
    assert people.ask("GET", path, key="sam").status == 404
    assert [one["username"] for one in people.ask("GET", path, key=name).json()["results"]] == [name]
    assert code_of(people.ask("DELETE", f"{path}/sam", key=name)) == (404, 3000)
    assert code_of(people.ask("PUT", f"{path}/nobody-here", key=name)) == (404, 3000)
    assert code_of(people.ask("PUT", f"{path}/team", key=name)) == (404, 3000)
    assert code_of(people.ask("PUT", f"{path}/sam", {"role": "invited"}, name)) == (400, 6001)


def test_algorithms_are_listed_for_those_who_may_see_them(people: People) -> None:
    name = people.new_user()
    team = people.new_organization(name)
    for owner in (name, team):
        people.add_algorithm(owner, "hidden")
        people.add_algorithm(owner, "shown", is_public=True)
    for path, owner in ((f"/v1/users/{name}/algorithms", name), (f"/v1/organizations/{team}/utility-algorithms", team)):
        mine = people.ask("GET", path, key=name).json()
        assert [(one["algoname"], one["username"]) for one in mine] == [("hidden", owner), ("shown", owner)]
        assert uuid.UUID(mine[0]["id"])
        assert [one["algoname"] for one in people.ask("GET", path, key="sam").json()] == ["shown"]


@pytest.mark.parametrize(
    "name",
    ["a b", "-rf", "--help", "1a", "a/b", "..", "a.b", "a" * 65, "a" * 900_000, "x\n", "né", "раураl", "a\0",
     "a\u202eb", "$(id)", "';--", "d0c85ea6-ddfa-11ea-a0c8-12a811be4db3"],
)  # fmt: skip
def test_what_is_no_name_makes_nobody(people: People, name: str) -> None:
    assert code_of(people.ask("POST", "/v1/users", {"username": name, "email": "a@x.org"})) == (400, 6001)
    assert code_of(people.ask("POST", "/v1/organizations", organization("x") | {"org_name": name})) == (400, 6001)


@pytest.mark.parametrize("name", ["admin", "API", "v1", "me", "operator", "serai", "Support", "null"])
def test_names_of_the_platform_are_nobodys(people: People, name: str) -> None:
    assert code_of(people.ask("POST", "/v1/users", {"username": name, "email": "a@x.org"})) == (409, 3003)
    assert code_of(people.ask("POST", "/v1/organizations", organization(name), "sam")) == (409, 3101)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"email": "nobody"}, (400, 6001)),
        ({"email": "a@x.org\r\nBcc: all@x.org"}, (400, 6001)),
        ({"fullname": "a\0b"}, (400, 6001)),
        ({"fullname": "\x1b[2J"}, (400, 6001)),
        ({"fullname": "\u202egnp.exe"}, (400, 6001)),
        ({"fullname": "x" * 301}, (400, 6001)),
        ({"fullname": "x" * 1_000_000}, (400, 6001)),
        ({"fullname": ["x"]}, (400, 6001)),
        ({"username": 7}, (400, 6001)),
        ({"username": {}}, (400, 6001)),
    ],
)
def test_a_profile_is_short_lines_of_text(people: People, changes: dict[str, Any], refusal: tuple[int, int]) -> None:
    body = {"username": people.new_name(), "email": "a@x.org"} | changes
    assert code_of(people.ask("POST", "/v1/users", body)) == refusal


def test_the_address_of_an_organization_is_one_that_a_browser_may_follow(people: People) -> None:
    for url in ("javascript:alert(1)", "//evil", "data:text/html,x", "https://a b"):
        body = organization(people.new_name()) | {"org_url": url}
        assert code_of(people.ask("POST", "/v1/organizations", body, "sam")) == (400, 6001)


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b"", (400, 3005)),
        (b"{", (400, 2013)),
        (b"\xff\xfe", (400, 2013)),
        (b"[]", (400, 6001)),
        (b"null", (400, 6001)),
        (b'"text"', (400, 6001)),
        (b"NaN", (400, 2013)),
        (b"[" * 100_000, (400, 2013)),
        (b'{"a":' * 300 + b"1" + b"}" * 300, (400, 2013)),
        (b'{"username": "\\ud800"}', (400, 2013)),
        (b"username=x&email=a@x.org", (400, 2013)),
    ],
)
def test_a_body_that_is_no_request_is_refused(people: People, body: bytes, refusal: tuple[int, int]) -> None:
    for path in ("/v1/users", "/v1/organizations"):
        assert code_of(people.ask("POST", path, body)) == refusal


def test_a_body_beyond_a_mebibyte_is_too_large(people: People) -> None:
    answer = people.ask("POST", "/v1/users", b'{"username": "' + b"x" * (1 << 20) + b'"}')
    assert code_of(answer)[0] == 413


@pytest.mark.parametrize("name", ["%00", "..%2f..", "a%2fb", "%ff", "-x", "x" * 3000, "a%0d%0aX:1", "%2e%2e"])
def test_a_path_that_is_no_name_is_nobody(people: People, name: str) -> None:
    for path in (f"/v1/users/{name}", f"/v1/organizations/{name}", f"/v1/organizations/team/members/{name}"):
        verb = "DELETE" if "members" in path else "GET"
        assert people.ask(verb, path).status in (400, 404, 405)
    assert people.ask("GET", "/healthz").status == 200
