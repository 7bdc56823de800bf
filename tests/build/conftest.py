import pytest

from serai_gateway.catalogue import ensure_operator, open_catalogue


@pytest.fixture
def home(tmp_path):
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


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
