"""Environments from a folder of wheels: installed once, whole, and without running anything."""

import io
import os
import stat
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest

import serai
from serai_gateway.build.environment import ensure_environment, environment_key
from serai_gateway.build.errors import BuildError, FetchFailed, InvalidRequirements
from serai_gateway.build.sweep import sweep
from serai_gateway.build.testing import die_at, write_wheel
from serai_runner import pythons

OTHERS = [version for version in pythons.installed() if version != pythons.OURS and version not in ("3.9", "3.10")]


def install(home, text, **options):
    lines = []
    return ensure_environment(text, home, lines.append, **options), lines


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
    assert text.split("=")[0] in str(error.value) and "interpreter at" not in str(error.value)
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


@pytest.mark.parametrize("python", pythons.installed())
def test_an_environment_is_for_one_python(home, index, python):
    write_wheel(index, "greet", "1.0", {"greet.py": b"import sys\ndef where(): return sys.version_info[:2]\n"})
    key, _ = install(home, "greet", python=python)
    (bytecode,) = (home / "environments" / key).rglob("greet.*.pyc")
    assert bytecode.name == f"greet.cpython-{python.replace('.', '')}.pyc"
    code = f"import sys; sys.path.insert(0, {str(home / 'environments' / key)!r}); import greet; print(greet.where())"
    words = [pythons.find(python).executable, "-I", "-S", "-c", code]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert said.strip() == f"({python.replace('.', ', ')})"
    assert (key == install(home, "greet")[0]) == (python == pythons.OURS)


def test_packages_are_chosen_for_the_python_that_is_asked_for(home, index):
    if not OTHERS:
        pytest.skip("needs a second Python")
    tag = f"cp{OTHERS[-1].replace('.', '')}"
    wheel = write_wheel(index, "native", "1.0", {"native.py": b""})
    wheel.rename(index / f"native-1.0-{tag}-none-any.whl")
    assert install(home, "native", python=OTHERS[-1])[0]
    with pytest.raises(BuildError, match="cannot be installed"):
        install(home, "native")


def test_a_python_that_is_not_installed_is_refused_with_those_that_are(home):
    with pytest.raises(pythons.UnknownPython, match=f"Python 3.99 is not installed on this server.*{pythons.OURS}"):
        install(home, "greet", python="3.99")


@pytest.fixture
def sdk_packages(index):
    """What the client needs, at versions that it takes."""
    for name, version in (("httpx2", "2.99"), ("msgspec", "0.21.99")):
        write_wheel(index, name, version, {f"{name}.py": b""})


def packages(home, key):
    return sorted(path.name for path in (home / "environments" / key).glob("*.py"))


@pytest.mark.usefixtures("sdk_packages")
def test_the_client_brings_its_own_packages(home, index):
    write_wheel(index, "serai", "99.0", {"evil.py": b""})
    write_wheel(index, "greet", "1.0", {"greet.py": b""})
    key, _ = install(home, "greet", with_sdk=True)
    assert packages(home, key) == ["greet.py", "httpx2.py", "msgspec.py"]
    for line in ("serai", "Serai >= 0.1", "serai[server]", f"serai=={serai.__version__}"):
        assert install(home, f"greet\n{line}")[0] == key, line
    alone, _ = install(home, "", with_sdk=True)
    assert packages(home, alone) == ["httpx2.py", "msgspec.py"]
    plain, _ = install(home, "greet")
    assert packages(home, plain) == ["greet.py"]


def test_another_client_than_this_servers_is_refused(home):
    with pytest.raises(InvalidRequirements, match=r'"serai==99": this server has serai .*; write serai alone'):
        install(home, "serai==99")


def test_a_python_that_is_too_old_for_the_client(home, index):
    old = [version for version in pythons.installed() if version in ("3.9", "3.10")]
    if not old:
        pytest.skip("needs an old Python")
    write_wheel(index, "greet", "1.0", {"greet.py": b""})
    with pytest.raises(InvalidRequirements, match=f"serai needs Python >=3.11 and this is for {old[0]}"):
        install(home, "greet\nserai", python=old[0])
    key, lines = install(home, "greet", python=old[0], with_sdk=True)
    assert packages(home, key) == ["greet.py"]
    assert any(line.startswith("WARNING: serai.client() needs Python >=3.11") for line in lines)
