"""The parts of the HTTP server that need no socket: limits, heads, chunks, paces, counting."""

import asyncio
import dataclasses
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serai_gateway.server.bodies import ChunkedBody
from serai_gateway.server.connection import HttpConnection
from serai_gateway.server.connections import Connections
from serai_gateway.server.limits import HttpLimits
from serai_gateway.server.pace import BodyPace, WriteWatch
from serai_gateway.server.refusals import Refused
from serai_gateway.server.request_head import HeadBuffer, check_host, parse_target
from serai_gateway.server.run import GatewayApplication, ServerSettings, parse, prepare_listener
from serai_gateway.server.testing import TEST_APP

LIMITS = HttpLimits()


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(HttpLimits) if f.name != "body_limit"])
def test_every_limit_must_be_above_zero_and_is_named_if_not(name: str) -> None:
    for value in ("0", "-1"):
        with pytest.raises(ValueError, match=name):
            LIMITS.with_overrides({name: value})


def test_limits_can_be_replaced_by_name() -> None:
    changed = LIMITS.with_overrides({"max_chunks": "7", "header_deadline_s": "0.5"})
    assert (changed.max_chunks, changed.header_deadline_s) == (7, 0.5)
    with pytest.raises(ValueError, match="there is no HTTP limit 'max_patience'; there are: header_deadline_s"):
        LIMITS.with_overrides({"max_patience": "1"})
    with pytest.raises(ValueError, match="max_chunks must be a number, not 'many'"):
        LIMITS.with_overrides({"max_chunks": "many"})


def test_a_path_can_have_a_larger_limit_but_no_smaller_one() -> None:
    limits = HttpLimits(max_body_bytes=100, body_limit=lambda path: {b"/big": 1000, b"/small": 1}.get(path, 0))
    assert [limits.body_limit_of(path) for path in ("/", "/big", "/small")] == [100, 1000, 100]


def test_the_command_line_becomes_settings(tmp_path) -> None:
    settings = parse(["--fd", "3", "--workers", "2", "--home", str(tmp_path), "--limit", "max_connections=9"])
    assert isinstance(settings, ServerSettings)
    assert (settings.fd, settings.workers, settings.gateway.home) == (3, 2, tmp_path)
    assert settings.limits.max_connections == 9


def test_a_descriptor_that_is_no_listening_socket_is_refused_with_its_number(tmp_path) -> None:
    with (tmp_path / "file").open("w") as file, pytest.raises(ValueError, match=str(file.fileno())):
        prepare_listener(file.fileno())


@given(st.text(max_size=60))
def test_a_path_is_refused_or_stays_within_its_folder(text: str) -> None:
    quoted = "".join(c if c.isascii() else "".join(f"%{b:02x}" for b in c.encode(errors="surrogatepass")) for c in text)
    try:
        target = parse_target(b"/" + quoted.encode())
    except Refused as refused:
        assert refused.status == 400
        return
    path = target.path
    assert path.startswith("/") and "//" not in path and "\\" not in path
    assert not any(segment in (".", "..") for segment in path.split("/"))
    assert not any(ord(c) < 32 or ord(c) == 127 for c in path)
    path.encode()  # no surrogates


@given(
    st.lists(st.sampled_from([b"/", b".", b"..", b"%2e", b"%2f", b"%5c", b"%00", b"a", b";", b"?", b"%25"]), max_size=9)
)
def test_no_mixture_of_dots_slashes_and_escapes_leaves_its_folder(parts: list[bytes]) -> None:
    try:
        path = parse_target(b"/" + b"".join(parts)).path
    except Refused:
        return
    assert not any(segment.split(";")[0] in (".", "..") for segment in path.split("/"))
    assert "//" not in path


@pytest.mark.parametrize("path", [b"/v1/algo/algo://demo/Hello", b"/v1/data/data://.my/robots/a.txt"])
def test_a_name_may_be_given_with_its_scheme(path: bytes) -> None:
    assert parse_target(path).path == path.decode()


@pytest.mark.parametrize(
    "path", [b"/algo:///etc", b"/v1/algo/algo://a//b", b"/a/http://x", b"//algo://a", b"/v1/algo://"]
)
def test_a_scheme_is_no_way_around_the_rest(path: bytes) -> None:
    with pytest.raises(Refused):
        parse_target(path)


HOSTS = [b"a", b"a.b-c_d:80", b"127.0.0.1", b"[::1]", b"[2001:db8::1]:8080", b"xn--bcher-kva.test"]
NO_HOSTS = [b"", b"-a", b"a b", b"a/b", b"a@b", b"a:", b"a:x", b"a:99999", b"[::1", b"::1", b"\xe9"]


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_is_a_name_or_an_address_and_a_port(host: bytes) -> None:
    check_host(host)


@pytest.mark.parametrize("host", NO_HOSTS)
def test_what_is_no_host_is_refused(host: bytes) -> None:
    with pytest.raises(Refused) as caught:
        check_host(host)
    assert caught.value.code == "bad_host"


HEAD = b"POST /a HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n"


@given(st.lists(st.integers(1, len(HEAD) + 4), max_size=6))
def test_a_head_is_the_same_however_it_is_cut(cuts: list[int]) -> None:
    whole = HEAD + b"body"
    edges = [0, *sorted(set(cuts)), len(whole)]
    buffer, found = HeadBuffer(LIMITS), None
    for start, end in itertools.pairwise(edges):
        if found is None:
            found = buffer.feed(whole[start:end])
        else:
            found = found[0], found[1] + whole[start:end]
    assert found == (HEAD, b"body")


def test_a_head_of_100_headers_may_end_anywhere() -> None:
    head = b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100 + b"\r\n"
    for cut in (len(head) - 3, len(head) - 2, len(head) - 1):
        buffer = HeadBuffer(LIMITS)
        assert buffer.feed(head[:cut]) is None
        assert buffer.feed(head[cut:]) == (head, b"")


CHUNKS = b"3\r\nabc\r\n0a;name=value\r\n0123456789\r\n1\r\n\n\r\n0\r\nA: b\r\n\r\n"


@given(st.lists(st.integers(1, len(CHUNKS)), max_size=8))
def test_chunks_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    whole = CHUNKS + b"GET"
    edges = [0, *sorted(set(cuts)), len(whole)]
    decoder, body, rest = ChunkedBody(LIMITS, 100), b"", None
    for start, end in itertools.pairwise(edges):
        if rest is None:
            pieces, rest = decoder.feed(whole[start:end])
            body += b"".join(pieces)
        else:
            rest += whole[start:end]
    assert (body, rest) == (b"abc0123456789\n", b"GET")


@given(st.binary(max_size=80))
def test_any_bytes_are_chunks_or_refused(data: bytes) -> None:
    decoder = ChunkedBody(LIMITS, 40)
    total = 0
    try:
        for i in range(len(data)):
            pieces, rest = decoder.feed(data[i : i + 1])
            total += sum(map(len, pieces))
            if rest is not None:
                break
    except Refused as refused:
        assert refused.status in (400, 413)
    assert total <= 40


def test_the_chunked_limits_hold_exactly() -> None:
    limits = HttpLimits(max_chunks=2, max_chunk_extension_bytes=4, max_trailers=1, max_trailer_bytes=4)
    for data, code in [
        (b"1\r\nx\r\n" * 2 + b"0\r\n\r\n", None),
        (b"1\r\nx\r\n" * 3, "too_many_chunks"),
        (b"1;abc\r\nx\r\n0\r\n\r\n", None),
        (b"1;abcd\r\nx\r\n", "chunk_extensions_too_long"),
        (b"1;ab\r\nx\r\n1;a\r\n", "chunk_extensions_too_long"),
        (b"0\r\nA: b\r\n\r\n", None),
        (b"0\r\nA: bc\r\n\r\n", "trailers_too_large"),
        (b"0\r\nA:\r\nB:\r\n\r\n", "trailers_too_large"),
        (b"a\r\n", None),
        (b"b\r\n", "body_too_large"),
    ]:
        try:
            ChunkedBody(limits, 10).feed(data)
        except Refused as refused:
            assert refused.code == code, data
        else:
            assert code is None, data


def test_a_body_must_keep_its_rate_in_every_window() -> None:
    limits = HttpLimits(body_window_s=5, min_body_bytes_per_s=1024, body_deadline_s=60)
    pace = BodyPace(limits, 100.0, raised=False)
    pace.arrived(5 * 1024)
    assert not pace.is_too_slow(104.9)
    assert not pace.is_too_slow(105.0)
    pace.arrived(5 * 1024 - 1)
    assert not pace.is_too_slow(109.9)
    assert pace.is_too_slow(110.0)


def test_a_body_must_be_whole_by_its_deadline_unless_larger_ones_are_allowed() -> None:
    limits = HttpLimits(body_deadline_s=60)
    for raised in (False, True):
        pace = BodyPace(limits, 0.0, raised=raised)
        for second in range(1, 60):
            pace.arrived(2000)
            assert not pace.is_too_slow(second)
        pace.arrived(2000)
        assert pace.is_too_slow(60) is not raised


def test_time_in_which_we_did_not_read_is_not_the_clients() -> None:
    pace = BodyPace(HttpLimits(), 0.0, raised=False)
    for _ in range(100):
        pace.excuse(1.0)
    assert not pace.is_too_slow(100.0)
    assert pace.is_too_slow(105.0)


def test_a_reader_must_take_enough_or_all() -> None:
    limits = HttpLimits(write_deadline_s=30, min_write_bytes_per_s=1000)
    watch = WriteWatch(limits, 0.0, 1_000_000)
    assert not watch.is_stuck(29, 1_000_000)
    assert not watch.is_stuck(30, 970_000)
    assert watch.is_stuck(60, 940_001)
    watch.drained(60, 0)
    assert not watch.is_stuck(89, 500_000)
    assert watch.is_stuck(90, 500_000)


class Peer:
    def __init__(self, host: str) -> None:
        self.client: tuple[str, int] | None = (host, 1)
        self.bound = None

    def sweep(self, now: float, elapsed_s: float) -> None: ...

    def shutdown(self) -> None:
        self.client = None


def test_connections_are_counted_by_address_and_by_network() -> None:
    loop = asyncio.new_event_loop()
    limits = HttpLimits(max_connections=5, max_connections_per_peer=2)
    connections = Connections(None, limits, loop, open_=set(), tasks=set(), app_state={})
    loop.close()

    def admitted(peer: Peer) -> str:
        refused = connections.admit(peer)
        return refused.code if refused else "in"

    first, second, third = Peer("10.0.0.1"), Peer("::ffff:10.0.0.1"), Peer("10.0.0.1")
    assert [admitted(p) for p in (first, second, third)] == ["in", "in", "too_many_connections_of_peer"]
    connections.forget(third)  # was never in
    connections.forget(first)
    assert admitted(third) == "in"
    assert [admitted(Peer(f"2001:db8::{i}")) for i in (1, 2, 3)] == ["in", "in", "too_many_connections_of_peer"]
    assert admitted(Peer("10.0.0.9")) == "in"
    assert admitted(Peer("10.0.0.8")) == "too_many_connections"
    for peer in (second, third):
        connections.forget(peer)
    assert len(connections) == 3
    assert [admitted(p) for p in (first, second)] == ["in", "in"], "as many as before"
    connections.drain()
    assert (first.client, third.client) == (None, ("10.0.0.1", 1)), "those that are open are told"


def test_gunicorn_is_set_up_without_what_we_do_not_want(tmp_path) -> None:
    arguments = ["--fd", "3", "--home", str(tmp_path), "--grace", "2.5", "--app", TEST_APP]
    configured = GatewayApplication(parse(arguments)).cfg
    assert configured is not None
    assert configured.control_socket_disable is True
    assert configured.accesslog is None
    assert configured.graceful_timeout > 2.5
    assert configured.address == [3]


class RecordingTransport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def can_write_eof(self) -> bool:
        return False


def test_the_clock_of_a_body_starts_when_we_ask_for_it() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await asked.wait()
            await receive()

        tasks: set[asyncio.Task[None]] = set()
        connections = Connections(app, LIMITS, loop, open_=set(), tasks=tasks, app_state={})
        connection, transport = HttpConnection(connections), RecordingTransport()
        connection.connection_made(transport)
        connection.data_received(b"PUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n")
        now = loop.time()
        for _ in range(100):
            now += 1.0
            connection.sweep(now, 1.0)
        assert transport.written == b""
        asked.set()
        while not transport.written:
            await asyncio.sleep(0)
        assert transport.written == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sweep(now + 4.0, 4.0)
        assert b"408" not in transport.written
        connection.sweep(now + 6.0, 2.0)
        assert b"HTTP/1.1 408 Request Timeout\r\n" in transport.written
        await asyncio.wait(tasks)

    asyncio.run(scenario())
