"""An empty catalogue of each kind, and who is in it."""

import pytest

from serai_gateway.catalogue import keys
from serai_gateway.catalogue.testing import KINDS


@pytest.fixture(params=sorted(KINDS))
def reopen(request, tmp_path):
    opened = []

    def open_again():
        opened.append(KINDS[request.param](tmp_path))
        return opened[-1]

    yield open_again
    for catalogue in opened:
        catalogue.close()


@pytest.fixture
def catalogue(reopen):
    return reopen()


@pytest.fixture
def alice(catalogue):
    return catalogue.ensure_account("Alice")


@pytest.fixture
def bob(catalogue):
    return catalogue.ensure_account("bob")


@pytest.fixture
def operator(catalogue):
    return catalogue.ensure_operator(keys.new_key_text())
