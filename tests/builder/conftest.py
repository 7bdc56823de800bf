import pytest

from serai_gateway.builder.jobs import Workshop
from serai_gateway.catalogue import open_catalogue
from serai_gateway.git import Repository
from serai_gateway.git.testing import Plumbing
from serai_runner.settings import Settings


@pytest.fixture
def home(tmp_path):
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
def hello(catalogue, alice):
    return catalogue.ensure_algorithm(alice, "hello")


@pytest.fixture
def git(home, hello):
    return Plumbing(Repository(home, hello.id))


@pytest.fixture
def shop(home, catalogue):
    """Whose trials do what `shop.probe.action` says."""

    class Probe:
        def __init__(self):
            self.action = lambda spec, sample, log: None

        def __call__(self, spec, sample, log):
            self.action(spec, sample, log)

    return Workshop(home, catalogue, Probe())
