"""What no version refers to goes from the disk, a day after that is known; nothing else does, whatever happens."""

import contextlib
import json
import os
import threading

import pytest

from serai_gateway.build import BuildError, Publish, build_folder, built_tree, collect, sweep, to_spec
from serai_gateway.build.collection import building
from serai_gateway.build.testing import HELLO, die_at, tiny_onnx, write_tree, write_wheel
from serai_gateway.catalogue import open_catalogue
from serai_gateway.files import open_store

DAY_S = 24 * 3600.0
NOW = 1_800_000_000.0


@pytest.fixture
def build(home, catalogue, alice, tmp_path, index):
    """A version of an algorithm with a package and a model."""
    write_wheel(index, "greet", "1.0.0", {"greet.py": b""})

    def build(name: str, seed: str = ""):
        about = HELLO["algorithm.toml"].replace('"hello"', f'"{name}"') + '[models.m]\nfile = "m.onnx"\n'
        files = {
            "algorithm.toml": about,
            f"src/{name}.py": f"def apply(input):\n    return {seed!r}\n",
            "requirements.txt": "greet==1.0.0\n",
            "m.onnx": tiny_onnx("Relu" if not seed else "Sigmoid"),
        }
        folder = write_tree(tmp_path / f"{name}{seed}", files)
        return build_folder(folder, home, catalogue, alice, lambda line: None, publish=Publish())

    return build


def places(home) -> set[str]:
    found = {f"{name}/{key}" for name in ("code", "environments") for key in os.listdir(home / name)}
    return found | {f"files/{sha256}" for sha256 in open_store(home).names()}


def used_by(home, *versions) -> set[str]:
    found = {f"environments/.lock-{one.environment}" for one in versions} & places(home)
    for one in versions:
        found |= {f"code/{one.code_sha}", f"environments/{one.environment}"}
        found |= {f"files/{model.sha256}" for model in one.models}
    return found


def test_what_a_deleted_algorithm_had_goes_after_a_day(home, catalogue, build):
    kept, gone = build("kept"), build("gone", "x")
    algorithm = catalogue.find_algorithm("alice", "gone", catalogue.account_named("alice"))
    catalogue.delete_algorithm(algorithm, even_if_public=True)
    before, lines = places(home), []
    for at in (0.0, DAY_S - 1):
        collect(home, catalogue, NOW + at, lines.append)
        assert places(home) == before and not lines, "calls may still run in it"
    collect(home, catalogue, NOW + DAY_S, lines.append)
    assert places(home) == used_by(home, kept)
    assert lines == ["removed what no version uses any more: 2 folders and files"]
    assert gone.environment == kept.environment and gone.models[0].sha256 != kept.models[0].sha256
    for path in (to_spec(kept, home).code, to_spec(kept, home).environment):
        assert path and os.path.isdir(path)
    collect(home, catalogue, NOW + 9 * DAY_S, lines.append)
    assert places(home) == used_by(home, kept)


def test_what_is_in_use_again_starts_anew(home, catalogue, build):
    version = build("hello")
    alice = catalogue.account_named("alice")
    catalogue.delete_algorithm(catalogue.find_algorithm("alice", "hello", alice), even_if_public=True)
    collect(home, catalogue, NOW, print)
    again = build("hello")
    assert again.code_sha == version.code_sha
    collect(home, catalogue, NOW + 2 * DAY_S, print)
    catalogue.delete_algorithm(catalogue.find_algorithm("alice", "hello", alice), even_if_public=True)
    collect(home, catalogue, NOW + 2 * DAY_S, print)
    assert places(home) >= used_by(home, again)
    collect(home, catalogue, NOW + 3 * DAY_S, print)
    assert places(home) == set()


def test_a_clock_that_went_back_makes_it_late_and_not_early(home, catalogue):
    folder = home / "code" / ("a" * 64)
    folder.mkdir(parents=True)
    collect(home, catalogue, NOW, print)
    collect(home, catalogue, NOW - 10 * DAY_S, print)
    assert folder.is_dir()
    collect(home, catalogue, NOW - 9 * DAY_S, print)
    assert not folder.is_dir()


@pytest.mark.parametrize(
    "content", ["", "[1]", '{"code/x": "y", "code/z": null}', "{", '{"../../etc": 0.0, "files/x": 0.0}']
)
def test_notes_that_cannot_be_read_are_made_anew(home, catalogue, content):
    (home / "unused.json").write_text(content)
    (home / "code" / ("a" * 64)).mkdir(parents=True)
    collect(home, catalogue, NOW, print)
    assert json.loads((home / "unused.json").read_text()) == {f"code/{'a' * 64}": NOW}


def test_other_things_in_those_folders_are_left_alone(home, catalogue):
    for name in ("code", "environments"):
        (home / name / "README").mkdir(parents=True)
        (home / name / ".lock-x").touch()
    for at in (NOW, NOW + 2 * DAY_S):
        collect(home, catalogue, at, print)
    assert places(home) == {f"{name}/{key}" for name in ("code", "environments") for key in ("README", ".lock-x")}


def test_nothing_is_collected_during_a_build_and_builds_wait_for_the_end_of_it(home, catalogue):
    folder = home / "code" / ("a" * 64)
    folder.mkdir(parents=True)
    collect(home, catalogue, NOW, print)
    with building(home), building(home):
        collect(home, catalogue, NOW + 2 * DAY_S, print)
        assert folder.is_dir()
    begun = threading.Event()

    class Slow:
        """A catalogue that a build begins beside."""

        def content_in_use(self):
            thread.start()
            assert not begun.wait(0.2), "a build looks at what may be gone in a moment"
            return catalogue.content_in_use()

    def build():
        with building(home):
            begun.set()

    thread = threading.Thread(target=build)
    collect(home, Slow(), NOW + 2 * DAY_S, print)  # pyright: ignore[reportArgumentType]
    thread.join()
    assert begun.is_set() and not folder.is_dir()


def test_a_death_at_any_moment_takes_nothing_that_is_in_use(home, catalogue, build):
    kept, _ = build("kept"), build("gone", "x")
    alice = catalogue.account_named("alice")
    catalogue.delete_algorithm(catalogue.find_algorithm("alice", "gone", alice), even_if_public=True)
    collect(home, catalogue, NOW, print)

    def run():
        own = open_catalogue(home)
        collect(home, own, NOW + DAY_S, lambda line: None)
        own.close()

    moment = 1
    while die_at(moment, run):
        assert used_by(home, kept) <= places(home), f"at its {moment}. step"
        moment += 1
    assert moment > 20, "it was killed somewhere in the middle, too"
    sweep(home, catalogue, print)
    collect(home, catalogue, NOW + DAY_S, print)
    assert places(home) == used_by(home, kept)


def test_what_the_dead_have_left_in_tmp_goes_and_what_is_new_stays(home, catalogue):
    tmp = home / "tmp"
    write_tree(tmp, {"publish-old/archive": "x", "publish-new/archive": "x", "old": "x", "new": "x"})
    for name in ("publish-old", "old"):
        os.utime(tmp / name, (NOW - DAY_S - 1, NOW - DAY_S - 1))
    for name in ("publish-new", "new"):
        os.utime(tmp / name, (NOW, NOW))
    (tmp / "link").symlink_to("/etc")
    os.utime(tmp / "link", (0, 0), follow_symlinks=False)
    collect(home, catalogue, NOW, print)
    assert sorted(os.listdir(tmp)) == ["new", "publish-new"] and os.path.isdir("/etc")


def test_a_disk_that_is_nearly_full_takes_no_build(home, catalogue, alice, tmp_path, monkeypatch):
    source = write_tree(tmp_path / "source", HELLO)
    first = build_folder(source, home, catalogue, alice, print, publish=Publish())
    monkeypatch.setattr(built_tree, "DISK_RESERVE_BYTES", 1 << 60)
    (source / "src/hello.py").write_text("def apply(input): return 2\n")
    lines = []
    with pytest.raises(BuildError, match=r"nothing is built: the disk of this server is nearly full .* make room"):
        build_folder(source, home, catalogue, alice, lines.append, publish=Publish())
    assert catalogue.find_version("alice", "hello", None, alice) == first
    with contextlib.suppress(FileNotFoundError):
        assert not [name for name in os.listdir(home / "code") if name.startswith(".part")]
    algorithm = catalogue.find_algorithm("alice", "hello", alice)
    assert catalogue.builds_of(algorithm)[0].status == "failed"
