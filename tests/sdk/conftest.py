"""Every test here begins without keys, addresses or a home of its own."""

import os
from pathlib import Path

import pytest

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
