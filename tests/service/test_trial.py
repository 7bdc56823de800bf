"""Versions are tried before anybody can call them, in each sandbox: what does not work never takes over."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serai_gateway.builder.trial import TRIAL_S
from serai_gateway.catalogue import Build, open_catalogue
from serai_gateway.testing import Answer, Service, until, write_algorithm
from serai_gpu_pool.testing.prepared import layers
from serai_runner.settings import Settings

GOOD = "def apply(input):\n    return 'good'\n"
SAMPLE = "[sample]\ninput = 1\n"


@pytest.fixture(scope="module")
def service(sandbox: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("trial")
    with Service(folder / "home", "--sandbox", sandbox) as running:
        yield running


@pytest.fixture
def refused(service: Service, tmp_path: Path) -> Callable[..., str]:
    """Publish what works, then what does not; what was said about that. What works goes on."""

    def refused(name: str, source: str, *, extra: str = "") -> str:
        folder = write_algorithm(tmp_path / name, GOOD)
        said = service.publish(folder)
        assert "loaded after" in said and "was not run" in said
        write_algorithm(folder, source, extra=extra)
        with pytest.raises(AssertionError) as error:
            service.publish(folder)
        answer = service.call(f"operator/{name}", b"1").json()
        assert answer["result"] == "good", "the version before it serves on"
        assert [build.status for build in builds(service, name)] == ["failed", "succeeded"]
        return str(error.value)

    return refused


def builds(service: Service, name: str) -> list[Build]:
    """Newest first, with their logs."""
    catalogue = open_catalogue(service.home)
    try:
        algorithm = catalogue.find_algorithm("operator", name, catalogue.account_named("operator"))
        return [catalogue.find_build(build.id) for build in catalogue.builds_of(algorithm)]
    finally:
        catalogue.close()


@pytest.mark.parametrize(
    ("name", "source", "message", "trace"),
    [
        ("raises", "import nosuchpackage\n" + GOOD, "No module named 'nosuchpackage'", "import nosuchpackage"),
        ("exits", "import sys\nsys.exit('needs a GPU')\n" + GOOD, "needs a GPU", "sys.exit('needs a GPU')"),
        ("crashes", "import ctypes\nctypes.string_at(0)\n" + GOOD, "ended while loading", ""),
        ("loads", "def load():\n    raise OSError('no weights')\n" + GOOD, "no weights", "in load"),
        ("missing", "def other(input):\n    pass\n", "has no function apply(input)", ""),
        ("signature", "def apply(first, second):\n    pass\n", "apply is called with one argument", ""),
    ],
)
def test_without_a_sample_a_version_must_load(service: Service, refused, name, source, message, trace) -> None:
    said = refused(name, source)
    assert "it cannot be loaded: InitializationError" in said and message in said and trace in said
    assert message in builds(service, name)[0].log


def test_what_takes_its_time_to_load_is_no_worse_for_that(service: Service, tmp_path: Path) -> None:
    slow = "import time\ntime.sleep(4)\n" + GOOD
    folder = write_algorithm(tmp_path / "slow", slow, extra='[limits]\ntimeout = "2s"\n')
    assert "loaded after" in service.publish(folder)
    assert Settings(Path("/")).load_s < TRIAL_S, "what the runner host says of an import that hangs arrives in time"


def test_a_repository_of_algorithmias_time_must_load(service: Service, tmp_path: Path) -> None:
    conf = {"username": "operator", "algoname": "old", "language": "javascript"}
    folder = tmp_path / "old"
    (folder / "src").mkdir(parents=True)
    (folder / "algorithmia.conf").write_text(json.dumps(conf))
    (folder / "src" / "old.js").write_text("exports.apply = () => 'good';")
    assert "loaded after" in service.publish(folder)
    for source, message in (
        ("throw new Error('out of luck');", "out of luck"),
        ("exports.x = 1;", "exports no function"),
    ):
        (folder / "src" / "old.js").write_text(source)
        with pytest.raises(AssertionError, match=message):
            service.publish(folder)
    assert service.call("operator/old", b"1").json()["result"] == "good"


def test_models_alone_are_loaded_by_the_pool(service: Service, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    about = '[algorithm]\nowner = "operator"\nname = "bare"\n[models.m]\nfile = "m.onnx"\n'
    (folder / "algorithm.toml").write_text(about)
    (folder / "m.onnx").write_bytes(layers(16, 16))
    assert "loaded after" in service.publish(folder)


@pytest.mark.needs_bubblewrap
def test_a_model_that_the_pool_cannot_hold_is_no_version(tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    about = '[algorithm]\nowner = "operator"\nname = "large"\n[models.m]\nfile = "m.onnx"\n'
    (folder / "algorithm.toml").write_text(about)
    (folder / "m.onnx").write_bytes(layers(2048, 3000, 2048))
    with Service(tmp_path / "home", "--cpu-budget", "32MiB", "--devices", "cpu") as service:
        with pytest.raises(AssertionError, match=r"models\.m: it cannot be loaded: .*(memory|budget)"):
            service.publish(folder)
        assert builds(service, "large")[0].status == "failed"


def test_a_sample_that_fails_is_told_with_its_stack_trace(service: Service, refused) -> None:
    said = refused("sampled", "def apply(input):\n    raise ValueError(f'cannot do {input}')\n", extra=SAMPLE)
    assert "sample: AlgorithmError: cannot do 1" in said and "in apply" in said
    assert "cannot do 1" in builds(service, "sampled")[0].log


def test_a_sample_that_takes_too_long_names_the_limit(service: Service, refused) -> None:
    source = "import threading\ndef apply(input):\n    threading.Event().wait()\n"
    said = refused("endless", source, extra=SAMPLE + '[limits]\ntimeout = "2s"\n')
    assert "sample: no answer within 2 s" in said and "limits.timeout" in said


def test_a_sample_in_which_the_process_ends_is_told(service: Service, refused) -> None:
    said = refused("ends", "import os\ndef apply(input):\n    os._exit(3)\n", extra=SAMPLE)
    assert "sample: the algorithm's process ended with exit code 3" in said


# What happens around a trial

WAITS = "import time\ndef apply(input):\n    time.sleep({seconds})\n    return 'tried'\n"


class Publishing:
    """A `serai publish` that goes on while a test does something else."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.said = ""
        self.failed = ""

        def run() -> None:
            try:
                self.said = service.publish(folder)
            except AssertionError as error:
                self.failed = str(error)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def end(self) -> "Publishing":
        self._thread.join()
        return self


def tried(service: Service, name: str) -> Callable[[], int]:
    """How often a replica of the algorithm has been ready so far."""

    def count() -> int:
        lines = (service.home / "logs" / "runner.log").read_text().splitlines()
        return sum(f"operator/{name}" in line and "replica_ready" in line for line in lines)

    return count


def kill_daemon(service: Service, name: str, number: int = signal.SIGKILL) -> None:
    pid = service.daemon_pid(name)
    os.kill(pid, number)
    until(lambda: service.daemon_pid(name) != pid, f"{name} is back")


def test_a_runner_host_that_dies_costs_a_trial_nothing(service: Service, tmp_path: Path) -> None:
    folder = write_algorithm(tmp_path / "survivor", WAITS.format(seconds=3), extra=SAMPLE)
    count = tried(service, "survivor")
    publishing = Publishing(service, folder)
    until(count, "the sample runs")
    kill_daemon(service, "runner")
    assert "tried the sample" in publishing.end().said, publishing.failed


def test_one_that_dies_again_fails_it_and_says_whose_fault_that_is(service: Service, tmp_path: Path) -> None:
    folder = write_algorithm(tmp_path / "unlucky", WAITS.format(seconds=30), extra=SAMPLE)
    count = tried(service, "unlucky")
    publishing = Publishing(service, folder)
    for number in (1, 2):
        until(lambda number=number: count() >= number, "the sample runs")
        kill_daemon(service, "runner")
    assert "what runs versions died while this one was tried, twice" in publishing.end().failed
    (build,) = builds(service, "unlucky")
    assert build.status == "failed" and "died while this one was tried" in build.log
    assert service.call("operator/unlucky", b"1").status == 404


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_builder_that_ends_in_a_trial_leaves_no_version_and_nothing_running(
    service: Service, tmp_path: Path, number: int
) -> None:
    name = f"stopped{number}"
    folder = write_algorithm(tmp_path / name, WAITS.format(seconds=60), extra=SAMPLE)
    count = tried(service, name)
    publishing = Publishing(service, folder)
    until(count, "the sample runs")
    kill_daemon(service, "builder", number)
    assert publishing.end().failed
    until(lambda: builds(service, name)[0].status == "interrupted", "the build is said to be interrupted")
    assert service.call(f"operator/{name}", b"1").status == 404

    def has_ended() -> bool:
        lines = (service.home / "logs" / "runner.log").read_text().splitlines()
        return any(f"operator/{name}" in line and "replica_killed" in line for line in lines)

    until(has_ended, "nobody waits for the sample, so it is not run on", within_s=20.0)
    write_algorithm(folder, GOOD, extra=SAMPLE)
    assert "tried the sample" in service.publish(folder)


def test_secrets_of_an_algorithm_say_nothing_to_installers(service: Service, tmp_path: Path) -> None:
    """They are variables of its code, and of nothing else."""
    folder = write_algorithm(tmp_path / "redirected", "import os\ndef apply(input):\n    return os.environ[input]\n")
    service.publish(folder)
    nowhere = "http://127.0.0.1:1/simple"
    for number, key in enumerate(("UV_DEFAULT_INDEX", "PIP_INDEX_URL", "UV_NO_INDEX")):
        given = {"short_name": f"s{number}", "secret_key": key, "secret_value": nowhere, "description": " "}
        assert manage(service, "POST", "/v1/algorithms/operator/redirected/secrets", given).status == 200
    (folder / "requirements.txt").write_text("six\n")
    said = service.publish(folder)
    assert "installing 1 requirement" in said or "is there already" in said or "taken from" in said
    until(lambda: service.call("operator/redirected", b'"UV_NO_INDEX"').json().get("result") == nowhere, "it has them")


def manage(service: Service, method: str, path: str, body: object) -> Answer:
    headers = {"Authorization": f"Simple {service.key}", "Content-Type": "application/json"}
    return service.request(method, path, json.dumps(body).encode(), headers)
