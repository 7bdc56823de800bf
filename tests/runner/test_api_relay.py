"""The way out of a box: the relay of its calls, before a gateway that is a test."""

import contextlib
import hashlib
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serai.ipc.frames import NARROW
from serai.ipc.messages import Bound, decode
from serai.ipc.sockets import bind_unix
from serai_runner.outgoing import relay as api_relay
from serai_runner.outgoing.refusals import MAX_CONNECTIONS
from serai_runner.outgoing.testing import RelayThread, running_relay

PATIENCE_S = 20.0

BOUND = Bound("bob", "alice/same@" + "0" * 40, "req-1", "req-root", 1, 1e9, True)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Gateway:
    """A listening socket at which a test takes the connections itself."""

    def __init__(self, path: Path) -> None:
        self._listener = bind_unix(path)
        self._listener.settimeout(PATIENCE_S)

    def take(self) -> tuple[socket.socket, Bound]:
        """The next connection, and whom it speaks for."""
        conn, _ = self._listener.accept()
        conn.settimeout(PATIENCE_S)
        length, header = NARROW.unpack(read_exactly(conn, NARROW.size))
        assert length == header + 2
        message = decode(read_exactly(conn, header))
        assert isinstance(message, Bound)
        return conn, message

    def has_nothing(self) -> bool:
        return not select.select([self._listener], [], [], 0)[0]

    def close(self) -> None:
        self._listener.close()


def read_exactly(sock: socket.socket, num_bytes: int) -> bytes:
    data = b""
    while len(data) < num_bytes:
        part = sock.recv(num_bytes - len(data))
        assert part, "it ended too early"
        data += part
    return data


def read_all(sock: socket.socket) -> bytes:
    """To the end, or to a reset."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(65536):
            data += part
    return data


def error_of(answer: bytes) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"content-length: {len(body)}".encode() in head and b"x-request-id: req-" in head
    error = json.loads(body)["error"]
    assert f"HTTP/1.1 {error['status']} ".encode() in head
    return error


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    listening = Gateway(tmp_path / "calls.sock")
    yield listening
    listening.close()


@pytest.fixture
def relay(tmp_path: Path, gateway: Gateway) -> Iterator[RelayThread]:
    with running_relay(tmp_path / "calls.sock") as running:
        running.bound = BOUND
        yield running


@pytest.fixture
def sockets() -> Iterator[contextlib.ExitStack]:
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def connect(relay: RelayThread, sockets: contextlib.ExitStack):
    """Makes a connection as the author's code does."""

    def make() -> socket.socket:
        return sockets.enter_context(socket.create_connection(("127.0.0.1", relay.port), PATIENCE_S))

    return make


def test_a_connection_begins_with_the_call_that_runs(connect, gateway: Gateway, sockets) -> None:
    client = connect()
    client.sendall(GET)
    conn, who = gateway.take()
    sockets.enter_context(conn)
    assert who == BOUND
    assert read_exactly(conn, len(GET)) == GET
    conn.sendall(b"answer")
    assert read_exactly(client, 6) == b"answer"


def test_each_connection_is_for_the_call_of_its_moment(connect, relay: RelayThread, gateway: Gateway, sockets) -> None:
    for payer in ("alice", "bob", "carol"):
        relay.bound = Bound(payer, "a/b@0", f"req-{payer}", "", 0, 1e9, True)
        connect().sendall(GET)
        conn, who = gateway.take()
        sockets.enter_context(conn)
        assert (who.payer, who.call_id) == (payer, f"req-{payer}")
        relay.cut()


def test_without_a_call_the_gateway_is_not_asked(connect, relay: RelayThread, gateway: Gateway) -> None:
    relay.bound = None
    client = connect()
    client.sendall(GET * 1000)
    error = error_of(read_all(client))
    assert (error["status"], error["code"], error["retriable"]) == (401, "unauthenticated", False)
    assert "no call is running" in str(error["message"])
    assert gateway.has_nothing()


def test_a_cut_ends_both_sides_at_once(connect, relay: RelayThread, gateway: Gateway, sockets) -> None:
    clients = [connect() for _ in range(3)]
    conns = []
    for client in clients:
        client.sendall(GET)
        conns.append(sockets.enter_context(gateway.take()[0]))
        assert read_exactly(conns[-1], len(GET)) == GET
    relay.cut()
    for client in clients:
        assert read_all(client) == b""
    for conn in conns:
        assert read_all(conn) == b""
    wait_for(lambda: relay.num_open() == 0)
    client = connect()  # and the next call has its own
    client.sendall(GET)
    sockets.enter_context(gateway.take()[0])


def test_a_connection_that_is_still_being_made_is_cut_too(tmp_path: Path, relay: RelayThread, gateway: Gateway) -> None:
    (tmp_path / "calls.sock").unlink()  # the gateway is being restarted: its connections wait
    with socket.create_connection(("127.0.0.1", relay.port), PATIENCE_S) as client:
        client.sendall(GET)
        wait_for(lambda: relay.num_open() == 1)
        relay.cut()
        assert read_all(client) == b""
    wait_for(lambda: relay.num_open() == 0)


def test_a_gateway_that_is_started_again_is_waited_for(connect, tmp_path: Path, gateway: Gateway, sockets) -> None:
    (tmp_path / "calls.sock").unlink()
    client = connect()
    client.sendall(GET)
    successor = Gateway(tmp_path / "calls.sock")
    conn, who = successor.take()
    sockets.enter_context(conn)
    assert (who, read_exactly(conn, len(GET))) == (BOUND, GET)
    successor.close()


def test_a_gateway_that_stays_away_is_no_mystery(connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serai_runner.outgoing.connection._CONNECT_WAIT_S", 0.0)
    (tmp_path / "calls.sock").unlink()
    client = connect()
    client.sendall(GET)
    error = error_of(read_all(client))
    assert (error["status"], error["retriable"]) == (503, True)


@pytest.mark.parametrize("who", ["client", "gateway"])
def test_when_one_side_ends_the_other_does(connect, relay: RelayThread, gateway: Gateway, sockets, who: str) -> None:
    client = connect()
    client.sendall(GET)
    conn = sockets.enter_context(gateway.take()[0])
    assert read_exactly(conn, len(GET)) == GET
    if who == "client":
        client.close()
        assert read_all(conn) == b""
        conn.close()
    else:
        conn.sendall(b"the last word")
        conn.close()
        assert read_all(client) == b"the last word"
        client.close()
    wait_for(lambda: relay.num_open() == 0)


def test_an_answer_reaches_a_client_that_is_still_sending(connect, gateway: Gateway, sockets) -> None:
    """As with a body of 10 GB: the gateway says 413, stops reading, and the client must see it."""
    client = connect()
    client.sendall(GET)
    conn = sockets.enter_context(gateway.take()[0])
    read_exactly(conn, len(GET))

    def send() -> None:
        with contextlib.suppress(OSError):
            while True:
                client.sendall(b"x" * 65536)

    threads = [threading.Thread(target=send), threading.Thread(target=drop_all, args=(conn,))]
    for thread in threads:
        thread.start()
    conn.sendall(b"HTTP/1.1 413")
    conn.shutdown(socket.SHUT_WR)
    assert read_exactly(client, 12) == b"HTTP/1.1 413"
    assert client.recv(1) == b""
    client.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def drop_all(sock: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        while sock.recv(65536):
            pass


@pytest.mark.parametrize("upward", [True, False])
def test_nothing_piles_up_before_a_side_that_does_not_read(connect, gateway: Gateway, sockets, upward: bool) -> None:
    client = connect()
    client.sendall(GET)
    conn = sockets.enter_context(gateway.take()[0])
    read_exactly(conn, len(GET))
    source, sink = (client, conn) if upward else (conn, client)
    source.setblocking(False)
    data = os.urandom(1 << 20) * 24
    sent = 0
    while select.select([], [source], [], 0.5)[1]:
        sent += source.send(data[sent : sent + 65536])
    assert sent < 12 << 20  # what the kernel holds for four sockets at most, and a little of ours
    source.setblocking(True)
    digests = []
    reader = threading.Thread(target=lambda: digests.append(hashlib.sha256(read_exactly_fast(sink, len(data)))))
    reader.start()
    source.sendall(data[sent:])
    reader.join(PATIENCE_S)
    assert digests[0].digest() == hashlib.sha256(data).digest()


def read_exactly_fast(sock: socket.socket, num_bytes: int) -> bytearray:
    data = bytearray()
    while len(data) < num_bytes:
        part = sock.recv(1 << 16)
        assert part, "it ended too early"
        data += part
    return data


def test_both_directions_run_at_once(connect, gateway: Gateway, sockets) -> None:
    client = connect()
    client.sendall(GET)
    conn = sockets.enter_context(gateway.take()[0])
    read_exactly(conn, len(GET))
    data = os.urandom(4 << 20)
    got: dict[str, bytearray] = {}
    threads = [
        threading.Thread(target=lambda: client.sendall(data)),
        threading.Thread(target=lambda: conn.sendall(data)),
        threading.Thread(target=lambda: got.update(client=read_exactly_fast(client, len(data)))),
        threading.Thread(target=lambda: got.update(conn=read_exactly_fast(conn, len(data)))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert got["client"] == got["conn"] == data


def test_one_box_has_so_many_connections(connect, relay: RelayThread, gateway: Gateway, sockets) -> None:
    clients = []
    for _ in range(MAX_CONNECTIONS):
        clients.append(connect())
        clients[-1].sendall(GET)
        sockets.enter_context(gateway.take()[0])
    late = connect()
    late.sendall(GET)
    error = error_of(read_all(late))
    assert (error["status"], error["code"]) == (503, "too_many_connections")
    assert f"over {MAX_CONNECTIONS} connections" in str(error["message"])
    late.close()
    clients.pop().close()
    wait_for(lambda: relay.num_open() < MAX_CONNECTIONS)
    connect().sendall(GET)
    sockets.enter_context(gateway.take()[0])


def test_a_flood_of_connections_waits_outside(relay: RelayThread, sockets) -> None:
    relay.bound = None  # each is refused, and its client does not even look
    for _ in range(10 * MAX_CONNECTIONS):
        sockets.enter_context(socket.create_connection(("127.0.0.1", relay.port)))
    wait_for(lambda: relay.num_open() == 2 * MAX_CONNECTIONS)
    relay.cut()
    wait_for(lambda: relay.num_open() == 0)  # those that waited came from the call that has ended
    sockets.close()
    with socket.create_connection(("127.0.0.1", relay.port), PATIENCE_S) as client:  # who comes now has its turn
        assert error_of(read_all(client))["status"] == 401
    wait_for(lambda: relay.num_open() == 0)


def test_a_box_opens_connections_at_a_bounded_rate(
    relay: RelayThread, gateway: Gateway, sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_relay, "_BURST", 3)
    monkeypatch.setattr(api_relay, "_PER_S", 1e-6)
    for _ in range(5):
        sockets.enter_context(socket.create_connection(("127.0.0.1", relay.port)))
    for _ in range(3):
        sockets.enter_context(gateway.take()[0])
    assert relay.num_open() == 3 and gateway.has_nothing()


def test_who_still_waits_when_a_call_ends_does_not_speak_for_the_next(
    connect, relay: RelayThread, gateway: Gateway, sockets, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_relay, "_BURST", 1)
    monkeypatch.setattr(api_relay, "_PER_S", 1e-6)
    first, late = connect(), connect()
    late.sendall(GET)
    sockets.enter_context(gateway.take()[0])
    relay.bound = Bound("carol", BOUND.version, "req-2", "req-2", 0, 1e9, True)
    relay.cut()
    monkeypatch.setattr(api_relay, "_PER_S", 500)
    assert read_all(first) == b"" and read_all(late) == b"" and gateway.has_nothing()


def test_a_reset_by_the_client_ends_what_it_asked(connect, relay: RelayThread, gateway: Gateway, sockets) -> None:
    client = connect()
    client.sendall(GET)
    conn = sockets.enter_context(gateway.take()[0])
    read_exactly(conn, len(GET))
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert read_all(conn) == b""


def wait_for(is_so) -> None:
    deadline = threading.Event()
    for _ in range(int(PATIENCE_S / 0.01)):
        if is_so():
            return
        deadline.wait(0.01)
    raise AssertionError(f"not within {PATIENCE_S:g} s")


def test_a_door_that_somebody_else_made_block_holds_up_nobody(
    relay: RelayThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_relay, "_MAX_ACCEPT_S", 0.2)
    door = relay.relay._listener
    assert door is not None
    other = socket.socket(fileno=os.dup(door.fileno()))  # as its maker may keep one
    os.set_blocking(other.fileno(), True)
    relay.ask(relay.relay._accept)  # told of a connection that its maker has taken meanwhile
    assert relay.num_open() == 0
    relay.ask(relay.relay.cut)
    wait_for(lambda: relay.ask(lambda: relay.relay._listener) is None)
    other.close()
