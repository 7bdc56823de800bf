"""Algorithms over HTTP: what tests of the management API ask, and read."""

import json
import re
from typing import Any

from serai_gateway.api.testing.gateway import CallGateway
from serai_gateway.catalogue import Catalogue
from serai_gateway.catalogue.testing import built
from serai_gateway.server.testing import Answer

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\Z")
#: What a client sends to create an algorithm.
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


def ok(answer: Answer, status: int = 200) -> Any:
    """What it says."""
    assert answer.status == status, answer.body
    return json.loads(answer.body) if answer.body else None


def refused(answer: Answer) -> tuple[int, int, str]:
    """Status, Algorithmia's number, message."""
    error = json.loads(answer.body)["error"]
    assert UUID.match(error["id"]) and error["request_id"]
    return answer.status, error["code"], error["message"]


def create(gateway: CallGateway, name: str, owner: str = "alice", key: str = "", **more: Any) -> Any:
    body = {"name": name, "details": {"label": f"The {name}"}, "settings": SETTINGS, **more}
    return ok(gateway.ask("POST", f"/v1/algorithms/{owner}", body, key or owner), 201)


def make(catalogue: Catalogue, owner: str, name: str, *numbers: int, **permissions: bool) -> None:
    """Builds that have succeeded; their commits are these numbers."""
    algorithm = catalogue.find_algorithm(owner, name, catalogue.account_named(owner))
    for number in numbers:
        built(catalogue, algorithm, number, **({"network": True, "calls": True} | permissions))


def publish(gateway: CallGateway, path: str, key: str = "alice", kind: object = "minor", **settings: Any) -> Answer:
    body = {"settings": {"algorithm_callability": "private", **settings}, "version_info": {"version_type": kind}}
    return gateway.ask("POST", f"/v1/algorithms/{path}/versions", body, key)
