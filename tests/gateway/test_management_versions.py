"""Versions over HTTP: published, listed and looked at, by whom it may be."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from serai_gateway.api.testing.algorithms import (
    NO_SUCH,
    SETTINGS,
    SOURCE,
    TIME,
    UUID,
    create,
    make,
    ok,
    publish,
    refused,
)
from serai_gateway.api.testing.gateway import CallGateway
from serai_gateway.catalogue import Catalogue, Permissions


def test_a_published_version_is_what_clients_know(market: CallGateway, catalogue: Catalogue, name: str) -> None:
    made = create(market, name)
    make(catalogue, "alice", name, 77)
    hash = f"{77:040x}"
    body = {
        "details": {"label": "testing123"},
        "settings": {"algorithm_callability": "public", "royalty_microcredits": 0, "insights_enabled": False},
        "version_info": {
            "version_type": "minor",
            "release_notes": "first",
            "sample_input": "John",
            "sample_output": "hi",
        },
        "source": {},
        "scmsCredentials": {},
    }
    answered = ok(market.ask("POST", f"/v1/algorithms/alice/{name}/version", body))
    build = answered["build"]
    assert UUID.match(build["build_id"]) and TIME.match(build["started_at"]) and TIME.match(build["finished_at"])
    assert TIME.match(answered["version_info"]["published_at"])
    assert answered == {
        "id": made["id"],
        "name": name,
        "details": {"label": "testing123", "summary": "", "tagline": ""},
        "settings": made["settings"] | {"algorithm_callability": "public"},
        "source": SOURCE,
        "version_info": {
            "semantic_version": "0.1.0",
            "published_at": answered["version_info"]["published_at"],
            "git_hash": hash,
            "insights_enabled": False,
            "version_uuid": answered["version_info"]["version_uuid"],
            "release_notes": "first",
            "sample_input": "John",
            "sample_output": "hi",
        },
        "build": {
            "build_id": build["build_id"],
            "status": "succeeded",
            "commit_sha": hash,
            "started_at": build["started_at"],
            "finished_at": build["finished_at"],
            "resource_type": "algorithm_build",
            "version_info": {"semantic_version": "0.1.0"},
        },
        "compilation": {"successful": True, "output": "built 77"},
        "self_link": f"http://127.0.0.1:8000/v1/algorithms/alice/{name}/versions/{hash}",
        "resource_type": "algorithm",
    }
    calls_only = catalogue.create_key(catalogue.account_named("alice"), "calls", Permissions(manage=False)).text
    for path in (
        f"alice/{name}",
        made["id"],
        f"alice/{name}/versions/{hash}",
        f"alice/{name}/versions/0.1.0",
        f"{made['id']}/versions/0.1",
    ):
        assert ok(market.ask("GET", f"/v1/algorithms/{path}")) == answered, path
        for key in ("bob", calls_only):
            seen = ok(market.ask("GET", f"/v1/algorithms/{path}", key=key))
            assert seen == answered | {"compilation": {"successful": True, "output": ""}}, (
                "the log is for who manages it"
            )
    listed = ok(market.ask("GET", f"/v1/algorithms/{made['id']}/versions", key=""))
    assert listed == {"marker": None, "next_link": None, "results": [seen]}
    assert refused(market.ask("POST", f"/v1/algorithms/alice/{name}/versions", body))[:2] == (409, 1007)


def test_versions_are_paged_with_links_that_work(market: CallGateway, catalogue: Catalogue, name: str) -> None:
    create(market, name)
    make(catalogue, "alice", name, *range(1, 6))
    ok(publish(market, f"alice/{name}"))
    path, seen = f"/v1/algorithms/alice/{name}/versions?limit=2", []
    while path:
        page = ok(market.ask("GET", path))
        seen += [one["version_info"]["git_hash"] for one in page["results"]]
        assert bool(page["marker"]) == bool(page["next_link"])
        path = (page["next_link"] or "").removeprefix("http://127.0.0.1:8000")
    assert seen == [f"{number:040x}" for number in (5, 4, 3, 2, 1)]
    for query, count in (("published=true", 1), ("published=False", 4), ("callable=true", 5), ("callable=false", 5)):
        assert len(ok(market.ask("GET", f"/v1/algorithms/alice/{name}/versions?{query}"))["results"]) == count
    elsewhere = ok(market.ask("GET", "/v1/algorithms/alice/same"))["version_info"]["version_uuid"]
    builds = f"/v1/algorithms/alice/{name}/builds?marker="
    built_elsewhere = catalogue.start_build(catalogue.find_algorithm("alice", "same", None), f"{1:040x}", "x").id
    assert refused(market.ask("GET", builds + built_elsewhere))[:2] == (400, 5002)
    assert ok(market.ask("GET", f"/v1/algorithms/alice/same/versions?marker={elsewhere}"))["results"] == []
    for query, code in (
        (f"marker={elsewhere}", 5002),
        ("limit=0", 5003),
        ("limit=1001", 5003),
        ("limit=x", 5003),
        ("marker=x", 5002),
        (f"marker={'0' * 32}", 5002),
        ("published=maybe", 6001),
    ):
        assert refused(market.ask("GET", f"/v1/algorithms/alice/{name}/versions?{query}"))[:2] == (400, code)


def test_what_is_private_looks_like_what_is_not_there(market: CallGateway, catalogue: Catalogue, name: str) -> None:
    made = create(market, name)
    make(catalogue, "alice", name, 1)
    ok(publish(market, f"alice/{name}"))
    hash = f"{1:040x}"
    for path in (f"alice/{name}", made["id"], "alice/nothing", "0" * 32, "no/body"):
        for key in ("bob", ""):
            answer = market.ask("GET", f"/v1/algorithms/{path}", key=key)
            assert (answer.status, answer.body) == (404, NO_SUCH)
            for below in ("/versions", f"/versions/{hash}", "/versions/0.1.0", "/versions/latest"):
                answer = market.ask("GET", f"/v1/algorithms/{path}{below}", key=key)
                assert refused(answer) == (404, 1000, "The requested algorithm was not found.")
        for method, below, body in (
            ("PUT", "", {}),
            ("DELETE", "", None),
            ("POST", "/versions", {}),
            ("GET", "/routing", None),
            ("PUT", "/routing", {"routing": []}),
            ("DELETE", "/routing", None),
            ("PUT", "/versions/0.1.0/deprecation", {"message": "x"}),
        ):
            assert refused(market.ask(method, f"/v1/algorithms/{path}{below}", body, "bob"))[:2] == (404, 1000)
            assert refused(market.ask(method, f"/v1/algorithms/{path}{below}", body, ""))[:2] == (401, 2002)
    assert market.call(f"{made['id']}", key="bob").status == market.call("0" * 32, key="bob").status == 404
    told = market.call(f"{made['id']}", key="bob").body
    assert name.encode() not in told and b"alice" not in told


def test_a_private_version_of_a_public_algorithm_is_its_owners(
    market: CallGateway, catalogue: Catalogue, name: str
) -> None:
    create(market, name)
    make(catalogue, "alice", name, 1)
    ok(publish(market, f"alice/{name}", algorithm_callability="public"))
    make(catalogue, "alice", name, 2, 3)
    ok(publish(market, f"alice/{name}"))
    for wanted in (f"{2:040x}", f"{3:040x}", "0.2.0", "0.2", "latestPrivate"):
        path = f"/v1/algorithms/alice/{name}/versions/{wanted}"
        assert refused(market.ask("GET", path, key="bob"))[:2] == (404, 1014)
        assert market.ask("GET", path).status == (404 if wanted == "0.2" else 200)
    seen = ok(market.ask("GET", f"/v1/algorithms/alice/{name}/versions", key="bob"))["results"]
    assert [one["version_info"]["git_hash"] for one in seen] == [f"{1:040x}"]


@pytest.mark.parametrize("wanted", ["x", "1.2.3.4", "9223372036854775808.0.0", "g" * 40, "a" * 3000])
def test_what_names_no_version_is_not_found(market: CallGateway, wanted: str) -> None:
    assert refused(market.ask("GET", f"/v1/algorithms/alice/same/versions/{wanted}"))[:2] == (404, 1014)


def test_members_create_and_publish_privately_and_owners_do_the_rest(
    market: CallGateway, catalogue: Catalogue, name: str
) -> None:
    create(market, name, owner="team", key="carol")
    make(catalogue, "team", name, 1)
    path = f"team/{name}"
    forbidden = (403, 2001, "Caller is not authorized to perform the operation.")
    to_members = (403, 2001, "only owners of team may do this, not its members")
    assert refused(publish(market, path, "carol", algorithm_callability="public")) == to_members
    assert ok(publish(market, path, "carol"))["version_info"]["semantic_version"] == "0.1.0"
    make(catalogue, "team", name, 2)
    assert refused(market.ask("DELETE", f"/v1/algorithms/{path}", key="carol")) == forbidden
    assert (
        refused(
            market.ask(
                "PUT",
                f"/v1/algorithms/{path}/routing",
                {"routing": [{"semantic_version": "0.1.0", "percent": 100}]},
                "carol",
            )
        )
        == forbidden
    )
    assert (
        refused(market.ask("PUT", f"/v1/algorithms/{path}/versions/0.1.0/deprecation", {"message": "x"}, "carol"))
        == forbidden
    )
    assert (
        ok(publish(market, path, "bob", algorithm_callability="public"))["version_info"]["semantic_version"] == "0.2.0"
    )
    assert refused(market.ask("PUT", f"/v1/algorithms/{path}", {"details": {"label": "mine"}}, "alice")) == forbidden
    assert refused(publish(market, path, "alice")) == forbidden
    for owner in ("team", "nobody-at-all", "0" * 32):
        body = {"name": "x", "details": {"label": "x"}, "settings": SETTINGS}
        assert refused(market.ask("POST", f"/v1/algorithms/{owner}", body, "alice")) == forbidden


def test_members_do_not_open_the_source_of_what_is_public(market: CallGateway, catalogue: Catalogue, name: str) -> None:
    create(market, name, owner="team", key="carol")
    make(catalogue, "team", name, 1)
    path = f"team/{name}"
    opened = {"settings": {"source_visibility": "open"}}
    assert ok(market.ask("PUT", f"/v1/algorithms/{path}", opened, "carol"))["settings"]["source_visibility"] == "open"
    assert ok(market.ask("PUT", f"/v1/algorithms/{path}", {"settings": {"source_visibility": "closed"}}, "carol"))
    ok(publish(market, path, "bob", algorithm_callability="public"))
    make(catalogue, "team", name, 2)
    for answer in (
        market.ask("PUT", f"/v1/algorithms/{path}", opened, "carol"),
        market.ask("PUT", "/v1/algorithms/team", opened | {"name": name}, "carol"),
        publish(market, path, "carol", source_visibility="open"),
    ):
        assert refused(answer)[:2] == (403, 2001)
    assert market.ask("GET", f"/git/{path}.git/info/refs?service=git-upload-pack", key="").status == 401
    assert ok(market.ask("PUT", f"/v1/algorithms/{path}", {"details": {"label": "x"}}, "carol"))
    assert ok(market.ask("PUT", f"/v1/algorithms/{path}", opened, "bob"))["settings"]["source_visibility"] == "open"
    assert market.ask("GET", f"/git/{path}.git/info/refs?service=git-upload-pack", key="").status == 200
    assert ok(publish(market, path, "carol", source_visibility="open"))


def test_a_sample_may_fill_a_megabyte_and_not_more(market: CallGateway, catalogue: Catalogue, name: str) -> None:
    create(market, name)
    make(catalogue, "alice", name, 1)
    path = f"/v1/algorithms/alice/{name}/versions"
    body = {"version_info": {"version_type": "minor", "sample_input": ""}}
    room = (1 << 20) - len(json.dumps(body))
    body["version_info"]["sample_input"] = "x" * (room + 1)
    assert refused(market.ask("POST", path, body))[0] == 413
    body["version_info"]["sample_input"] = "x" * room
    assert len(ok(market.ask("POST", path, body))["version_info"]["sample_input"]) == room
    assert market.call(f"alice/{name}").status == 200


def test_twenty_publish_and_one_deletes_at_once(market: CallGateway, catalogue: Catalogue, name: str) -> None:
    create(market, name)
    make(catalogue, "alice", name, 1)
    with ThreadPoolExecutor(20) as pool:
        publishing = [pool.submit(publish, market, f"alice/{name}") for _ in range(19)]
        deleting = pool.submit(market.ask, "DELETE", f"/v1/algorithms/alice/{name}")
        statuses = sorted(one.result().status for one in publishing)
    assert deleting.result().status == 204
    assert set(statuses) <= {200, 404, 409} and statuses.count(200) <= 1
    assert market.ask("GET", f"/v1/algorithms/alice/{name}").body == NO_SUCH


def test_publishing_without_a_build_or_against_a_promise_says_why(
    market: CallGateway, catalogue: Catalogue, name: str
) -> None:
    create(market, name)
    assert refused(publish(market, f"alice/{name}"))[:2] == (404, 1010)
    make(catalogue, "alice", name, 1)
    assert refused(publish(market, f"alice/{name}", network_access="isolated"))[:2] == (400, 6001)
    ok(publish(market, f"alice/{name}"))
    make(catalogue, "alice", name, 2)
    status, code, message = refused(publish(market, f"alice/{name}", kind="patch", algorithm_callability="public"))
    assert (status, code) == (400, 6001) and "publish it as a minor version" in message
    for kind in ("huge", "1.2.3", 2**63):
        assert refused(publish(market, f"alice/{name}", kind=kind))[:2] == (400, 6001)  # pyright: ignore
