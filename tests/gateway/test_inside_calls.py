"""Calls inside calls: what a running algorithm may ask of the gateway, and how."""

import asyncio
import contextlib
import json
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serai.ipc.frames import pack_frame
from serai.ipc.messages import Call, Cancel, encode
from serai_gateway.api.inside import (
    MAX_CALLS_OF_A_CALL,
    MAX_CALLS_OF_A_TREE,
    MAX_DEPTH,
    InFlight,
    TooDeep,
    check,
)
from serai_gateway.api.testing.fake_host import FakeHost, HostedCall
from serai_gateway.api.testing.gateway import CallGateway, running_calls
from serai_gateway.api.testing.inside import BOUND, InsideClient, bound
from serai_gateway.api.v2.testing.gateway import publish_model, running_gateway
from serai_gateway.catalogue import Account, NewVersion, open_catalogue
from serai_gateway.errors import DeadlineExceeded, Forbidden, TooManyRequests
from serai_gateway.server.inside import MAX_FRAME_BYTES, read_bound
from serai_gateway.server.testing import PATIENCE_S, RunningServer, wait_until

# The rules


@pytest.mark.parametrize("path", ["/v1/algo/a/b", "/v1/algo", "/v1/web/algo/a/b", "/v2/models/a/b/infer", "/v2"])
def test_a_running_call_may_call(path: str) -> None:
    check(bound(), "POST", path, time.monotonic())


@pytest.mark.parametrize("path", ["/v1/algorithms", "/v1/algorithms/a/b"])
def test_a_running_call_may_look_up_and_not_change(path: str) -> None:
    check(bound(), "GET", path, time.monotonic())
    with pytest.raises(Forbidden, match="needs a key"):
        check(bound(), "POST", path, time.monotonic())


@pytest.mark.parametrize(
    "path",
    ["/", "/metrics", "/v1/publish", "/v1/pool", "/v1/keys", "/v1/algorithm", "/v1/algorithmsx", "/v2x", "/git/a"],
)
def test_a_running_call_may_do_nothing_else(path: str) -> None:
    for method in ("GET", "POST"):
        with pytest.raises(Forbidden, match="needs a key"):
            check(bound(), method, path, time.monotonic())


def test_without_the_permission_the_message_says_where_to_write_it() -> None:
    with pytest.raises(Forbidden, match=r"alice/same may not .* calls = true under \[permissions\]"):
        check(bound(may_call=False), "POST", "/v1/algo/a/b", time.monotonic())


def test_the_data_store_is_not_a_matter_of_this_permission() -> None:
    check(bound(may_call=False, depth=MAX_DEPTH), "GET", "/v1/data/alice/c/file", time.monotonic())


def test_calls_go_so_deep_and_no_deeper() -> None:
    check(bound(depth=MAX_DEPTH - 1), "POST", "/v1/algo/a/b", time.monotonic())
    with pytest.raises(TooDeep, match=f"{MAX_DEPTH} is the limit.*circle"):
        check(bound(depth=MAX_DEPTH), "POST", "/v1/algo/a/b", time.monotonic())


def test_after_its_own_deadline_a_call_makes_no_others() -> None:
    with pytest.raises(DeadlineExceeded, match="longer timeout"):
        check(bound(deadline=10.0), "POST", "/v1/algo/a/b", 10.0)


def test_one_call_has_so_many_others_at_once() -> None:
    in_flight = InFlight()
    for _ in range(MAX_CALLS_OF_A_CALL):
        in_flight.enter(BOUND)
    with pytest.raises(TooManyRequests, match=f"{MAX_CALLS_OF_A_CALL} calls"):
        in_flight.enter(BOUND)
    in_flight.leave(BOUND)
    in_flight.enter(BOUND)


def test_one_call_from_outside_leads_to_so_many_at_once() -> None:
    in_flight, entered = InFlight(), []
    callers = [bound(call_id=f"req-{number}") for number in range(6)]
    with pytest.raises(TooManyRequests, match=f"{MAX_CALLS_OF_A_TREE} calls"):
        for caller in callers:
            for _ in range(MAX_CALLS_OF_A_CALL):
                in_flight.enter(caller)
                entered.append(caller)
    assert len(entered) == MAX_CALLS_OF_A_TREE == len(in_flight)
    in_flight.enter(bound(root="", call_id="req-another"))
    in_flight.leave(bound(root="", call_id="req-another"))
    for caller in entered:
        in_flight.leave(caller)
    assert len(in_flight) == 0


# The frame


def test_a_frame_is_the_same_however_it_is_cut() -> None:
    frame = pack_frame(encode(BOUND))
    for cut in range(len(frame)):
        assert read_bound(frame[:cut]) is None
    assert read_bound(frame) == (BOUND, len(frame))
    assert read_bound(frame + b"GET / HTTP/1.1") == (BOUND, len(frame))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\xff" * 20,
        pack_frame(encode(Cancel(1))),
        pack_frame(encode(BOUND), b"a payload"),
        pack_frame(b"\x80"),
        pack_frame(b"x" * MAX_FRAME_BYTES),
        pack_frame(encode(bound(payer=""))),
        pack_frame(encode(bound(depth=-1))),
    ],
)
def test_what_is_no_such_frame_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"introduces no call|no Bound|which call"):
        read_bound(data)


# A gateway


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inside") / "home"


@pytest.fixture(scope="module")
def running(home: Path) -> Iterator[CallGateway]:
    with running_calls(home.parent) as gateway:
        for owner, name in (("alice", "helper"), ("bob", "own"), ("carol", "private"), ("operator", "secret")):
            publish_privately(home, owner, name)
        yield gateway


@pytest.fixture
def gateway(running: CallGateway) -> CallGateway:
    async def echo(call: HostedCall) -> None:
        call.result(call.payload, "json")

    running.host.script = echo
    return running


def publish_privately(home: Path, owner: str, name: str) -> None:
    catalogue = open_catalogue(home)
    account: Account = catalogue.account_named(owner) if owner == "operator" else catalogue.ensure_account(owner)
    algorithm = catalogue.ensure_algorithm(account, name)
    manifest = {"owner": owner, "name": name, "kind": "python"}
    new = NewVersion(f"{sum(name.encode()):040x}", "python", manifest, "0" * 64)
    catalogue.publish_version(catalogue.add_version(algorithm, new), "1.0.0", public=False)
    catalogue.close()


def last(host: FakeHost) -> Call:
    return host.calls[-1].call


def test_a_call_is_the_payers_whatever_key_comes_with_it(gateway: CallGateway, home: Path) -> None:
    who = bound()
    for headers in ({}, {"Authorization": gateway.keys["operator"]}, {"Authorization": "nonsense"}):
        with InsideClient(home, who) as client:
            answer = client.call("alice/same", b"[1]", **headers)
        assert (answer.status, json.loads(answer.body)["result"]) == (200, [1])
        made = last(gateway.host)
        assert (made.payer, made.root, made.depth) == ("bob", "req-root", who.depth + 1)
        assert made.call_id == answer.headers["x-request-id"] != who.call_id
        assert made.deadline <= who.deadline


def test_the_first_of_a_tree_is_its_root(gateway: CallGateway, home: Path) -> None:
    with InsideClient(home, bound(root="", depth=0)) as client:
        assert client.call("alice/same").status == 200
    assert (last(gateway.host).root, last(gateway.host).depth) == ("req-outer", 1)
    assert gateway.call().status == 200
    assert (last(gateway.host).root, last(gateway.host).depth) == ("", 0)


def test_a_shorter_timeout_of_its_own_counts(gateway: CallGateway, home: Path) -> None:
    who = bound()
    with InsideClient(home, who) as client:
        assert client.call("alice/same?timeout=5").status == 200
    assert last(gateway.host).deadline < who.deadline - 50


def test_no_connection_is_kept_for_a_later_call(gateway: CallGateway, home: Path) -> None:
    with InsideClient(home, bound()) as client:
        assert client.call("alice/same").headers["connection"] == "close"
        assert client.wait_closed() == b""


@pytest.mark.parametrize(
    ("payer", "algorithm", "status"),
    [
        ("bob", "alice/helper", 200),  # of the author who calls
        ("bob", "ALICE/Helper", 200),
        ("bob", "bob/own", 200),  # of who pays
        ("alice", "bob/own", 404),
        ("bob", "carol/private", 404),
        ("operator", "carol/private", 404),  # an operator's rights over others are not lent
        ("operator", "operator/secret", 200),
        ("nobody", "alice/same", 401),
    ],
)
def test_what_a_running_call_may_see(gateway: CallGateway, home: Path, payer: str, algorithm: str, status: int) -> None:
    with InsideClient(home, bound(payer=payer)) as client:
        assert client.call(algorithm).status == status
    with InsideClient(home, bound(payer=payer)) as client:
        assert client.get(f"/v1/algorithms/{algorithm}").status == status


def test_what_is_private_to_who_pays_is_not_listed(gateway: CallGateway, home: Path) -> None:
    for payer in ("bob", "operator"):
        with InsideClient(home, bound(payer=payer)) as client:
            listed = {
                f"{one['owner']}/{one['name']}" for one in json.loads(client.get("/v1/algorithms").body)["results"]
            }
        assert {"alice/same", "alice/helper"} <= listed and not {"bob/own", "operator/secret"} & listed


def test_what_was_printed_is_for_code_of_the_same_owner(gateway: CallGateway, home: Path) -> None:
    async def print_and_fail(call: HostedCall) -> None:
        call.fail("as asked")

    gateway.host.script = print_and_fail
    for version, algorithm, may_see in (
        ("alice/same@0", "alice/helper", True),
        ("alice/same@0", "bob/own", False),  # bob pays, but alice's code would read it
        ("carol/x@0", "alice/same", False),
    ):
        with InsideClient(home, bound(version=version)) as client:
            assert client.call(f"{algorithm}?stdout=true").status == 200
        assert last(gateway.host).wants_stdout is may_see


def test_a_call_without_the_permission_makes_none(gateway: CallGateway, home: Path) -> None:
    before = len(gateway.host.calls)
    with InsideClient(home, bound(may_call=False)) as client:
        answer = client.call("alice/same")
        assert (answer.status, answer.error["code"]) == (403, "forbidden")
        assert "calls = true under [permissions]" in answer.error["message"]
    with InsideClient(home, bound(may_call=False)) as client:
        client.ask("POST", "/v2/models/alice/same/infer", b"{}")
        assert client.answer().status == 403
    with InsideClient(home, bound(may_call=False)) as client:
        assert client.get("/v1/data/alice/c/f").status == 404  # there is no data store yet, but the way is open
    assert len(gateway.host.calls) == before


def test_nothing_is_managed_from_inside(gateway: CallGateway, home: Path) -> None:
    for path in ("/metrics", "/v1/pool", "/openapi.json"):
        with InsideClient(home, bound(payer="operator")) as client:
            assert client.get(path).status == 403
    with InsideClient(home, bound(payer="operator")) as client:
        client.ask("POST", "/v1/publish", b"x", Authorization=gateway.keys["operator"])
        assert client.answer().status == 403


def test_models_are_run_in_the_name_of_the_payer_but_not_steered(gateway: CallGateway, home: Path) -> None:
    catalogue = open_catalogue(home)
    bob = catalogue.account_named("bob")
    catalogue.close()
    publish_model(home, bob, "digits", {"digits": b"weights"}, public=False)
    with InsideClient(home, bound()) as client:
        assert client.get("/v2/models/bob/digits").status == 200
    with InsideClient(home, bound()) as client:
        client.ask("POST", "/v2/repository/models/bob/digits/unload")
        assert client.answer().status == 403


def test_a_circle_ends(gateway: CallGateway, home: Path) -> None:
    with InsideClient(home, bound(depth=MAX_DEPTH)) as client:
        answer = client.call("alice/same")
    assert (answer.status, answer.error["code"], answer.error["retriable"]) == (403, "too_deep", False)


def test_one_too_many_at_once_is_told_to_wait(gateway: CallGateway, home: Path) -> None:
    open_gate = threading.Event()

    async def wait(call: HostedCall) -> None:
        while not open_gate.is_set():
            await asyncio.sleep(0.01)
        call.result()

    gateway.host.script = wait
    who = bound(call_id="req-many")
    with contextlib.ExitStack() as stack:
        before = len(gateway.host.calls)
        clients = [stack.enter_context(InsideClient(home, who)) for _ in range(MAX_CALLS_OF_A_CALL)]
        for client in clients:
            client.ask("POST", "/v1/algo/alice/same", b"1")
        wait_until(lambda: len(gateway.host.calls) == before + MAX_CALLS_OF_A_CALL, "all of them run")
        with InsideClient(home, who) as late, InsideClient(home, bound(call_id="req-else")) as other:
            answer = late.call("alice/same")
            assert (answer.status, answer.error["retriable"]) == (429, True)
            assert int(answer.headers["retry-after"]) >= 1
            other.ask("POST", "/v1/algo/alice/same", b"1")
            open_gate.set()
            assert other.answer().status == 200
            assert [client.answer().status for client in clients] == [200] * len(clients)
        with InsideClient(home, who) as late:
            assert late.call("alice/same").status == 200


@pytest.mark.parametrize("pipelined", [b"", b"GET /v1/algorithms HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_a_call_ends_with_the_connection_that_made_it(gateway: CallGateway, home: Path, pipelined: bytes) -> None:
    begun = threading.Event()

    async def hang(call: HostedCall) -> None:
        begun.set()
        await call.never()

    gateway.host.script = hang
    with InsideClient(home, bound()) as client:
        client.ask("POST", "/v1/algo/alice/same", b"1")
        client.send(pipelined)
        assert begun.wait(PATIENCE_S)
    assert gateway.host.calls[-1].cancelled.wait(PATIENCE_S)


def test_what_comes_before_its_turn_is_held_up_to_a_limit(gateway: CallGateway, home: Path) -> None:
    async def hang(call: HostedCall) -> None:
        await call.never()

    gateway.host.script = hang
    with InsideClient(home, bound()) as client:
        client.ask("POST", "/v1/algo/alice/same", b"1")
        client.send(b"x" * 200_000)
        answer = client.answer()
    assert (answer.status, answer.error["code"]) == (400, "pipelined")
    assert gateway.host.calls[-1].cancelled.wait(PATIENCE_S)


@pytest.mark.parametrize("data", [b"\xff" * 16, b"GET / HTTP/1.1\r\n\r\n", pack_frame(encode(BOUND), b"payload")])
def test_a_connection_that_introduces_nobody_is_cut(gateway: CallGateway, home: Path, data: bytes) -> None:
    with InsideClient(home, data) as client:
        assert client.wait_closed() == b""
    assert gateway.call().status == 200


def test_an_introduction_may_come_in_pieces(gateway: CallGateway, home: Path) -> None:
    frame = pack_frame(encode(bound()))
    with InsideClient(home, frame[:5]) as client:
        assert gateway.call().status == 200  # by now the server has read those
        client.send(frame[5:])
        assert client.call("alice/same").status == 200


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01" + b"x" * 50 + b"\r\n\r\n", 400),
        (b"POST /v1/algo/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /v1/algo/a/b HTTP/1.1\r\nHost: x\r\nContent-Length: 10737418240\r\n\r\n", 413),
        (b"GET /v1/../v1/pool HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
    ],
)
def test_hostile_http_is_refused_here_too(gateway: CallGateway, home: Path, data: bytes, status: int) -> None:
    with InsideClient(home, bound()) as client:
        client.send(data)
        assert client.answer().status == status
        client.wait_closed()


# Its life


def test_the_socket_is_for_us_alone_and_goes_with_the_gateway(tmp_path: Path) -> None:
    path = tmp_path / "run" / "calls.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with running_gateway(tmp_path, "--log-level", "warning") as server:
        wait_until(lambda: server.ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").status == 200, "it is up")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        workers = worker_pids(server)
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: not workers & worker_pids(server), "other workers have taken their place")
        with InsideClient(tmp_path, bound()) as client:
            assert client.get("/metrics").status == 403
        assert server.stop() == 0
        assert not path.exists()


def worker_pids(server: RunningServer) -> set[int]:
    pid = server.process.pid
    return {int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_a_gateway_that_stops_still_serves_the_calls_of_running_calls(tmp_path: Path) -> None:
    inside: list[int] = []
    entered, go_on = threading.Event(), threading.Event()
    with running_calls(tmp_path) as gateway:

        async def call_another(call: HostedCall) -> None:
            if call.call.depth:
                call.result(b"2", "json")
                return
            entered.set()
            while not go_on.is_set():
                await asyncio.sleep(0.01)
            call.result(b"1", "json")

        gateway.host.script = call_another
        with gateway.server.client() as outer:
            outer.send(
                f"POST /v1/algo/alice/same HTTP/1.1\r\nHost: x\r\nAuthorization: {gateway.keys['alice']}\r\n"
                "Content-Type: application/json\r\nContent-Length: 1\r\n\r\n1".encode()
            )
            assert entered.wait(PATIENCE_S)
            gateway.server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses(gateway.server.port), "it takes nothing new")
            with InsideClient(tmp_path / "home", bound(payer="alice")) as client:
                inside.append(client.call("alice/same").status)
            go_on.set()
            assert outer.answer().status == 200
        assert inside == [200]
        assert gateway.server.process.wait(PATIENCE_S) == 0


def refuses(port: int) -> bool:
    """Whether a worker drains: then a connection is closed after its answer, or nobody answers at all."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(0.2)
        try:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            return b"connection: close" in client.recv(4096)
        except OSError:
            return True


def test_only_the_process_whose_call_runs_knows_the_key_of_its_requests(home: Path) -> None:
    for key, status in (("simMine", 200), ("simOther", 401), ("", 401)):
        with InsideClient(home, bound(key="simMine")) as client:
            client.ask("GET", "/v1/algorithms", **({"Authorization": f"Simple {key}"} if key else {}))
            assert client.answer().status == status, key
