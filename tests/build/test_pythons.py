"""Which interpreters of this machine are taken, and that our own part of a replica runs on each."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import serai
import serai_runner
from serai_runner import pythons

OTHERS = [version for version in pythons.installed() if version != pythons.OURS]


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Look again, where PATH is a folder of the test's and there is nothing at home."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("PYENV_ROOT", "XDG_DATA_HOME", "UV_PYTHON_INSTALL_DIR"):
        monkeypatch.delenv(name, raising=False)
    return folder, lambda: pythons.installed.__wrapped__()


def write_script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_the_one_that_serai_runs_on_is_there_and_is_what_nothing_means():
    assert pythons.find("") == pythons.find(pythons.OURS) == pythons.installed()[pythons.OURS]
    executable, prefix = pythons.find("")
    assert os.path.isfile(executable) and os.path.realpath(executable) == executable
    assert prefix == os.path.realpath(sys.base_prefix)


def test_they_are_listed_by_number_and_answer_to_it():
    found = pythons.installed()
    assert list(found) == sorted(found, key=lambda version: [int(part) for part in version.split(".")])
    for version, interpreter in found.items():
        ask = "import sys; print('%d.%d' % sys.version_info[:2], sys.implementation.name)"
        done = subprocess.run([interpreter.executable, "-I", "-c", ask], capture_output=True, text=True, check=True)
        assert done.stdout.split() == [version, "cpython"]
        assert tuple(map(int, version.split("."))) >= pythons.OLDEST


@pytest.mark.parametrize("version", pythons.installed())
def test_our_own_part_of_a_replica_runs_on_each(version, tmp_path):
    (tmp_path / "serai_runner").mkdir()
    (tmp_path / "serai").symlink_to(Path(serai.__file__).parent)
    (tmp_path / "serai_runner/inside").symlink_to(Path(serai_runner.__file__).parent / "inside")
    modules = ["serai.model", "serai.errors"]
    inside = Path(serai_runner.__file__).parent / "inside"
    modules += [f"serai_runner.inside.{path.stem}" for path in inside.glob("*.py") if path.stem != "langpack"]
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import {', '.join(modules)}"
    interpreter = pythons.find(version).executable
    done = subprocess.run([interpreter, "-I", "-S", "-B", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_one_that_is_missing_is_refused_with_those_that_are_there():
    with pytest.raises(pythons.UnknownPython, match=rf"Python 3\.1 is not installed on this server.*{pythons.OURS}"):
        pythons.find("3.1")


@pytest.mark.parametrize(
    "text",
    [
        "#!/bin/sh\nexit 1\n",
        "#!/bin/sh\necho hello\n",
        '#!/bin/sh\necho \'["pypy", [3, 30], "", "/usr/bin/env", "/usr"]\'\n',
        '#!/bin/sh\necho \'["cpython", [3, 30], "", "/no/such/file", "/usr"]\'\n',
        '#!/bin/sh\necho \'["cpython", [3, 30], "", "/usr/bin/env", "/usr"]\'\n',
        "#!/bin/sh\necho '[[[]]]'\n",
        "#!/bin/sh\nsleep 60\n",
        "not a program",
    ],
)
def test_what_is_only_called_python_is_left_out(search, monkeypatch, text):
    monkeypatch.setattr(pythons, "_ANSWER_S", 0.5)
    folder, look = search
    write_script(folder / "python3.30", text)
    assert "3.30" not in look()


@pytest.mark.skipif(not OTHERS, reason="needs a second Python")
def test_the_first_on_the_path_counts_and_names_that_are_not_exact_do_not(search):
    folder, look = search
    version = OTHERS[-1]
    real = pythons.find(version)
    for name in (f"python{version}-config", "python3", "python", "python3.x"):
        (folder / name).symlink_to(real.executable)
    assert look().get(version) != real
    (folder / f"python{version}").symlink_to(real.executable)
    assert look()[version] == real


@pytest.mark.skipif(not OTHERS, reason="needs a second Python")
def test_pyenv_is_searched(search, tmp_path):
    _, look = search
    version = OTHERS[-1]
    place = tmp_path / f"home/.pyenv/versions/{version}.4/bin/python{version}"
    place.parent.mkdir(parents=True)
    place.symlink_to(pythons.find(version).executable)
    assert look()[version] == pythons.find(version)


def test_what_others_may_change_is_not_safe(tmp_path):
    program = write_script(tmp_path / "bin/python3.30", "")
    assert pythons.is_safe(program)
    assert not pythons.is_safe(tmp_path / "missing")
    for place, mode in ((program, 0o757), (program.parent, 0o777), (program.parent, 0o773)):
        before = place.stat().st_mode
        place.chmod(mode)
        assert not pythons.is_safe(program), oct(mode)
        assert not pythons.is_safe(make_link(tmp_path / "link", program)), "what a link leads to counts"
        place.chmod(before)
    program.parent.chmod(0o1777)
    assert pythons.is_safe(program), "as in /tmp: others may add files there, and touch none of ours"


def make_link(place: Path, target: Path) -> Path:
    place.unlink(missing_ok=True)
    place.symlink_to(target)
    return place


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's file")
def test_what_belongs_to_another_user_is_not_safe(tmp_path):
    program = write_script(tmp_path / "bin/python3.30", "")
    os.chown(program, 12345, -1)
    assert not pythons.is_safe(program)
