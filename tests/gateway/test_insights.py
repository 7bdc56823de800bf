"""Insights: from inside a call, with a real gateway; the box is played."""

import json
import time
from collections.abc import Iterator

import pytest

from serai.ipc.messages import Bound
from serai_gateway.api.management.insights import MAX_METRICS, MAX_REPORT_BYTES, RESERVED
from serai_gateway.api.testing.gateway import CallGateway, running_calls
from serai_gateway.api.testing.inside import InsideClient, bound
from serai_gateway.catalogue import NewVersion, open_catalogue
from serai_gateway.server.testing import Answer, wait_until

HASH = "f" * 40
INSIGHTS = "/v1/algorithms/alice/told/insights"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CallGateway]:
    with running_calls(tmp_path_factory.mktemp("insights")) as gateway:
        catalogue = open_catalogue(gateway.home)
        alice = catalogue.account_named("alice")
        for name, is_enabled in (("told", True), ("silent", False)):
            algorithm = catalogue.ensure_algorithm(alice, name)
            manifest = {"owner": "alice", "name": name, "kind": "python"}
            version = catalogue.add_version(algorithm, NewVersion(HASH, "python", manifest, HASH))
            details = {"settings": {"insights_enabled": is_enabled}}
            catalogue.publish_version(version, "1.0.0", public=True, details=details)
        catalogue.close()
        yield gateway


def in_call(name: str = "told", **changes: object) -> Bound:
    given = {"version": f"alice/{name}@{HASH}", "may_call": False, "sent_at": time.monotonic() - 0.5}
    return bound(**given | changes)


def report(gateway: CallGateway, metrics: object, who: Bound | None = None) -> Answer:
    body = metrics if isinstance(metrics, bytes) else json.dumps(metrics).encode()
    with InsideClient(gateway.home, who or in_call()) as client:
        client.ask("POST", "/v1/insights", body)
        return client.answer()


def listed(gateway: CallGateway, query: str = "", path: str = INSIGHTS) -> dict:
    return json.loads(gateway.ask("GET", f"{path}{query}").body)


def metric(key: str = "cats_in_image", value: object = 4) -> dict[str, object]:
    return {"insight_key": key, "insight_value": value}


def test_a_report_is_kept_with_what_the_platform_knows(gateway: CallGateway) -> None:
    answer = report(gateway, [metric(), metric("breed", "tabby")], in_call(call_id="req-1", key="some-key"))
    assert (answer.status, json.loads(answer.body)) == (200, {"num_metrics": 2})
    wait_until(lambda: listed(gateway)["results"], "it has been written")
    [kept] = listed(gateway)["results"]
    assert 500 <= kept.pop("duration_milliseconds") < 30_000
    assert kept.pop("timestamp").endswith("Z")
    assert kept == {
        "cats_in_image": 4,
        "breed": "tabby",
        "request_id": "req-1",
        "algorithm_owner": "alice",
        "algorithm_name": "told",
        "algorithm_version": "1.0.0",
    }


def test_of_a_version_that_was_not_published_with_them_nothing_is_kept(gateway: CallGateway) -> None:
    assert report(gateway, [metric()], in_call("silent")).status == 200
    assert report(gateway, [metric()], in_call(call_id="req-2")).status == 200
    wait_until(lambda: listed(gateway)["results"][0]["request_id"] == "req-2", "the second has been written")
    assert listed(gateway, path="/v1/algorithms/alice/silent/insights")["results"] == []


def test_they_are_paged(gateway: CallGateway) -> None:
    for number in range(7):
        report(gateway, [metric("n", number)], in_call(call_id=f"req-page-{number}"))
    wait_until(lambda: listed(gateway, "?limit=1")["results"][0].get("n") == 6, "all have been written")
    seen, following = [], f"{INSIGHTS}?limit=3"
    while following:
        page = json.loads(gateway.ask("GET", following[following.index("/v1/") :]).body)
        seen += [one["n"] for one in page["results"] if "n" in one]
        following = page["next_link"]
    assert seen == list(range(6, -1, -1))
    assert gateway.ask("GET", f"{INSIGHTS}?marker=nonsense").error["code"] == 5002
    assert gateway.ask("GET", f"{INSIGHTS}?limit=0").error["code"] == 5003


@pytest.mark.parametrize(
    "metrics",
    [
        [metric(str(number)) for number in range(MAX_METRICS + 1)],
        *([metric(key)] for key in (*RESERVED, "", "x" * 129)),
        {"insight_key": "a", "insight_value": 1},
        [{"insight_key": "a"}],
        [{"insight_key": 1, "insight_value": 1}],
        ["a"],
        b"[",
        b"\xff",
        b'[{"insight_key": "a", "insight_value": NaN}]',
    ],
    ids=str,
)
def test_what_is_refused(gateway: CallGateway, metrics: object) -> None:
    answer = report(gateway, metrics)
    assert answer.status == 400 and answer.error["code"] in (6001, 2013)


def test_a_report_has_a_size(gateway: CallGateway) -> None:
    answer = report(gateway, [metric("a", "x" * MAX_REPORT_BYTES)])
    assert answer.status == 413 and "25 KiB" in answer.error["message"]
    many = [metric(str(number), "x" * 900) for number in range(MAX_METRICS)]
    assert report(gateway, many).status == 200


def test_nobody_reports_from_outside(gateway: CallGateway) -> None:
    assert gateway.ask("POST", "/v1/insights", [metric()], key="").status == 401
    assert gateway.ask("POST", "/v1/insights", [metric()], key="operator").status == 403


def test_only_who_manages_the_algorithm_reads_them(gateway: CallGateway) -> None:
    assert gateway.ask("GET", INSIGHTS, key="bob").status == 403
    assert gateway.ask("GET", INSIGHTS, key="").status == 401
    with InsideClient(gateway.home, in_call(may_call=True)) as client:
        assert client.get(INSIGHTS).status == 403
