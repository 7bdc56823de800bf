"""Whole builds: what comes out, what is said when nothing does, and that what served before serves on."""

import json
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from onnx import TensorProto, helper

from serai.box.short_lived import CommandGroups
from serai_gateway.build import (
    BuildError,
    InvalidManifest,
    Publish,
    Source,
    UnsafeTree,
    build_commit,
    build_folder,
    pipeline,
    sweep,
    to_spec,
)
from serai_gateway.build.errors import CalledOff
from serai_gateway.build.folder import entries_of
from serai_gateway.build.patience import Patience
from serai_gateway.build.testing import HELLO, die_at, tiny_onnx, write_tree, write_wheel
from serai_gateway.catalogue import AlreadyPublished, NotFound, open_catalogue
from serai_gateway.git import Author, GitError, Repository
from serai_gateway.git import box as git_box
from serai_gateway.git.testing import FILE, LINK, Plumbing, Raw
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
        version = build_folder(
            folder, home, catalogue, options.pop("account", alice), options.pop("log", lines.append),
            publish=publish, **options,
        )  # fmt: skip
        return version, lines

    return run


@pytest.fixture
def hello(catalogue, alice):
    return catalogue.ensure_algorithm(alice, "hello")


@pytest.fixture
def make_commit(home, catalogue, alice, hello):
    """Build a commit of alice/hello, as a push does."""

    def run(commit, log=lambda line: None, **options):
        source = Source(Repository(home, hello.id), commit)
        return build_commit(source, catalogue, hello, alice, log, **options)

    return run


@pytest.fixture
def commit(home, hello):
    """Commit a folder to alice/hello."""
    return lambda folder: Repository(home, hello.id).commit(entries_of(folder), "a test", Author("alice"))


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
    assert spec.code == str(code)
    head = Repository(home, version.algorithm_id).head()
    assert head == ("refs/heads/master", version.hash), "it is a commit, and the newest"
    for path, content in HELLO.items():
        assert (code / path).read_text() == content
    assert list((code / "src/__pycache__").glob("hello.*.pyc"))
    for path in (code, *code.rglob("*")):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o222
    (record,) = catalogue.builds_of(catalogue.find_algorithm("alice", "hello", None))
    assert record.status == "succeeded"
    assert catalogue.find_build(record.id).log == "\n".join(lines)
    assert lines[-2:] == ["published alice/hello/1.0.0", f"built {version.key}"]


def test_a_commit_keeps_what_it_may_do_and_a_build_with_other_settings_says_so(tmp_path, home, catalogue, hello, alice):
    conf = json.dumps({"username": "alice", "algoname": "hello", "language": "python3"})
    folder = write_tree(tmp_path / "old", {"algorithmia.conf": conf, "src/hello.py": HELLO["src/hello.py"]})
    repository = Repository(home, hello.id)
    first, second = (repository.commit(entries_of(folder), text, Author("alice")) for text in ("a", "b"))

    def make(commit, **settings):
        now = catalogue.set_algorithm(hello, settings=settings)
        return build_commit(Source(repository, commit), catalogue, now, alice, lambda line: None)

    built = make(first, pipeline_enabled=True)
    assert built.manifest["permissions"]["calls"] and make(first) == built
    with pytest.raises(BuildError, match=r"pipeline_enabled have changed .* push another commit"):
        make(first, pipeline_enabled=False)
    assert not make(second, pipeline_enabled=False).manifest["permissions"].get("calls")
    assert make(first, pipeline_enabled=True) == built


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
    assert all(line.startswith("failed: ") and str(error.value).splitlines()[-1] in line for line in lines[-1:])
    assert catalogue.find_version("alice", "hello", None, None) == serving
    assert catalogue.running_builds() == () and left_overs(home) == []
    assert Repository(home, serving.algorithm_id).head().commit == serving.hash


@pytest.mark.parametrize("broken", set(BROKEN) - {"somebody else's name", "nobody's name"})
def test_a_broken_push_says_why_and_leaves_the_old_version_serving(
    home, catalogue, source, make_commit, commit, broken
):
    files, reason = BROKEN[broken]
    serving = make_commit(commit(source), publish=Publish())
    for path, content in files.items():
        (source / path).unlink(missing_ok=True)
        if content is not None:
            write_tree(source, {path: content})
    lines = []
    with pytest.raises(BuildError, match=reason) as error:
        make_commit(commit(source), lines.append)
    assert lines[-1].startswith("failed: ") and str(error.value).splitlines()[-1] in lines[-1]
    assert catalogue.find_version("alice", "hello", None, None) == serving
    assert catalogue.running_builds() == () and left_overs(home) == []


def test_a_push_is_listed_from_its_start_and_keeps_its_commits_hash(
    home, catalogue, hello, source, make_commit, commit
):
    seen = []
    plumbing = Plumbing(Repository(home, hello.id))
    evil = plumbing.commit_of(HELLO | {"evil": Raw(LINK, b"", plumbing.blob(b"/etc/passwd"))})
    with pytest.raises(UnsafeTree):
        make_commit(evil, build_id="b1")
    failed = catalogue.find_build("b1")
    assert (failed.status, failed.hash) == ("failed", evil)
    assert failed.log.endswith("evil: a symbolic link; put a copy in its place")
    good = commit(source)
    version = make_commit(good, lambda line: seen.append(catalogue.find_build("b2").status), build_id="b2")
    assert version.hash == good and version.semver is None and seen[0] == "running"
    assert catalogue.find_build("b2").status == "succeeded"
    again = make_commit(good, build_id="b3")
    assert again == version, "the same commit is the same version"


def test_a_push_into_another_repository_is_refused(home, catalogue, alice, source):
    other = catalogue.ensure_algorithm(alice, "other")
    repository = Repository(home, other.id)
    commit = repository.commit(entries_of(source), "a test", Author("alice"))
    with pytest.raises(BuildError, match="the manifest says alice/hello, the repository is alice/other"):
        build_commit(Source(repository, commit), catalogue, other, alice, print)


def test_a_commit_that_is_not_there_or_whole_fails_its_build(home, catalogue, hello, make_commit):
    plumbing = Plumbing(Repository(home, hello.id))
    lost = Raw(FILE, b"", "1" * 40)
    for commit in ("2" * 40, plumbing.commit("3" * 40), plumbing.commit_of(HELLO | {"lost": lost})):
        with pytest.raises(GitError):
            make_commit(commit, build_id=commit)
        build = catalogue.find_build(commit)
        assert build.status == "failed" and build.log.startswith("failed: ")
    assert left_overs(home) == [] and catalogue.versions_of(hello) == ()


def test_a_build_that_is_called_off_is_interrupted_and_accepted_by_nobody(home, catalogue, source, make_commit, commit):
    patience = Patience()
    first = commit(source)
    with pytest.raises(CalledOff, match="no more"), patience.in_force():

        def probe(spec, sample, log):
            patience.call_off("no more")
            patience.check()

        make_commit(first, build_id="b", probe=probe, accept=lambda: pytest.fail("it does not stand"))
    assert catalogue.find_build("b").status == "interrupted"
    assert catalogue.find_build("b").log.endswith("interrupted: no more") and left_overs(home) == []


def test_a_version_stands_before_its_branch_moves_and_is_published_after(
    catalogue, hello, alice, source, make_commit, commit
):
    seen = []

    def accept():
        (version,) = catalogue.versions_of(hello)
        seen.append(version.semver)

    assert make_commit(commit(source), publish=Publish(), accept=accept).semver == "1.0.0"
    assert seen == [None]


def test_a_folder_whose_branch_has_moved_meanwhile_is_not_published(home, catalogue, hello, alice, source, make):
    repository = Repository(home, hello.id)

    def probe(spec, sample, log):
        repository.create({"other": b""}, "somebody else's", Author("bob"))

    with pytest.raises(GitError):
        make(source, probe=probe)
    with pytest.raises(NotFound):
        catalogue.find_version("alice", "hello", None, None)
    (build,) = catalogue.builds_of(hello)
    assert build.status == "failed"


def test_a_version_that_fails_its_probe_never_appears(catalogue, alice, source, make):
    tried = []

    def probe(spec, sample, log):
        tried.append(spec)
        raise BuildError("apply is missing")

    with pytest.raises(BuildError, match="apply is missing"):
        make(source, probe=probe)
    assert tried[0].name == "hello" and os.path.isdir(tried[0].code)
    assert catalogue.versions_of(catalogue.find_algorithm("alice", "hello", alice)) == ()
    assert make(source, probe=lambda spec, sample, log: None)[0].semver == "1.0.0"


def test_an_error_of_our_own_ends_the_build_too(catalogue, alice, source, make):
    def probe(spec, sample, log):
        raise ZeroDivisionError("secret detail")

    with pytest.raises(ZeroDivisionError):
        make(source, probe=probe)
    (record,) = catalogue.builds_of(catalogue.find_algorithm("alice", "hello", alice))
    log = catalogue.find_build(record.id).log
    assert record.status == "failed" and "ZeroDivisionError" in log and "secret" not in log


def test_one_commit_built_by_many_at_once_is_one_version(home, catalogue, source, make_commit, commit):
    pushed = commit(source)
    start = threading.Barrier(4)

    def run(_):
        start.wait(30)
        return make_commit(pushed)

    with ThreadPoolExecutor(4) as pool:
        assert len({version.id for version in pool.map(run, range(4))}) == 1
    assert left_overs(home) == [] and catalogue.running_builds() == ()


@pytest.mark.parametrize("files", [DIGITS, HELLO], ids=["model", "python"])
def test_a_build_that_is_killed_anywhere_leaves_the_old_version_serving(home, alice, catalogue, tmp_path, files):
    source = write_tree(tmp_path / "source", files)
    name = "digits" if files is DIGITS else "hello"

    me = os.getpid()

    def publish():
        if os.getpid() != me:  # a group of processes is made by one process, and this is another one
            git_box._groups = CommandGroups("serai-git-of-a-child")
        mine = open_catalogue(home)
        version = build_folder(source, home, mine, mine.account_named("alice"), lambda line: None, publish=Publish())
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
        # Other moments for each: at some of them git runs, at others the compiler, or nothing but us.
        moment += 17 if name == "digits" else 29
    assert moment > 60 and interrupted > 2


def _next(semver):
    major, minor, revision = map(int, semver.split("."))
    return f"{major}.{minor}.{revision + 1}"


def test_a_sweep_leaves_living_builds_alone(home, catalogue, alice, source, make):
    def probe(spec, sample, log):
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
