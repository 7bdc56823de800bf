import re
import subprocess
import sys
from pathlib import Path

import pytest

import serai
from serai.cli import COMMANDS

DOCS = Path(__file__).parents[2] / "docs"


def modules_after(*imports: str) -> set[str]:
    """Top-level modules, other than the standard library's, that a fresh interpreter has after these imports."""
    code = f"import sys\nbefore = set(sys.modules)\nimport {', '.join(imports)}\nprint(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return {name.partition(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", ["serai", "serai.model", "serai.errors", "serai.settings", "serai.cli"])
def test_what_an_authors_interpreter_may_import_needs_no_other_package(module: str):
    assert modules_after(module) == {"serai"}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_loads_the_http_library_before_it_connects(command: str):
    assert modules_after(f"serai.cli.{command}") == {"serai"}


def test_every_public_name_is_there_and_documented_and_no_other():
    documented = set(re.findall(r"`serai\.(\w+)`", (DOCS / "sdk.md").read_text().partition("## All public names")[2]))
    assert documented == set(serai.__all__)
    for name in serai.__all__:
        assert getattr(serai, name) is not None
    assert set(serai.__all__) <= set(dir(serai))


def test_every_error_class_is_public():
    from serai import errors

    assert set(errors.__all__) <= set(serai.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'cleint'"):
        serai.cleint  # noqa: B018


def test_importing_the_module_of_that_name_leaves_serai_model_the_function():
    code = "import serai.model, serai; from serai.model import model; assert callable(model) and model is serai.model"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
