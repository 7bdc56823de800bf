"""GET /v1/algorithms/OWNER/NAME/logs over a real gateway, with the runner host's own logbook behind it."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

import pytest

from serai.ipc.messages import Cancel, Define, Logged, Message, ReadLog, Stats, VersionSpec, decode, encode
from serai_gateway.api.logs import MAX_FOLLOWED
from serai_gateway.api.testing.chunks import ChunkedReader
from serai_gateway.api.testing.daemon import FakeDaemon, FakeLink
from serai_gateway.api.v2.testing.gateway import running_gateway
from serai_gateway.catalogue import Account, NewVersion, Permissions, Version, ensure_operator, open_catalogue
from serai_gateway.log_feed import MAX_WAITING_BYTES, LogFeed
from serai_gateway.server.testing import Answer, RunningServer, wait_until
from serai_runner.logs.logbook import FLUSH_S, Logbook
from serai_runner.logs.readers import LogReaders

Result = TypeVar("Result")


class LogHost(FakeDaemon["_Link"]):
    """A runner host that has logs and nothing else."""

    def __init__(self, home: Path) -> None:
        super().__init__(home / "run" / "runner.sock")
        self._home = home

    def make_link(self) -> "_Link":
        return _Link(self)

    def on_start(self) -> None:
        loop = asyncio.get_running_loop()
        wake: Callable[[], object] = lambda: loop.call_later(FLUSH_S, lambda: self.book.flush(monotonic()))  # noqa: E731
        self.book = Logbook(self._home / "logs" / "versions", wake)

    def on_stop(self) -> None:
        self.book.close()

    def printed(self, key: str, text: str) -> None:
        self.do(lambda: self.book.printed(key, 1, "req-1", text.encode()))

    def num_followed(self) -> int:
        return self.do(lambda: sum(len(link.readers._followers) for link in self.links))


class _Link(FakeLink):
    def __init__(self, host: LogHost) -> None:
        super().__init__(host)
        self._defined: set[str] = set()
        self.readers = LogReaders(host.book, self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.readers.close()

    def frame_received(self, header: bytes, payload: bytes) -> None:
        message = decode(header)
        if isinstance(message, Define):
            self._defined.add(message.spec.key)
        elif isinstance(message, ReadLog):
            assert message.version in self._defined, "defined before it is asked for"
            self.readers.on_read_log(message)
        elif isinstance(message, Cancel):
            self.readers.on_cancel(message.id)
        elif isinstance(message, Stats):
            self.send_frame(encode(Stats(message.id)))


class Example:
    """alice owns `chatty`, public as 1.0.0 and 1.1.0, with a newer private 1.2.0, and `net`, only a model. bob manages
    `team`, which owns `ours`. `keys` has one for each, the operator's, and one of alice's that may not manage.
    """

    def __init__(
        self, home: Path, server: RunningServer, host: LogHost, keys: dict[str, str], versions: dict[str, Version]
    ) -> None:
        self.home = home
        self.server = server
        self.host = host
        self.keys = keys
        self.versions = versions

    def ask(self, path: str, key: str = "alice") -> Answer:
        return self.server.ask(self.request(path, key))

    def request(self, path: str, key: str) -> bytes:
        return (
            f"GET /v1/algorithms/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Simple {self.keys[key]}\r\n\r\n"
        ).encode()

    def follow(self, path: str, key: str = "alice") -> "LineReader":
        return LineReader(self.server.port, self.request(path, key))


class LineReader(ChunkedReader):
    """Reads a chunked answer line by line."""

    def __init__(self, port: int, request: bytes) -> None:
        super().__init__(port, request)
        self.read_head()
        self._rest = b""

    def next(self) -> dict[str, Any] | None:
        """None: the answer has ended as it should."""
        while b"\n" not in self._rest:
            chunk = self.read_chunk()
            if not chunk:
                assert not self._rest
                return None
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    home = tmp_path_factory.mktemp("logs") / "home"
    catalogue = open_catalogue(home)
    keys = {"operator": ensure_operator(home, catalogue).key}
    alice, bob = catalogue.ensure_account("alice"), catalogue.ensure_account("bob")
    keys |= {account.name: catalogue.create_key(account, "test").text for account in (alice, bob)}
    keys["no managing"] = catalogue.create_key(alice, "test", Permissions(manage=False)).text
    team = catalogue.ensure_account("team", "organization", owner=bob)
    catalogue.close()
    versions = {
        "1.0.0": _publish(home, alice, "chatty", 1, "1.0.0"),
        "1.1.0": _publish(home, alice, "chatty", 2, "1.1.0"),
        "1.2.0": _publish(home, alice, "chatty", 3, "1.2.0", public=False),
        "ours": _publish(home, team, "ours", 4, "1.0.0"),
        "net": _publish(home, alice, "net", 5, "1.0.0", kind="model"),
    }
    with LogHost(home) as host, running_gateway(home, "--log-level", "warning") as server:
        example = Example(home, server, host, keys, versions)
        wait_until(lambda: example.ask("alice/chatty/logs").status == 200, "gateway and host have met")
        yield example


def _publish(
    home: Path, owner: Account, name: str, number: int, semver: str, *, public: bool = True, kind: str = "python"
) -> Version:
    catalogue = open_catalogue(home)
    try:
        algorithm = catalogue.ensure_algorithm(owner, name)
        manifest = {"owner": owner.name, "name": name, "kind": kind}
        new = NewVersion(f"{number:040x}", kind, manifest, f"{number:064x}")  # pyright: ignore[reportArgumentType]
        return catalogue.publish_version(catalogue.add_version(algorithm, new), semver, public=public)
    finally:
        catalogue.close()


@pytest.fixture
def key(example: Example) -> str:
    return example.versions["1.1.0"].key


def texts(answer: Answer) -> list[str]:
    return [json.loads(line)["text"] for line in answer.body.splitlines()]


def test_a_log_is_json_lines_of_the_version_that_a_call_would_run(example: Example, key: str) -> None:
    example.host.printed(key, "hello\nworld\n")
    answer = example.ask("alice/chatty/logs")
    assert (answer.status, answer.headers["content-type"], answer.headers["cache-control"]) == (
        200, "application/x-ndjson", "no-store",
    )  # fmt: skip
    assert texts(answer)[-2:] == ["hello", "world"]
    assert texts(example.ask("Alice/CHATTY/logs?tail=1")) == ["world"]
    assert texts(example.ask("alice/chatty/logs?tail=0")) == []


def test_each_version_has_its_own_log(example: Example) -> None:
    for semver in ("1.0.0", "1.1.0", "1.2.0"):
        example.host.printed(example.versions[semver].key, f"I am {semver}\n")
    for wanted, semver in [
        ("1.0.0", "1.0.0"), ("1.0", "1.0.0"), ("1.*", "1.1.0"), ("latest", "1.1.0"), ("latestPrivate", "1.2.0"),
        (example.versions["1.2.0"].hash, "1.2.0"), ("", "1.1.0"),
    ]:  # fmt: skip
        assert texts(example.ask(f"alice/chatty/logs?tail=1&version={wanted}")) == [f"I am {semver}"]


@pytest.mark.parametrize(
    ("who", "path"), [("operator", "alice/chatty"), ("bob", "team/ours"), ("operator", "team/ours")]
)
def test_who_manages_an_owner_reads_its_logs(who: str, path: str, example: Example) -> None:
    assert example.ask(f"{path}/logs", who).status == 200


def test_for_everybody_else_there_is_no_such_algorithm(example: Example) -> None:
    for path in ("alice/chatty", "alice/nothing", "nobody/nothing"):
        answer = example.ask(f"{path}/logs", "bob")
        assert (answer.status, answer.error["message"]) == (404, f"algorithm algo://{path} not found")
    private = example.ask("alice/chatty/logs?version=1.2.0", "bob")
    public = example.ask("alice/chatty/logs?version=1.0.0", "bob")
    assert private.error["message"] == "algorithm algo://alice/chatty/1.2.0 not found"
    assert public.error["message"] == "algorithm algo://alice/chatty/1.0.0 not found"


def test_a_key_without_that_right_reads_no_log(example: Example) -> None:
    assert example.ask("alice/chatty/logs", "no managing").status == 403
    assert example.server.ask(b"GET /v1/algorithms/alice/chatty/logs HTTP/1.1\r\nHost: x\r\n\r\n").status == 401


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("tail=-1", "tail"), ("tail=10001", "tail"), ("tail=x", "tail"), ("tail=9999999999", "tail"), ("tail=", "tail"),
        ("tail=%D9%A3", "tail"), ("follow=1", "follow"), ("since=yesterday", "since"), ("version=1.2.3.4", "version"),
        ("version=" + "1" * 200, "version"), ("since=2026-05-04T10:11:12Z", "since"),
    ],
)  # fmt: skip
def test_options_that_are_none_are_refused_by_name(query: str, complaint: str, example: Example) -> None:
    answer = example.ask(f"alice/chatty/logs?{query}")
    assert answer.status == 400 and complaint in answer.error["message"]


def test_what_has_no_code_has_no_log_and_says_so(example: Example) -> None:
    answer = example.ask("alice/net/logs")
    assert answer.status == 404 and "only a model" in answer.error["message"]


def test_only_a_get_reads_logs(example: Example) -> None:
    head = f"POST /v1/algorithms/alice/chatty/logs HTTP/1.1\r\nHost: x\r\nAuthorization: {example.keys['alice']}\r\n"
    assert example.server.ask(f"{head}Content-Length: 0\r\n\r\n".encode()).status == 405


def test_a_log_is_followed_line_by_line_until_the_reader_leaves(example: Example, key: str) -> None:
    example.host.printed(key, "before\n")
    with example.follow("alice/chatty/logs?follow=true&tail=1") as reader:
        assert reader.status == 200 and reader.headers["transfer-encoding"] == "chunked"
        entry = reader.next()
        assert entry is not None and (entry["event"], entry["text"]) == ("output", "before")
        wait_until(lambda: example.host.num_followed() == 1, "the host knows of the follower")
        example.host.printed(key, "one\ntwo\n")
        example.host.printed(example.versions["1.0.0"].key, "of another version\n")
        example.host.do(lambda: example.host.book.event(key, 1, "crashed", "signal 11 (SIGSEGV)"))
        told = [reader.next() for _ in range(3)]
        assert [entry["text"] for entry in told if entry] == ["one", "two", "signal 11 (SIGSEGV)"]
    wait_until(lambda: example.host.num_followed() == 0, "the host is told that the reader has left")


def test_who_asks_again_with_the_time_of_the_last_line_gets_none_twice_and_misses_none(
    example: Example, key: str
) -> None:
    example.host.printed(key, "a\nb\n")
    with example.follow("alice/chatty/logs?follow=true&tail=2") as reader:
        last = [reader.next(), reader.next()][-1]
    assert last is not None and last["text"] == "b"
    example.host.printed(key, "c\nd\n")
    since = last["time"]
    assert texts(example.ask(f"alice/chatty/logs?since={since}")) == ["c", "d"]
    assert texts(example.ask(f"alice/chatty/logs?since={since}&tail=1")) == ["d"]
    with example.follow(f"alice/chatty/logs?follow=true&since={since}") as reader:
        told = [reader.next() for _ in range(2)]
        example.host.printed(key, "e\n")
        told.append(reader.next())
    assert [entry["text"] for entry in told if entry] == ["c", "d", "e"]


def test_when_the_host_ends_so_does_the_answer_and_after_its_restart_all_is_there(example: Example, key: str) -> None:
    example.host.printed(key, "before\n")
    with example.follow("alice/chatty/logs?follow=true&tail=1") as reader:
        assert reader.next() is not None
        example.host.__exit__()
        assert reader.next() is None
    example.host.__enter__()
    example.host.printed(key, "after\n")
    wait_until(lambda: example.ask("alice/chatty/logs").status == 200, "gateway and host have met again")
    assert texts(example.ask("alice/chatty/logs?tail=2")) == ["before", "after"]


def test_a_revoked_key_follows_no_further(example: Example, key: str) -> None:
    catalogue = open_catalogue(example.home)
    alice = catalogue.account_named("alice")
    new = catalogue.create_key(alice, "test")
    example.keys["leaked"] = new.text
    example.host.printed(key, "before\n")
    with example.follow("alice/chatty/logs?follow=true&tail=1", "leaked") as reader:
        assert reader.next() is not None
        catalogue.revoke_key(alice, new.key.id)
        catalogue.close()
        assert reader.next() is None


def test_one_account_cannot_follow_without_end_and_others_still_can(example: Example) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_FOLLOWED):
            assert stack.enter_context(example.follow("alice/chatty/logs?follow=true")).status == 200
        with example.follow("alice/chatty/logs?follow=true") as refused:
            assert refused.status == 429 and "retry-after" in refused.headers
        assert stack.enter_context(example.follow("alice/chatty/logs?follow=true", "operator")).status == 200
        assert example.ask("alice/chatty/logs").status == 200
    wait_until(lambda: example.host.num_followed() == 0, "all have left")


def test_a_server_that_stops_ends_the_answers_of_those_who_follow(tmp_path: Path) -> None:
    home = tmp_path / "home"
    catalogue = open_catalogue(home)
    keys = {"operator": ensure_operator(home, catalogue).key}
    alice = catalogue.ensure_account("alice")
    catalogue.close()
    versions = {"1.0.0": _publish(home, alice, "chatty", 1, "1.0.0")}
    with LogHost(home) as host, running_gateway(home, "--log-level", "warning") as server:
        example = Example(home, server, host, keys, versions)
        wait_until(lambda: example.ask("alice/chatty/logs", "operator").status == 200, "gateway and host have met")
        with example.follow("alice/chatty/logs?follow=true", "operator") as reader:
            host.printed(versions["1.0.0"].key, "last words\n")
            entry = reader.next()
            assert entry is not None and entry["text"] == "last words"
            assert server.stop() == 0
            assert reader.next() is None


# The gateway's side of the connection to the host

_SPEC = VersionSpec("acme/demo@1", "acme", "demo", "python", "/nowhere")


def _feed() -> tuple[LogFeed, list[Message]]:
    sent: list[Message] = []

    def send(frame: bytes) -> bool:
        sent.append(decode(frame))
        return True

    return LogFeed(send), sent


def test_a_reader_that_is_too_slow_is_cut_with_the_time_of_its_last_line() -> None:
    async def main() -> None:
        feed, sent = _feed()
        stream = feed.ask(_SPEC, 10, follow=True)
        question = sent[-1]
        assert isinstance(question, ReadLog)
        line = b'{"time":"2026-05-04T10:11:12.%06dZ","event":"output","text":"' + b"x" * 1000 + b'"}\n'
        number = 0
        while not any(isinstance(message, Cancel) for message in sent):
            feed.on_logged(Logged(question.id, is_end=False), line % number)
            number += 1
        feed.on_logged(Logged(question.id, is_end=False), line % number)  # on its way when it was cut
        lines = await stream.read()
        assert lines is not None and MAX_WAITING_BYTES < len(lines) < MAX_WAITING_BYTES + 10_000
        *had, cut = map(json.loads, lines.splitlines())
        assert (cut["event"], cut["time"]) == ("cut", had[-1]["time"]) and len(had) == number - 1
        assert await stream.read() is None
        stream.close()
        assert sum(isinstance(message, Cancel) for message in sent) == 1

    asyncio.run(main())


def test_frames_that_answer_no_question_are_dropped() -> None:
    async def main() -> None:
        feed, sent = _feed()
        feed.on_logged(Logged(5, is_end=False), b"{}\n")
        stream = feed.ask(_SPEC, 10, follow=False)
        question = sent[-1]
        assert isinstance(question, ReadLog)
        feed.on_logged(Logged(question.id, is_end=True), b"{}\n")
        feed.on_logged(Logged(question.id, is_end=True), b"{}\n")
        assert await stream.read() == b"{}\n" and await stream.read() is None
        stream.close()
        assert not any(isinstance(message, Cancel) for message in sent)

    asyncio.run(main())
