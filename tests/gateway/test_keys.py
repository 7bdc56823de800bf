"""Keys over HTTP: made, shown once, listed, revoked; and never one that may do more than the key that makes it."""

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from serai_gateway.api.management.errors import ManagementError
from serai_gateway.api.management.key_permissions import AuthPermissions, check_covers, wanted_permissions
from serai_gateway.api.testing.people import People, code_of, running_people
from serai_gateway.catalogue import Permissions, keys

_ALL = {
    "allow_data": True, "allow_data_write": True, "allow_algo": True, "allow_web_algo": False, "referer_host": "",
    "allow_algo_management": True, "algo_acl": ["algo://*"],
}  # fmt: skip


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    with running_people(tmp_path_factory.mktemp("keys")) as people:
        yield people


def _make(people: People, body: object, key: str = "sam", path: str = "/v1/users/sam/keys") -> dict[str, Any]:
    answer = people.ask("POST", path, body, key)
    assert answer.status == 200, answer.body
    return answer.json()


def test_a_key_is_shown_once(people: People) -> None:
    made = _make(people, {"key_label": "laptop", "key_type": "ManagementKey", "permissions": _ALL})
    text = made.pop("api_key")
    assert keys.is_key_text(text) and text not in str(made)
    assert (made["username"], made["owner_name"], made["key_label"]) == ("sam", "sam", "laptop")
    assert (made["key_type"], made["permissions"]) == ("ManagementKey", _ALL)
    assert made["api_key_mask"][:6] == text[:6]
    listed = people.ask("GET", "/v1/users/sam/keys", key=text)
    assert made in listed.json() and text.encode() not in listed.body
    assert all("api_key" not in key for key in listed.json())


def test_a_revoked_key_opens_nothing_and_is_listed_no_more(people: People) -> None:
    made = _make(people, {"key_label": "old"})
    assert people.ask("GET", "/v1/users/sam", key=made["api_key"]).status == 200
    path = f"/v1/users/sam/keys/{made['id']}"
    assert people.ask("DELETE", path, key="sam").status == 204
    assert code_of(people.ask("GET", "/v1/users/sam", key=made["api_key"])) == (401, 2002)
    assert made["id"] not in [key["id"] for key in people.ask("GET", "/v1/users/sam/keys", key="sam").json()]
    assert people.ask("DELETE", path, key="sam").status == 204
    for id in ("0" * 32, "x", made["id"][:-1]):
        assert code_of(people.ask("DELETE", f"/v1/users/sam/keys/{id}", key="sam")) == (404, 2015)


def test_a_key_of_one_account_is_not_revoked_through_another(people: People) -> None:
    made = _make(people, {"key_label": "mine"})
    for path in (f"/v1/users/olga/keys/{made['id']}", f"/v1/organizations/team/keys/{made['id']}"):
        assert code_of(people.ask("DELETE", path, key="olga")) == (404, 2015)
    assert people.ask("GET", "/v1/users/sam", key=made["api_key"]).status == 200


def test_types_of_keys_say_what_they_may(people: People) -> None:
    calls = _make(people, {"key_type": "AlgorithmKey"})
    assert calls["key_type"] == "AlgorithmKey" and not calls["permissions"]["allow_algo_management"]
    assert code_of(people.ask("GET", "/v1/users/sam", key=calls["api_key"])) == (403, 2001)
    assert code_of(people.ask("POST", "/v1/users/sam/keys", {}, calls["api_key"])) == (403, 2001)
    admin = {"key_type": "PlatformAdminKey"}
    assert code_of(people.ask("POST", "/v1/users/sam/keys", admin, "sam")) == (403, 2001)
    assert code_of(people.ask("POST", "/v1/users/sam/keys", admin)) == (403, 2001)
    made = _make(people, admin, "operator", "/v1/users/operator/keys")
    assert made["key_type"] == "PlatformAdminKey"
    assert people.ask("GET", "/v1/users", key=made["api_key"]).status == 200


def test_what_is_left_out_of_permissions_is_not_allowed(people: People) -> None:
    made = _make(people, {"permissions": {"allow_algo": True, "algo_acl": ["algo://olga/tool", "algo://Team/*"]}})
    assert made["permissions"] == _ALL | {
        "allow_data": False, "allow_data_write": False, "allow_algo_management": False,
        "algo_acl": ["algo://olga/tool/*", "algo://Team/*"],
    }  # fmt: skip
    assert made["key_type"] == "AlgorithmKey"
    assert code_of(people.ask("POST", "/v1/users/sam/keys", {}, made["api_key"])) == (403, 2001)
    typed = _make(people, {"permissions": {"allow_algo": True}, "key_type": "ManagementKey"})
    assert typed["permissions"]["allow_algo_management"]
    none = _make(people, {"permissions": {}, "key_type": "AlgorithmKey"})["permissions"]
    assert none == _ALL | dict.fromkeys((name for name in _ALL if name.startswith("allow")), False) | {"algo_acl": []}


def test_a_limited_key_makes_limited_keys_only(people: People) -> None:
    limits = _ALL | {"allow_data_write": False, "algo_acl": ["algo://olga/*"]}
    limited = _make(people, {"permissions": limits})["api_key"]
    assert _make(people, {}, limited)["permissions"] == limits
    assert _make(people, {"permissions": limits | {"algo_acl": ["algo://olga/tool"]}}, limited)["api_key"]
    for more in ({"allow_data_write": True}, {"algo_acl": ["algo://*"]}, {"algo_acl": ["algo://olga/*", "sam/x"]}):
        answer = people.ask("POST", "/v1/users/sam/keys", {"permissions": limits | more}, limited)
        assert code_of(answer) == (403, 2001) and next(iter(more))[:10] in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        {"key_label": "x" * 201},
        {"key_label": "a\0"},
        {"key_label": "a\nb"},
        {"key_label": 5},
        {"key_type": "RootKey"},
        {"permissions": []},
        {"permissions": _ALL | {"referer_host": "example.com"}},
        {"permissions": _ALL | {"algo_acl": ["algo://../x"]}},
        {"permissions": _ALL | {"algo_acl": ["data://*"]}},
        {"permissions": _ALL | {"algo_acl": ["olga/tool/1.0.0"]}},
        {"permissions": _ALL | {"algo_acl": ["olga/x"] * 101}},
        {"permissions": _ALL | {"algo_acl": "*"}},
        {"permissions": _ALL, "key_type": "AlgorithmKey"},
    ],
)
def test_what_is_no_key_is_refused(people: People, body: dict[str, Any]) -> None:
    assert code_of(people.ask("POST", "/v1/users/sam/keys", body, "sam")) == (400, 6001)


def test_who_chooses_the_text_or_the_owner_of_a_key_chooses_nothing(people: People) -> None:
    text = keys.new_key_text()
    body = {
        "api_key": text,
        "text": text,
        "username": "operator",
        "owner_name": "operator",
        "account_id": "x",
        "id": "y",
    }
    made = _make(people, body)
    assert made["api_key"] != text and made["username"] == "sam"
    assert people.ask("GET", "/v1/users/sam", key=text).status == 401


def test_a_key_of_an_organization_acts_for_it(people: People) -> None:
    made = _make(people, {"key_label": "ci", "permissions": _ALL}, "olga", "/v1/organizations/team/keys")
    assert made["username"] == "team"
    assert people.ask("GET", "/v1/organizations/team/members", key=made["api_key"]).status == 200
    assert people.ask("GET", "/v1/users/olga", key=made["api_key"]).status == 404
    path = f"/v1/organizations/team/keys/{made['id']}"
    assert code_of(people.ask("DELETE", path, key="mark")) == (403, 2001)
    assert people.ask("DELETE", path, key="olga").status == 204
    assert people.ask("GET", "/v1/organizations/team", key=made["api_key"]).status == 401


def test_who_is_removed_has_no_more_rights(people: People) -> None:
    name = people.new_user()
    member = f"/v1/organizations/team/members/{name}"
    assert people.ask("PUT", member, key="olga").status == 200
    assert people.ask("GET", "/v1/organizations/team", key=name).status == 200
    assert people.ask("DELETE", member, key="olga").status == 204
    assert people.ask("GET", "/v1/organizations/team", key=name).status == 404


def test_no_chain_of_keys_ends_with_more_than_it_began_with() -> None:
    values = [
        Permissions(call=call, manage=manage, data=data, algorithms=algorithms)
        for call, manage, data, algorithms in itertools.product(
            (False, True), (False, True), ("none", "read", "write"), ((), ("A/x",), ("a/*",), ("a/*", "b/y"), ("*",))
        )
    ]

    def covers(own: Permissions, wanted: Permissions) -> bool:
        try:
            check_covers(own, wanted)
        except ManagementError:
            return False
        return True

    above = {index: {at for at, one in enumerate(values) if covers(values[index], one)} for index in range(len(values))}
    for index, below in above.items():
        assert index in below
        assert all(above[at] <= below for at in below)
    everything = values.index(Permissions())
    assert above[everything] == set(range(len(values)))
    assert [at for at, below in above.items() if everything in below] == [everything]


def test_a_prefix_of_a_name_is_no_owner() -> None:
    own = Permissions(algorithms=("al/*", "b/tool"))
    for entry in ("alice/*", "b/*", "b/tools", "*"):
        wanted = wanted_permissions(AuthPermissions(allow_algo=True, algo_acl=[entry]), "AlgorithmKey", own)
        with pytest.raises(ManagementError, match="algo_acl"):
            check_covers(own, wanted)
