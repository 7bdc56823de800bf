"""Code of every language as it comes out of a build: what it runs on, and that it answers by the pipe protocol."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import serai_runner
from serai.cli.new import write_algorithm
from serai_gateway.build import BuildError, InvalidManifest, Publish, build_folder, to_spec
from serai_gateway.build.box import run_in_box
from serai_gateway.build.testing import HELLO, write_tree, write_wheel
from serai_runner import pythons

OTHERS = [version for version in pythons.installed() if version != pythons.OURS]
INSIDE = Path(serai_runner.__file__).parent / "inside"

#: Sends each argument after the program as a request, and prints each answer.
ASK = r"""
import json, os, subprocess, sys
os.mkfifo("/tmp/algoout")
pipe = subprocess.Popen(sys.argv[1].split(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
while "PIPE_INIT_COMPLETE" not in pipe.stdout.readline():
    assert pipe.poll() is None, "it ended before it was ready"
for request in sys.argv[2:]:
    pipe.stdin.write(request + "\n")
    pipe.stdin.flush()
    with open("/tmp/algoout") as answers:
        print(answers.read().strip(), flush=True)
pipe.stdin.close()
pipe.wait()
"""


@pytest.fixture
def publish(home, catalogue, operator):
    def publish(folder):
        lines = []
        version = build_folder(folder, home, catalogue, operator, lines.append, publish=Publish())
        return to_spec(version, home), lines

    return publish


def ask(home, spec, program, *requests):
    """The answers of a version's process, in a sandbox."""
    read_only = [(INSIDE, "/opt/inside")]
    if spec.environment:
        read_only.append((Path(spec.environment), "/opt/environment"))
    said = []
    words = ["python3", "-c", ASK, program, *(json.dumps(one, separators=(",", ":")) for one in requests)]
    done = run_in_box(home, "python3", words, Path(spec.code), said.append, read_only=read_only)
    assert done.code == 0, done.tail
    return [json.loads(line) for line in said]


def text(value):
    return {"content_type": "text", "data": value}


def data(value):
    return {"content_type": "json", "data": value}


HELLO_HAL = {"result": "Hello, HAL", "metadata": {"content_type": "text"}}


@pytest.mark.needs_bubblewrap
@pytest.mark.usefixtures("boxes")
def test_what_serai_new_writes_in_c_works(home, publish, tmp_path):
    write_algorithm(tmp_path / "greet", "operator", "greet", "c")
    spec, _ = publish(tmp_path / "greet")
    odd = 'Zoë "\\\n'
    answers = ask(
        home, spec, "bin/pipe", text("HAL"), data("HAL"), text(odd), text(""), data({"data": "x"}), data(None)
    )
    assert answers[:2] == [HELLO_HAL, HELLO_HAL]
    assert [answer.get("result") for answer in answers[2:4]] == [f"Hello, {odd}", "Hello, "]
    assert [answer["error"]["error_type"] for answer in answers[4:]] == ["InputError", "InputError"]


@pytest.mark.needs_bubblewrap
@pytest.mark.usefixtures("boxes")
@pytest.mark.skipif(shutil.which("node", path="/usr/local/bin:/usr/bin") is None, reason="needs Node.js")
def test_what_serai_new_writes_in_javascript_works(home, publish, tmp_path):
    write_algorithm(tmp_path / "greet-all", "operator", "greet-all", "javascript")
    spec, _ = publish(tmp_path / "greet-all")
    assert (spec.kind, spec.entry, spec.environment) == ("algorithmia", "greet-all", None)
    assert ask(home, spec, f"node /opt/inside/langpack.js {spec.entry}", text("HAL")) == [HELLO_HAL]


def test_what_serai_new_writes_in_python_works(publish, tmp_path):
    write_algorithm(tmp_path / "greet", "operator", "greet")
    spec, _ = publish(tmp_path / "greet")
    assert (spec.kind, spec.entry, spec.python) == ("python", "greet", "")
    code = f"import sys; sys.path.insert(0, {spec.code + '/src'!r}); import greet; print(greet.apply('HAL'))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "Hello, HAL\n"


@pytest.mark.needs_bubblewrap
@pytest.mark.usefixtures("boxes")
def test_a_node_repository_of_algorithmia_works_unmodified(home, catalogue, operator, publish, repository, npm_index):
    slugify = {"index.js": "module.exports = (text) => text.toLowerCase().replace(/[^a-z]+/g, '-');"}
    npm_index.add("slugify", "1.6.9", slugify)
    catalogue.ensure_account("acme", "organization", operator)
    folder = repository("node")
    (folder / "package-lock.json").unlink()  # it has the checksum of the real one
    spec, _ = publish(folder)
    assert (spec.kind, spec.entry, spec.calls, spec.network) == ("algorithmia", "Slug", True, False)
    answers = ask(
        home, spec, f"node /opt/inside/langpack.js {spec.entry}", text("A Title"), data(["a b", "a b"]), data(7)
    )
    assert [answer.get("result") for answer in answers[:2]] == ["a-title", ["a-b", "a-b-2"]]
    assert answers[2]["error"]["error_type"] == "InputError"


def test_the_environment_decides_the_python_that_is_recorded(publish, tmp_path, index):
    write_wheel(index, "greet", "1.0", {"greet.py": b""})
    files = HELLO | {"algorithm.toml": HELLO["algorithm.toml"].replace("alice", "operator")}
    source = write_tree(tmp_path / "source", files)
    assert publish(source)[0].python == "", "nothing of it belongs to one Python"
    (source / "requirements.txt").write_text("greet\n")
    assert publish(source)[0].python == pythons.OURS


@pytest.mark.skipif(not OTHERS, reason="needs a second Python")
def test_an_algorithm_may_ask_for_a_python(publish, tmp_path):
    about = f'[algorithm]\nowner = "operator"\nname = "hello"\nlanguage = "python{OTHERS[-1]}"\n'
    source = write_tree(tmp_path / "source", HELLO | {"algorithm.toml": about})
    spec, _ = publish(source)
    assert (spec.kind, spec.python) == ("python", OTHERS[-1])
    (bytecode,) = Path(spec.code).rglob("*.pyc")
    assert bytecode.name == f"hello.cpython-{OTHERS[-1].replace('.', '')}.pyc"


def test_a_python_that_is_not_installed_is_refused_with_what_to_write(publish, tmp_path):
    about = '[algorithm]\nowner = "operator"\nname = "hello"\nlanguage = "python3.99"\n'
    with pytest.raises(InvalidManifest) as error:
        publish(write_tree(tmp_path / "source", HELLO | {"algorithm.toml": about}))
    message = str(error.value)
    assert message.startswith("algorithm.toml: algorithm.language: Python 3.99 is not installed on this server")
    assert f"python{pythons.OURS}" in message and 'or "python" for' in message


def test_a_repository_of_algorithmia_with_a_missing_python_gets_ours(publish, tmp_path):
    conf = '{"username": "operator", "algoname": "Old", "language": "python36"}'
    source = write_tree(tmp_path / "old", {"algorithmia.conf": conf, "src/Old.py": "def apply(input): return input\n"})
    spec, lines = publish(source)
    assert (spec.python, spec.entry) == ("", "Old")
    assert f"Python 3.6 is not installed on this server; taking {pythons.OURS}" in lines


def test_what_is_no_python_is_refused_by_the_version_that_it_is_for(publish, tmp_path):
    files = HELLO | {
        "algorithm.toml": HELLO["algorithm.toml"].replace("alice", "operator"),
        "src/hello.py": "def apply(:\n",
    }
    with pytest.raises(BuildError, match=f"src/hello.py is not Python {pythons.OURS}:"):
        publish(write_tree(tmp_path / "source", files))
