"""Environments from a folder of wheels: installed once, whole, and without running anything."""

import io
import os
import stat
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from serai_gateway.build.environment import ensure_environment, environment_key
from serai_gateway.build.errors import BuildError, FetchFailed, InvalidRequirements
from serai_gateway.build.sweep import sweep
from serai_gateway.build.testing import die_at, write_wheel


def install(home, text):
    lines = []
    return ensure_environment(text, home, lines.append), lines


def left_overs(home):
    return [name for name in os.listdir(home / "environments") if name.startswith(".part")]


def test_no_requirements_are_no_environment(home):
    assert ensure_environment("\n# nothing\n", home, print) is None
    assert not (home / "environments").exists()


def test_requirements_are_installed_once_read_only_and_compiled(home, index):
    write_wheel(index, "greet", "1.0", {"greet.py": b"def hello(): return 'hello'\n"})
    key, lines = install(home, "Greet >= 1\n# comment")
    folder = home / "environments" / key
    code = f"import sys; sys.path.insert(0, {str(folder)!r}); import greet; print(greet.hello(), greet.__cached__)"
    out = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["hello", str(next(folder.rglob("greet.*.pyc")))]
    for path in (folder, *folder.rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o222, path
    assert not any(path.name.startswith(".") for path in folder.iterdir())
    assert any("installing 1 requirement" in line for line in lines)
    again, lines = install(home, "greet>=1")
    assert again == key and lines == [f"environment {key[:12]} is there already"]
    assert left_overs(home) == []


def test_the_key_is_the_content():
    assert environment_key(("a==1", "b")) == environment_key(("a==1", "b"))
    assert environment_key(("a==1", "b")) != environment_key(("a==1",)) != environment_key(("a==1b",))
    assert len(environment_key(())) == 64


def test_of_many_at_once_one_installs(home, index):
    write_wheel(index, "greet", "1.0", {"greet.py": b""})
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: install(home, "greet"), range(4)))
    assert len({key for key, _ in done}) == 1
    assert sum("installing" in line for _, lines in done for line in lines) == 1


def test_nothing_of_a_package_runs(home, index, tmp_path):
    marker = tmp_path / "marker"
    touch = f"open({str(marker)!r}, 'w').close()"
    wheel = {
        "evil.py": touch.encode(),
        "evil.pth": f"import os; {touch}".encode(),
        "sitecustomize.py": touch.encode(),
        "usercustomize.py": touch.encode(),
        "json.py": touch.encode(),
    }
    write_wheel(index, "evil", "1.0", wheel)
    key, _ = install(home, "evil")
    assert key and not marker.exists()


def write_sdist(folder, name, setup):
    with tarfile.open(folder / f"{name}-1.0.tar.gz", "w:gz") as archive:
        for path, content in (
            ("setup.py", setup),
            ("PKG-INFO", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"),
        ):
            info = tarfile.TarInfo(f"{name}-1.0/{path}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content.encode()))


def test_a_package_that_would_have_to_be_built_is_refused_unbuilt(home, index, tmp_path):
    write_sdist(index, "evil", f"open({str(tmp_path / 'marker')!r}, 'w').close()")
    with pytest.raises(BuildError, match="only packages with wheels"):
        install(home, "evil")
    assert not (tmp_path / "marker").exists() and left_overs(home) == []


@pytest.mark.parametrize("text", ["nosuchpackage", "greet==9", "greet==1.0\ngreet==2.0"])
def test_what_cannot_be_installed_is_explained(home, index, text):
    write_wheel(index, "greet", "1.0", {"greet.py": b""})
    with pytest.raises(BuildError, match=r"requirements\.txt: cannot be installed") as error:
        install(home, text)
    assert text.split("=")[0] in str(error.value)
    assert left_overs(home) == []


def test_options_are_refused_before_anything_runs(home):
    with pytest.raises(InvalidRequirements, match="line 1"):
        install(home, "--index-url http://127.0.0.1:1/")
    assert not (home / "environments").exists()


def test_an_index_that_does_not_answer_is_worth_another_try(home, index, monkeypatch):
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(FetchFailed, match="try again"):
        install(home, "greet")


def test_a_wheel_that_reaches_outside_stays_inside(home, index, tmp_path):
    outside = tmp_path / "absolute-evil.txt"
    data = "evil-1.0.data/data/../../../../evil.txt"
    write_wheel(index, "evil", "1.0", {"../../../evil.txt": b"x", str(outside): b"x", data: b"x", "evil.py": b""})
    key, _ = install(home, "evil")
    assert (home / "environments" / key / "evil.py").is_file()
    assert not [path for path in tmp_path.rglob("*evil.txt")]


def test_a_wheel_that_replaces_the_interpreter_is_refused(home, index):
    write_wheel(index, "evil", "1.0", {"evil.py": b"", "evil-1.0.data/scripts/python": b"#!/bin/sh\n"})
    with pytest.raises(BuildError, match="python"):
        install(home, "evil")


def test_an_installation_that_is_killed_is_swept_and_done_again(home, index, catalogue):
    write_wheel(index, "greet", "1.0", {"greet.py": b""})
    seen_left_overs = 0
    for moment in (3, 6, 12, 20, 30, 40):
        die_at(moment, lambda: ensure_environment("greet", home, lambda line: None))
        for name in os.listdir(home / "environments"):
            if not name.startswith("."):
                assert (home / "environments" / name / "greet.py").is_file()
        seen_left_overs += len(left_overs(home))
        sweep(home, catalogue, print)
        assert left_overs(home) == []
    key, _ = install(home, "greet")
    assert (home / "environments" / key / "greet.py").is_file()
    assert seen_left_overs
