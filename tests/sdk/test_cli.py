"""The command, called as a function where that shows everything, and as a process where it does not."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from importlib import util
from pathlib import Path

import pytest

import serai
from serai.cli import COMMANDS, command_parser, main
from serai.cli._terminal import colour_json, printable
from serai.cli.new import module_name
from serai.cli.testing import run_on_terminal
from serai.testing import Answer, FakeMarket, Received, error_answer, json_answer, result_answer, run_server

Output = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("address")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "serai", *arguments]


def sent(market: FakeMarket) -> tuple[str, bytes]:
    return market.received[-1].headers["content-type"], market.received[-1].body


@pytest.mark.parametrize(
    ("arguments", "content_type", "body"),
    [
        (["-d", "HAL"], "text/plain", b"HAL"),
        (["-d", '{"a": 1.50}'], "application/json", b'{"a": 1.50}'),
        (["-d", "5"], "application/json", b"5"),
        (["-d", "5", "--text"], "text/plain", b"5"),
        (["-d", "NaN"], "text/plain", b"NaN"),
        (["-d", ""], "text/plain", b""),
        (["-d", "ab", "--type", "binary"], "application/octet-stream", b"ab"),
        (["-f", "input"], "application/octet-stream", b'{"x":\xc3\xbc}'),
        (["-f", "input", "--text"], "text/plain", b'{"x":\xc3\xbc}'),
    ],
)
def test_the_input_travels_as_it_was_given(
    arguments: list[str], content_type: str, body: bytes, market: FakeMarket, capfd: pytest.CaptureFixture[str]
):
    Path("input").write_bytes(b'{"x":\xc3\xbc}')
    assert main(["call", "demo/echo", *arguments]) == 0
    assert sent(market) == (content_type, body)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[[1,2,3,4]", "expecting ',' delimiter at line 1, column 11"),
        (' {"a": 1,}', "at line 1, column 1"),
        ("[1,\n2,]", "at line 2, column"),
        ("[1, NaN]", "JSON has no NaN"),
        ("Infinity", "JSON has no Infinity"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_was_meant_to_be_json_and_is_none_is_sent_as_text_with_a_word(
    text: str, complaint: str, market: FakeMarket, capfd: Output
):
    assert main(["call", "demo/echo", "-d", text]) == 0
    assert sent(market) == ("text/plain", text.encode())
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("this is not JSON, so it is sent as text: ")
    assert complaint in line
    assert main(["call", "demo/echo", "-d", text, "--text"]) == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("text", ["HAL", "nan", "", "a [link]", "Infinity and beyond"])
def test_text_that_never_looked_like_json_is_sent_without_a_word(text: str, capfd: Output):
    assert main(["call", "demo/echo", "-d", text]) == 0
    assert capfd.readouterr().err == ""


def test_text_is_printed_as_it_is_and_json_indented(capfd: pytest.CaptureFixture[str]):
    assert main(["call", "demo/echo", "-d", "Grüße"]) == 0
    assert capfd.readouterr().out == "Grüße\n"
    assert main(["call", "demo/echo", "-d", '{"a": ["ü"]}']) == 0
    assert capfd.readouterr().out == '{\n  "a": [\n    "ü"\n  ]\n}\n'
    assert main(["call", "demo/echo", "-d", '"quoted"']) == 0
    assert capfd.readouterr().out == '"quoted"\n'


def test_raw_and_files_get_the_result_byte_for_byte(capfd: pytest.CaptureFixture[str]):
    assert main(["call", "demo/echo", "-d", '{"a":1}', "--raw"]) == 0
    assert capfd.readouterr().out == '{"a":1}'
    assert main(["call", "demo/echo", "-d", "HAL", "-o", "out"]) == 0
    assert Path("out").read_bytes() == b"HAL"
    assert main(["call", "demo/reverse", "-d", "\x01\x02", "--type", "binary", "-o", "out"]) == 0
    assert Path("out").read_bytes() == b"\x02\x01"
    assert main(["call", "demo/echo", "-d", '"quoted"', "-o", "out"]) == 0
    assert Path("out").read_bytes() == b'"quoted"\n'
    assert capfd.readouterr().out == ""


def test_json_prints_the_whole_answer(capfd: pytest.CaptureFixture[str]):
    assert main(["call", "demo/echo", "-d", "ab", "--type", "binary", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["result"] == "YWI="
    assert answer["metadata"] == {"content_type": "binary", "duration": 0.001, "request_id": "req-1"}


def test_options_reach_the_server(market: FakeMarket, capfd: pytest.CaptureFixture[str]):
    assert main(["call", "algo://demo/echo", "-d", "x", "--version", "1.*", "--timeout", "7.5", "--stdout"]) == 0
    assert market.received[-1].path == "/v1/algo/demo/echo/1.*"
    assert market.received[-1].query == {"timeout": "7.5", "stdout": "true"}
    assert capfd.readouterr() == ("x\n", "working\n")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_bytes_pass_through_a_pipe_untouched(unbuffered: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    data = bytes(range(256)) * 4000
    done = subprocess.run(command("call", "demo/reverse", "-f", "-"), input=data, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == data[::-1]


def on_a_terminal(*arguments: str, **environ: str) -> tuple[int, str]:
    """Exit status and stdout of the command when stdout is a terminal; stderr comes after it."""
    status, shown, err = run_on_terminal(command(*arguments), **environ)
    return status, shown + err


def test_a_terminal_gets_colours_unless_no_color_is_set():
    status, out = on_a_terminal("call", "demo/echo", "-d", '{"a": 1}')
    assert status == 0
    assert out == '{\n  \x1b[34m"a"\x1b[0m: \x1b[36m1\x1b[0m\n}\n'
    assert on_a_terminal("call", "demo/echo", "-d", '{"a": 1}', NO_COLOR="1") == (0, '{\n  "a": 1\n}\n')


def test_a_terminal_gets_no_bytes_and_no_escape_sequences():
    status, out = on_a_terminal("call", "demo/echo", "-d", "xyz", "--type", "binary")
    assert status == 1
    assert "3 bytes of binary data" in out
    assert "-o FILE" in out
    assert on_a_terminal("call", "demo/echo", "-d", "a\x1b]0;owned\x07b") == (0, "a\\x1b]0;owned\\x07b\n")


def test_colours_change_nothing_but_colours():
    import re

    text = json.dumps({"a": [1, -2.5e10, True, None, "x: 1", 'q"\\', {}], "b:": "null"}, indent=2)
    assert re.sub(r"\x1b\[\d+m", "", colour_json(text)) == text


def test_control_characters_are_spelled_out():
    assert printable("a\x1b[31m\x00\x9b\tb\r\nc") == "a\\x1b[31m\\x00\\x9b\tb\nc"
    assert printable("\u202egnp.exe") == "\\u202egnp.exe"


def test_an_algorithms_error_shows_type_message_and_trace(capsys: Output):
    assert main(["call", "demo/fail", "-d", "x"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "serai: InputError: cannot do that\n    File main.py, line 1\n  (request req-1)\n"


def test_with_json_an_error_is_json_too(capsys: Output):
    refusal = error_answer(503, "unavailable", "busy", retriable=True, **{"Retry-After": "4"})
    with run_server(lambda request: refusal) as address:
        for command in (["call", "a/b", "-d", "1"], ["algorithms"], ["versions", "a/b"], ["logs", "a/b"], ["pool"]):
            assert main(["--address", address, *command, "--json"]) == 1
            out, err = capsys.readouterr()
            assert out == ""
            assert json.loads(err) == {
                "error": {
                    "type": "Unavailable", "message": "busy", "status": 503, "code": "unavailable",
                    "request_id": "req-1", "retriable": True, "retry_after_s": 4.0,
                }
            }  # fmt: skip
    assert main(["call", "demo/fail", "-d", "x", "--json"]) == 1
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["type"], error["error_type"], error["stacktrace"]) == (
        "AlgorithmError", "InputError", "File main.py, line 1",
    )  # fmt: skip


def test_a_refusal_of_the_management_api_shows_its_words_and_its_number(capsys: Output):
    error = {"id": "x", "code": 1007, "reason": "conflict", "message": "nothing was built since; compile it again"}
    with run_server(
        lambda request: json_answer({"error": {**error, "status": 409, "request_id": "req-1"}}, 409)
    ) as address:
        assert main(["publish", "a/b", "--address", address]) == 1
        assert capsys.readouterr().err == (
            "serai: nothing was built since; compile it again\n  (conflict, HTTP 409, request req-1)\n"
            "`serai builds OWNER/NAME --compile` builds the same commit again, and `serai publish` then numbers that\n"
        )
        assert main(["publish", "a/b", "--address", address, "--json"]) == 1
        assert json.loads(capsys.readouterr().err)["error"]["number"] == 1007


def test_a_refusal_shows_code_status_request_and_whether_to_try_again(capsys: Output):
    refusal = error_answer(503, "unavailable", "all \x1b[2J busy", retriable=True, **{"Retry-After": "4"})
    with run_server(lambda request: refusal) as address:
        assert main(["--address", address, "call", "a/b", "-d", "1"]) == 1
    assert capsys.readouterr().err == (
        "serai: all \\x1b[2J busy\n  (unavailable, HTTP 503, request req-1, try again in 4 s)\n"
    )


def test_no_server_says_how_to_start_one(capsys: Output, monkeypatch: pytest.MonkeyPatch):
    import socket

    monkeypatch.setattr("serai._http.RETRY_DELAYS_S", ())
    with socket.socket() as unused:  # bound but not listening: nobody else can get the port, nobody answers on it
        unused.bind(("127.0.0.1", 0))
        assert main(["algorithms", "--address", f"http://127.0.0.1:{unused.getsockname()[1]}"]) == 1
    assert "`serai up` starts one" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["--wrong", "call"],
        ["call"],
        ["call", "demo/echo"],
        ["call", "notaname", "-d", "1"],
        ["call", "demo/echo", "-d", "1", "-f", "x"],
        ["call", "demo/echo", "-d", "1", "--timeout", "0"],
        ["call", "demo/echo", "-d", "1", "--timeout", "soon"],
        ["call", "demo/echo", "-d", "1", "--json", "--raw"],
        ["call", "demo/echo/1.0.0", "-d", "1", "--version", "2.0.0"],
        ["call", "demo/echo", "-d", "1", "--version", "../x"],
        ["publish", "--public", "--private"],
        ["publish", ".", "--minor"],
        ["publish", "--notes", "new"],
        ["publish", "a/b", "--minor", "--major"],
        ["versions", "a/b/1.0.0"],
        ["versions", "a/b", "--deprecate", "1.0.0"],
        ["versions", "a/b", "--message", "why"],
        ["versions", "a/b", "--limit", "0"],
        ["route", "a/b", "1.0.0=50"],
        ["route", "a/b", "1.0.0=50", "1.0.0=50"],
        ["route", "a/b", "1.0=100"],
        ["route", "a/b", "1.0.0", "--back"],
        ["route", "a/b", "1.0.0=0", "1.1.0=100"],
        ["builds", "a/b", "--log", "--compile"],
        ["secrets", "a/b", "set"],
        ["secrets", "a/b", "rm"],
        ["secrets", "a/b", "get", "KEY"],
        ["secrets", "a/b", "rm", "KEY", "--name", "x"],
        ["keys", "add"],
        ["keys", "--calls-only"],
        ["keys", "--user", "a", "--organization", "b"],
        ["accounts", "add", "ada"],
        ["accounts", "rm"],
        ["algorithms", "--mine", "--owner", "a"],
        ["delete", "noname"],
        ["clone", "a/b/1.0.0"],
        ["new", "no/name"],
        ["new"],
        ["version", "extra"],
        ["--key", "simkey", "up"],
    ],
)
def test_wrong_usage_exits_with_2_and_sends_nothing(arguments: list[str], market: FakeMarket, capsys: Output):
    assert main(arguments) == 2
    assert "usage: serai" in capsys.readouterr().err
    assert market.received == []


def test_a_misspelt_command_is_guessed(capsys: Output):
    main(["pubish"])
    assert "did you mean 'publish'?" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["-f", "missing"], ["-d", "1", "-o", "missing/out"], ["-d", "1", "-o", "."]])
def test_a_file_that_cannot_be_used_is_found_before_the_call(arguments: list[str], market: FakeMarket, capsys: Output):
    assert main(["call", "demo/echo", *arguments]) == 1
    assert capsys.readouterr().err.startswith("serai: cannot ")
    assert market.received == []


def test_connection_options_count_before_and_after_the_command(
    address: str, market: FakeMarket, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("SERAI_API_KEY")
    monkeypatch.setenv("SERAI_ADDRESS", "http://127.0.0.1:1")
    assert main(["--address", address, "--key=simkey", "algorithms"]) == 0
    assert main(["algorithms", "--address", address, "--key", "simkey"]) == 0
    assert len(market.received) == 2


def test_the_listing_is_a_table_or_json(capfd: pytest.CaptureFixture[str]):
    assert main(["algorithms"]) == 0
    assert capfd.readouterr().out.splitlines() == [
        "NAME          VERSION  FOR  TAGLINE",
        "demo/echo     1.0.0    all  Does echo",
        "demo/fail     1.0.0    all  Does fail",
        "demo/reverse  1.0.0    all  Does reverse",
    ]
    assert main(["algorithms", "rev", "--json"]) == 0
    assert [info["name"] for info in json.loads(capfd.readouterr().out)] == ["reverse"]
    assert main(["algorithms", "--limit", "2"]) == 0
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 3
    assert "more than 2" in err
    assert main(["algorithms", "nothing"]) == 0
    assert capfd.readouterr() == ("", "no algorithms match 'nothing'\n")


def test_a_tagline_cannot_break_the_table(capfd: pytest.CaptureFixture[str]):
    row = {
        "owner": "a",
        "name": "b",
        "version": None,
        "tagline": "x\n\x1b[2Jy\tz",
        "visibility": "private",
        "state": "empty",
    }
    with run_server(lambda request: json_answer({"results": [row], "marker": None})) as address:
        assert main(["algorithms", "--address", address]) == 0
    assert capfd.readouterr().out.splitlines()[1] == "a/b   not built yet  owner  x \\x1b[2Jy z"


def test_a_new_algorithm_works_and_can_be_published(
    address: str, market: FakeMarket, capfd: pytest.CaptureFixture[str]
):
    import tomllib

    assert main(["new", "greet-all", "--owner", "vision", "--dir", "some where"]) == 0
    publish, cd, *_, remote, push, call = capfd.readouterr().out.splitlines()
    assert cd == "cd 'some where'" and push == "git push -u origin HEAD"
    assert remote == f"git remote add origin {address}/git/vision/greet-all.git"
    assert publish.endswith("serai publish 'some where'")
    assert call.endswith("serai call vision/greet-all -d HAL")
    assert shutil.which(shlex.split(publish)[0]), "it can be pasted as it is"
    manifest = tomllib.loads(Path("some where/algorithm.toml").read_text())
    assert manifest["algorithm"]["owner"] == "vision"
    assert manifest["algorithm"]["name"] == "greet-all"
    source = Path("some where/src") / f"{manifest['algorithm']['entry']}.py"
    spec = util.spec_from_file_location("greet_all", source)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.apply(manifest["sample"]["input"]) == "Hello, HAL"
    files = {str(path.relative_to("some where")) for path in Path("some where").rglob("*") if path.is_file()}
    assert files - {"src/__pycache__"} >= {".gitignore", "README.md", "algorithm.toml", "requirements.txt"}

    assert main(["publish", "some where", "--private"]) == 0
    out, err = capfd.readouterr()
    assert out == "demo/fresh/1.0.0\n"
    assert err.startswith("read .gitignore\nread README.md\n")
    assert market.received[-1].query == {"visibility": "private"}


@pytest.mark.parametrize("name", ["classify", "my-model", "json"])
def test_what_new_makes_and_publish_packs_is_what_the_server_takes(name: str, tmp_path: Path):
    import io

    from serai._packing import pack
    from serai_gateway.build.archive import extract
    from serai_gateway.build.manifest import parse_manifest

    assert main(["new", name, "--owner", "vision"]) == 0
    archive = io.BytesIO()
    pack(name, archive)
    archive.seek(0)
    extract(archive, tmp_path / "extracted")
    manifest = parse_manifest((tmp_path / "extracted" / "algorithm.toml").read_text())
    assert (manifest.owner, manifest.name) == ("vision", name)
    assert (tmp_path / "extracted" / "src" / f"{manifest.entry}.py").is_file()


@pytest.mark.parametrize(
    ("language", "file", "kind"),
    [
        ("python", "src/my_slug.py", "python"),
        ("javascript", "src/my-slug.js", "algorithmia"),
        ("c", "src/main.c", "algorithmia"),
    ],
)
def test_a_new_algorithm_may_be_in_another_language(language: str, file: str, kind: str):
    from serai_gateway.build import read_manifest

    assert main(["new", "my-slug", "--language", language]) == 0
    assert (Path("my-slug") / file).is_file()
    assert (Path("my-slug") / "README.md").read_text().count("serai call operator/my-slug -d HAL") == 1
    manifest = read_manifest(Path("my-slug"))
    assert (manifest.kind, manifest.owner, manifest.name) == (kind, "operator", "my-slug")
    assert all(os.access(program, os.X_OK) for program in Path("my-slug").glob("bin/*"))


def test_a_language_that_new_does_not_know_is_refused_with_those_that_it_does(capsys: Output):
    assert main(["new", "mine", "--language", "cobol"]) == 2
    said = capsys.readouterr().err
    assert "cobol" in said and all(language in said for language in ("python", "javascript", "c"))
    assert not Path("mine").exists()


def test_new_never_writes_over_what_is_there(capsys: Output):
    Path("mine").mkdir()
    (Path("mine") / "algorithm.toml").write_text("precious")
    Path("file").write_text("precious")
    for where in ("mine", "file"):
        assert main(["new", "mine", "--dir", where]) == 1
        assert "exists already" in capsys.readouterr().err
    assert (Path("mine") / "algorithm.toml").read_text() == "precious"
    Path("empty").mkdir()
    assert main(["new", "mine", "--dir", "empty"]) == 0


def test_a_new_module_shadows_none_of_pythons_own():
    assert module_name("classify") == "classify"
    assert module_name("json") == "json_algorithm"
    assert module_name("serai") == "serai_algorithm"
    assert module_name("my-model") == "my_model"


def hint_of(manifest: str, capfd: Output, **answered: object) -> list[str]:
    """What `serai publish` says after a folder with this algorithm.toml was built."""
    Path("folder").mkdir()
    Path("folder/algorithm.toml").write_text(f'[algorithm]\nowner = "demo"\nname = "fresh"\n{manifest}')
    version = {"owner": "demo", "name": "fresh", "version": "1.0.0", **answered}
    with run_server(lambda request: json_answer({"version": version})) as address:
        assert main(["publish", "folder", "--address", address]) == 0
    out, err = capfd.readouterr()
    assert out == "demo/fresh/1.0.0\n"
    return err.splitlines()


ONE_MODEL, TWO_MODELS = '[models.a]\nfile = "a.onnx"\n', '[models.a]\nfile = "a.onnx"\n[models.b]\nfile = "b.onnx"\n'


def test_the_hint_after_publishing_uses_the_sample(capfd: Output):
    said = hint_of(ONE_MODEL, capfd, sample=[[1, 2]])
    assert said[-1].endswith("serai call demo/fresh/1.0.0 -d '[[1, 2]]'")


def test_the_hint_for_code_is_any_input(capfd: Output):
    assert hint_of(f'language = "python"\n{TWO_MODELS}', capfd)[-1].endswith("serai call demo/fresh/1.0.0 -d INPUT")


def test_the_hint_for_a_model_alone_speaks_of_numbers_and_shapes(capfd: Output):
    said = hint_of(ONE_MODEL, capfd, sample=[0] * 784)
    assert "JSON numbers" in said[0]
    assert said[1].endswith("serai call demo/fresh/1.0.0 -d '[[…]]'")
    assert "GET /v2/models/demo/fresh " in said[2]


def test_the_hint_for_several_models_without_code_are_their_own_paths(capfd: Output):
    assert hint_of(TWO_MODELS, capfd)[1:] == [f"  POST /v2/models/demo/fresh/{name}/infer" for name in "ab"]


def test_publish_of_a_plain_folder_says_what_is_missing(market: FakeMarket, capsys: Output):
    assert main(["publish"]) == 1
    assert "algorithm.toml" in capsys.readouterr().err
    assert market.received == []


def test_version(capsys: Output):
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith(f"serai {serai.__version__} (Python 3.")
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"serai {serai.__version__}\n"


def write_fake_gateway(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "serai_gateway" / "up").mkdir(parents=True)
    (folder / "serai_gateway" / "__init__.py").write_text("")
    (folder / "serai_gateway" / "up" / "__init__.py").write_text("")
    (folder / "serai_gateway" / "up" / "__main__.py").write_text(
        "import json, os, sys\nprint(json.dumps([os.getpid(), *sys.argv[1:]]))\nsys.exit(7)\n"
    )
    (folder / "starlette.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_up_becomes_the_server_with_all_its_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_fake_gateway(tmp_path / "path", monkeypatch)
    with subprocess.Popen(command("up", "--help", "--port", "1", "-x y"), stdout=subprocess.PIPE, text=True) as process:
        out, _ = process.communicate(timeout=60)
    assert json.loads(out) == [process.pid, "--help", "--port", "1", "-x y"]
    assert process.returncode == 7


def test_up_without_the_server_says_how_to_install_it(capsys: Output, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serai.cli.up._NEEDED", ("serai_gateway", "no_such_library"))
    assert main(["up"]) == 1
    assert capsys.readouterr().err == (
        "serai: the server is not installed (no_such_library is missing): run `make install` in the checkout\n"
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_is_no_error_message(unbuffered: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    Path("large").write_text("line\n" * 200_000)  # more than a pipe holds
    with subprocess.Popen(
        command("call", "demo/echo", "-f", "large", "--text"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 141


def test_ctrl_c_is_quiet():
    arrived, done = threading.Event(), threading.Event()

    def handle(request: Received) -> Answer:
        arrived.set()
        done.wait(30)  # the answer never comes while the caller waits
        return result_answer(1)

    with run_server(handle) as address:
        process = subprocess.Popen(
            command("--address", address, "call", "a/b", "-d", "1"), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with process:
            assert arrived.wait(30)
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60) == (b"", b"")
        done.set()
    assert process.returncode == 130


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "up"])
def test_no_two_options_of_a_command_are_kept_in_one_place(name: str):
    places = [action.dest for action in command_parser(name)._actions if action.const is None or action.nargs == "?"]
    assert len(places) == len(set(places))


def test_alerts_of_a_call_are_shown_to_the_person(capfd: Output):
    with run_server(lambda request: result_answer(1, alerts=["a/b/1.0.0 is deprecated: use 2"])) as address:
        assert main(["call", "a/b", "-d", "1", "--address", address]) == 0
    assert capfd.readouterr() == ("1\n", "a/b/1.0.0 is deprecated: use 2\n")


def test_nothing_is_deleted_where_nobody_can_be_asked(market: FakeMarket):
    for arguments in (["delete", "demo/echo"], ["accounts", "rm", "ada"]):
        done = subprocess.run(command(*arguments), stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        assert done.returncode == 2 and b"--yes says that it is meant" in done.stderr
    assert market.received == []


def test_a_folder_that_looks_like_an_algorithm_is_not_guessed(market: FakeMarket, capsys: Output):
    Path("demo/echo").mkdir(parents=True)
    assert main(["publish", "demo/echo"]) == 2
    assert "write ./demo/echo, or algo://demo/echo for the algorithm" in capsys.readouterr().err
    assert main(["publish", "./demo/echo"]) == 1
    assert "algorithm.toml" in capsys.readouterr().err
    assert market.received == []


def test_git_gets_the_key_for_this_server_alone(address: str, monkeypatch: pytest.MonkeyPatch):
    def answered(operation: str, said: str, *options: str) -> str:
        done = subprocess.run(
            command("credential", *options, operation), input=said, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    host = address.removeprefix("http://")
    assert answered("get", f"protocol=http\nhost={host}\n\n") == "username=key\npassword=simkey\n"
    assert answered("get", f"protocol=http\nhost={host}\nusername=ada\n") == "username=ada\npassword=simkey\n"
    for other in (f"protocol=https\nhost={host}\n", "protocol=http\nhost=github.com\n", ""):
        assert answered("get", other) == ""
    assert answered("store", f"protocol=http\nhost={host}\n") == answered("erase", "") == ""
    assert answered("get", f"protocol=http\nhost={host}\n", "--address", "http://127.0.0.1:1") == ""
