import pytest

from serai_gateway.git import Repository
from serai_gateway.git.testing import Plumbing
from serai_runner.settings import Settings


@pytest.fixture(params=[pytest.param("bubblewrap", marks=pytest.mark.needs_bubblewrap), "none"])
def home(tmp_path, request):
    """Of a Serai with a box for git, and of one without."""
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True)
    Settings(home, sandbox=request.param).remember()
    return home


@pytest.fixture
def repository(home):
    return Repository(home, "a" * 32)


@pytest.fixture
def git(repository):
    return Plumbing(repository)
