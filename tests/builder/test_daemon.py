"""The daemon as a process of its own: what is asked of it, and what is left when it ends or is killed (F43)."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from serai_gateway.build.testing import HELLO
from serai_gateway.builder.client import BuilderClient, socket_path
from serai_gateway.builder.messages import Ended, Push, Release, encode
from serai_gateway.catalogue import NewVersion
from serai_gateway.git import Repository
from serai_gateway.git.testing import PROGRAM, Raw
from serai_gateway.testing import until

pytestmark = pytest.mark.needs_bubblewrap

#: How long the sleeping commands of these builds say they sleep, to be found by.
_SLEEP = "86423"


class Daemon:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "Daemon":
        socket_path(self.home).unlink(missing_ok=True)
        command = [sys.executable, "-m", "serai_gateway.builder", "--home", str(self.home)]
        self.process = subprocess.Popen(command)
        until(lambda: socket_path(self.home).exists() or self.process.poll() is not None, "the builder listens")
        assert self.process.poll() is None, "the builder has ended"
        return self

    def end(self, number: int) -> int:
        assert self.process is not None, "started before it ends"
        self.process.send_signal(number)
        return self.process.wait(30)


@pytest.fixture
def daemon(home):
    daemon = Daemon(home).start()
    yield daemon
    daemon.end(signal.SIGKILL)


@pytest.fixture
def slow(git):
    """A commit whose bin/build goes on until it is ended, with a child."""
    conf = json.dumps({"username": "alice", "algoname": "hello", "language": "sh"})
    build = Raw(PROGRAM, b"", git.blob(f"#!/bin/sh\necho building\nsleep {_SLEEP} & sleep {_SLEEP}\n".encode()))
    return git.commit_of({"algorithmia.conf": conf, "bin/build": build, "bin/pipe": build})


@pytest.fixture
def waits(git):
    """A commit whose build waits for a runner host, which is not there."""
    return git.commit_of(HELLO)


def is_at(catalogue, home, commit_is_slow):
    """Whether the only build has come to its long part."""
    if commit_is_slow:
        return bool(sleepers())
    running = catalogue.running_builds()
    return bool(running) and any((home / "code").glob("[0-9a-f]*"))


def sleepers():
    return [one.pid for one in psutil.process_iter() if _SLEEP in " ".join(_words(one))]


def _words(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def push(home, algorithm, account, commit, then):
    """Ask for a build, and once it is at work do `then`; the end, and what was said before."""

    async def run():
        client = BuilderClient(home)
        client.start()
        said = []
        try:
            async with client.push(algorithm, account, commit, "", "") as events:
                doing = asyncio.create_task(asyncio.to_thread(then))
                async for event in events:
                    if isinstance(event, Ended):
                        await doing
                        return event, said
                    said.append(event.text)
        finally:
            await client.close()

    return asyncio.run(asyncio.wait_for(run(), 60))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("stage", ["slow", "waits"])
def test_one_that_ends_in_a_build_leaves_nothing_and_the_old_version(
    home, catalogue, hello, alice, daemon, request, stage, number
):
    commit = request.getfixturevalue(stage)
    old = catalogue.add_version(hello, NewVersion("a" * 40, "python", {}, "b" * 64))
    codes = []

    def then():
        until(lambda: is_at(catalogue, home, stage == "slow"), "the build is at its long part")
        codes.append(daemon.end(number))

    ended, said = push(home, hello, alice, commit, then)
    assert ended.outcome in ("busy", "failed") and "again" in ended.message, ended
    assert said and said[0].startswith("building alice/hello")
    assert codes == [-signal.SIGKILL if number == signal.SIGKILL else 0]
    until(lambda: not sleepers(), "nothing of the build runs", 10)
    if number != signal.SIGKILL:
        assert [build.status for build in catalogue.builds_of(hello)] == ["interrupted"]
        assert not groups_of(daemon.process.pid) and not parts(home)
    daemon.start()
    until(lambda: catalogue.running_builds() == (), "what was interrupted is marked", 30)
    (build,) = catalogue.builds_of(hello)
    assert build.status == "interrupted" and build.hash == commit
    assert catalogue.find_build(build.id).log.splitlines()[-1].startswith("interrupted: ")
    until(lambda: not parts(home), "its files are gone", 30)
    assert catalogue.versions_of(hello) == (old,)


def parts(home):
    return [*(home / "code").glob(".part-*"), *(home / "environments").glob(".part-*")]


def groups_of(pid):
    found = [*Path("/sys/fs/cgroup").glob("*/serai-*"), *Path("/sys/fs/cgroup").glob("serai-*")]
    return [group for group in found if str(pid) in group.name.split("-")]


def test_a_connection_that_goes_calls_off_its_builds(home, catalogue, hello, alice, daemon, slow):
    async def run():
        client = BuilderClient(home)
        client.start()
        async with client.push(hello, alice, slow, "", ""):
            await asyncio.to_thread(until, sleepers, "the build runs")
            await client.close()

    asyncio.run(asyncio.wait_for(run(), 60))
    until(lambda: not sleepers() and catalogue.running_builds() == (), "it is called off", 20)
    (build,) = catalogue.builds_of(hello)
    assert build.status == "interrupted" and "whoever pushed has gone" in catalogue.find_build(build.id).log


@pytest.mark.parametrize("garbage", [b"\xff" * 100, b"", b"\x81\x01", encode(Ended(1, "built")), encode(Release(7))])
def test_what_is_no_request_hurts_nobody_else(home, hello, alice, daemon, git, garbage):
    async def run():
        _, writer = await asyncio.open_unix_connection(str(socket_path(home)))
        writer.write(len(garbage).to_bytes(4, "little") + (0).to_bytes(4, "little") + garbage)
        writer.write(os.urandom(64))
        await writer.drain()
        writer.close()
        client = BuilderClient(home)
        client.start()
        ended = await client.compile(hello, alice)
        await client.close()
        return ended

    Repository(home, hello.id).ensure()
    ended = asyncio.run(asyncio.wait_for(run(), 30))
    assert (ended.outcome, ended.message) == ("failed", "there is nothing to compile: push a commit first")


def test_a_release_before_its_build_began_is_remembered(home, catalogue, hello, alice, daemon, slow):
    """Both in one write: the build is not even listed when it is given up."""

    async def run():
        client = BuilderClient(home)
        client.start()
        assert await client._link.wait_open(10)
        for number in range(100, 110):
            client._link.send(encode(Push(number, hello.id, alice.name, slow, "", "")))
            client._link.send(encode(Release(number)))
        ended = await client.compile(hello, alice)
        await client.close()
        return ended

    assert asyncio.run(asyncio.wait_for(run(), 30)).outcome == "failed"
    until(lambda: not sleepers() and catalogue.running_builds() == (), "none goes on", 20)


def test_without_a_builder_it_is_said_in_time(home, hello, alice):
    async def run():
        client = BuilderClient(home)
        client.start()
        async with client._ask(Push(1, hello.id, alice.name, "1" * 40, "", ""), 0.2) as events:
            (ended,) = [event async for event in events]
        await client.close()
        return ended

    ended = asyncio.run(asyncio.wait_for(run(), 30))
    assert ended.outcome == "busy" and "try again" in ended.message
