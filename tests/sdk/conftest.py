"""Every test here begins without keys, addresses or a home of its own."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from serai.testing import FakeMarket, run_server

_OURS = ("SERAI_", "ALGORITHMIA_")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and none of our variables set."""
    for name in [name for name in os.environ if name.startswith(_OURS) or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NO_COLOR", raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


@pytest.fixture
def market() -> FakeMarket:
    return FakeMarket(key="simkey")


@pytest.fixture
def address(market: FakeMarket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Of the market, which the environment names together with its key. We stand in an empty folder."""
    monkeypatch.chdir(tmp_path)
    with run_server(market) as address:
        monkeypatch.setenv("SERAI_ADDRESS", address)
        monkeypatch.setenv("SERAI_API_KEY", "simkey")
        yield address
