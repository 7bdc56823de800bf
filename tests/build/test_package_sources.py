"""Packages come from the operator's index, whatever an author or a package says: the real uv, with decoys."""

import contextlib
import functools
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from serai_gateway.build import BuildError, Publish, build_folder
from serai_gateway.build.environment import ensure_environment
from serai_gateway.build.testing import HELLO, write_tree, write_wheel


class Index:
    """A package index over HTTP: the folder's wheels, by project."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        index = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                index.asked.append(self.path)
                if self.path.startswith("/simple/"):
                    self._list(self.path.split("/")[2])
                else:
                    super().do_GET()

            def _list(self, project: str) -> None:
                wheels = sorted(folder.glob(f"{project.replace('-', '_')}-*.whl"))
                links = "".join(f'<a href="/{one.name}">{one.name}</a><br>' for one in wheels)
                body = f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
                self.send_response(200 if wheels else 404)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Tests look at `asked`."""

        folder.mkdir(parents=True, exist_ok=True)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.host = f"127.0.0.1:{self._http.server_port}"
        self.address = f"http://{self.host}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def ours(index, tmp_path, monkeypatch) -> Iterator[Index]:
    """The operator's index, which has `greet` 1.0.0."""
    for name in ("UV_OFFLINE", "UV_FIND_LINKS"):
        monkeypatch.delenv(name)
    write_wheel(tmp_path / "ours", "greet", "1.0.0", {"greet.py": b"whose = 'ours'\n"})
    with contextlib.closing(Index(tmp_path / "ours")) as one:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{one.address}/simple")
        yield one


@pytest.fixture
def decoy(tmp_path) -> Iterator[Index]:
    """Somebody else's, which has a newer `greet`, and `evil`."""
    for name, version in (("greet", "9.0.0"), ("evil", "1.0.0")):
        write_wheel(tmp_path / "decoy", name, version, {f"{name}.py": b"whose = 'theirs'\n"})
    with contextlib.closing(Index(tmp_path / "decoy")) as one:
        yield one


def options(decoy: Index) -> dict[str, str]:
    """All that an author may put beside the code to have packages come from elsewhere."""
    simple = f"{decoy.address}/simple"
    uv = f'index-url = "{simple}"\nextra-index-url = ["{simple}"]\nfind-links = ["{decoy.address}/"]\n'
    uv += 'index-strategy = "unsafe-best-match"\nprerelease = "allow"\nallow-insecure-host = ["127.0.0.1"]\n'
    pip = f"[global]\nindex-url = {simple}\nextra-index-url = {simple}\n"
    sources = f'[tool.uv.sources]\ngreet = {{ url = "{decoy.address}/greet-9.0.0-py3-none-any.whl" }}\n'
    project = '[project]\nname = "x"\nversion = "1"\ndependencies = ["greet"]\n'
    lines = (
        f"UV_DEFAULT_INDEX={simple}\nUV_INDEX={simple}\nPIP_INDEX_URL={simple}\nnpm_config_registry={decoy.address}\n"
    )
    return {
        "uv.toml": uv, "src/uv.toml": uv, ".config/uv/uv.toml": uv,
        "pyproject.toml": f"{project}[tool.uv]\n{uv}{sources}",
        "pip.conf": pip, ".pip/pip.conf": pip, ".config/pip/pip.conf": pip, "setup.cfg": "[easy_install]\nindex_url=x",
        ".env": lines, ".envrc": lines, ".npmrc": f"registry={decoy.address}\n", ".pypirc": pip, ".netrc": "machine x",
        "constraints.txt": "greet==9.0.0\n", "overrides.txt": "greet==9.0.0\n", ".python-version": "2.7\n",
    }  # fmt: skip


def test_files_of_an_author_change_nothing_about_where_packages_come_from(
    home, catalogue, alice, tmp_path, ours, decoy
):
    files = HELLO | options(decoy) | {"requirements.txt": "greet\n"}
    version = build_folder(
        write_tree(tmp_path / "source", files), home, catalogue, alice, lambda line: None, publish=Publish()
    )
    installed = home / "environments" / (version.environment or "")
    assert (installed / "greet.py").read_text() == "whose = 'ours'\n"
    assert ours.asked and not decoy.asked


@pytest.mark.needs_bubblewrap
@pytest.mark.usefixtures("boxes")
def test_nor_about_where_npm_gets_them(home, catalogue, alice, tmp_path, npm_index, decoy):
    npm_index.add("greet", "1.0.0", {"index.js": "exports.whose = 'ours';"})
    about = HELLO["algorithm.toml"].replace('"python"', '"javascript"')
    package = f"""{{
      "dependencies": {{"greet": "*"}}, "publishConfig": {{"registry": "{decoy.address}"}},
      "config": {{"registry": "{decoy.address}"}}, "npm": {{"registry": "{decoy.address}"}}
    }}"""
    files = options(decoy) | {
        "algorithm.toml": about,
        "package.json": package,
        "src/hello.js": "exports.apply = (x) => x;",
    }
    source = write_tree(tmp_path / "source", files)
    version = build_folder(source, home, catalogue, alice, lambda line: None, publish=Publish())
    installed = home / "environments" / (version.environment or "") / "node_modules/greet/index.js"
    assert "ours" in installed.read_text() and npm_index.requests and not decoy.asked


@pytest.mark.parametrize("line", ["evil @ {address}/evil-1.0.0-py3-none-any.whl", "--index-url {address}/simple",
                                  "--extra-index-url={address}/simple", "-i {address}/simple", "-f {address}",
                                  "--find-links {address}", "{address}/evil-1.0.0-py3-none-any.whl"])  # fmt: skip
def test_lines_of_a_requirements_file_neither(home, ours, decoy, line):
    with pytest.raises(BuildError, match=r"requirements\.txt line 2"):
        ensure_environment(f"greet\n{line.replace('{address}', decoy.address)}\n", home, lambda line: None)
    assert not ours.asked and not decoy.asked


def hostile(folder: Path, *lines: str) -> None:
    """The wheel `sly`, whose metadata says more than it should."""
    path = write_wheel(folder, "sly", "1.0.0", {"sly.py": b""})
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    members["sly-1.0.0.dist-info/METADATA"] += "".join(f"{line}\n" for line in lines).encode()
    with zipfile.ZipFile(path, "w") as new:
        for name, content in members.items():
            new.writestr(name, content)


@pytest.mark.parametrize(
    "reference",
    [
        "evil @ {address}/evil-1.0.0-py3-none-any.whl",
        "evil @ git+{address}/evil.git",
        "evil @ file:///{folder}/evil-1.0.0-py3-none-any.whl",
        "evil @ http://169.254.169.254/evil-1.0.0-py3-none-any.whl",
    ],
)
def test_a_package_cannot_lead_the_installer_elsewhere(home, ours, decoy, reference):
    reference = reference.replace("{address}", decoy.address).replace("{folder}", str(decoy.folder).lstrip("/"))
    hostile(ours.folder, f"Requires-Dist: {reference}")
    with pytest.raises(BuildError, match=r"requirements\.txt: cannot be installed") as error:
        ensure_environment("sly\n", home, lambda line: None)
    assert "evil" in str(error.value) and not decoy.asked
    assert not [name for name in (home / "environments").iterdir() if name.is_dir()]


def test_what_metadata_says_of_indexes_and_homes_is_not_read(home, ours, decoy):
    """Metadata of old had words for that, and easy_install read them."""
    hostile(
        ours.folder, "Requires-Dist: greet", f"Home-page: {decoy.address}/", f"Download-URL: {decoy.address}/",
        f"Project-URL: Index, {decoy.address}/simple", f"Dependency-Links: {decoy.address}/",
    )  # fmt: skip
    key = ensure_environment("sly\n", home, lambda line: None)
    assert key and (home / "environments" / key / "greet.py").read_text() == "whose = 'ours'\n"
    assert not decoy.asked
