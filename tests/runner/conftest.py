"""The sandboxes that the behaviour suite runs against: whoever asks for `sandbox` is run once for each."""

import pytest

#: Options of the runner host. Forked replicas have other processes above them than those that are started alone.
#: Without spares, whose processes look like a replica's.
SANDBOXES = {
    "bubblewrap": ("--sandbox", "bubblewrap", "--spares", "0"),
    "bubblewrap-without-templates": ("--sandbox", "bubblewrap", "--spares", "0", "--max-templates", "0"),
    "docker": ("--sandbox", "docker", "--spares", "0"),
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(name, marks=pytest.mark.needs_docker if name == "docker" else pytest.mark.needs_bubblewrap)
        for name in SANDBOXES
    ],
)
def sandbox(request: pytest.FixtureRequest) -> tuple[str, ...]:
    return SANDBOXES[request.param]


@pytest.fixture
def caller(host):
    caller = host.connect()
    yield caller
    caller.close()
