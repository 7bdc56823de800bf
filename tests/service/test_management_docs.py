"""docs/management.md: its examples run, and its tables are whole."""

import os
import re
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest

from serai_gateway.api.management.errors import Codes
from serai_gateway.api.management.not_here import NOT_HERE
from serai_gateway.catalogue import open_catalogue
from serai_gateway.testing import PATIENCE_S, Service

_PAGE = (Path(__file__).parents[2] / "docs" / "management.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", _PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def key(service: Service) -> str:
    """Ada's. Bob is there, too."""
    catalogue = open_catalogue(service.home)
    catalogue.ensure_account("bob")
    key = catalogue.create_key(catalogue.ensure_account("ada"), "test").text
    catalogue.close()
    return key


@pytest.mark.needs_bubblewrap
def test_the_commands_work_in_their_order(service: Service, key: str, tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("needs curl")
    address, *examples = _blocks("sh")
    commands = address.replace("http://127.0.0.1:8000", service.address) + "".join(examples)
    strict = 'set -e\ncurl() { command curl --fail-with-body "$@"; echo; }\n'
    who = {f"GIT_{role}_{what}": "ada" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    variables = {**os.environ, **who, "SERAI_API_KEY": key, "HOME": str(tmp_path), "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(
        ["bash", "-c", strict + commands],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"result":"hello John"' in done.stdout
    assert '"semantic_version":"0.2.0"' in done.stdout
    answer = service.call("ada/greet/0.2.0", b"John", "text/plain", key)
    assert answer.json()["result"] == "good morning John"


@pytest.mark.needs_bubblewrap
def test_the_example_of_the_python_client_works(service: Service, key: str) -> None:
    (example,) = _blocks("python")
    example = example.replace('"KEY"', repr(key)).replace("http://127.0.0.1:8000", service.address)
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package predates this Python
        exec(compile(example.replace("ada/greet", "ada/greet2"), "management.md", "exec"), names)
    assert names["client"].algo("ada/greet2/0.1.0").pipe("John").result == "hello John"


def test_the_page_lists_what_is_not_here_and_every_error() -> None:
    for operation in NOT_HERE:
        path = operation.path.replace("{path:path}", "{path}")
        rows = [row for row in _PAGE.splitlines() if f"`{' '.join(operation.methods)} {path}`" in row]
        assert len(rows) == 1 and operation.why in rows[0], path
    for name, known in vars(Codes).items():
        if not name.startswith("_"):
            assert f"| {known.number} | {known.status} | {known.message} |" in _PAGE, name
