"""Whole builds: what comes out, what is said when nothing does, and that what served before serves on."""

import json
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from onnx import TensorProto, helper

from serai_gateway.build import BuildError, InvalidManifest, Publish, UnsafeTree, build, pipeline, sweep, to_spec
from serai_gateway.build.testing import HELLO, die_at, tiny_onnx, write_tree, write_wheel
from serai_gateway.catalogue import AlreadyPublished, NotFound, open_catalogue
from serai_gpu_pool.testing import models

ABOUT = '[algorithm]\nowner = "alice"\nname = "digits"\n[models.m]\nfile = "m.onnx"\n'
DIGITS = {"algorithm.toml": ABOUT, "m.onnx": tiny_onnx()}


@pytest.fixture
def source(tmp_path):
    return write_tree(tmp_path / "source", HELLO)


@pytest.fixture
def make(home, catalogue, alice):
    def run(folder, publish=Publish(), **options):  # noqa: B008
        lines = []
        options.setdefault("log", lines.append)
        options.setdefault("owner", alice)
        version = build(folder, home, catalogue, publish=publish, **options)
        return version, lines

    return run


def left_overs(home):
    return [entry for name in ("code", "environments") for entry in _list(home / name) if entry.startswith(".part")]


def _list(folder):
    return os.listdir(folder) if folder.is_dir() else []


def test_a_folder_becomes_a_version_that_can_be_called(home, catalogue, source, make):
    version, lines = make(source)
    assert (version.owner, version.name, version.semver, version.public) == ("alice", "hello", "1.0.0", True)
    assert catalogue.find_version("alice", "hello", None, None) == version
    spec = to_spec(version, home)
    assert (spec.key, spec.kind, spec.entry) == (f"alice/hello@{version.hash}", "python", "hello")
    assert spec.environment is None and spec.limits.timeout_s == 300.0 and not spec.network
    code = home / "code" / version.code_sha
    assert spec.code == str(code) and version.code_sha.startswith(version.hash)
    for path, content in HELLO.items():
        assert (code / path).read_text() == content
    assert list((code / "src/__pycache__").glob("hello.*.pyc"))
    for path in (code, *code.rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o222
    (record,) = catalogue.builds_of(catalogue.find_algorithm("alice", "hello", None))
    assert record.status == "succeeded"
    assert catalogue.find_build(record.id).log == "\n".join(lines)
    assert lines[-2:] == ["published alice/hello/1.0.0", f"built {version.key}"]


def test_the_same_folder_is_the_same_version_and_a_changed_one_the_next(source, make):
    first, _ = make(source)
    again, lines = make(source)
    assert again == first and "nothing has changed since 1.0.0" in lines
    (source / "README.md").write_text("# Hello!\n")
    changed, _ = make(source)
    assert (changed.semver, changed.hash != first.hash) == ("1.0.1", True)
    (source / "README.md").write_text("# Hello!!\n")
    assert make(source, Publish("major"))[0].semver == "2.0.0"
    with pytest.raises(AlreadyPublished):
        make(source, Publish("1.0.1"))


def test_going_back_or_from_private_to_public_makes_a_new_version_of_the_same_code(catalogue, alice, source, make):
    first, _ = make(source, Publish(public=False))
    opened, _ = make(source)
    assert (first.semver, first.public, opened.semver, opened.public) == ("1.0.0", False, "1.1.0", True)
    assert opened.code_sha == first.code_sha and opened.hash != first.hash
    assert make(source)[0] == opened, "the same again is the same"
    text = (source / "README.md").read_text() if (source / "README.md").exists() else ""
    (source / "README.md").write_text(text + "a mistake\n")
    assert make(source)[0].semver == "1.1.1"
    (source / "README.md").write_text(text)
    back, lines = make(source)
    assert back.semver == "1.1.2" and "published alice/hello/1.1.2" in lines
    newest = catalogue.find_version("alice", "hello", None, None)
    assert newest.hash == back.hash


def test_without_publishing_it_can_be_called_by_its_hash_by_its_owner(catalogue, alice, source, make):
    version, _ = make(source, publish=None)
    assert version.semver is None
    assert catalogue.find_version("alice", "hello", version.hash, alice) == version
    with pytest.raises(NotFound):
        catalogue.find_version("alice", "hello", version.hash, None)


def test_a_folder_with_only_a_model_is_an_algorithm(home, tmp_path, make):
    version, lines = make(write_tree(tmp_path / "digits", DIGITS))
    spec = to_spec(version, home)
    assert (spec.kind, spec.code, spec.environment) == ("model", "", None)
    (model,) = spec.models
    assert model.path == str(home / "files/sha256" / model.sha256[:2] / model.sha256[2:])
    assert version.models[0].inputs[0].name == "x"
    assert any(line.startswith("model m: ") for line in lines)


def test_models_with_more_inputs_than_the_daemons_can_be_told_of_are_refused(catalogue, alice, tmp_path, make):
    names = [f"input_{at:03}_{'x' * 100}" for at in range(600)]
    nodes = [helper.make_node("Sum", names, ["y"])]
    model = models.build(nodes, [(name, TensorProto.FLOAT, ["N"]) for name in names], [("y", TensorProto.FLOAT, ["N"])])
    about = '[algorithm]\nowner = "alice"\nname = "wide"\n[models.m]\nfile = "m.onnx"\n'
    with pytest.raises(InvalidManifest, match=r"take .* bytes, over the limit of 49,152: put the models into several"):
        make(write_tree(tmp_path / "wide", {"algorithm.toml": about, "m.onnx": model}))
    assert catalogue.versions_of(catalogue.find_algorithm("alice", "wide", alice)) == ()


def test_an_algorithmia_repository_builds_as_it_is(home, tmp_path, catalogue, index, make):
    write_wheel(index, "six", "1.0", {"six.py": b""})
    conf = json.dumps({"username": "alice", "algoname": "Old", "langauge": "python3"})
    files = {"algorithmia.conf": conf, "src/Old.py": "import six\ndef apply(x): return x\n", "src/__init__.py": ""}
    version, _ = make(write_tree(tmp_path / "old", files | {"requirements.txt": "six\n"}))
    spec = to_spec(version, home)
    assert (spec.kind, spec.entry) == ("algorithmia", "Old")
    assert spec.environment and os.path.isfile(f"{spec.environment}/six.py")


def test_a_build_reads_code_and_does_not_run_it(tmp_path, make):
    marker = tmp_path / "marker"
    touch = f"open({str(marker)!r}, 'w').close()\n"
    files = HELLO | {"src/hello.py": touch + HELLO["src/hello.py"], "setup.py": touch, "sitecustomize.py": touch}
    files |= {"compileall.py": touch, "os.py": touch, "src/json.py": touch, "conftest.py": touch}
    make(write_tree(tmp_path / "evil", files))
    assert not marker.exists()


MANIFEST = HELLO["algorithm.toml"]
BROKEN = {
    "a syntax error": ({"src/hello.py": "def apply(input:\n"}, r"src/hello\.py is not Python 3"),
    "deep nesting": ({"src/hello.py": "(" * 100_000}, r"src/hello\.py is not Python 3"),
    "a NUL": ({"src/hello.py": "x = 1\0"}, r"src/hello\.py is not Python 3"),
    "no module": ({"src/hello.py": None}, r"there is no src/hello\.py"),
    "no manifest": ({"algorithm.toml": None}, r"there is no algorithm\.toml"),
    "a bad manifest": ({"algorithm.toml": "x"}, "is not TOML"),
    "a manifest in no charset": ({"algorithm.toml": b"\xff\xfe"}, "is not UTF-8"),
    "a huge manifest": ({"algorithm.toml": "#" * (1 << 21)}, "larger than 1 MiB"),
    "bad requirements": ({"requirements.txt": "a\n-r /etc/passwd"}, r"requirements\.txt line 2"),
    "conda": ({"environment.yml": "dependencies: [numpy]"}, "list packages in requirements.txt"),
    "somebody else's name": (
        {"algorithm.toml": MANIFEST.replace("alice", "bob")},
        'cannot publish for "bob"',
    ),
    "nobody's name": (
        {"algorithm.toml": MANIFEST.replace("alice", "carol")},
        'cannot publish for "carol"',
    ),
}


@pytest.mark.parametrize(("files", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_commit_says_why_and_leaves_the_old_version_serving(home, catalogue, source, make, files, reason):
    catalogue.ensure_account("bob")
    serving, _ = make(source)
    for path, content in files.items():
        (source / path).unlink(missing_ok=True)
        if content is not None:
            write_tree(source, {path: content})
    lines = []
    with pytest.raises(BuildError, match=reason) as error:
        make(source, log=lines.append)
    assert lines[-1].startswith("failed: ") or str(error.value).splitlines()[-1] in lines[-1]
    assert catalogue.find_version("alice", "hello", None, None) == serving
    assert catalogue.running_builds() == () and left_overs(home) == []


def test_a_push_is_listed_from_its_start_and_keeps_its_commits_hash(home, catalogue, alice, source, make):
    algorithm = catalogue.ensure_algorithm(alice, "hello")
    seen = []
    (source / "evil").symlink_to("/etc/passwd")
    with pytest.raises(UnsafeTree):
        make(source, algorithm=algorithm, commit="a" * 40, build_id="b1", publish=None)
    failed = catalogue.find_build("b1")
    assert (failed.status, failed.hash) == ("failed", "a" * 40)
    assert failed.log.endswith("evil: a symbolic link; put a copy in its place")
    (source / "evil").unlink()
    version, _ = make(
        source,
        algorithm=algorithm,
        commit="b" * 40,
        build_id="b2",
        publish=None,
        log=lambda line: seen.append(catalogue.find_build("b2").status),
    )
    assert version.hash == "b" * 40 and seen[0] == "running"
    assert catalogue.find_build("b2").status == "succeeded"


def test_a_push_into_another_repository_is_refused(catalogue, alice, source, make):
    other = catalogue.ensure_algorithm(alice, "other")
    with pytest.raises(BuildError, match="the manifest says alice/hello, the repository is alice/other"):
        make(source, algorithm=other, commit="a" * 40)


def test_a_version_that_fails_its_probe_never_appears(catalogue, alice, source, make):
    tried = []

    def probe(spec):
        tried.append(spec)
        raise BuildError("apply is missing")

    with pytest.raises(BuildError, match="apply is missing"):
        make(source, probe=probe)
    assert tried[0].name == "hello" and os.path.isdir(tried[0].code)
    assert catalogue.versions_of(catalogue.find_algorithm("alice", "hello", alice)) == ()
    assert make(source, probe=lambda spec: None)[0].semver == "1.0.0"


def test_an_error_of_our_own_ends_the_build_too(catalogue, alice, source, make):
    def probe(spec):
        raise ZeroDivisionError("secret detail")

    with pytest.raises(ZeroDivisionError):
        make(source, probe=probe)
    (record,) = catalogue.builds_of(catalogue.find_algorithm("alice", "hello", alice))
    log = catalogue.find_build(record.id).log
    assert record.status == "failed" and "ZeroDivisionError" in log and "secret" not in log


def test_one_folder_built_by_many_at_once_is_one_version(home, catalogue, alice, tmp_path, make):
    source = write_tree(tmp_path / "digits", DIGITS)
    start = threading.Barrier(4)

    def run(_):
        start.wait(30)
        return build(source, home, catalogue, alice, lambda line: None)

    with ThreadPoolExecutor(4) as pool:
        assert len({version.id for version in pool.map(run, range(4))}) == 1
    assert left_overs(home) == [] and catalogue.running_builds() == ()


@pytest.mark.parametrize("files", [DIGITS, HELLO], ids=["model", "python"])
def test_a_build_that_is_killed_anywhere_leaves_the_old_version_serving(home, alice, catalogue, tmp_path, files):
    source = write_tree(tmp_path / "source", files)
    name = "digits" if files is DIGITS else "hello"

    def publish():
        mine = open_catalogue(home)
        version = build(source, home, mine, mine.account_named("alice"), lambda line: None, publish=Publish())
        mine.close()
        return version

    serving = publish()
    moment, killed, interrupted = 1, True, 0
    while killed:
        write_tree(source, {"README.md": f"{moment}"})
        killed = die_at(moment, publish)
        now = catalogue.find_version("alice", name, None, None)
        assert now.semver in (serving.semver, _next(serving.semver))
        assert now.semver != serving.semver or now == serving
        assert os.path.isdir(home / "code" / now.code_sha)
        running = catalogue.running_builds()
        sweep(home, catalogue, lambda line: None)
        interrupted += len(running)
        assert all(catalogue.find_build(build.id).status == "interrupted" for build in running)
        assert left_overs(home) == []
        for folder in (home / "code").iterdir():
            assert all((folder / path).is_file() for path in files)
        serving = publish()
        assert serving.semver == catalogue.find_version("alice", name, None, None).semver
        # Every step of the build of a model, which starts no process; the other one at about 15 of them.
        moment += 1 if name == "digits" else 9
    assert moment > 60 and interrupted > 2


def _next(semver):
    major, minor, revision = map(int, semver.split("."))
    return f"{major}.{minor}.{revision + 1}"


def test_a_sweep_leaves_living_builds_alone(home, catalogue, alice, source, make):
    def probe(spec):
        algorithm = catalogue.find_algorithm("alice", "hello", alice)
        (home / "code/.part-other-boot-1-2-x").mkdir()
        sweep(home, catalogue, lambda line: None)
        assert [record.status for record in catalogue.builds_of(algorithm)] == ["running"]

    make(source, probe=probe)
    assert left_overs(home) == []


def test_what_may_use_the_network_is_built_only_where_that_is_contained(home, source, make, monkeypatch):
    manifest = source / "algorithm.toml"
    manifest.write_text(manifest.read_text() + "\n[permissions]\nnetwork = true\n")
    monkeypatch.setattr(pipeline, "network_problem", lambda home: "iptables is missing")
    with pytest.raises(InvalidManifest, match=r"permissions\.network: this server cannot give it: iptables is missing"):
        make(source)
    monkeypatch.setattr(pipeline, "network_problem", lambda home: "")
    version, _ = make(source)
    assert version.manifest["permissions"]["network"]
