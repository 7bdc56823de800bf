"""Shared by the tests of the v2 protocol: a gateway with models, and a pool that answers as it is told."""

from collections.abc import Iterator

import pytest

from serai_gateway.api.v2.testing.fake_pool import FakePool
from serai_gateway.api.v2.testing.gateway import Gateway, running_example
from serai_gateway.api.v2.testing.views import snapshot


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
