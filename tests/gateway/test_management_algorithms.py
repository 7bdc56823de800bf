"""Algorithms and versions over HTTP: shapes whole, rights, and what clients should not send."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from serai_gateway.api.testing.gateway import CallGateway, running_calls
from serai_gateway.catalogue import Catalogue, open_catalogue
from serai_gateway.catalogue.testing import built
from serai_gateway.server.testing import Answer

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")
SETTINGS = {
    "source_visibility": "closed",
    "license": "apl",
    "network_access": "full",
    "pipeline_enabled": True,
    "language": "python3-1",
    "environment": "cpu",
}
SOURCE = {"scm": {"id": "internal", "name": "", "provider": "internal", "default": True, "enabled": True}}
NO_SUCH = b'{"error":"No such algorithm"}'


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CallGateway]:
    with running_calls(tmp_path_factory.mktemp("algorithms")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def catalogue(gateway: CallGateway) -> Iterator[Catalogue]:
    catalogue = open_catalogue(gateway.home)
    carol = catalogue.ensure_account("carol")
    gateway.keys["carol"] = catalogue.create_key(carol, "test").text
    catalogue.set_member(catalogue.account_named("team"), carol)
    yield catalogue
    catalogue.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return re.sub(r"\W+", "_", request.node.name)[5:60].strip("_")


def ok(answer: Answer, status: int = 200) -> Any:
    assert answer.status == status, answer.body
    return json.loads(answer.body) if answer.body else None


def refused(answer: Answer) -> tuple[int, int, str]:
    error = json.loads(answer.body)["error"]
    assert UUID.match(error["id"]) and error["request_id"]
    return answer.status, error["code"], error["message"]


def create(gateway: CallGateway, name: str, owner: str = "alice", key: str = "", **more: Any) -> Any:
    body = {"name": name, "details": {"label": f"The {name}"}, "settings": SETTINGS, **more}
    return ok(gateway.ask("POST", f"/v1/algorithms/{owner}", body, key or owner), 201)


def make(catalogue: Catalogue, owner: str, name: str, *numbers: int, **permissions: bool) -> None:
    algorithm = catalogue.find_algorithm(owner, name, catalogue.account_named(owner))
    for number in numbers:
        built(catalogue, algorithm, number, **({"network": True, "calls": True} | permissions))


def publish(gateway: CallGateway, path: str, key: str = "alice", kind: str = "minor", **settings: Any) -> Answer:
    body = {"settings": {"algorithm_callability": "private", **settings}, "version_info": {"version_type": kind}}
    return gateway.ask("POST", f"/v1/algorithms/{path}/versions", body, key)


def test_what_creating_answers_is_what_clients_know(gateway: CallGateway, catalogue: Catalogue, name: str) -> None:
    made = create(gateway, name, version_info={"sample_input": '"hello"'}, source={}, scmsCredentials={})
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
    assert ok(gateway.ask("GET", f"/v1/algorithms/alice/{name}")) == made
    assert ok(gateway.ask("GET", f"/v1/algorithms/{made['id']}")) == made
    assert ok(gateway.ask("GET", f"/v1/algorithms/{made['id'].replace('-', '').upper()}")) == made
    assert (gateway.home / "git" / f"{made['id'].replace('-', '')}.git").is_dir()
    status, code, message = refused(
        gateway.ask(
            "POST", "/v1/algorithms/alice", {"name": name.upper(), "details": {"label": "x"}, "settings": SETTINGS}
        )
    )
    assert (status, code) == (409, 1002) and "already" in message


def test_a_published_version_is_what_clients_know(gateway: CallGateway, catalogue: Catalogue, name: str) -> None:
    made = create(gateway, name)
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
    answered = ok(gateway.ask("POST", f"/v1/algorithms/alice/{name}/version", body))
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
    for path in (
        f"alice/{name}",
        made["id"],
        f"alice/{name}/versions/{hash}",
        f"alice/{name}/versions/0.1.0",
        f"{made['id']}/versions/0.1",
    ):
        assert ok(gateway.ask("GET", f"/v1/algorithms/{path}")) == answered, path
        seen = ok(gateway.ask("GET", f"/v1/algorithms/{path}", key="bob"))
        assert seen == answered | {"compilation": {"successful": True, "output": ""}}, "the log is its owner's"
    listed = ok(gateway.ask("GET", f"/v1/algorithms/{made['id']}/versions", key=""))
    assert listed == {"marker": None, "next_link": None, "results": [seen]}
    assert refused(gateway.ask("POST", f"/v1/algorithms/alice/{name}/versions", body))[:2] == (409, 1007)


def test_versions_are_paged_with_links_that_work(gateway: CallGateway, catalogue: Catalogue, name: str) -> None:
    create(gateway, name)
    make(catalogue, "alice", name, *range(1, 6))
    ok(publish(gateway, f"alice/{name}"))
    path, seen = f"/v1/algorithms/alice/{name}/versions?limit=2", []
    while path:
        page = ok(gateway.ask("GET", path))
        seen += [one["version_info"]["git_hash"] for one in page["results"]]
        assert bool(page["marker"]) == bool(page["next_link"])
        path = (page["next_link"] or "").removeprefix("http://127.0.0.1:8000")
    assert seen == [f"{number:040x}" for number in (5, 4, 3, 2, 1)]
    for query, count in (("published=true", 1), ("published=False", 4), ("callable=true", 5), ("callable=false", 5)):
        assert len(ok(gateway.ask("GET", f"/v1/algorithms/alice/{name}/versions?{query}"))["results"]) == count
    for query, code in (
        ("limit=0", 5003),
        ("limit=1001", 5003),
        ("limit=x", 5003),
        ("marker=x", 5002),
        (f"marker={'0' * 32}", 5002),
        ("published=maybe", 6001),
    ):
        assert refused(gateway.ask("GET", f"/v1/algorithms/alice/{name}/versions?{query}"))[:2] == (400, code)


def test_what_is_private_looks_like_what_is_not_there(gateway: CallGateway, catalogue: Catalogue, name: str) -> None:
    made = create(gateway, name)
    make(catalogue, "alice", name, 1)
    ok(publish(gateway, f"alice/{name}"))
    hash = f"{1:040x}"
    for path in (f"alice/{name}", made["id"], "alice/nothing", "0" * 32, "no/body"):
        for key in ("bob", ""):
            answer = gateway.ask("GET", f"/v1/algorithms/{path}", key=key)
            assert (answer.status, answer.body) == (404, NO_SUCH)
            for below in ("/versions", f"/versions/{hash}", "/versions/0.1.0", "/versions/latest"):
                answer = gateway.ask("GET", f"/v1/algorithms/{path}{below}", key=key)
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
            assert refused(gateway.ask(method, f"/v1/algorithms/{path}{below}", body, "bob"))[:2] == (404, 1000)
            assert refused(gateway.ask(method, f"/v1/algorithms/{path}{below}", body, ""))[:2] == (401, 2002)
    assert gateway.call(f"{made['id']}", key="bob").status == gateway.call("0" * 32, key="bob").status == 404
    told = gateway.call(f"{made['id']}", key="bob").body
    assert name.encode() not in told and b"alice" not in told


def test_a_private_version_of_a_public_algorithm_is_its_owners(
    gateway: CallGateway, catalogue: Catalogue, name: str
) -> None:
    create(gateway, name)
    make(catalogue, "alice", name, 1)
    ok(publish(gateway, f"alice/{name}", algorithm_callability="public"))
    make(catalogue, "alice", name, 2, 3)
    ok(publish(gateway, f"alice/{name}"))
    for wanted in (f"{2:040x}", f"{3:040x}", "0.2.0", "0.2", "latestPrivate"):
        path = f"/v1/algorithms/alice/{name}/versions/{wanted}"
        assert refused(gateway.ask("GET", path, key="bob"))[:2] == (404, 1014)
        assert gateway.ask("GET", path).status == (404 if wanted == "0.2" else 200)
    seen = ok(gateway.ask("GET", f"/v1/algorithms/alice/{name}/versions", key="bob"))["results"]
    assert [one["version_info"]["git_hash"] for one in seen] == [f"{1:040x}"]


@pytest.mark.parametrize("wanted", ["x", "1.2.3.4", "9223372036854775808.0.0", "g" * 40, "a" * 3000])
def test_what_names_no_version_is_not_found(gateway: CallGateway, wanted: str) -> None:
    assert refused(gateway.ask("GET", f"/v1/algorithms/alice/same/versions/{wanted}"))[:2] == (404, 1014)


def test_members_create_and_publish_privately_and_owners_do_the_rest(
    gateway: CallGateway, catalogue: Catalogue, name: str
) -> None:
    create(gateway, name, owner="team", key="carol")
    make(catalogue, "team", name, 1)
    path = f"team/{name}"
    forbidden = (403, 2001, "Caller is not authorized to perform the operation.")
    assert refused(publish(gateway, path, "carol", algorithm_callability="public")) == forbidden
    assert ok(publish(gateway, path, "carol"))["version_info"]["semantic_version"] == "0.1.0"
    make(catalogue, "team", name, 2)
    assert refused(gateway.ask("DELETE", f"/v1/algorithms/{path}", key="carol")) == forbidden
    assert (
        refused(
            gateway.ask(
                "PUT",
                f"/v1/algorithms/{path}/routing",
                {"routing": [{"semantic_version": "0.1.0", "percent": 100}]},
                "carol",
            )
        )
        == forbidden
    )
    assert (
        refused(gateway.ask("PUT", f"/v1/algorithms/{path}/versions/0.1.0/deprecation", {"message": "x"}, "carol"))
        == forbidden
    )
    assert (
        ok(publish(gateway, path, "bob", algorithm_callability="public"))["version_info"]["semantic_version"] == "0.2.0"
    )
    assert refused(gateway.ask("PUT", f"/v1/algorithms/{path}", {"details": {"label": "mine"}}, "alice")) == forbidden
    assert refused(publish(gateway, path, "alice")) == forbidden
    for owner in ("team", "nobody-at-all", "0" * 32):
        body = {"name": "x", "details": {"label": "x"}, "settings": SETTINGS}
        assert refused(gateway.ask("POST", f"/v1/algorithms/{owner}", body, "alice")) == forbidden


def test_an_update_changes_what_it_says(gateway: CallGateway, name: str) -> None:
    made = create(gateway, name)
    change = {"details": {"tagline": "new"}, "settings": {"source_visibility": "open", "license": "mit"}}
    for path in (f"alice/{name}", made["id"]):
        changed = ok(gateway.ask("PUT", f"/v1/algorithms/{path}", change))
        assert changed["details"] == {"label": f"The {name}", "summary": "", "tagline": "new"}
        assert changed["settings"] == made["settings"] | change["settings"] and changed["id"] == made["id"]
    by_body = ok(gateway.ask("PUT", "/v1/algorithms/alice", {"name": name, "details": {"label": "L"}}))
    assert by_body["details"]["label"] == "L"
    assert refused(gateway.ask("PUT", "/v1/algorithms/alice", {}))[:2] == (404, 1000)


def test_the_form_that_pythons_client_sends_changes_nothing(gateway: CallGateway, name: str) -> None:
    made = create(gateway, name)
    raw = b"details=label&details=tagline&settings=environment"
    head = (
        f"PUT /v1/algorithms/alice/{name} HTTP/1.1\r\nHost: x\r\nAuthorization: {gateway.keys['alice']}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(raw)}\r\n\r\n"
    ).encode()
    assert ok(gateway.server.ask(head + raw)) == made
    assert refused(gateway.ask("PUT", f"/v1/algorithms/alice/{name}", raw))[:2] == (400, 2013), "elsewhere it is JSON"


def test_nobody_sends_ids_owners_or_hashes(gateway: CallGateway, catalogue: Catalogue, name: str) -> None:
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
    made = ok(gateway.ask("POST", "/v1/algorithms/alice", body), 201)
    assert made["id"] != "0" * 32 and made["settings"]["algorithm_callability"] == "private"
    make(catalogue, "alice", name, 1)
    changed = ok(gateway.ask("PUT", f"/v1/algorithms/alice/{name}", taken))
    assert changed == made
    body = taken | {
        "version_info": {
            "semantic_version": "9.9.9",
            "git_hash": "f" * 40,
            "version_uuid": "x",
            "version_type": "minor",
        }
    }
    info = ok(gateway.ask("POST", f"/v1/algorithms/alice/{name}/versions", body))["version_info"]
    assert (info["semantic_version"], info["git_hash"]) == ("0.1.0", f"{1:040x}")
    assert gateway.ask("GET", f"/v1/algorithms/alice/{name}", key="bob").status == 404


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"name": "1x"}, 6001), ({"name": "a b"}, 6001), ({"name": "../x"}, 6001), ({"name": "a" * 65}, 6001),
        ({"name": "a\0"}, 6001), ({"name": 5}, 6001), ({"name": "0" * 32}, 6001), ({"name": "abcdef00" * 4}, 6001),
        ({"details": {}}, 6001), ({"details": {"label": ""}}, 6001), ({"details": {"label": "a\nb"}}, 6001),
        ({"details": {"label": "x" * 201}}, 6001), ({"details": {"label": "x", "tagline": "x" * 301}}, 6001),
        ({"details": {"label": "x", "summary": "a\0"}}, 6001), ({"settings": {}}, 6001),
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
    gateway: CallGateway, change: dict[str, Any], code: int
) -> None:
    body = {"name": "refused", "details": {"label": "x"}, "settings": SETTINGS} | change
    answer = gateway.ask("POST", "/v1/algorithms/alice", body)
    assert refused(answer)[1] == code and answer.status in (400, 404)
    assert gateway.ask("GET", "/v1/algorithms/alice/refused").body == NO_SUCH
    repositories = {path.name for path in (gateway.home / "git").glob("*.git")}
    catalogue = open_catalogue(gateway.home)
    assert all(catalogue.name_of_algorithm(name.removesuffix(".git")) for name in repositories), "none is left over"
    catalogue.close()


@pytest.mark.parametrize(
    "raw",
    [b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 200_000, b'{"a":' * 300 + b"1" + b"}" * 300, b'{"name": NaN}'],
    ids=range(8),
)
def test_bodies_that_are_no_object_are_refused(gateway: CallGateway, raw: bytes) -> None:
    for method, path in (
        ("POST", "alice"),
        ("PUT", "alice/same"),
        ("POST", "alice/same/versions"),
        ("PUT", "alice/same/routing"),
    ):
        status, code, _ = refused(gateway.ask(method, f"/v1/algorithms/{path}", raw))
        assert status == 400 and code in (2013, 6001)


def test_a_sample_may_fill_a_megabyte_and_not_more(gateway: CallGateway, catalogue: Catalogue, name: str) -> None:
    create(gateway, name)
    make(catalogue, "alice", name, 1)
    path = f"/v1/algorithms/alice/{name}/versions"
    body = {"version_info": {"version_type": "minor", "sample_input": ""}}
    room = (1 << 20) - len(json.dumps(body))
    body["version_info"]["sample_input"] = "x" * (room + 1)
    assert refused(gateway.ask("POST", path, body))[0] == 413
    body["version_info"]["sample_input"] = "x" * room
    assert len(ok(gateway.ask("POST", path, body))["version_info"]["sample_input"]) == room
    assert gateway.call(f"alice/{name}").status == 200


def test_deleting_leaves_nothing_and_what_is_public_stays(
    gateway: CallGateway, catalogue: Catalogue, name: str
) -> None:
    made = create(gateway, name)
    make(catalogue, "alice", name, 1)
    answer = gateway.ask("DELETE", f"/v1/algorithms/alice/{name}")
    assert (answer.status, answer.body) == (204, b"")
    assert gateway.ask("GET", f"/v1/algorithms/{made['id']}").body == NO_SUCH
    assert not (gateway.home / "git" / f"{made['id'].replace('-', '')}.git").exists()
    assert refused(gateway.ask("DELETE", f"/v1/algorithms/alice/{name}"))[:2] == (404, 1000)
    made = create(gateway, name)
    make(catalogue, "alice", name, 1)
    ok(publish(gateway, f"alice/{name}", algorithm_callability="public"))
    status, _, message = refused(gateway.ask("DELETE", f"/v1/algorithms/{made['id']}"))
    assert status == 400 and "public versions" in message
    assert gateway.ask("DELETE", f"/v1/algorithms/{made['id']}", key="operator").status == 204


def test_twenty_publish_and_one_deletes_at_once(gateway: CallGateway, catalogue: Catalogue, name: str) -> None:
    create(gateway, name)
    make(catalogue, "alice", name, 1)
    with ThreadPoolExecutor(20) as pool:
        publishing = [pool.submit(publish, gateway, f"alice/{name}") for _ in range(19)]
        deleting = pool.submit(gateway.ask, "DELETE", f"/v1/algorithms/alice/{name}")
        statuses = sorted(one.result().status for one in publishing)
    assert deleting.result().status == 204
    assert set(statuses) <= {200, 404, 409} and statuses.count(200) <= 1
    assert gateway.ask("GET", f"/v1/algorithms/alice/{name}").body == NO_SUCH


def test_calls_follow_the_routing_and_are_told_of_deprecation(
    gateway: CallGateway, catalogue: Catalogue, name: str
) -> None:
    made = create(gateway, name)
    path = f"/v1/algorithms/{made['id']}"
    for number in (1, 2):
        make(catalogue, "alice", name, number)
        ok(publish(gateway, f"alice/{name}", algorithm_callability="public"))
    shares = [{"semantic_version": "0.2.0", "percent": 30}, {"semantic_version": "0.1.0", "percent": 70}]
    assert ok(gateway.ask("GET", f"{path}/routing")) == {"routing": [], "resource_type": "routing"}
    assert ok(gateway.ask("PUT", f"{path}/routing", {"routing": shares[::-1]}))["routing"] == shares
    told = ok(gateway.ask("PUT", f"{path}/versions/0.2.0/deprecation", {"message": "use another"}))
    assert told["version_info"]["deprecation"] == "use another"

    def alerts(target: str) -> list[str]:
        return json.loads(gateway.call(target, key="bob").body)["metadata"].get("alerts", [])

    alert = f"alice/{name}/0.2.0 is deprecated: use another"
    assert alerts(f"alice/{name}/0.2.0") == alerts(f"{made['id']}/0.2.0") == [alert]
    assert alerts(f"alice/{name}/0.1.0") == alerts(f"alice/{name}/0") == []
    got = [alerts(f"alice/{name}") + alerts(f"{made['id']}/latest") for _ in range(100)]
    share = sum(map(len, got)) / 200
    assert 0.15 < share < 0.45, "three of ten"
    make(catalogue, "alice", name, 3)
    assert ok(publish(gateway, f"alice/{name}", algorithm_callability="public"))["alerts"] == [
        "calls without a version still go 30 % to 0.2.0, 70 % to 0.1.0; change or delete the routing to send them here"
    ]
    assert gateway.ask("DELETE", f"{path}/versions/0.2.0/deprecation").status == 204
    assert gateway.ask("DELETE", f"{path}/routing").status == 204
    assert ok(gateway.ask("GET", path))["version_info"]["semantic_version"] == "0.3.0"


@pytest.mark.parametrize(
    "routing",
    [
        [], [{"semantic_version": "1.0.0", "percent": 99}], [{"semantic_version": "1.0.0"}], [{"percent": 100}],
        [{"semantic_version": "1.0.0", "percent": 100.5}], [{"semantic_version": "1.0.0", "percent": True}],
        [{"semantic_version": "latest", "percent": 100}],
        [{"semantic_version": "9223372036854775808.0.0", "percent": 100}],
        [{"semantic_version": "1.0.0", "percent": 50}] * 2, [{"semantic_version": "7.0.0", "percent": 100}], "x", None,
        [{"semantic_version": "1.0.0", "percent": 10**30}],
    ],
)  # fmt: skip
def test_what_is_no_routing_is_refused(gateway: CallGateway, routing: Any) -> None:
    answer = gateway.ask("PUT", "/v1/algorithms/alice/same/routing", {"routing": routing})
    assert refused(answer)[:2] == (400, 6001)
    assert ok(gateway.ask("GET", "/v1/algorithms/alice/same/routing"))["routing"] == []


@pytest.mark.parametrize(
    ("message", "status"), [("", 400), ("x" * 501, 400), ("a\nb", 400), (5, 400), ("x" * 500, 200)]
)
def test_a_deprecation_is_one_line(gateway: CallGateway, message: Any, status: int) -> None:
    path = "/v1/algorithms/alice/same/versions/1.0.0/deprecation"
    assert gateway.ask("PUT", path, {"message": message}).status == status
    assert gateway.ask("DELETE", path).status == 204
    assert refused(gateway.ask("PUT", path.replace("1.0.0", "1.0"), {"message": "x"}))[:2] == (404, 1014)


def test_publishing_without_a_build_or_against_a_promise_says_why(
    gateway: CallGateway, catalogue: Catalogue, name: str
) -> None:
    create(gateway, name)
    assert refused(publish(gateway, f"alice/{name}"))[:2] == (404, 1010)
    make(catalogue, "alice", name, 1)
    assert refused(publish(gateway, f"alice/{name}", network_access="isolated"))[:2] == (400, 6001)
    ok(publish(gateway, f"alice/{name}"))
    make(catalogue, "alice", name, 2)
    status, code, message = refused(publish(gateway, f"alice/{name}", kind="patch", algorithm_callability="public"))
    assert (status, code) == (400, 6001) and "publish it as a minor version" in message
    for kind in ("huge", "1.2.3", 2**63):
        assert refused(publish(gateway, f"alice/{name}", kind=kind))[:2] == (400, 6001)  # pyright: ignore


def test_other_methods_and_paths_answer_in_the_same_form(gateway: CallGateway) -> None:
    assert refused(gateway.ask("PATCH", "/v1/algorithms/alice/same"))[0] == 405
    assert refused(gateway.ask("GET", "/v1/algorithms/alice/same/nonsense"))[0] == 404
    assert refused(gateway.ask("POST", "/v1/algorithms/alice/same/versions", {}, "sim" + "x" * 25))[:2] == (401, 2002)


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
def test_lists_refuse_what_they_cannot_read(gateway: CallGateway, query: str, code: int) -> None:
    assert refused(gateway.ask("GET", f"/v1/algorithms?{query}"))[:2] == (400, code)


def test_a_list_of_one_owner_has_links_that_keep_the_question(gateway: CallGateway, catalogue: Catalogue) -> None:
    for number in range(3):
        catalogue.ensure_algorithm(catalogue.account_named("bob"), f"listed{number}", "public")
    page = ok(gateway.ask("GET", "/v1/algorithms?owner=bob&q=listed&limit=2"))
    assert [(one["owner"], one["name"], one["version"]) for one in page["results"]] == [
        ("bob", "listed0", None),
        ("bob", "listed1", None),
    ]
    rest = ok(gateway.ask("GET", page["next_link"].removeprefix("http://127.0.0.1:8000")))
    assert [one["name"] for one in rest["results"]] == ["listed2"] and rest["next_link"] is None
