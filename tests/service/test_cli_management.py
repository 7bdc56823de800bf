"""An author's whole way by the command and the Python client: push, publish, route, roll back, delete."""

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import serai
from serai.cli.testing import run_on_terminal
from serai_gateway.testing import PATIENCE_S, Service, write_algorithm

pytestmark = pytest.mark.needs_bubblewrap

_DOCS = Path(__file__).parents[2] / "docs"
_SERAI = str(Path(sys.executable).with_name("serai"))


class Shell:
    """A folder, and an environment as somebody has it who was given an address and a key."""

    def __init__(self, folder: Path, service: Service, key: str) -> None:
        self.folder = folder
        self.key = key
        home = folder / "home"
        home.mkdir(parents=True)
        self.environ = {
            "PATH": f"{Path(_SERAI).parent}:{os.environ['PATH']}",
            "HOME": str(home), "SERAI_HOME": str(home), "SERAI_ADDRESS": service.address, "SERAI_API_KEY": key,
            "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull, "GIT_TERMINAL_PROMPT": "0",
            "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@x.org",
            "GIT_COMMITTER_NAME": "A", "GIT_COMMITTER_EMAIL": "a@x.org",
        }  # fmt: skip

    def run(self, *command: str, input: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, input=input, env=self.environ, cwd=self.folder, capture_output=True, text=True, timeout=PATIENCE_S
        )

    def ran(self, *arguments: str, input: str = "") -> str:
        """Its stdout."""
        done = self.run(_SERAI, *arguments, input=input)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ran(*arguments, "--json"))

    def refused(self, *arguments: str) -> dict[str, Any]:
        done = self.run(_SERAI, *arguments, "--json")
        assert (done.returncode, done.stdout) == (1, ""), done
        return json.loads(done.stderr)["error"]

    def client(self) -> serai.Client:
        return serai.client(self.key, self.environ["SERAI_ADDRESS"])


@pytest.fixture(scope="module")
def operator(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("operator"), service, service.key)


@pytest.fixture(scope="module")
def ada(service: Service, operator: Shell, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    key = operator.ran("accounts", "add", "ada-cli", "--email", "ada@example.com").strip()
    return Shell(tmp_path_factory.mktemp("ada"), service, key)


@pytest.fixture(scope="module")
def pushed(ada: Shell) -> str:
    """An algorithm that was made as `serai new` says, with git."""
    commands = ada.ran("new", "hello", "--owner", "ada-cli").splitlines()
    by_git = [command for command in commands if " publish " not in command]
    done = ada.run("bash", "-e", "-c", "\n".join(by_git))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Hello, HAL\n") and "remote: Build successful" in done.stderr
    return "ada-cli/hello"


@pytest.fixture
def released(ada: Shell, pushed: str) -> str:
    """The same with two public versions, the newer one called by all."""
    if not ada.json("versions", pushed, "--published"):
        shown = ada.ran("algorithms", "--mine")
        assert "not published  owner" in shown
        assert ada.ran("publish", pushed, "--minor", "--public", "--notes", "first").strip() == f"{pushed}/0.1.0"
        assert ada.refused("publish", pushed)["number"] == 1007
        assert "built ada-cli/hello" in ada.ran("builds", pushed, "--compile")
        assert ada.ran("publish", pushed).strip() == f"{pushed}/0.1.1"
    ada.ran("route", pushed, "--newest")
    return pushed


def test_versions_and_builds_are_listed(ada: Shell, released: str) -> None:
    newest, oldest = ada.json("versions", released)
    assert (newest["number"], newest["percent"], newest["public"]) == ("0.1.1", 100, True)
    assert (oldest["number"], oldest["percent"], oldest["notes"]) == ("0.1.0", 0, "first")
    assert [line.split()[0] for line in ada.ran("versions", released).splitlines()] == ["VERSION", "0.1.1", "0.1.0"]
    assert len(ada.json("versions", released, "--limit", "1")) == 1
    builds = ada.json("builds", released)
    assert [build["status"] for build in builds] == ["succeeded", "succeeded"]
    table = ada.ran("builds", released).splitlines()
    assert table[1].startswith(builds[0]["id"][:8])
    for wanted in ([], [builds[1]["id"][:8]]):
        assert newest["hash"] in ada.ran("builds", released, "--log", *wanted)
    assert "has no build ffff" in ada.refused("builds", released, "--log", "ffff")["message"]
    about = ada.json("show", released)
    assert (about["version"]["number"], about["git"].endswith("/git/ada-cli/hello.git")) == ("0.1.1", True)
    assert "source     closed, http" in ada.ran("show", released)


def test_calls_are_divided_and_rolled_back(ada: Shell, released: str) -> None:
    both = [{"version": "0.1.1", "percent": 10}, {"version": "0.1.0", "percent": 90}]
    assert ada.json("route", released, "0.1.1=10", "0.1.0=90") == both == ada.json("route", released)
    assert [version["percent"] for version in ada.json("versions", released)] == [10, 90]
    assert ada.json("route", released, "--back") == [{"version": "0.1.0", "percent": 100}]
    assert ada.json("show", released)["version"]["number"] == "0.1.0"
    assert "no public version before 0.1.0" in ada.refused("route", released, "--back")["message"]
    assert ada.refused("route", released, "7.0.0")["number"] == 6001
    assert ada.json("route", released, "--newest") == []


def test_a_deprecated_version_tells_its_callers(ada: Shell, released: str) -> None:
    ada.ran("versions", released, "--deprecate", "0.1.0", "--message", "use 0.1.1")
    done = ada.run(_SERAI, "call", f"{released}/0.1.0", "-d", "x")
    assert done.stdout == "Hello, x\n" and done.stderr.endswith("is deprecated: use 0.1.1\n")
    assert "deprecated: use 0.1.1" in ada.ran("versions", released)
    ada.ran("versions", released, "--undeprecate", "0.1.0")
    assert ada.run(_SERAI, "call", f"{released}/0.1.0", "-d", "x").stderr == ""


def test_strangers_see_what_is_public_and_change_nothing(ada: Shell, released: str) -> None:
    assert [one["number"] for one in ada.json("versions", "demo/hello")] == ["1.0.0"]
    assert ada.json("versions", "demo/hello")[0]["percent"] == 100
    done = ada.run(_SERAI, "delete", "demo/hello", "--yes")
    assert done.returncode == 1 and "`serai keys` says whose key this is" in done.stderr
    done = ada.run(_SERAI, "builds", "operator/nothing")
    assert done.returncode == 1 and "`serai algorithms` lists what you may call" in done.stderr
    assert ada.refused("delete", released, "--yes")["message"].startswith("ada-cli/hello has public versions")
    assert ada.refused("accounts")["number"] == 2001


def test_secrets_are_set_without_being_shown(ada: Shell, tmp_path: Path) -> None:
    source = "import os\ndef apply(input):\n    return len(os.environ.get(input, ''))\n"
    folder = write_algorithm(tmp_path / "teller", source, owner="ada-cli")
    ada.ran("publish", str(folder))
    name = "ada-cli/teller"
    ada.ran("secrets", name, "set", "TOKEN", "--description", "of a test", input="12345\n")
    ada.ran("secrets", name, "set", "REGION=eu=west")
    assert [one["key"] for one in ada.json("secrets", name)] == ["TOKEN", "REGION"]
    assert "12345" not in ada.ran("secrets", name) and "of a test" in ada.ran("secrets", name)
    assert ada.ran("call", name, "-d", "TOKEN") == "5\n" and ada.ran("call", name, "-d", "REGION") == "7\n"
    ada.ran("secrets", name, "set", "TOKEN=changed")
    assert [one["description"] for one in ada.json("secrets", name)] == ["of a test", ""]
    ada.ran("secrets", name, "rm", "REGION")
    assert [one["key"] for one in ada.json("secrets", name)] == ["TOKEN"]
    assert "has no secret REGION" in ada.refused("secrets", name, "rm", "REGION")["message"]
    assert ada.refused("secrets", name, "set", "PATH=x")["number"] == 8001
    assert ada.json("delete", name, "--yes") == {"deleted": name}
    assert ada.refused("show", name)["status"] == 404


def test_a_secret_typed_at_a_terminal_is_not_shown(ada: Shell, pushed: str) -> None:
    ours, theirs = pty.openpty()
    command = [_SERAI, "secrets", pushed, "set", "TYPED"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=ada.environ, start_new_session=True
    ) as process:
        os.close(theirs)
        shown = b""
        while b"(not shown): " not in shown:
            shown += os.read(ours, 1000)
        os.write(ours, b"hidden words\n")
        try:
            while piece := os.read(ours, 1000):
                shown += piece
        except OSError:  # Linux says this when the last writer has closed
            pass
        assert process.wait(PATIENCE_S) == 0
    os.close(ours)
    assert b"hidden" not in shown and b"TYPED is set" in shown
    ada.ran("secrets", pushed, "rm", "TYPED")


def test_a_clone_can_be_changed_and_pushed(ada: Shell, pushed: str) -> None:
    done = ada.run(_SERAI, "clone", pushed, "copy")
    assert done.returncode == 0, done.stderr
    assert ada.key not in (ada.folder / "copy" / ".git" / "config").read_text()
    source = ada.folder / "copy" / "src" / "hello.py"
    source.write_text(source.read_text().replace("Hello", "Good day"))
    done = ada.run("bash", "-ec", "cd copy; git commit -qam 'More polite'; git push -q")
    assert done.returncode == 0, done.stderr
    newest = ada.json("versions", pushed)[0]
    assert newest["number"] is None
    assert ada.ran("call", f"{pushed}/{newest['hash']}", "-d", "HAL") == "Good day, HAL\n"
    source.write_text("def apply(input:\n")
    done = ada.run("bash", "-ec", "cd copy; git commit -qam 'Broken'; git push -q")
    assert done.returncode != 0 and "Build failed" in done.stderr
    assert ada.json("builds", pushed)[0]["status"] == "failed"
    assert "src/hello.py" in ada.ran("builds", pushed, "--log")
    with ada.client() as client:
        assert [commit.message for commit in client.algo(pushed).commits()] == ["More polite", "First version"]


def test_keys_are_made_and_revoked(ada: Shell, operator: Shell, service: Service) -> None:
    text = ada.ran("keys", "add", "web site", "--calls-only", "--algorithm", "demo/*").strip()
    (made,) = [key for key in ada.json("keys") if key["label"] == "web site"]
    assert (made["may_manage"], made["may_call"], made["algorithms"]) == (False, True, ["algo://demo/*"])
    environ = ada.environ | {"SERAI_API_KEY": text}
    call = [_SERAI, "call", "demo/hello", "-d", "HAL"]
    assert subprocess.run(call, env=environ, capture_output=True, timeout=PATIENCE_S).returncode == 0
    denied = subprocess.run([_SERAI, "keys"], env=environ, capture_output=True, text=True, timeout=PATIENCE_S)
    assert denied.returncode == 1 and "may not manage" in denied.stderr
    assert "web site" in operator.ran("keys", "--user", "ada-cli")
    assert ada.refused("keys", "--user", "operator")["status"] == 404
    ada.ran("keys", "rm", made["id"][:8])
    assert subprocess.run(call, env=environ, capture_output=True, timeout=PATIENCE_S).returncode == 1
    assert "no key begins with" in ada.refused("keys", "rm", made["id"])["message"]


def test_a_terminal_gets_tables_of_its_width_and_colours(ada: Shell, released: str) -> None:
    environ = ada.environ | {"COLUMNS": "40"}
    status, shown, _ = run_on_terminal([_SERAI, "versions", released], **environ)
    lines = shown.splitlines()
    assert status == 0 and lines[0].startswith("\x1b[2mVERSION")
    assert all(len(re.sub(r"\x1b\[\d+m", "", line)) <= 40 for line in lines)
    status, shown, _ = run_on_terminal([_SERAI, "show", "ada-cli/none"], shows_stderr=True, **environ)
    assert status == 1 and shown.startswith("\x1b[31mserai:\x1b[0m there is no algorithm ada-cli/none")
    _, shown, _ = run_on_terminal([_SERAI, "show", "ada-cli/none"], shows_stderr=True, NO_COLOR="1", **environ)
    assert shown.startswith("serai: there is no")


def test_the_examples_of_the_client_that_manage_run_in_their_order(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SERAI_ADDRESS", service.address)
    monkeypatch.setenv("SERAI_API_KEY", service.key)
    blocks = re.findall(r"^```py\n(.*?)^```", (_DOCS / "sdk.md").read_text(), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"serai": serai}
    assert blocks
    for number, block in enumerate(blocks):
        exec(compile(block, f"sdk.md, example {number} that manages", "exec"), names)
    names["client"].close()


def test_the_asynchronous_client_manages_alike(ada: Shell) -> None:
    async def everything() -> None:
        async with serai.async_client(ada.key, ada.environ["SERAI_ADDRESS"]) as client:
            me = client.user()
            algorithm = client.algo(f"{(await me.info()).name}/waits")
            assert (await algorithm.create("Waits")).label == "Waits"
            for number in ("major", "minor"):
                assert (await algorithm.compile()).status == "succeeded"
                await algorithm.publish(number, public=True)
            assert [version.number async for version in algorithm.versions()] == ["1.1.0", "1.0.0"]
            assert [(share.version, share.percent) for share in await algorithm.canary("1.1.0", 5)] == [
                ("1.1.0", 5), ("1.0.0", 95),
            ]  # fmt: skip
            assert [share.version for share in await algorithm.rollback()] == ["1.0.0"]
            await algorithm.route_to_newest()
            build = await anext(aiter(algorithm.builds()))
            assert (await algorithm.info()).version == await anext(aiter(algorithm.versions()))
            assert "built" in await algorithm.build_log(build.id)
            await algorithm.set_secret("KEY", "value")
            await algorithm.delete_secret("KEY")
            assert (await algorithm.secrets(), await algorithm.errors()) == ((), ())
            assert (await algorithm.update(tagline="So")).tagline == "So"
            with pytest.raises(ValueError, match="not 'patch'"):
                await algorithm.publish("patch")
            with pytest.raises(ValueError, match="1 to 99 percent"):
                await algorithm.canary("1.1.0", 100)
            key = await me.create_key("one more")
            await me.revoke_key(key.id)
            assert key.id not in {one.id for one in await me.keys()}

    asyncio.run(everything())
