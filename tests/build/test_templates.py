"""Templates of new algorithms: which there are, that they build, and which runtime a request chooses."""

import json

import pytest

from serai_gateway.build import Publish, build_folder
from serai_gateway.build.runtimes import RUNTIMES, Runtime, language_of
from serai_gateway.build.templates import PLACEHOLDERS, CannotMake, template_files
from serai_gateway.build.testing import write_tree

MADE = ["python3", "python3-1", "python3.11", "python37", "anaconda3"]


@pytest.mark.parametrize("language", MADE)
def test_a_python_template_builds_as_it_is(home, catalogue, alice, tmp_path, language):
    files = template_files(language, "alice", "Hello_1")
    assert {"algorithmia.conf", "src/Hello_1.py", "requirements.txt", "README.md", ".gitignore"} <= set(files)
    version = build_folder(
        write_tree(tmp_path / "new", files), home, catalogue, alice, lambda line: None, publish=Publish()
    )
    assert (version.name, version.kind, version.environment) == ("Hello_1", "algorithmia", None)
    found = {}
    exec(files["src/Hello_1.py"], found)
    assert found["apply"]("John") == "hello John"


@pytest.mark.needs_bubblewrap
@pytest.mark.usefixtures("boxes", "npm_index")
def test_a_javascript_template_builds_as_it_is(home, catalogue, alice, tmp_path):
    files = template_files("javascript", "alice", "Hello_1")
    version = build_folder(
        write_tree(tmp_path / "new", files), home, catalogue, alice, lambda line: None, publish=Publish()
    )
    assert version.manifest["entry"] == "Hello_1" and version.environment is None


def test_a_template_to_download_has_placeholders():
    files = template_files("python3", *PLACEHOLDERS)
    assert "src/__ALGO__.py" in files
    assert json.loads(files["algorithmia.conf"]) == {
        "username": "__USER__", "algoname": "__ALGO__", "language": "python3",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("language", "number"),
    [("java", 4002), ("java11", 4002), ("scala-2", 4002), ("r36", 4002), ("ruby", 4002), ("rust", 4002),
     ("csharp-dotnet-core2", 4002), ("python2-langpack", 4002), ("python2", 4002), ("cobol", 4001), ("", 4001),
     ("python3\n", 4002), ("../x", 4001)],
)  # fmt: skip
def test_other_languages_have_none(language, number):
    with pytest.raises(CannotMake) as refused:
        template_files(language, "alice", "hello")
    assert refused.value.number == number, str(refused.value)


@pytest.mark.parametrize(
    ("settings", "language"),
    [
        ({"language": "python3-1", "environment": "cpu"}, "python3-1"),
        ({"language": "javascript"}, "javascript"),
        ({"package_set": "python36"}, "python3.6"),
        ({"package_set": "python37", "language": "java"}, "python3.7"),
        ({"algorithm_environment": Runtime("python3", "3.12").environment_id}, "python3.12"),
        ({"algorithm_environment": Runtime("javascript", "").environment_id.upper()}, "javascript"),
        ({"algorithm_environment": "fd980f4f-1f1c-4b2f-a128-d60b40c6567a", "package_set": "r36"}, "python3"),
    ],
)
def test_settings_choose_a_language(settings, language):
    assert language_of(settings) == language


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ({}, 4001),
        ({"language": 3}, 4001),
        ({"language": "cobol"}, 4001),
        ({"language": "python3-1", "environment": "gpu"}, 4004),
        ({"package_set": "python37-gpu"}, 4004),
        ({"package_set": "tensorflow-gpu-2.3"}, 1003),
        ({"package_set": "python27"}, 4002),
        ({"package_set": "r36"}, 4002),
        ({"algorithm_environment": "717d36e0-222c-44a0-9aa8-06f4ebc1b82a"}, 4002),
        ({"algorithm_environment": "nonsense"}, 4001),
    ],
)
def test_settings_that_cannot_be_had_are_refused(settings, number):
    with pytest.raises(CannotMake) as refused:
        language_of(settings)
    assert refused.value.number == number, str(refused.value)


def test_ids_of_environments_differ_and_stay():
    ids = [one for runtime in RUNTIMES for one in (runtime.environment_id, runtime.specification_id)]
    assert len(set(ids)) == len(ids)
    assert Runtime("python3", "3.11").environment_id == "b4516e0d-1863-53d5-a375-f9ba1e2b4093"
