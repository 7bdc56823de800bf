"""The algorithms that come with Serai, and what happens to them from start to start."""

import json

import pytest

from serai_gateway.build import Publish, build_folder, publish_first_party
from serai_gateway.build.first_party import first_party_folder
from serai_gateway.build.manifest import parse_manifest
from serai_gateway.build.testing import HELLO, die_at, tiny_onnx, write_tree
from serai_gateway.catalogue import open_catalogue


def about(owner, name, rest='language = "python"\n'):
    return f'[algorithm]\nowner = "{owner}"\nname = "{name}"\n{rest}'


@pytest.fixture
def folder(tmp_path):
    return write_tree(
        tmp_path / "algorithms",
        {
            "demo/hello/algorithm.toml": about("demo", "hello"),
            "demo/hello/src/hello.py": HELLO["src/hello.py"],
            "vision/digits/algorithm.toml": about("vision", "digits", '[models.m]\nfile = "m.onnx"\n'),
            "vision/digits/m.onnx": tiny_onnx(),
        },
    )


def publish_all(home, catalogue, folder, log=lambda line: None):
    def publish(place, account):
        return build_folder(place, home, catalogue, account, log, publish=Publish("revision"))

    return publish_first_party(home, catalogue, publish, log, folder=folder)


@pytest.fixture
def start(home, catalogue, folder):
    return lambda log=lambda line: None: publish_all(home, catalogue, folder, log)


def test_they_are_published_once_and_belong_to_the_operator(home, catalogue, operator, start):
    first = start()
    assert (first.published, first.unchanged, first.failed) == (("demo/hello/1.0.0", "vision/digits/1.0.0"), (), {})
    json.dumps(first)
    assert catalogue.account_named("demo").owner_id == operator.id
    assert catalogue.find_version("vision", "digits", None, None).kind == "model"
    generation = catalogue.generation()
    again = start()
    assert (again.published, again.unchanged) == ((), ("demo/hello", "vision/digits"))
    assert catalogue.generation() == generation


def test_one_that_changed_becomes_the_next_revision_and_a_touched_one_does_not(catalogue, folder, start):
    start()
    source = folder / "demo/hello/src/hello.py"
    source.write_text(source.read_text() + "# more\n")
    assert start().published == ("demo/hello/1.0.1",)
    source.touch()
    assert start().unchanged == ("demo/hello", "vision/digits")
    assert catalogue.find_version("demo", "hello", None, None).semver == "1.0.1"


def test_one_that_fails_stops_no_other_and_is_tried_again(catalogue, folder, start):
    source = folder / "demo/hello/src/hello.py"
    good = source.read_text()
    source.write_text("def apply(")
    lines = []
    report = start(lines.append)
    assert report.published == ("vision/digits/1.0.0",) and list(report.failed) == ["demo/hello"]
    assert any("tried again at the next start" in line for line in lines)
    assert list(start().failed) == ["demo/hello"]
    source.write_text(good)
    assert start().published == ("demo/hello/1.0.0",)


def test_a_new_database_gets_them_again(tmp_path, home, folder, catalogue, start):
    start()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/first_party.json").write_text((home / "first_party.json").read_text())
    other = open_catalogue(tmp_path / "other")
    assert len(publish_all(tmp_path / "other", other, folder).published) == 2
    other.close()


@pytest.mark.parametrize("state", ["", "{", "[]", "\xff", '{"demo/hello": 3}', '{"demo/hello": ["x", 3]}'])
def test_a_damaged_memory_of_the_last_start_costs_only_time(home, start, catalogue, state):
    start()
    (home / "first_party.json").write_text(state)
    report = start()
    assert report.failed == {} and catalogue.find_version("demo", "hello", None, None).semver == "1.0.0"


def test_a_start_that_is_killed_is_finished_by_the_next(home, catalogue, folder, start):
    def first_start():
        mine = open_catalogue(home)
        publish_all(home, mine, folder)
        mine.close()

    for moment in range(5, 200, 13):
        die_at(moment, first_start)
    assert start().failed == {}
    for name in (("demo", "hello"), ("vision", "digits")):
        assert catalogue.find_version(*name, None, None).semver == "1.0.0"


def test_every_algorithm_of_ours_has_a_manifest_under_its_own_name():
    folder = first_party_folder()
    assert folder is not None
    found = sorted(folder.glob("*/*/algorithm.toml"))
    assert found
    for path in found:
        manifest = parse_manifest(path.read_text())
        assert (manifest.owner, manifest.name) == (path.parent.parent.name, path.parent.name)
        assert manifest.tagline and manifest.sample is not None
