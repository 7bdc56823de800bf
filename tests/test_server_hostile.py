"""Hostile HTTP against the real server: each case gets its one answer, and the next client is served as before."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from serai_gateway.server.testing import LARGE_BODY_BYTES, Answer, RunningServer, running_server, wait_until

#: Small, so that limits are met quickly; short, so that deadlines are.
LIMITS = {
    "header_deadline_s": 0.8,
    "keep_alive_s": 1.5,
    "body_deadline_s": 2.0,
    "body_window_s": 0.5,
    "write_deadline_s": 1.0,
    "linger_s": 0.5,
    "sweep_s": 0.1,
    "max_body_bytes": 4096,
    "max_chunks": 500,
    "max_connections_per_peer": 64,
}

HOST = b"Host: serai.test\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server(limits=LIMITS) as running:
        worker = running.state()["pid"]
        num_files = len(list(Path(f"/proc/{worker}/fd").iterdir()))
        yield running
        wait_until(lambda: running.state()["open"] == 1, "all connections are forgotten")
        assert len(list(Path(f"/proc/{worker}/fd").iterdir())) <= num_files + 1, "nothing stays open"
        assert running.stop() == 0


@pytest.fixture(autouse=True)
def canary(server: RunningServer) -> Iterator[None]:
    """After each case another client is served, by the same worker."""
    pid = server.state()["pid"]
    yield
    assert server.ask(post(b"canary")).body == b"canary"
    assert server.state()["pid"] == pid, "the worker died and was replaced"


def post(body: bytes, path: bytes = b"/", headers: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n%b" % (path, HOST, headers, len(body), body)


def get(path: bytes = b"/", headers: bytes = HOST) -> bytes:
    return b"GET %b HTTP/1.1\r\n%b\r\n" % (path, headers)


def chunked(body: bytes, path: bytes = b"/", version: bytes = b"1.1") -> bytes:
    return b"POST %b HTTP/%b\r\n%bTransfer-Encoding: chunked\r\n\r\n%b" % (path, version, HOST, body)


def with_headers(*lines: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def assert_refused(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.error["code"]) == (status, code)
    error = answer.error
    assert error["status"] == status
    assert error["request_id"] == answer.headers["x-request-id"]
    assert error["message"] and error["type"] and isinstance(error["retriable"], bool)
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"


REFUSED = {
    # Where does the body end?
    "length and coding": (with_headers(b"Content-Length: 3", b"Transfer-Encoding: chunked"), 400, None),
    "coding and length": (with_headers(b"Transfer-Encoding: chunked", b"Content-Length: 3"), 400, None),
    "equal lengths": (with_headers(b"Content-Length: 3", b"Content-Length: 3") + b"abc", 400, None),
    "different lengths": (with_headers(b"Content-Length: 3", b"Content-Length: 4") + b"abcd", 400, None),
    "list of lengths": (with_headers(b"Content-Length: 3, 3") + b"abc", 400, None),
    "plus": (with_headers(b"Content-Length: +3") + b"abc", 400, None),
    "minus": (with_headers(b"Content-Length: -1"), 400, None),
    "hexadecimal length": (with_headers(b"Content-Length: 0x3") + b"abc", 400, None),
    "empty length": (with_headers(b"Content-Length:"), 400, None),
    "length of 24 digits": (with_headers(b"Content-Length: 1" + b"0" * 23), 413, "body_too_large"),
    "length of 19 digits": (with_headers(b"Content-Length: 9000000000000000000"), 413, "body_too_large"),
    "one byte too many": (with_headers(b"Content-Length: 4097"), 413, "body_too_large"),
    "unknown coding": (with_headers(b"Transfer-Encoding: xchunked"), 400, None),
    "coding that ends otherwise": (with_headers(b"Transfer-Encoding: chunked, identity"), 400, None),
    "coding behind another": (with_headers(b"Transfer-Encoding: gzip, chunked"), 400, "bad_transfer_encoding"),
    "two codings": (with_headers(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked"), 400, None),
    "coding twice": (with_headers(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400, None),
    "space before colon": (with_headers(b"Transfer-Encoding : chunked"), 400, "malformed_request"),
    "chunks in HTTP/1.0": (chunked(b"0\r\n\r\n", version=b"1.0"), 400, "bad_transfer_encoding"),
    # Chunks
    "chunk size of 17 digits": (chunked(b"F" * 17 + b"\r\n"), 400, "bad_chunk"),
    "chunk size of 16 digits": (chunked(b"F" * 16 + b"\r\n"), 413, "body_too_large"),
    "chunk size that is none": (chunked(b"0x3\r\nabc\r\n0\r\n\r\n"), 400, "bad_chunk"),
    "negative chunk size": (chunked(b"-3\r\nabc\r\n0\r\n\r\n"), 400, "bad_chunk"),
    "chunk longer than it says": (chunked(b"3\r\nabcdef\r\n0\r\n\r\n"), 400, "bad_chunk"),
    "chunk line ends without CR": (chunked(b"3\nabc\n0\n\n" + b"x" * 2000), 400, None),
    "chunks beyond the limit": (chunked(b"1000\r\n" + b"x" * 4096 + b"\r\n1\r\nx\r\n"), 413, "body_too_large"),
    "long extension": (chunked(b"3;" + b"x" * 70_000 + b"\r\nabc\r\n0\r\n\r\n"), 400, "chunk_extensions_too_long"),
    "many extensions": (chunked(b"1;abcdefgh\r\nx\r\n" * 200 + b"0\r\n\r\n"), 400, "chunk_extensions_too_long"),
    "leading zeros": (chunked(b"000000000001\r\nx\r\n" * 200 + b"0\r\n\r\n"), 400, "chunk_extensions_too_long"),
    "too many chunks": (chunked(b"1\r\nx\r\n" * 501 + b"0\r\n\r\n"), 413, "too_many_chunks"),
    "1000 trailers": (chunked(b"0\r\n" + b"A: b\r\n" * 1000 + b"\r\n"), 400, "trailers_too_large"),
    "long trailer": (chunked(b"0\r\nA: " + b"b" * 20_000 + b"\r\n\r\n"), 400, "trailers_too_large"),
    "trailer that is no header": (chunked(b"0\r\nA b\r\n\r\n"), 400, "bad_trailer"),
    # Lines and headers
    "bare line feeds": (b"GET / HTTP/1.1\nHost: x\n\n", 400, "not_http"),
    "a bare line feed": (b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n", 400, "malformed_request"),
    "bare line feeds at the end": (b"GET / HTTP/1.1\r\nHost: x\n\n", 400, "bad_header"),
    "folded header": (get(headers=HOST + b"A: b\r\n c\r\n"), 400, "malformed_request"),
    "NUL in a header": (get(headers=HOST + b"A: b\0c\r\n"), 400, "malformed_request"),
    "CR in a header": (get(headers=HOST + b"A: b\rc\r\n"), 400, "malformed_request"),
    "header without a name": (get(headers=HOST + b": b\r\n"), 400, "malformed_request"),
    "header without a colon": (get(headers=HOST + b"abc\r\n"), 400, "malformed_request"),
    "space before the first header": (get(headers=b" A: b\r\n" + HOST), 400, "malformed_request"),
    "101 headers": (get(headers=HOST + b"A: b\r\n" * 100), 431, "too_many_headers"),
    "20,000 headers": (get(headers=HOST + b"A: b\r\n" * 20_000), 431, None),
    "header of 9 KB": (get(headers=HOST + b"A: " + b"b" * 9000 + b"\r\n"), 431, "header_too_long"),
    "header of 1 MB": (get(headers=HOST + b"A: " + b"b" * 1_000_000 + b"\r\n"), 431, "header_too_long"),
    "headers of 500 KB": (get(headers=HOST + (b"A: " + b"b" * 8000 + b"\r\n") * 62), 431, "headers_too_large"),
    "request line of 5 KB": (get(b"/" + b"a" * 5000), 414, "request_line_too_long"),
    "request line of 100 KB": (get(b"/" + b"a" * 100_000), 414, "request_line_too_long"),
    "endless request line": (b"GET /" + b"a" * 5000, 414, "request_line_too_long"),
    "empty lines first": (b"\r\n\r\n" + get(), 400, "empty_lines"),
    # Host
    "no Host": (get(headers=b""), 400, "bad_host"),
    "no Host in HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", 400, "bad_host"),
    "two Hosts": (get(headers=HOST + HOST), 400, "bad_host"),
    "empty Host": (get(headers=b"Host:\r\n"), 400, "bad_host"),
    "Host with a path": (get(headers=b"Host: e/admin?x=\r\n"), 400, "bad_host"),
    "Host with user": (get(headers=b"Host: a@b\r\n"), 400, "bad_host"),
    "half an address": (get(headers=b"Host: [::1\r\n"), 400, "bad_host"),
    "no IPv6 address": (get(headers=b"Host: [1:2:3]\r\n"), 400, "bad_host"),
    "Host of 300 characters": (get(headers=b"Host: " + b"a" * 300 + b"\r\n"), 400, "bad_host"),
    "port beyond ports": (get(headers=b"Host: a:65536\r\n"), 400, "bad_host"),
    "two names": (get(headers=b"Host: a, b\r\n"), 400, "bad_host"),
    # Paths
    "escaped NUL": (get(b"/a%00b"), 400, "bad_path"),
    "escaped line feed": (get(b"/a%0ab"), 400, "bad_path"),
    "parent": (get(b"/a/../b"), 400, "bad_path"),
    "parent at the end": (get(b"/a/.."), 400, "bad_path"),
    "escaped parent": (get(b"/%2e%2e%2fetc"), 400, "bad_path"),
    "half-escaped parent": (get(b"/a/.%2e/b"), 400, "bad_path"),
    "parent with parameter": (get(b"/a/..;x=y/b"), 400, "bad_path"),
    "this": (get(b"/a/./b"), 400, "bad_path"),
    "backslash": (get(b"/a\\b"), 400, "bad_path"),
    "escaped backslash": (get(b"/..%5c..%5cb"), 400, "bad_path"),
    "host in the path": (get(b"//evil.test/a"), 400, "bad_path"),
    "empty segment": (get(b"/a//b"), 400, "bad_path"),
    "escaped empty segment": (get(b"/a/%2fb"), 400, "bad_path"),
    "not UTF-8": (get(b"/%ff"), 400, "bad_path"),
    "escaped surrogate": (get(b"/%ed%a0%80"), 400, "bad_path"),
    "escape that is none": (get(b"/%zz"), 400, "bad_path"),
    "half an escape": (get(b"/%a"), 400, "bad_path"),
    "raw bytes": (get(b"/\xc3\xa9"), 400, None),
    "fragment": (get(b"/a#b"), 400, "bad_target"),
    "absolute form": (get(b"http://serai.test/a"), 400, "bad_target"),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_target"),
    "authority form": (b"CONNECT serai.test:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400, "bad_target"),
    # Not HTTP/1.1
    "HTTP/9.9": (b"GET / HTTP/9.9\r\n" + HOST + b"\r\n", 400, "malformed_request"),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", 400, "bad_version"),
    "HTTP/0.9": (b"GET /\r\n\r\n", 400, None),
    "HTTP/1.10": (b"GET / HTTP/1.10\r\n" + HOST + b"\r\n", 400, "malformed_request"),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, None),
    "TLS": (bytes.fromhex("16030100a5010000a10303") + bytes(range(150)), 400, "not_http"),
    "binary": (bytes(range(128, 256)), 400, "not_http"),
    "lower-case method": (b"get / HTTP/1.1\r\n" + HOST + b"\r\n", 400, None),
    "unknown method": (b"STEAL / HTTP/1.1\r\n" + HOST + b"\r\n", 400, "malformed_request"),
    "unknown expectation": (with_headers(b"Expect: the-unexpected"), 417, "bad_expectation"),
}


@pytest.mark.parametrize(("sent", "status", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_request_gets_its_status_and_a_closed_connection(
    server: RunningServer, sent: bytes, status: int, code: str | None
) -> None:
    with server.client() as client:
        client.send(sent)
        answer = client.answer()
        assert_refused(answer, status, code or answer.error["code"])
        assert client.wait_closed() == b"", "one request, one answer"


@pytest.mark.parametrize("name", ["length and coding", "101 headers", "two Hosts", "escaped parent", "1000 trailers"])
def test_bytes_that_come_one_at_a_time_are_refused_as_well(server: RunningServer, name: str) -> None:
    sent, status, code = REFUSED[name]
    with server.client() as client:
        for i in range(len(sent)):
            if not client.send(sent[i : i + 1]):
                break
        answer = client.answer()
        assert_refused(answer, status, code or answer.error["code"])


ACCEPTED = {
    "a body at the limit": (post(b"x" * 4096), b"x" * 4096),
    "a larger one where it is allowed": (post(b"x" * LARGE_BODY_BYTES, b"/large"), b"x" * LARGE_BODY_BYTES),
    "chunks up to the limit": (chunked(b"1000\r\n" + b"x" * 4096 + b"\r\n0\r\n\r\n"), b"x" * 4096),
    "as many chunks as allowed": (chunked(b"1\r\nx\r\n" * 500 + b"0\r\n\r\n"), b"x" * 500),
    "a short extension and a trailer": (chunked(b"3;a=b\r\nabc\r\n0\r\nA: b\r\n\r\n"), b"abc"),
    "an empty body": (post(b""), b""),
    "no chunks": (chunked(b"0\r\n\r\n"), b""),
    "100 headers": (get(headers=HOST + b"A: b\r\n" * 99), b""),
    "a header at the limit": (get(headers=HOST + b"A: " + b"b" * 8189 + b"\r\n"), b""),
    "a request line at the limit": (get(b"/" + b"a" * (4096 - len("GET / HTTP/1.1"))), b""),
    "an empty line first": (b"\r\n" + get(), b""),
    "an IPv6 host": (get(headers=b"Host: [::1]:8000\r\n"), b""),
    "dots and escapes in names": (get(b"/.my/a..b/%C3%A9%20x/...?q=../%00//"), b""),
    "an upgrade nobody offers": (get(headers=HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"), b""),
}


@pytest.mark.parametrize(("sent", "body"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_is_just_inside_the_limits_is_served(server: RunningServer, sent: bytes, body: bytes) -> None:
    answer = server.ask(sent)
    assert (answer.status, answer.body) == (200, body)


@pytest.mark.parametrize("path", [b"/large", b"/"])
def test_a_body_over_the_limit_of_its_path_is_refused_before_it_comes(server: RunningServer, path: bytes) -> None:
    limit = LARGE_BODY_BYTES if path == b"/large" else 4096
    with server.client() as client:
        client.send(b"POST %b HTTP/1.1\r\n%bContent-Length: %d\r\n\r\n" % (path, HOST, limit + 1))
        answer = client.answer()
    assert_refused(answer, 413, "body_too_large")
    assert str(limit) in answer.error["message"]


def test_the_answer_to_a_large_body_arrives_although_the_client_goes_on_sending(server: RunningServer) -> None:
    with server.client() as client:
        client.send(with_headers(b"Content-Length: 3000000") + b"x" * 100_000)
        assert_refused(client.answer(), 413, "body_too_large")
        assert client.send(b"x" * 10_000) and client.send(b"x" * 10_000), "dropped, but not answered with a reset"


def test_continue_is_said_only_when_the_body_is_wanted(server: RunningServer) -> None:
    expect = b"Expect: 100-continue"
    with server.client() as client:
        client.send(with_headers(expect, b"Content-Length: 5000"))
        assert_refused(client.answer(), 413, "body_too_large")
    with server.client() as client:
        client.send(b"POST /early HTTP/1.1\r\n" + HOST + expect + b"\r\nContent-Length: 5\r\n\r\n")
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (401, "close")
        assert client.wait_closed() == b"", "nobody knows whether a body follows, so nothing may"
    with server.client() as client:
        client.send(with_headers(expect, b"Content-Length: 5"))
        assert client.answer().status == 100
        client.send(b"hello")
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"hello")
        assert "connection" not in answer.headers


def test_an_early_answer_leaves_the_connection_usable(server: RunningServer) -> None:
    with server.client() as client:
        client.send(b"POST /early HTTP/1.1\r\n" + HOST + b"Content-Length: 2000\r\n\r\n")
        assert client.answer().status == 401
        client.send(b"GET /server HTTP/1.1\r\n\r\n" * 83 + b"x" * 8)  # 2000 bytes of body that look like requests
        client.send(post(b"next"))
        assert client.answer().body == b"next"


def test_requests_in_one_write_are_answered_in_order(server: RunningServer) -> None:
    with server.client() as client:
        client.send(post(b"one") + chunked(b"3\r\ntwo\r\n0\r\n\r\n") + get(b"/early") + post(b"four"))
        assert [client.answer().body for _ in range(4)] == [b"one", b"two", b"{}", b"four"]


def test_a_request_inherits_nothing_from_the_one_before_it(server: RunningServer) -> None:
    with server.client() as client:
        client.send(get(b"/context") * 3)
        assert [client.answer().body for _ in range(3)] == [b"nobody"] * 3


def test_what_follows_a_refused_request_is_not_served(server: RunningServer) -> None:
    with server.client() as client:
        client.send(with_headers(b"Content-Length: 3", b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + get(b"/seen"))
        assert client.answer().status == 400
        assert client.wait_closed() == b""


def test_a_request_cut_anywhere_gets_the_same_answer(server: RunningServer) -> None:
    whole = chunked(b"3;x\r\nabc\r\n2\r\nde\r\n0\r\nA: b\r\n\r\n", b"/seen") + post(b"next")
    expected = [b"abcde", b"next"]
    for cut in range(1, len(whole)):
        with server.client() as client:
            client.send(whole[:cut])
            client.send(whole[cut:])
            answers = [client.answer().body, client.answer().body]
        assert [json.loads(answers[0])["body"].encode(), answers[1]] == expected, f"cut at {cut}"


def test_headers_that_could_pass_for_others_do_not_reach_the_application(server: RunningServer) -> None:
    head = b"X_Forwarded_For: 1.2.3.4\r\nTransfer-Encoding: chunked\r\nX-Fine: yes\r\n"
    sent = b"POST /seen HTTP/1.1\r\n" + HOST + head + b"\r\n1\r\nx\r\n0\r\nX-User: root\r\n\r\n"
    names = [name for name, _ in json.loads(server.ask(sent).body)["headers"]]
    assert names == ["host", "transfer-encoding", "x-fine"]


def test_a_failing_application_tells_nothing_about_itself(server: RunningServer) -> None:
    answer = server.ask(get(b"/fails"))
    assert_refused(answer, 500, "internal")
    assert b"secret" not in answer.body
    assert "a secret detail" in server.log(), "the operator finds it in the log"


def test_a_response_that_is_not_what_its_length_says_is_not_sent(server: RunningServer) -> None:
    assert_refused(server.ask(get(b"/lies")), 500, "internal")


def test_an_answer_that_breaks_off_cannot_be_taken_for_whole(server: RunningServer) -> None:
    with server.client() as client:
        client.send(get(b"/cut"))
        with pytest.raises((EOFError, ConnectionResetError)):
            client.answer()


def test_the_server_header_names_no_version(server: RunningServer) -> None:
    answers = [server.ask(get()), server.ask(get(headers=b""))]
    assert [answer.headers["server"] for answer in answers] == ["serai", "serai"]


SLOW = {
    "headers that stall": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"", "header_deadline"),
    "headers that drip": (b"GET / HTTP/1.1\r\nHost: x\r\n", b"A: b\r\n", "header_deadline"),
    "empty line, then nothing": (b"\r\n", b"", "header_deadline"),
    "a body that stalls": (with_headers(b"Content-Length: 4000") + b"x", b"", "body_deadline"),
    "a body that drips": (with_headers(b"Content-Length: 4000") + b"x", b"x", "body_deadline"),
    "a chunk that drips": (chunked(b"fff\r\n"), b"x", "body_deadline"),
    "chunks that drip": (chunked(b""), b"1\r\nx\r\n", "body_deadline"),
    "a body that is fast enough, but endless": (with_headers(b"Content-Length: 4000"), b"x" * 150, "body_deadline"),
    "a body that stalls where larger ones may be": (
        b"POST /large HTTP/1.1\r\n" + HOST + b"Content-Length: 200000\r\n\r\n" + b"x" * 5000,
        b"",
        "body_deadline",
    ),
    "a dripped body that is answered early": (
        b"POST /early HTTP/1.1\r\n" + HOST + b"Content-Length: 4000\r\n\r\n",
        b"x",
        "body_deadline",
    ),
}


@pytest.mark.parametrize(("sent", "drop", "code"), SLOW.values(), ids=SLOW.keys())
def test_a_slow_client_is_cut_however_it_drips(server: RunningServer, sent: bytes, drop: bytes, code: str) -> None:
    with server.client() as client, dripping(client.send, drop):
        client.send(sent)
        answer = client.answer()
        if answer.status == 401:
            answer = client.answer()
        assert_refused(answer, 408, code)
        assert answer.error["retriable"] is True
        client.wait_closed()


@contextlib.contextmanager
def dripping(send: Callable[[bytes], bool], drop: bytes) -> Iterator[None]:
    """Send `drop` ten times a second, until the other side takes no more."""
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.1):
            if drop and not send(drop):
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_silent_connections_are_closed_before_and_after_a_request(server: RunningServer) -> None:
    with server.client() as silent, server.client() as served:
        served.send(get())
        assert served.answer().status == 200
        assert silent.wait_closed() == b"" == served.wait_closed()


def test_a_client_that_never_reads_is_cut(server: RunningServer) -> None:
    before = server.state()["counts"].get("write_deadline", 0)
    with server.client(receive_buffer=4096) as client:
        client.send(get(b"/big/30000000"))
        wait_until(lambda: server.state()["counts"].get("write_deadline", 0) == before + 1, "the reader is cut")
    wait_until(lambda: server.state()["open"] == 1, "nothing is left of it")


def test_a_client_that_leaves_leaves_nothing_behind(server: RunningServer) -> None:
    for sent in (
        b"",
        b"GET / HT",
        with_headers(b"Content-Length: 100") + b"x",
        chunked(b"5\r\nab"),
        get(b"/big/9000000"),
    ):
        with server.client() as client:
            client.send(sent)
    wait_until(lambda: server.state()["open"] == 1, "all connections are forgotten")


def test_connections_beyond_the_limit_of_their_address_are_refused_and_others_are_not(server: RunningServer) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(64):
            client = stack.enter_context(server.client(source="127.0.0.3"))
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        with server.client(source="127.0.0.3") as one_too_many:
            answer = one_too_many.answer()
        assert_refused(answer, 503, "too_many_connections_of_peer")
        assert answer.headers["retry-after"] == "1"
        assert server.ask(get()).status == 200, "another address has room"
    wait_until(lambda: server.state()["open"] == 1, "all are gone")
    with server.client(source="127.0.0.3") as again:
        again.send(get())
        assert again.answer().status == 200
