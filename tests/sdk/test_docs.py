"""The pages' examples run, and nothing that can be typed is missing from them."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from serai.cli import COMMANDS, command_parser, main
from serai.testing import FakeMarket, run_server

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server that the environment names, and an empty current folder."""
    monkeypatch.chdir(tmp_path)
    with run_server(FakeMarket(key="simkey")) as address:
        monkeypatch.setenv("SERAI_ADDRESS", address)
        monkeypatch.setenv("SERAI_API_KEY", "simkey")
        yield


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found


@pytest.mark.usefixtures("here")
def test_the_examples_of_the_client_run_in_their_order():
    names: dict[str, object] = {"__name__": "example"}
    for number, block in enumerate(blocks("sdk.md", "python")):
        exec(compile(block, f"sdk.md, example {number}", "exec"), names)


def test_the_example_of_a_profile_is_one(home: Path):
    from serai.settings import load_settings

    text = blocks("sdk.md", "toml")[0]
    (home / ".serai").mkdir()
    (home / ".serai" / "config.toml").write_text(text)
    assert load_settings().address == tomllib.loads(text)["profiles"]["default"]["address"]


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "up"])
def test_every_option_of_a_command_is_on_its_page(command: str):
    page = (DOCS / "cli.md").read_text()
    general, _, rest = page.partition(f"## serai {command}\n")
    section = rest.partition("\n## ")[0]
    assert section, f"docs/cli.md has no section for {command}"
    for action in command_parser(command)._actions:
        for option in action.option_strings:
            if option not in ("-h", "--help"):
                assert re.search(rf"(?<![\w-]){option}(?![\w-])", section + general.partition("\n## ")[0]), option


def test_the_page_has_no_command_that_is_gone():
    headings = re.findall(r"^## serai (\w+)$", (DOCS / "cli.md").read_text(), re.MULTILINE)
    assert headings == list(COMMANDS)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "up"])
def test_help_of_every_command_has_an_example_that_parses(command: str, capsys: pytest.CaptureFixture[str]):
    import shlex

    assert main([command, "--help"]) == 0
    examples = re.findall(r"^  serai (.*)$", capsys.readouterr().out.partition("\nexample:\n")[2], re.MULTILINE)
    assert examples
    for example in examples:
        name, *arguments = shlex.split(example)
        command_parser(name).parse_args(arguments)
