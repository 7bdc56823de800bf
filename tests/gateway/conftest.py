"""Shared by the tests of the v2 protocol: a gateway with models, and a pool that answers as it is told. And by those of
the management API: a gateway, the catalogue behind it, and a name for each test's own algorithm."""

import re
from collections.abc import Iterator

import pytest

from serai_gateway.api.testing.gateway import CallGateway, running_calls
from serai_gateway.api.v2.testing.fake_pool import FakePool
from serai_gateway.api.v2.testing.gateway import Gateway, running_example
from serai_gateway.api.v2.testing.views import snapshot
from serai_gateway.catalogue import Catalogue, open_catalogue


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_example(tmp_path_factory.mktemp("v2")) as gateway:
        yield gateway


@pytest.fixture
def pool(example: Gateway) -> FakePool:
    """As it is from the start: it gives back what it gets."""
    example.pool.reply = None
    example.pool.snapshot = snapshot()
    return example.pool


@pytest.fixture
def gateway(example: Gateway, pool: FakePool) -> Gateway:
    return example


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CallGateway]:
    """bob manages team, and carol is a member of it."""
    with running_calls(tmp_path_factory.mktemp("market")) as gateway:
        catalogue = open_catalogue(gateway.home)
        carol = catalogue.ensure_account("carol")
        gateway.keys["carol"] = catalogue.create_key(carol, "test").text
        catalogue.set_member(catalogue.account_named("team"), carol)
        catalogue.close()
        yield gateway


@pytest.fixture(scope="module")
def catalogue(market: CallGateway) -> Iterator[Catalogue]:
    catalogue = open_catalogue(market.home)
    yield catalogue
    catalogue.close()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return re.sub(r"\W+", "_", request.node.name)[5:60].strip("_")
