"""algorithm.toml and algorithmia.conf: what is understood, and what is said about the rest."""

import json

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serai_gateway.build.algorithmia_conf import parse_conf
from serai_gateway.build.errors import InvalidManifest
from serai_gateway.build.manifest import Manifest, Permissions, parse_manifest
from serai_gateway.build.model_entry import ModelEntry, TensorEntry
from serai_gateway.build.testing import write_tree
from serai_gateway.build.units import parse_duration, parse_size

ABOUT = '[algorithm]\nowner = "vision"\nname = "classify"\n'
PYTHON = ABOUT + 'language = "python"\n'
DIGEST = "0123456789abcdef" * 4


def test_a_whole_manifest_is_understood():
    manifest = parse_manifest(
        PYTHON
        + f"""tagline = "What is in this photo?"
[models.mobilenet]
file = "./models/mobilenet_v2.onnx"
[models.other]
wheel = "some-name==1.0.1"
path = "inside/the/wheel.onnx"
sha256 = "{DIGEST.upper()}"
[limits]
timeout = "30s"
memory = "1.5GiB"
concurrency = 4
cpus = 0.5
[scaling]
min = 1
max = 4
idle = "10m"
[permissions]
network = true
[sample]
input = {{ image = "x", sizes = [1, 2.5, true] }}
"""
    )
    assert manifest == Manifest(
        owner="vision",
        name="classify",
        kind="python",
        tagline="What is in this photo?",
        language="python",
        entry="classify",
        models={
            "mobilenet": ModelEntry(file="models/mobilenet_v2.onnx"),
            "other": ModelEntry(wheel="some-name==1.0.1", path="inside/the/wheel.onnx", sha256=DIGEST),
        },
        timeout_s=30.0,
        memory_bytes=3 << 29,
        concurrency=4,
        cpus=0.5,
        min_replicas=1,
        max_replicas=4,
        idle_s=600.0,
        permissions=Permissions(network=True),
        sample=manifest.sample,
    )
    assert manifest.sample and manifest.sample.input == {"image": "x", "sizes": [1, 2.5, True]}
    stored = json.loads(json.dumps(msgspec.to_builtins(manifest)))
    assert msgspec.convert(stored, Manifest) == manifest


def test_a_small_manifest_has_the_defaults_of_the_platform():
    manifest = parse_manifest(PYTHON.replace("classify", "Re-Sample"))
    assert (manifest.timeout_s, manifest.memory_bytes, manifest.concurrency) == (300.0, 1 << 30, 1)
    assert (manifest.name, manifest.entry) == ("Re-Sample", "Re_Sample")
    assert manifest.permissions == Permissions(network=False, calls=False)
    assert (manifest.cpus, manifest.min_replicas, manifest.max_replicas, manifest.idle_s) == (1.0, 0, 0, 0.0)


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("python", ("python", "python", "", "classify")),
        ("python3", ("python", "python", "", "classify")),
        ("Python3.12", ("python", "python", "3.12", "classify")),
        ("javascript", ("algorithmia", "javascript", "", "classify")),
        ("node", ("algorithmia", "javascript", "", "classify")),
        ("pipe", ("algorithmia", "pipe", "", "")),
    ],
)
def test_languages(language, expected):
    manifest = parse_manifest(PYTHON.replace('"python"', f'"{language}"'))
    assert (manifest.kind, manifest.language, manifest.python, manifest.entry) == expected


def test_a_file_of_javascript_may_have_a_hyphen_in_its_name():
    text = PYTHON.replace("classify", "my-slug").replace('"python"', '"javascript"')
    assert parse_manifest(text).entry == "my-slug"
    with pytest.raises(InvalidManifest, match="is not the name of a module under src/"):
        parse_manifest(text + 'entry = "../my-slug"\n')


def test_a_manifest_of_an_older_version_has_the_defaults_of_what_came_later():
    stored = {"owner": "a", "name": "b", "kind": "python", "language": "python", "timeout_s": 3.0}
    manifest = msgspec.convert(stored, Manifest)
    assert (manifest.python, manifest.cpus, manifest.min_replicas, manifest.max_replicas) == ("", 1.0, 0, 0)


def test_without_a_language_it_is_only_its_models():
    manifest = parse_manifest(ABOUT + '[models.digits]\nfile = "digits.onnx"\n')
    assert (manifest.kind, manifest.entry) == ("model", "")


def test_inputs_and_outputs_may_be_declared():
    tensors = "".join(
        f'[[models.m.{side}]]\nname="a"\ndtype="float32"\nshape=[-1, 3]\n' for side in ("inputs", "outputs")
    )
    manifest = parse_manifest(ABOUT + '[models.m]\nfile = "m.pt"\nformat = "torchscript"\n' + tensors)
    declared = (TensorEntry("a", "float32", (-1, 3)),)
    assert manifest.models["m"] == ModelEntry(file="m.pt", format="torchscript", inputs=declared, outputs=declared)
    stored = json.loads(json.dumps(msgspec.to_builtins(manifest)))
    assert msgspec.convert(stored, Manifest) == manifest


MODEL = ABOUT + '[models.m]\nfile = "m.pt"\n'
SIDE = MODEL + '[[models.m.outputs]]\nname="y"\ndtype="float32"\nshape=[1]\n[[models.m.inputs]]\n'


REFUSED = {
    MODEL + 'format = "pickle"': "models.m.format: is not a format; write one of onnx, torchscript, torch_export",
    MODEL + '[[models.m.inputs]]\nname="x"\ndtype="float32"\nshape=[1]': "declares inputs or outputs alone",
    SIDE + 'name = ""\ndtype = "float32"\nshape = [1]': "models.m.inputs[0].name: is 1 to 256 printable characters",
    SIDE + 'name = "x"\ndtype = "string"\nshape = [1]': 'models.m.inputs[0].dtype: "string" cannot be sent',
    SIDE + 'name = "x"\ndtype = "float32"\nshape = [-2]': "models.m.inputs[0].shape: is a list of sizes such as",
    SIDE + 'name = "x"\ndtype = "float32"\nshape = [0, 4]': "-1 where any size goes, else at least 1",
    SIDE + 'name = "x"\ndtype = "float32"\nshape = "any"': "models.m.inputs[0].shape: must be",
    SIDE + 'name = "x"\ndtype = "float32"': "models.m.inputs[0]: shape is missing",
    SIDE + 'name = "x"\ndtype = "float32"\nshape = [1]\n[[models.m.inputs]]\nname = "x"\ndtype = "bool"\nshape = [1]': (
        "models.m.inputs: two of them have the same name"
    ),
    "": "algorithm.toml: the section [algorithm] is missing",
    "algorithm = 3": "algorithm.toml: algorithm: is a section; write it as [algorithm]",
    "[algorithm": "algorithm.toml: is not TOML",
    '[algorithm]\nname = "x"': "algorithm.toml: algorithm: owner is missing",
    ABOUT: 'algorithm.toml: algorithm.language: is missing; write language = "python"',
    ABOUT.replace("vision", "../x"): "algorithm.toml: algorithm.owner: '../x' is not a valid name",
    ABOUT.replace('"vision"', "3"): "algorithm.toml: algorithm.owner: must be text in quotes, not a whole number",
    PYTHON + 'langage = "x"': "algorithm.toml: algorithm.langage: unknown key; did you mean language?",
    PYTHON + "[limit]\n": "algorithm.toml: limit: unknown key; did you mean limits?",
    PYTHON + "[zzz]\n": "algorithm.toml: zzz: unknown key; known here: algorithm, models,",
    PYTHON.replace("python", "cobol"): 'algorithm.toml: algorithm.language: "cobol" cannot run here; write "python"',
    PYTHON + 'entry = "a/b"': 'algorithm.toml: algorithm.entry: "a/b" is not the name of a module under src/',
    PYTHON + 'tagline = "a\\nb"': "algorithm.toml: algorithm.tagline: is one line",
    PYTHON + '[limits]\nmemory = "1 potato"': 'limits.memory: "1 potato" is not a size; write 512MiB or 1GiB',
    PYTHON + '[limits]\nmemory = "1KiB"': "limits.memory: 1,024 bytes is not between 32MiB and",
    PYTHON + "[limits]\nmemory = -1": "limits.memory: -1 bytes is not between",
    PYTHON + "[limits]\nmemory = 1.5": "limits.memory: must be a whole number or text in quotes, not a number",
    PYTHON + '[limits]\ntimeout = "soon"': 'limits.timeout: "soon" is not a duration; write 30s or 5m',
    PYTHON + '[limits]\ntimeout = "2h"': "limits.timeout: 7200 s is not between 1 ms and 3000 s",
    PYTHON + "[limits]\ntimeout = 0": "limits.timeout: 0 s is not between",
    PYTHON + "[limits]\ntimeout = nan": "limits.timeout: nan s is not between",
    PYTHON + "[limits]\nconcurrency = 0": "limits.concurrency: 0 is not between 1 and 256",
    PYTHON + "[limits]\nconcurrency = true": "limits.concurrency: must be a whole number, not true or false",
    PYTHON.replace(
        "python", "python2"
    ): '"python2" cannot run here; write "python", "python3.12", "javascript", or "pipe"',
    PYTHON.replace("python", "python3.12.1"): '"python3.12.1" cannot run here',
    PYTHON.replace("python", "pipe") + 'entry = "x"': "algorithm.entry: is not for this language: bin/pipe is what",
    PYTHON + "[limits]\ncpus = 0": "limits.cpus: 0 is not between 0.1 and",
    PYTHON + "[limits]\ncpus = 1e9": "what this server has",
    PYTHON + "[limits]\ncpus = nan": "limits.cpus: nan is not between",
    PYTHON + '[limits]\ncpus = "2"': "limits.cpus: must be a number, not text in quotes",
    PYTHON + "[scaling]\nmin = 5": "scaling.min: 5 is not between 0 and 4",
    PYTHON + "[scaling]\nmin = -1": "scaling.min: -1 is not between 0 and 4",
    PYTHON + "[scaling]\nmax = 0": "scaling.max: 0 is not between 1 and 64",
    PYTHON + "[scaling]\nmax = 65": "scaling.max: 65 is not between 1 and 64",
    PYTHON + "[scaling]\nmin = 3\nmax = 2": "scaling.min: 3 is more than scaling.max, 2",
    PYTHON + '[scaling]\nidle = "2h"': "scaling.idle: 7200 s is not between 1 s and 3600 s; min = 1 keeps a replica",
    PYTHON + "[scaling]\nidle = 0.5": "scaling.idle: 0.5 s is not between",
    PYTHON + '[scaling]\nidle = "long"': 'scaling.idle: "long" is not a duration',
    PYTHON + "[scaling]\nminimum = 1": "scaling.minimum: unknown key; did you mean min?",
    PYTHON + "[permissions]\nnetwork = 1": "permissions.network: must be true or false, not a whole number",
    PYTHON + "[models]\nx = 1": "models.x: is a section",
    PYTHON + "[models.x]\n": 'models.x: needs one of file = "models/x.onnx" and wheel = "name==version"',
    PYTHON + '[models.x]\nfile = "a"\nwheel = "b==1"': "models.x: needs one of",
    PYTHON + '[models.x]\nfile = "../a.onnx"': "models.x.file: ../a.onnx: a path with the part '..'",
    PYTHON + '[models.x]\nfile = "/a.onnx"': "models.x.file: /a.onnx: an absolute path",
    PYTHON + '[models."a/b"]\nfile = "a.onnx"': "models.a/b: a model's name is letters",
    PYTHON + '[models.x]\nfile = "a.onnx"\nsha256 = "12"': "models.x.sha256: is not 64 hexadecimal digits",
    PYTHON + '[models.x]\nwheel = "b"': 'models.x.wheel: "b" is not one version of a package',
    PYTHON + '[models.x]\nwheel = "b==1.*"': 'models.x.wheel: "b==1.*" is not one version',
    PYTHON + '[models.x]\nwheel = "-r==1"': 'models.x.wheel: "-r==1" is not one version',
    PYTHON + '[models.x]\nwheel = "b @ http://x/b.whl"': "models.x.wheel:",
    PYTHON + '[models.x]\nwheel = "b==1"': "models.x.path: is missing; a wheel needs path",
    PYTHON + '[models.x]\nwheel = "b==1"\npath = "m.onnx"': "models.x.sha256: is missing",
    PYTHON + '[models.x]\ndata = "data://a/b/c"': "models.x.data: this server has no data store",
    PYTHON + '[models.x]\nfiel = "a"': "models.x.fiel: unknown key; did you mean file?",
    PYTHON + "[sample]\ninput = 2020-01-01": "sample.input: is not JSON",
    PYTHON + "[sample]\ninput = [nan]": "sample.input: is not JSON",
    "x = " + "[" * 5000: "algorithm.toml: is not TOML",
}


@pytest.mark.parametrize(("text", "message"), REFUSED.items(), ids=range(len(REFUSED)))
def test_a_refusal_names_file_and_key_and_the_way_out(text, message):
    with pytest.raises(InvalidManifest) as error:
        parse_manifest(text)
    assert str(error.value).startswith("algorithm.toml: ")
    assert message in str(error.value)
    assert len(str(error.value)) < 500


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(["owner", "name", "language", "entry", "x"]), st.text() | st.integers() | st.none())
)
def test_no_values_lead_to_any_other_error(values):
    text = "[algorithm]\n" + "\n".join(
        f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None
    )
    try:
        manifest = parse_manifest(text)
    except InvalidManifest:
        return
    assert manifest.kind == "python"


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GiB", 1 << 30), ("1GB", 10**9), ("512 MiB", 512 << 20), ("64m", 64 * 10**6), ("1.5K", 1500), ("0", 0),
     ("2TiB", 2 << 40), ("100B", 100)],
)  # fmt: skip
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1e9", "1 GiB x", "٣", "1PiB", "1" * 20, "nan", "inf", "1..2"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match="512MiB"):
        parse_size(text)


def test_durations():
    assert [parse_duration(text) for text in ("30s", "5m", "1h", "500ms", "2", "0.5 s")] == [30, 300, 3600, 0.5, 2, 0.5]
    for text in ("", "s", "-1s", "1d", "1s1s", "nan", "1" * 20):
        with pytest.raises(ValueError, match="30s or 5m"):
            parse_duration(text)


def conf(**values):
    return json.dumps({"username": "alice", "algoname": "Hello", "language": "python3", **values})


@pytest.fixture
def repository(tmp_path):
    return write_tree(tmp_path, {"src/Hello.py": ""})


@pytest.mark.parametrize(
    ("language", "python"),
    [("python3", ""), ("python3-1", ""), ("python38", "3.8"), ("python3.9", "3.9"), ("python-3.10", "3.10"),
     ("python310-gpu", "3.10"), ("python311", "3.11"), ("anaconda3", ""), ("anaconda3 python", ""), ("python", "")],
)  # fmt: skip
def test_a_conf_may_name_a_version_of_python(repository, language, python):
    manifest = parse_conf(conf(language=language), repository)
    assert (manifest.language, manifest.python) == ("python", python)


@pytest.mark.parametrize("language", ["javascript", "node", "nodejs", "node-16", "javascript_gpu", "Node.js"])
def test_javascript_repositories_are_taken(tmp_path, language):
    repository = write_tree(tmp_path, {"src/Hello.js": "", "src/Hello.py": ""})
    manifest = parse_conf(conf(language=language), repository)
    assert (manifest.kind, manifest.language, manifest.entry) == ("algorithmia", "javascript", "Hello")
    assert manifest.permissions == Permissions(network=False, calls=True)


@pytest.mark.parametrize("program", ["bin/pipe", "bin/build"])
@pytest.mark.parametrize("language", ["rust", "java11", "c", "csharp-dotnet-core2", "R", "go"])
def test_any_other_language_is_taken_with_its_own_pipe(tmp_path, language, program):
    manifest = parse_conf(conf(language=language), write_tree(tmp_path, {program: ""}))
    assert (manifest.kind, manifest.language, manifest.entry) == ("algorithmia", language.lower(), "")


def test_a_repository_with_its_own_pipe_needs_no_file_of_the_algorithms_name(tmp_path):
    repository = write_tree(tmp_path, {"bin/pipe": "", "src/main.py": ""})
    assert parse_conf(conf(), repository).language == "python"


@pytest.mark.parametrize(
    "language", ["python3", "python3-1", "python38", "python-3.7", "Python3_gpu", "anaconda3", "python"]
)
def test_python_repositories_of_algorithmia_are_taken(repository, language):
    manifest = parse_conf(conf(language=language), repository)
    assert (manifest.owner, manifest.name, manifest.kind, manifest.entry) == ("alice", "Hello", "algorithmia", "Hello")


def test_the_misspelt_key_and_the_newer_layout_are_understood(tmp_path):
    repository = write_tree(tmp_path, {"src/Algorithm.py": ""})
    text = json.dumps({"username": "a", "algoname": "b", "langauge": "python3", "unknown": 1})
    assert parse_conf(text, repository).entry == "Algorithm"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (conf(language="python2"), "algorithmia.conf: language: \"python2\" is Python 2"),
        (conf(language="python27-gpu"), "is Python 2"),
        (conf(language="anaconda2"), "is Python 2"),
        (conf(language="javascript"), "algoname: there is no src/Hello.js and no src/Algorithm.js"),
        (conf(language="java11"), '"java11" needs bin/pipe in the repository'),
        (conf(language="java\n11"), "is not the name of a language"),
        (conf(language=None), "language: is missing"),
        (conf(username="../x"), "username: '../x' is not a valid name"),
        (conf(algoname=3), "algoname: is missing or not text"),
        (conf(algoname="Other"), "there is no src/Other.py"),
        ("[]", "is not an object"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ],
    ids=range(13),
)  # fmt: skip
def test_a_conf_is_refused_with_a_reason(repository, text, message):
    with pytest.raises(InvalidManifest, match=r"^algorithmia\.conf: ") as error:
        parse_conf(text, repository)
    assert message in str(error.value)
