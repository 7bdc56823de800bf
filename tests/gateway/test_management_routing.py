"""Routing and deprecation over HTTP, and the calls that follow them."""

import json
from typing import Any

import pytest

from serai_gateway.api.testing.algorithms import create, make, ok, publish, refused
from serai_gateway.api.testing.gateway import CallGateway
from serai_gateway.catalogue import Catalogue


def test_calls_follow_the_routing_and_are_told_of_deprecation(
    market: CallGateway, catalogue: Catalogue, name: str
) -> None:
    made = create(market, name)
    path = f"/v1/algorithms/{made['id']}"
    for number in (1, 2):
        make(catalogue, "alice", name, number)
        ok(publish(market, f"alice/{name}", algorithm_callability="public"))
    shares = [{"semantic_version": "0.2.0", "percent": 30}, {"semantic_version": "0.1.0", "percent": 70}]
    assert ok(market.ask("GET", f"{path}/routing")) == {"routing": [], "resource_type": "routing"}
    assert ok(market.ask("PUT", f"{path}/routing", {"routing": shares[::-1]}))["routing"] == shares
    told = ok(market.ask("PUT", f"{path}/versions/0.2.0/deprecation", {"message": "use another"}))
    assert told["version_info"]["deprecation"] == "use another"

    def alerts(target: str) -> list[str]:
        return json.loads(market.call(target, key="bob").body)["metadata"].get("alerts", [])

    alert = f"alice/{name}/0.2.0 is deprecated: use another"
    assert alerts(f"alice/{name}/0.2.0") == alerts(f"{made['id']}/0.2.0") == [alert]
    assert alerts(f"alice/{name}/0.1.0") == alerts(f"alice/{name}/0") == []
    got = [alerts(f"alice/{name}") + alerts(f"{made['id']}/latest") for _ in range(100)]
    share = sum(map(len, got)) / 200
    assert 0.15 < share < 0.45, "three of ten"
    make(catalogue, "alice", name, 3)
    assert ok(publish(market, f"alice/{name}", algorithm_callability="public"))["alerts"] == [
        "calls without a version still go 30 % to 0.2.0, 70 % to 0.1.0; change or delete the routing to send them here"
    ]
    assert market.ask("DELETE", f"{path}/versions/0.2.0/deprecation").status == 204
    assert market.ask("DELETE", f"{path}/routing").status == 204
    assert ok(market.ask("GET", path))["version_info"]["semantic_version"] == "0.3.0"


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
def test_what_is_no_routing_is_refused(market: CallGateway, routing: Any) -> None:
    answer = market.ask("PUT", "/v1/algorithms/alice/same/routing", {"routing": routing})
    assert refused(answer)[:2] == (400, 6001)
    assert ok(market.ask("GET", "/v1/algorithms/alice/same/routing"))["routing"] == []


@pytest.mark.parametrize(
    ("message", "status"), [("", 400), ("x" * 501, 400), ("a\nb", 400), (5, 400), ("x" * 500, 200)]
)
def test_a_deprecation_is_one_line(market: CallGateway, message: Any, status: int) -> None:
    path = "/v1/algorithms/alice/same/versions/1.0.0/deprecation"
    assert market.ask("PUT", path, {"message": message}).status == status
    assert market.ask("DELETE", path).status == 204
    assert refused(market.ask("PUT", path.replace("1.0.0", "1.0"), {"message": "x"}))[:2] == (404, 1014)
