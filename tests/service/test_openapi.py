"""A schema-driven fuzzer holds /openapi.json against what the gateway really answers."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serai_gateway.testing import Service


@pytest.fixture(scope="session")
def api_schema(service: Service):
    return schemathesis.openapi.from_url(f"{service.address}/openapi.json")


schema = schemathesis.pytest.from_fixture("api_schema")

_CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)


@schema.parametrize()
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_answers_are_as_the_schema_says(case, service: Service) -> None:
    """With a key that is good, on an algorithm that exists: what is fuzzed is everything else."""
    case.headers = {**(case.headers or {}), "Authorization": f"Simple {service.key}"}
    if "owner" in (case.path_parameters or {}):
        case.path_parameters = {**case.path_parameters, "owner": "operator", "name": "odd"}
    if case.query and "timeout" in case.query and isinstance(case.query["timeout"], int | float):
        case.query["timeout"] = max(case.query["timeout"], 5)  # a deadline that has passed is no finding
    case.call_and_validate(checks=_CHECKS)
