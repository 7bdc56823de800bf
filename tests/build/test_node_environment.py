"""Packages of JavaScript algorithms: the real npm, in the real sandbox, with an index of the test's own."""

import json
import os
import stat

import pytest

from serai_gateway.build import Publish, build_folder, node_environment, to_spec
from serai_gateway.build.box import run_in_box
from serai_gateway.build.errors import BuildError, FetchFailed, InvalidManifest, InvalidRequirements
from serai_gateway.build.node_environment import check_javascript, ensure_node_environment, link_packages
from serai_gateway.build.testing import write_tree

pytestmark = [pytest.mark.needs_bubblewrap, pytest.mark.usefixtures("boxes")]

GREET = {"index.js": "exports.greet = (name) => 'hello ' + name;"}


def package(**dependencies):
    return json.dumps({"dependencies": dependencies})


@pytest.fixture
def install(home, tmp_path):
    def install(files):
        lines = []
        folder = write_tree(tmp_path / "files", files)
        key = ensure_node_environment(folder, home, lines.append)
        return home / "environments" / key if key else None, lines

    return install


def run_node(home, files, environment, *words):
    link_packages(files)
    lines = []
    read_only = [(environment, "/opt/environment")]
    done = run_in_box(home, "node", ["node", *words], files, lines.append, read_only=read_only)
    assert done.code == 0, done.tail
    return lines


def left_overs(home):
    return [name for name in os.listdir(home / "environments") if name.startswith(".part")]


def test_packages_are_found_by_require_and_by_import(home, tmp_path, install, npm_index):
    npm_index.add("inner", "1.2.0", {"index.js": "module.exports = 'inner';"})
    npm_index.add("greet", "1.0.0", GREET, dependencies={"inner": "^1.0.0"})
    npm_index.add("@scope/modern", "2.0.0", {"a.js": "export default 'modern';"}, type="module", exports="./a.js")
    files = {
        "package.json": package(greet="^1.0.0", **{"@scope/modern": "2.x"}),
        "old.js": "console.log(require('greet').greet('Ada'), require.resolve('greet'));",
        "new.mjs": "import modern from '@scope/modern'; import { greet } from 'greet'; console.log(greet(modern));",
        "src/deep/er.js": "console.log(require('greet').greet('deep'));",
    }
    environment, lines = install(files)
    assert "npm install, without scripts" in lines
    folder = tmp_path / "files"
    said = run_node(home, folder, environment, "old.js")
    assert said == ["hello Ada /opt/environment/node_modules/greet/index.js"]
    assert run_node(home, folder, environment, "new.mjs") == ["hello modern"]
    assert run_node(home, folder, environment, "src/deep/er.js") == ["hello deep"]
    assert sorted(os.listdir(environment)) == ["node_modules"]
    for path in (environment, *environment.rglob("*")):
        assert path.is_symlink() or not stat.S_IMODE(path.stat().st_mode) & 0o222, path
    assert left_overs(home) == []


def test_they_are_installed_once_for_the_same_content(install, npm_index):
    npm_index.add("greet", "1.0.0", GREET)
    first, _ = install({"package.json": package(greet="1.0.0")})
    num_requests = len(npm_index.requests)
    again, lines = install({"package.json": '{"name": "other", "dependencies": {"greet": "1.0.0"}, "scripts": {}}'})
    assert again == first and any("is there already" in line for line in lines)
    assert len(npm_index.requests) == num_requests > 0


def test_a_lock_file_decides_the_versions_and_their_content(install, npm_index):
    old = npm_index.add("greet", "1.0.0", GREET)
    npm_index.add("greet", "1.1.0", GREET)
    entry = {"version": "1.0.0", "resolved": "https://registry.example/greet/-/greet-1.0.0.tgz", "integrity": old}
    lock = {"lockfileVersion": 3, "packages": {"": {}, "node_modules/greet": entry}}
    files = {"package.json": package(greet="^1.0.0"), "package-lock.json": json.dumps(lock)}
    environment, lines = install(files)
    assert json.loads((environment / "node_modules/greet/package.json").read_text())["version"] == "1.0.0"
    assert "npm ci, without scripts" in lines
    entry["integrity"] = "sha512-" + "A" * 86 + "=="
    with pytest.raises(BuildError, match=r"(?s)package\.json: cannot be installed.*EINTEGRITY"):
        install(files | {"package-lock.json": json.dumps(lock)})
    entry["version"] = "3.0.0"
    entry["resolved"] = "https://registry.example/greet/-/greet-3.0.0.tgz"
    with pytest.raises(BuildError, match=r"(?s)cannot be installed.*greet"):
        install(files | {"package-lock.json": json.dumps(lock)})


SPY = """
const fs = require('fs'), net = require('net'), http = require('http');
const seen = { variables: process.env, home: fs.readdirSync('/').sort() };
for (const path of ['/opt/index', '/root', '/home', '/etc/shadow']) {
  try {
    seen[path] = fs.statSync(path).isDirectory() ? fs.readdirSync(path) : 'there';
  } catch (error) {
    seen[path] = error.code;
  }
}
const socket = net.connect(PORT, '127.0.0.1');
const end = (how) => { seen.network = how; fs.writeFileSync('seen.json', JSON.stringify(seen)); process.exit(0); };
socket.on('connect', () => end('connected')).on('error', (error) => end(error.code));
"""


def test_scripts_of_packages_run_without_network_and_see_nothing_of_the_index(
    install, npm_index, tmp_path, monkeypatch
):
    certificates = tmp_path / "certificates.pem"
    certificates.write_text("")
    (tmp_path / "nobody").mkdir()
    host = npm_index.address.removeprefix("http:")
    (tmp_path / "nobody/.npmrc").write_text(f"{host}/:_authToken=token-of-this-machine\n")
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(certificates))
    monkeypatch.setenv("NO_PROXY", "proxy-of-this-machine,127.0.0.1")
    monkeypatch.setenv("SOME_SECRET", "secret-of-this-machine")
    spy = SPY.replace("PORT", npm_index.address.rpartition(":")[2])
    npm_index.add("spy", "1.0.0", {"spy.js": spy}, scripts={"install": "echo spying; node spy.js"})
    environment, lines = install({"package.json": package(spy="1.0.0")})
    seen = json.loads((environment / "node_modules/spy/seen.json").read_text())
    assert "spying" in lines
    assert seen["network"] in ("ECONNREFUSED", "ENETUNREACH")
    assert {seen["/opt/index"], seen["/root"], seen["/home"], seen["/etc/shadow"]} == {"ENOENT"}
    assert "of-this-machine" not in json.dumps(seen) and npm_index.address not in json.dumps(seen)
    assert {authorization for _, authorization in npm_index.requests} == {"Bearer token-of-this-machine"}


def test_what_a_repository_says_of_registries_and_scripts_counts_for_nothing(install, npm_index, tmp_path):
    npm_index.add("greet", "1.0.0", GREET)
    evil = '{"dependencies": {"greet": "1.0.0"}, "scripts": {"preinstall": "exit 1", "install": "exit 1"}}'
    environment, _ = install({".npmrc": "registry=http://127.0.0.1:1/\n", "package.json": evil, ".yarnrc": "x"})
    assert (environment / "node_modules/greet/index.js").is_file()


def test_a_script_that_fails_is_shown(install, npm_index, home):
    npm_index.add("broken", "1.0.0", {}, scripts={"postinstall": "echo it is the compiler; exit 3"})
    with pytest.raises(
        BuildError, match=r"(?s)an install script failed \(scripts of packages have no network\):.*compil"
    ):
        install({"package.json": package(broken="1.0.0")})
    assert left_overs(home) == []


@pytest.mark.parametrize(
    "script",
    ["ln -s /etc/passwd leak", "mkfifo pipe", "ln -s ../../../outside leak", "mkdir a && ln -s a/../../../.. leak"],
)
def test_what_scripts_leave_behind_is_looked_at(install, npm_index, home, script):
    npm_index.add("odd", "1.0.0", {}, scripts={"install": script})
    with pytest.raises(BuildError, match=r"node_modules/odd/.*the build left"):
        install({"package.json": package(odd="1.0.0")})
    assert left_overs(home) == []


def test_what_is_not_there_and_an_index_that_is_away_are_told_apart(install, npm_index, monkeypatch):
    npm_index.add("greet", "1.0.0", GREET)
    with pytest.raises(BuildError, match=r"(?s)package\.json: cannot be installed:.*nosuchpackage") as error:
        install({"package.json": package(nosuchpackage="1.0.0")})
    assert not isinstance(error.value, FetchFailed)
    with pytest.raises(BuildError, match="cannot be installed"):
        install({"package.json": package(greet="^9")})
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:1")
    monkeypatch.setattr(node_environment, "_FETCH", (*node_environment._FETCH, "--fetch-retries=0"))
    with pytest.raises(FetchFailed, match="did not answer; try again later"):
        install({"package.json": package(greet="1.0.0")})


def test_a_dependency_of_a_dependency_that_is_an_address_is_refused(install, npm_index):
    npm_index.add("sly", "1.0.0", {}, dependencies={"greet": f"{npm_index.address}/greet/-/greet-1.0.0.tgz"})
    npm_index.add("greet", "1.0.0", GREET)
    with pytest.raises(BuildError, match=r"package\.json"):
        install({"package.json": package(sly="1.0.0")})


def test_without_packages_npm_is_not_asked(install, home):
    assert install({"package.json": "{}"})[0] is None
    assert install({"src/x.js": ""})[0] is None
    assert not (home / "environments").exists()
    with pytest.raises(InvalidRequirements, match="line 1"):
        install({"package.json": package(x="github:a/b")})


def test_a_file_that_is_missing_or_no_javascript_is_refused(home, tmp_path):
    files = write_tree(tmp_path / "files", {"src/good.js": "exports.apply = (x) => x;", "src/bad.js": "exports. = ;"})
    check_javascript(files, "good", home)
    with pytest.raises(BuildError, match=r"(?s)src/bad\.js is not JavaScript:.*SyntaxError") as error:
        check_javascript(files, "bad", home)
    assert "src/bad.js:1\nexports. = ;" in str(error.value) and "node:internal" not in str(error.value)
    with pytest.raises(BuildError, match=r"there is no src/missing\.js"):
        check_javascript(files, "missing", home)


ABOUT = '[algorithm]\nowner = "alice"\nname = "greeter"\nlanguage = "javascript"\n'


def test_a_folder_with_a_manifest_becomes_a_version(home, catalogue, alice, tmp_path, npm_index):
    npm_index.add("greet", "1.0.0", GREET)
    files = {
        "algorithm.toml": ABOUT + "[permissions]\ncalls = true\n[limits]\ncpus = 0.5\n[scaling]\nmin = 1\nmax = 2\n",
        "package.json": package(greet="1.0.0"),
        "src/greeter.js": "exports.apply = (input, done) => done(null, require('greet').greet(input));",
        "node_modules/greet/index.js": "throw new Error('an author had it installed');",
        "algorithmia.conf": '{"language": "python2"}',
    }
    source = write_tree(tmp_path / "source", files)
    version = build_folder(source, home, catalogue, alice, print, publish=Publish())
    spec = to_spec(version, home)
    assert (spec.kind, spec.entry, spec.calls, spec.python) == ("algorithmia", "greeter", True, "")
    assert (spec.limits.cpus, spec.scaling.min_replicas, spec.scaling.max_replicas) == (0.5, 1, 2)
    code = home / "code" / version.code_sha
    assert os.readlink(code / "node_modules") == "/opt/environment/node_modules"
    conf = json.loads((code / "algorithmia.conf").read_text())
    assert conf == {"username": "alice", "algoname": "greeter", "language": "javascript"}
    assert spec.environment == str(home / "environments" / version.environment)
    assert build_folder(source, home, catalogue, alice, print, publish=Publish()) == version, (
        "the same again is the same"
    )


def test_a_folder_whose_file_is_missing_is_no_version(home, catalogue, alice, tmp_path):
    source = write_tree(tmp_path / "source", {"algorithm.toml": ABOUT, "src/other.js": ""})
    with pytest.raises(BuildError, match=r"there is no src/greeter\.js"):
        build_folder(source, home, catalogue, alice, print)
    (source / "algorithm.toml").write_text(ABOUT.replace("javascript", "typescript"))
    with pytest.raises(InvalidManifest, match=r'write "python", "python3\.12", "javascript"'):
        build_folder(source, home, catalogue, alice, print)


def test_an_old_repository_finds_its_packages_installed_and_keeps_what_its_build_makes_of_them(
    home, catalogue, alice, tmp_path, npm_index
):
    npm_index.add("greet", "1.0.0", GREET)
    files = {
        "algorithmia.conf": '{"username": "alice", "algoname": "Old", "language": "javascript"}',
        "package.json": package(greet="^1.0.0"),
        "src/Old.js": "exports.apply = (input, done) => done(null, require('greet').greet(input));",
        "bin/build": "#!/bin/sh\nset -e\nnpm install\necho patched >> node_modules/greet/index.js\n",
        "bin/pipe": "#!/bin/sh\nexec node bin/pipe.js\n",
    }
    source = write_tree(tmp_path / "source", files)
    for name in ("build", "pipe"):
        (source / "bin" / name).chmod(0o755)
    lines = []
    version = build_folder(source, home, catalogue, alice, lines.append)
    assert any(line.startswith("up to date") for line in lines)
    patched = home / "code" / version.code_sha / "node_modules/greet/index.js"
    assert patched.read_text() == GREET["index.js"] + "patched\n"
    shared = home / "environments" / str(version.environment) / "node_modules/greet/index.js"
    assert shared.read_text() == GREET["index.js"], "others have it too"
