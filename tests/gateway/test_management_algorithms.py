"""Algorithms over HTTP: created, changed, deleted and listed; and what clients should not send."""

from typing import Any

import pytest

from serai_gateway.api.testing.algorithms import NO_SUCH, SETTINGS, SOURCE, UUID, create, make, ok, publish, refused
from serai_gateway.api.testing.gateway import CallGateway
from serai_gateway.catalogue import Catalogue, open_catalogue


def test_what_creating_answers_is_what_clients_know(market: CallGateway, catalogue: Catalogue, name: str) -> None:
    made = create(market, name, version_info={"sample_input": '"hello"'}, source={}, scmsCredentials={})
    assert UUID.match(made["id"])
    assert made == {
        "id": made["id"],
        "name": name,
        "details": {"label": f"The {name}", "summary": "", "tagline": ""},
        "settings": {
            "algorithm_callability": "private",
            "source_visibility": "closed",
            "license": "apl",
            "network_access": "full",
            "pipeline_enabled": True,
            "language": "python3-1",
            "environment": "cpu",
            "royalty_microcredits": 0,
            "insights_enabled": False,
        },
        "source": SOURCE,
        "self_link": f"http://127.0.0.1:8000/v1/algorithms/alice/{name}",
        "resource_type": "algorithm",
    }
    assert ok(market.ask("GET", f"/v1/algorithms/alice/{name}")) == made
    assert ok(market.ask("GET", f"/v1/algorithms/{made['id']}")) == made
    assert ok(market.ask("GET", f"/v1/algorithms/{made['id'].replace('-', '').upper()}")) == made
    assert (market.home / "git" / f"{made['id'].replace('-', '')}.git").is_dir()
    status, code, message = refused(
        market.ask(
            "POST", "/v1/algorithms/alice", {"name": name.upper(), "details": {"label": "x"}, "settings": SETTINGS}
        )
    )
    assert (status, code) == (409, 1002) and "already" in message


def test_an_update_changes_what_it_says(market: CallGateway, name: str) -> None:
    made = create(market, name)
    change = {"details": {"tagline": "new"}, "settings": {"source_visibility": "open", "license": "mit"}}
    for path in (f"alice/{name}", made["id"]):
        changed = ok(market.ask("PUT", f"/v1/algorithms/{path}", change))
        assert changed["details"] == {"label": f"The {name}", "summary": "", "tagline": "new"}
        assert changed["settings"] == made["settings"] | change["settings"] and changed["id"] == made["id"]
    by_body = ok(market.ask("PUT", "/v1/algorithms/alice", {"name": name, "details": {"label": "L"}}))
    assert by_body["details"]["label"] == "L"
    assert refused(market.ask("PUT", "/v1/algorithms/alice", {}))[:2] == (404, 1000)


def test_the_form_that_pythons_client_sends_changes_nothing(market: CallGateway, name: str) -> None:
    made = create(market, name)
    raw = b"details=label&details=tagline&settings=environment"
    head = (
        f"PUT /v1/algorithms/alice/{name} HTTP/1.1\r\nHost: x\r\nAuthorization: {market.keys['alice']}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(raw)}\r\n\r\n"
    ).encode()
    assert ok(market.server.ask(head + raw)) == made
    assert refused(market.ask("PUT", f"/v1/algorithms/alice/{name}", raw))[:2] == (400, 2013), "elsewhere it is JSON"


def test_nobody_sends_ids_owners_or_hashes(market: CallGateway, catalogue: Catalogue, name: str) -> None:
    taken = {
        "id": "0" * 32,
        "owner": "bob",
        "owner_id": "x",
        "visibility": "public",
        "hash": "f" * 40,
        "routing": [],
        "semver": "9.9.9",
        "public": True,
    }
    body = {"name": name, "details": {"label": "x"}, "settings": SETTINGS} | taken
    made = ok(market.ask("POST", "/v1/algorithms/alice", body), 201)
    assert made["id"] != "0" * 32 and made["settings"]["algorithm_callability"] == "private"
    make(catalogue, "alice", name, 1)
    changed = ok(market.ask("PUT", f"/v1/algorithms/alice/{name}", taken))
    assert changed == made
    body = taken | {
        "version_info": {
            "semantic_version": "9.9.9",
            "git_hash": "f" * 40,
            "version_uuid": "x",
            "version_type": "minor",
        }
    }
    info = ok(market.ask("POST", f"/v1/algorithms/alice/{name}/versions", body))["version_info"]
    assert (info["semantic_version"], info["git_hash"]) == ("0.1.0", f"{1:040x}")
    assert market.ask("GET", f"/v1/algorithms/alice/{name}", key="bob").status == 404


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "1x"}, 6001), ({"name": "a b"}, 6001), ({"name": "../x"}, 6001), ({"name": "a" * 65}, 6001),
        ({"name": "a\0"}, 6001), ({"name": 5}, 6001), ({"name": "0" * 32}, 6001), ({"name": "abcdef00" * 4}, 6001),
        ({"details": {}}, 6001), ({"details": {"label": ""}}, 6001), ({"details": {"label": "a\nb"}}, 6001),
        ({"details": {"label": "x" * 201}}, 6001), ({"details": {"label": "x", "tagline": "x" * 301}}, 6001),
        ({"details": {"label": "x", "summary": "a\0"}}, 6001), ({"details": {"label": "x", "summary": "\x1b[m"}}, 6001),
        ({"details": {"label": "x", "summary": "a\x9bm"}}, 6001), ({"settings": {}}, 6001),
        ({"settings": SETTINGS | {"license": "gpl"}}, 6001), ({"settings": SETTINGS | {"network_access": True}}, 6001),
        ({"settings": SETTINGS | {"pipeline_enabled": "true"}}, 6001),
        ({"settings": SETTINGS | {"royalty_microcredits": -1}}, 6001),
        ({"settings": SETTINGS | {"royalty_microcredits": 2**63}}, 6001),
        ({"settings": SETTINGS | {"royalty_microcredits": 1.5}}, 6001),
        ({"settings": SETTINGS | {"license": "mit"}}, 6001),
        ({"settings": SETTINGS | {"algorithm_callability": "public"}}, 6001),
        ({"settings": SETTINGS | {"language": "cobol"}}, 4001), ({"settings": SETTINGS | {"language": "ruby"}}, 4002),
        ({"settings": SETTINGS | {"environment": "gpu"}}, 4004), ({"settings": SETTINGS | {"language": None}}, 4001),
        ({"settings": SETTINGS | {"package_set": "nonsense"}}, 1003),
        ({"source": {"scm": "github"}}, 4009), ({"version_info": {"sample_input": {"a": 1}}}, 6001),
        ({"version_info": {"sample_input": "\0"}}, 6001),
    ],
)  # fmt: skip
def test_what_cannot_be_created_is_refused_with_its_number(
    market: CallGateway, change: dict[str, Any], code: int
) -> None:
    body = {"name": "refused", "details": {"label": "x"}, "settings": SETTINGS} | change
    answer = market.ask("POST", "/v1/algorithms/alice", body)
    assert refused(answer)[1] == code and answer.status in (400, 404)
    assert market.ask("GET", "/v1/algorithms/alice/refused").body == NO_SUCH
    repositories = {path.name for path in (market.home / "git").glob("*.git")}
    catalogue = open_catalogue(market.home)
    assert all(catalogue.name_of_algorithm(name.removesuffix(".git")) for name in repositories), "none is left over"
    catalogue.close()


@pytest.mark.parametrize(
    "raw",
    [b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 200_000, b'{"a":' * 300 + b"1" + b"}" * 300, b'{"name": NaN}'],
    ids=range(8),
)
def test_bodies_that_are_no_object_are_refused(market: CallGateway, raw: bytes) -> None:
    for method, path in (
        ("POST", "alice"),
        ("PUT", "alice/same"),
        ("POST", "alice/same/versions"),
        ("PUT", "alice/same/routing"),
    ):
        status, code, _ = refused(market.ask(method, f"/v1/algorithms/{path}", raw))
        assert status == 400 and code in (2013, 6001)


def test_deleting_leaves_nothing_and_what_is_public_stays(market: CallGateway, catalogue: Catalogue, name: str) -> None:
    made = create(market, name)
    make(catalogue, "alice", name, 1)
    answer = market.ask("DELETE", f"/v1/algorithms/alice/{name}")
    assert (answer.status, answer.body) == (204, b"")
    assert market.ask("GET", f"/v1/algorithms/{made['id']}").body == NO_SUCH
    assert not (market.home / "git" / f"{made['id'].replace('-', '')}.git").exists()
    assert refused(market.ask("DELETE", f"/v1/algorithms/alice/{name}"))[:2] == (404, 1000)
    made = create(market, name)
    make(catalogue, "alice", name, 1)
    ok(publish(market, f"alice/{name}", algorithm_callability="public"))
    status, _, message = refused(market.ask("DELETE", f"/v1/algorithms/{made['id']}"))
    assert status == 400 and "public versions" in message
    assert market.ask("DELETE", f"/v1/algorithms/{made['id']}", key="operator").status == 204


def test_other_methods_and_paths_answer_in_the_same_form(market: CallGateway) -> None:
    assert refused(market.ask("PATCH", "/v1/algorithms/alice/same"))[0] == 405
    assert refused(market.ask("GET", "/v1/algorithms/alice/same/nonsense"))[0] == 404
    assert refused(market.ask("POST", "/v1/algorithms/alice/same/versions", {}, "sim" + "x" * 25))[:2] == (401, 2002)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", 5003),
        ("limit=1001", 5003),
        ("limit=a", 5003),
        ("q=" + "x" * 201, 6001),
        ("q=%00", 6001),
        ("owner=%00", 6001),
        ("marker=%00", 5002),
    ],
)
def test_lists_refuse_what_they_cannot_read(market: CallGateway, query: str, code: int) -> None:
    assert refused(market.ask("GET", f"/v1/algorithms?{query}"))[:2] == (400, code)


def test_a_list_says_what_was_not_built_or_not_published(market: CallGateway, catalogue: Catalogue, name: str) -> None:
    def listed() -> tuple[str | None, str]:
        (one,) = ok(market.ask("GET", f"/v1/algorithms?owner=alice&q={name}"))["results"]
        return one["version"], one["state"]

    create(market, name)
    assert listed() == (None, "empty")
    make(catalogue, "alice", name, 1)
    assert listed() == (None, "built")
    ok(market.ask("POST", f"/v1/algorithms/alice/{name}/versions", {"version_info": {"version_type": "minor"}}))
    assert listed() == ("0.1.0", "published")


def test_a_list_of_one_owner_has_links_that_keep_the_question(market: CallGateway, catalogue: Catalogue) -> None:
    for number in range(3):
        catalogue.ensure_algorithm(catalogue.account_named("bob"), f"listed{number}", "public")
    page = ok(market.ask("GET", "/v1/algorithms?owner=bob&q=listed&limit=2"))
    assert [(one["owner"], one["name"], one["version"]) for one in page["results"]] == [
        ("bob", "listed0", None),
        ("bob", "listed1", None),
    ]
    rest = ok(market.ask("GET", page["next_link"].removeprefix("http://127.0.0.1:8000")))
    assert [one["name"] for one in rest["results"]] == ["listed2"] and rest["next_link"] is None
