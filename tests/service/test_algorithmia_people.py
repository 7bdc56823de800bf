"""Algorithmia's own Python client, as it was published: users, organizations and members."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from serai_gateway.testing import Service, until, write_algorithm

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the package predates this Python
    import Algorithmia


@pytest.fixture
def client(service: Service) -> Any:
    return Algorithmia.client(service.key, service.address)


def _organization(name: str, label: str = "some label") -> dict[str, str]:
    return {
        "org_name": name,
        "org_label": label,
        "org_contact_name": "Some owner",
        "org_email": f"{name}@algo.com",
        "org_url": "https://algo.com",
        "type_id": "basic",
        "resource_type": "organization",
    }


def test_it_creates_users(client: Any) -> None:
    user = {
        "username": "Mrtest", "email": "mrtest@algo.com", "passwordHash": "", "shouldCreateHello": False,
    }  # fmt: skip
    made = client.create_user(user)
    assert (made["username"], made["email"], made["resource_type"]) == ("Mrtest", "mrtest@algo.com", "user")
    with pytest.raises(Exception, match="409"):  # all that it says of a POST that is refused
        client.create_user(user)
    assert client.get_user_errors(made["id"]) == []


def test_it_makes_and_edits_organizations_and_invites_to_them(client: Any) -> None:
    types = client.get_org_types()
    assert [one["name"] for one in types] == ["basic", "legacy", "pro"]
    made = client.create_org(_organization("MyOrg"))
    assert (made["org_name"], made["type_id"]) == ("MyOrg", types[0]["id"])
    assert client.get_org("myorg")["org_label"] == "some label"
    edited = client.edit_org("MyOrg", _organization("MyOrg", "another label") | {"id": made["id"]})
    assert edited.status_code == 204
    assert client.get_org("MyOrg")["org_label"] == "another label"
    client.create_user({"username": "invited", "email": "invited@algo.com"})
    assert client.invite_to_org("MyOrg", "invited").status_code == 200
    members = client.getJsonHelper("/v1/organizations/MyOrg/members")["results"]
    assert {member["username"]: member["role"] for member in members} == {"operator": "owner", "invited": "member"}
    assert client.get_organization_errors("MyOrg") == client.get_organization_errors("none-such") == []
    with pytest.raises(Exception, match="409"):
        client.create_org(_organization("myorg"))
    with pytest.raises(Exception, match="400"):  # it sends "" for a type that it does not know
        client.create_org(_organization("untyped") | {"type_id": "golden"})
    assert client.get_org("none-such")["error"]["code"] == 3100
    assert client.deleteHelper("/v1/organizations/MyOrg/members/invited").reason == "No Content"
    assert client.deleteHelper("/v1/organizations/MyOrg").reason == "No Content"


def test_a_new_user_gets_a_key_publishes_and_calls(service: Service, client: Any, tmp_path: Path) -> None:
    client.create_user({"username": "newcomer", "email": "n@algo.com"})
    key = client.postJsonHelper("/v1/users/newcomer/keys", {"key_label": "default-key"})["api_key"]
    folder = write_algorithm(tmp_path / "twice", "def apply(input):\n    return input * 2\n", owner="newcomer")
    service.publish(folder, public=False, key=key)
    newcomer: Any = Algorithmia.client(key, service.address)
    assert newcomer.algo("newcomer/twice").pipe(21).result == 42
    owned = newcomer.getHelper("/v1/users/newcomer/algorithms").json()
    assert [(one["algoname"], one["username"]) for one in owned] == [("twice", "newcomer")]
    team = newcomer.create_org(_organization("newcomers"))
    assert team["owner_ids"] == [newcomer.getJsonHelper("/v1/users/newcomer")["id"]]
    shared = write_algorithm(tmp_path / "thrice", "def apply(input):\n    return input * 3\n", owner="newcomers")
    client.create_user({"username": "colleague", "email": "c@algo.com"})
    other = client.postJsonHelper("/v1/users/colleague/keys", {"key_label": "default-key"})["api_key"]
    assert newcomer.invite_to_org("newcomers", "colleague").status_code == 200
    service.publish(shared, public=False, key=other)
    with pytest.raises(AssertionError, match="members publish privately"):
        service.publish(shared, public=True, key=other)
    colleague: Any = Algorithmia.client(other, service.address)
    assert colleague.algo("newcomers/thrice").pipe(2).result == 6
    assert service.call("newcomers/thrice", b"2", key=key).status == 200
    assert service.call("newcomer/twice", b"2", key=other).status == 404
    service.publish(shared, public=True, key=key)
    assert service.call("newcomers/thrice", b"2", key=service.key).status == 200
    gone = newcomer.deleteHelper("/v1/organizations/newcomers/members/colleague")
    assert gone.reason == "No Content"
    until(lambda: service.call("newcomers/thrice/latestPrivate", b"2", key=other).status == 404, "rights are gone", 5)
