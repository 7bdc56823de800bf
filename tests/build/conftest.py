import shutil
from pathlib import Path

import pytest

from serai.box.cgroups import Cgroups
from serai_gateway.build import box
from serai_gateway.build.npm_testing import run_npm_index
from serai_gateway.catalogue import ensure_operator, open_catalogue
from serai_runner.sandbox import choose_sandbox
from serai_runner.settings import Settings

REPOSITORIES = Path(__file__).parent / "repositories"


@pytest.fixture
def home(tmp_path):
    """Of a Serai that was told which sandbox to use, whatever else this machine has."""
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True)
    Settings(home, sandbox="bubblewrap").remember()
    return home


@pytest.fixture
def catalogue(home):
    catalogue = open_catalogue(home)
    yield catalogue
    catalogue.close()


@pytest.fixture
def alice(catalogue):
    return catalogue.ensure_account("alice")


@pytest.fixture
def operator(home, catalogue):
    return ensure_operator(home, catalogue).account


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels, the only package index that installers see."""
    folder = tmp_path / "index"
    folder.mkdir()
    for key, value in {
        "UV_FIND_LINKS": folder,
        "UV_OFFLINE": "1",
        "UV_CACHE_DIR": tmp_path / "uv-cache",
        "PIP_FIND_LINKS": folder,
        "PIP_NO_INDEX": "1",
        "PIP_CONFIG_FILE": "/dev/null",
        "XDG_CACHE_HOME": tmp_path / "cache",
    }.items():
        monkeypatch.setenv(key, str(value))
    return folder


@pytest.fixture(scope="session")
def bubblewrap(tmp_path_factory):
    """What boxes of builds are made with, whatever else this machine has."""
    cgroups = Cgroups.detect("serai-build-test")
    yield choose_sandbox(Settings(tmp_path_factory.mktemp("boxes"), sandbox="bubblewrap"), cgroups)
    cgroups.close()


@pytest.fixture
def boxes(bubblewrap, monkeypatch):
    """Builds run in bubblewrap."""
    monkeypatch.setattr(box, "_choose", lambda home: bubblewrap)


@pytest.fixture
def npm_index(monkeypatch, tmp_path):
    """The only package index that npm sees."""
    if shutil.which("npm", path="/usr/local/bin:/usr/bin:/bin") is None:
        pytest.skip("needs Node.js and npm")
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    with run_npm_index() as index:
        monkeypatch.setenv("npm_config_registry", index.address)
        yield index


@pytest.fixture
def repository(tmp_path):
    """Copies of the test repositories, by name."""

    def copy(name: str) -> Path:
        return shutil.copytree(REPOSITORIES / name, tmp_path / "repositories" / name)

    return copy
