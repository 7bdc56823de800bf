"""git push, clone and fetch with real git against a real Serai."""

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest

from serai_gateway.catalogue import Permissions, open_catalogue
from serai_gateway.testing import PATIENCE_S, Service, commit_all, run_git, write_algorithm

pytestmark = pytest.mark.needs_bubblewrap

SAMPLE = '[sample]\ninput = "x"\n'


def saying(text: str) -> str:
    return f"def apply(input):\n    return {text!r}\n"


@pytest.fixture
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A repository with one commit of an algorithm of the operator's, named after the test."""
    name = "git_" + "".join(char for char in request.node.name if char.isalnum())[-50:]
    folder = write_algorithm(tmp_path / name, saying("first"), extra=SAMPLE)
    commit_all(folder)
    return folder


def name_of(folder: Path) -> str:
    return f"operator/{folder.name}"


def change(folder: Path, text: str) -> str:
    (folder / "src" / f"{folder.name}.py").write_text(saying(text))
    return commit_all(folder)


def result(service: Service, folder: Path) -> object:
    answer = service.call(name_of(folder), b'"x"')
    return answer.json().get("result", answer.status)


_PIPE = """echo PIPE_INIT_COMPLETE
while read -r line; do
  echo '{"result":"from sh","metadata":{"content_type":"text"}}' > /tmp/algoout
done"""


def sh(folder: Path, build: str, name: str | None = None) -> str:
    """Make it an algorithm in another language, which its own bin/build builds; the commit."""
    for path in ("algorithm.toml", f"src/{folder.name}.py"):
        (folder / path).unlink(missing_ok=True)
    conf = {"username": "operator", "algoname": name or folder.name, "language": "sh"}
    (folder / "algorithmia.conf").write_text(json.dumps(conf))
    (folder / "bin").mkdir(exist_ok=True)
    for path, text in (("bin/build", build), ("bin/pipe", _PIPE)):
        (folder / path).write_text(f"#!/bin/sh\n{text}\n")
        (folder / path).chmod(0o755)
    return commit_all(folder)


def builds_of(service: Service, folder: Path) -> list[dict]:
    headers = {"Authorization": f"Simple {service.key}"}
    answer = service.request("GET", f"/v1/algorithms/{name_of(folder)}/builds", headers=headers)
    return answer.json()["results"]


def versions_of(service: Service, folder: Path) -> list[str]:
    catalogue = open_catalogue(service.home)
    try:
        account = catalogue.account_named("operator")
        algorithm = catalogue.find_algorithm("operator", folder.name, account)
        return [version.hash for version in catalogue.versions_of(algorithm)]
    finally:
        catalogue.close()


def head_of(service: Service, folder: Path, ref: str = "HEAD") -> str:
    done = run_git(folder, "ls-remote", service.remote(name_of(folder)), ref)
    assert done.returncode == 0, done.stderr
    return done.stdout[:40]


@pytest.mark.parametrize("branch", ["main", "master", "trunk"])
def test_the_first_push_makes_the_algorithm_and_the_owner_can_call_it_at_once(
    service: Service, folder: Path, branch: str
) -> None:
    done = service.push(folder, name_of(folder), f"HEAD:{branch}")
    assert done.returncode == 0, done.stderr
    commit = run_git(folder, "rev-parse", "HEAD").stdout.strip()
    assert f"Build successful for algo://{name_of(folder)}/{commit}" in done.stderr
    assert result(service, folder) == "first"
    change(folder, "second")
    assert service.push(folder, name_of(folder), f"HEAD:{branch}").returncode == 0
    assert result(service, folder) == "second"
    copy = folder.parent / "copy"
    cloned = run_git(folder.parent, "clone", service.remote(name_of(folder)), str(copy))
    assert cloned.returncode == 0, cloned.stderr
    assert run_git(copy, "branch", "--show-current").stdout.strip() == branch
    assert (copy / f"src/{folder.name}.py").read_text() == saying("second")


def test_the_log_arrives_line_by_line_while_it_is_built(service: Service, folder: Path) -> None:
    sh(folder, "echo one; read -t 1 line < /dev/tty; sleep 1; echo two")
    command = ["git", "push", service.remote(name_of(folder)), "HEAD:main"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True) as pushing:
        assert pushing.stderr is not None
        for line in pushing.stderr:
            if line.startswith("remote: one"):
                break
        assert [build["status"] for build in builds_of(service, folder)] == ["in-progress"]
        rest = pushing.stderr.read()
    assert pushing.returncode == 0 and "remote: two" in rest


def test_a_failed_build_refuses_the_push_and_the_old_version_serves(service: Service, folder: Path) -> None:
    assert service.push(folder, name_of(folder)).returncode == 0
    before = head_of(service, folder)
    for broken, why in (
        ("def apply(", "is not Python 3"),
        ("def apply(input):\n    raise ValueError('as asked')\n", "ValueError: as asked"),
        ("import os\nos._exit(3)\n", "sample"),
        ("raise SystemExit", "sample"),
        ("x = 1\n", "apply"),
    ):
        (folder / "src" / f"{folder.name}.py").write_text(broken)
        commit_all(folder)
        done = service.push(folder, name_of(folder))
        assert done.returncode == 1 and "pre-receive hook declined" in done.stderr, done.stderr
        assert "remote: Build failed for algo://" in done.stderr and why in done.stderr, done.stderr
        assert head_of(service, folder) == before and result(service, folder) == "first"
    assert {build["status"] for build in builds_of(service, folder)} == {"failed", "succeeded"}
    change(folder, "mended")
    assert service.push(folder, name_of(folder)).returncode == 0 and result(service, folder) == "mended"


def test_other_branches_and_tags_are_kept_and_not_built(service: Service, folder: Path) -> None:
    assert service.push(folder, name_of(folder)).returncode == 0
    num_builds = len(builds_of(service, folder))
    commit = change(folder, "on a branch")
    assert service.push(folder, name_of(folder), "HEAD:feature/x", "HEAD:refs/tags/v1").returncode == 0
    assert head_of(service, folder, "refs/heads/feature/x") == head_of(service, folder, "refs/tags/v1") == commit
    assert len(builds_of(service, folder)) == num_builds and result(service, folder) == "first"
    assert service.push(folder, name_of(folder), ":feature/x").returncode == 0, "branches may go"
    assert service.push(folder, name_of(folder), ":refs/tags/v1").returncode == 0
    assert service.push(folder, name_of(folder)).returncode == 0 and result(service, folder) == "on a branch"


def test_what_would_lose_something_or_is_named_oddly_is_refused(service: Service, folder: Path) -> None:
    first = run_git(folder, "rev-parse", "HEAD").stdout.strip()
    second = change(folder, "second")
    assert service.push(folder, name_of(folder), "HEAD:main", f"{first}:refs/tags/v1").returncode == 0
    tree = run_git(folder, "rev-parse", "HEAD^{tree}").stdout.strip()
    num_builds = len(builds_of(service, folder))
    for words, why in (
        (["--force", f"{first}:main"], "this would lose commits"),
        ([":main"], "default branch cannot be deleted"),
        (["--force", f"{second}:refs/tags/v1"], "a tag stays where it is"),
        (["HEAD:refs/heads/-x"], "only branches and tags|not a valid|invalid|funny"),
        (["HEAD:refs/hidden/x"], "only branches and tags"),
        (["HEAD:refs/notes/commits"], "only branches and tags"),
        (["HEAD:refs/serai/waiting"], "hidden|only branches and tags"),
        (["HEAD:refs/heads/with space"], "invalid|not a valid|only branches"),
        (["HEAD:refs/heads/é"], "only branches and tags"),
        (["HEAD:refs/heads/" + "x" * 201], "at most 200"),
        (["HEAD:refs/heads/" + "/".join(["x" * 200] * 51)], "at most 200"),
        ([f"HEAD:refs/heads/b{number}" for number in range(101)], "at most 100"),
        ([f"{tree}:refs/heads/tree"], "commit|non-commit"),
        ([f"{tree}:refs/heads/main"], "commit"),
        (["--force", "HEAD:refs/../../hooks/x"], "invalid|not a valid"),
    ):
        done = service.push(folder, name_of(folder), *words)
        assert done.returncode != 0, words
        assert any(one in done.stderr for one in why.split("|")), done.stderr
    refs = run_git(folder, "ls-remote", service.remote(name_of(folder))).stdout.split()
    assert refs == [second, "HEAD", second, "refs/heads/main", first, "refs/tags/v1"]
    assert result(service, folder) == "second" and len(builds_of(service, folder)) == num_builds
    assert versions_of(service, folder) == [second]


def test_of_two_pushes_at_once_one_wins_and_the_other_is_told_to_fetch(service: Service, folder: Path) -> None:
    assert service.push(folder, name_of(folder)).returncode == 0
    first = run_git(folder, "rev-parse", "HEAD").stdout.strip()
    copies = []
    for number in range(3):
        copy = folder.parent / f"copy{number}" / folder.name
        copy.parent.mkdir()
        assert run_git(folder, "clone", "--quiet", str(folder), str(copy)).returncode == 0
        copies.append((copy, change(copy, f"by {number}")))
    done = at_once(*(lambda copy=copy: service.push(copy, name_of(folder)) for copy, _ in copies))
    won = [commit for (_, commit), one in zip(copies, done, strict=True) if one.returncode == 0]
    assert len(won) == 1, [one.stderr for one in done]
    assert sum("fetch, merge, and push again" in one.stderr for one in done) == 2, [one.stderr for one in done]
    assert head_of(service, folder) == won[0] and sorted(versions_of(service, folder)) == sorted([first, *won])


def test_the_same_commit_pushed_twice_at_once_is_one_version(service: Service, folder: Path) -> None:
    done = at_once(*(lambda: service.push(folder, name_of(folder)) for _ in range(3)))
    assert any(one.returncode == 0 for one in done), [one.stderr for one in done]
    assert service.push(folder, name_of(folder)).returncode == 0
    assert versions_of(service, folder) == [head_of(service, folder)] and result(service, folder) == "first"


def at_once(*actions) -> list:
    done: list = [None] * len(actions)

    def run(number: int) -> None:
        done[number] = actions[number]()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(actions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    return done


def test_a_push_while_the_algorithm_is_deleted_leaves_nothing_or_all_of_it(service: Service, folder: Path) -> None:
    headers = {"Authorization": f"Simple {service.key}"}
    for number in range(3):
        change(folder, f"round {number}")
        assert service.push(folder, name_of(folder), "--force", "HEAD:main").returncode == 0
        change(folder, f"again {number}")
        pushed, deleted = at_once(
            lambda: service.push(folder, name_of(folder)),
            lambda: service.request("DELETE", f"/v1/algorithms/{name_of(folder)}", headers=headers),
        )
        assert deleted.status == 204, deleted.body
        told = result(service, folder)
        assert told == 404 or (pushed.returncode == 0 and told == f"again {number}"), pushed.stderr
        service.request("DELETE", f"/v1/algorithms/{name_of(folder)}", headers=headers)
        run_git(folder, "update-ref", "-d", "HEAD")


def test_a_large_file_and_a_chunked_request_are_taken(service: Service, folder: Path) -> None:
    (folder / "model.bin").write_bytes(os.urandom(60 << 20))
    commit = commit_all(folder)
    done = run_git(folder, "-c", "http.postBuffer=1", "push", service.remote(name_of(folder)), "HEAD:main")
    assert done.returncode == 0, done.stderr
    assert head_of(service, folder) == commit and result(service, folder) == "first"
    (folder / "model.bin").write_bytes(b"")
    with (folder / "huge.bin").open("wb") as file:
        file.truncate((100 << 20) + 1)
    commit_all(folder)
    run_git(folder, "rm", "--quiet", "--cached", "huge.bin")
    (folder / "huge.bin").unlink()
    commit_all(folder, "gone, but in history")
    done = service.push(folder, name_of(folder))
    assert done.returncode == 1 and "huge.bin: 100 MiB, over the limit of 100 MiB" in done.stderr, done.stderr
    assert head_of(service, folder) == commit


def test_a_long_and_colourful_log_is_cut_and_clean(service: Service, folder: Path) -> None:
    sh(folder, r"printf '\033[31mred\033[0m\rover\a\n'; yes 0123456789abcdef | head -c 10000000; echo the end")
    done = service.push(folder, name_of(folder))
    assert done.returncode == 0, done.stderr[-2000:]
    assert "remote: redover" in done.stderr and "\x1b[31m" not in done.stderr and "\a" not in done.stderr
    assert len(done.stderr) < 4 << 20 and "the log is cut here" in done.stderr and "Build successful" in done.stderr


def test_a_build_sees_no_secret_of_ours(service: Service, folder: Path) -> None:
    sh(folder, "env | sort; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n' | sort -u; ls -a / /opt; id -u")
    done = service.push(folder, name_of(folder))
    assert done.returncode == 0, done.stderr
    for secret in (
        service.key,
        "SERAI_API_KEY",
        "SERAI_ADDRESS",
        "PYTHONPATH=/work",
        str(service.home),
        "SSH_",
        "GIT_",
    ):
        assert secret not in done.stderr
    assert "remote: HOME=/tmp" in done.stderr


@pytest.fixture
def keys(service: Service, folder: Path) -> dict[str, str]:
    """Of people who are somebody to the organization that owns the algorithm, or nobody."""
    catalogue = open_catalogue(service.home)
    people = {name: catalogue.ensure_account(f"git-{name}") for name in ("owner", "member", "stranger")}
    organization = catalogue.ensure_account("git-org", "organization", people["owner"])
    catalogue.set_member(organization, people["member"], "member")
    keys = {name: catalogue.create_key(one, "git", Permissions(manage=True)).text for name, one in people.items()}
    keys["reader"] = catalogue.create_key(people["owner"], "git", Permissions(manage=False)).text
    catalogue.close()
    return keys | {"operator": service.key, "nobody": "", "wrong": "sim" + "0" * 25}


def test_who_may_fetch_and_push(service: Service, folder: Path, keys: dict[str, str]) -> None:
    manifest = folder / "algorithm.toml"
    manifest.write_text(manifest.read_text().replace('"operator"', '"git-org"'))
    commit_all(folder)
    name = f"git-org/{folder.name}"

    def fetches(who: str, what: str = name) -> str:
        done = run_git(folder, "ls-remote", service.remote(what, key=keys[who]))
        return "" if done.returncode == 0 else done.stderr.replace(what, "NAME")

    assert service.push(folder, name, key=keys["reader"]).returncode != 0
    assert service.push(folder, name, key=keys["stranger"]).returncode != 0
    assert service.push(folder, name, key=keys["owner"]).returncode == 0
    (folder / "more").write_text("by a member")
    commit_all(folder)
    assert service.push(folder, name, key=keys["member"]).returncode == 0
    inside = ("owner", "member", "reader", "operator")
    assert [fetches(who) for who in inside] == ["", "", "", ""]
    for who in ("stranger", "nobody", "wrong"):
        assert fetches(who) == fetches(who, "git-org/nothing") != ""
    catalogue = open_catalogue(service.home)
    algorithm = catalogue.find_algorithm("git-org", folder.name, catalogue.account_named("git-owner"))
    catalogue.set_algorithm(algorithm, visibility="public")
    assert "403" in fetches("stranger") and fetches("nobody")
    catalogue.set_algorithm(algorithm, settings={"source_visibility": "open"})
    catalogue.close()
    for who in ("stranger", "nobody", *inside):
        assert fetches(who) == ""
    for who in ("stranger", "nobody", "reader"):
        assert service.push(folder, name, key=keys[who]).returncode != 0
