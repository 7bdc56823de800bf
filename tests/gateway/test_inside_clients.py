"""Existing clients inside a box: through the door, the relay and a real gateway, unmodified."""

import contextlib
import json
import os
import shutil
import subprocess
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import serai
from serai.ipc.messages import Bound
from serai_gateway.api.testing.fake_host import HostedCall
from serai_gateway.api.testing.gateway import CallGateway, running_calls
from serai_gateway.api.testing.inside import bound
from serai_gateway.server.testing import PATIENCE_S
from serai_runner.outgoing.testing import RelayThread, running_relay

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the package predates this Python
    import Algorithmia


@contextlib.contextmanager
def algorithmia() -> Iterator[Any]:
    """The client as an author makes it; what it returns has no types."""
    client: Any = Algorithmia.client()
    yield client
    client.requestSession.close()


class Box:
    """What a box has to do with calls: its relay, and calls that follow each other in it."""

    def __init__(self, gateway: CallGateway, relay: RelayThread) -> None:
        self.gateway = gateway
        self.relay = relay

    def begin(self, who: Bound) -> None:
        self.relay.bound = who

    def end(self) -> None:
        self.relay.bound = None
        self.relay.cut()

    def last_payer(self) -> str:
        return self.gateway.host.calls[-1].call.payer


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    folder = tmp_path_factory.mktemp("clients")
    with running_calls(folder) as gateway, running_relay(folder / "home" / "run" / "calls.sock") as relay:
        yield Box(gateway, relay)


@pytest.fixture
def box(started: Box, monkeypatch: pytest.MonkeyPatch) -> Iterator[Box]:
    async def echo(call: HostedCall) -> None:
        call.result(call.payload, call.call.content_type)

    started.gateway.host.script = echo
    for name in ("ALGORITHMIA_API", "SERAI_ADDRESS"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{started.relay.port}")
    for name in ("ALGORITHMIA_API_KEY", "SERAI_API_KEY"):
        monkeypatch.setenv(name, "simNoKeyIsNeededInside")
    yield started
    started.end()


def test_algorithmias_client_calls_in_the_name_of_each_call(box: Box) -> None:
    with algorithmia() as client:  # once, as authors do: it keeps its connection between calls
        for payer in ("alice", "bob", "alice"):
            box.begin(bound(payer=payer, call_id=f"req-{payer}", root=""))
            for _ in range(3):
                assert client.algo("alice/same").pipe([1, 2]).result == [1, 2]
                assert box.last_payer() == payer
                assert box.gateway.host.calls[-1].call.root == f"req-{payer}"
            box.end()


def test_algorithmias_client_carries_text_bytes_and_much(box: Box) -> None:
    box.begin(bound())
    large = os.urandom(5 << 20)
    with algorithmia() as client:
        assert client.algo("alice/same").pipe("text").result == "text"
        assert client.algo("alice/same").pipe(bytearray(large)).result == large


def test_outside_of_a_call_the_answer_says_so(box: Box) -> None:
    with algorithmia() as client, pytest.raises(Exception, match="401"):  # it does not read what the answer says
        client.algo("alice/same").pipe(1)
    with serai.client() as client, pytest.raises(serai.Unauthorized, match="no call is running"):
        client.algo("alice/same").pipe(1)


def test_what_a_call_may_not_is_told_to_the_algorithm(box: Box) -> None:
    box.begin(bound(may_call=False))
    with serai.client() as client, pytest.raises(serai.Forbidden, match="calls = true"):
        client.algo("alice/same").pipe(1)


def test_our_own_client_needs_no_arguments(box: Box) -> None:
    with serai.client() as client:
        for payer in ("alice", "bob"):
            box.begin(bound(payer=payer))
            assert client.algo("alice/same").pipe({"a": 1}).result == {"a": 1}
            assert box.last_payer() == payer
            assert client.algo("alice/same").exists()
            box.end()


def test_threads_call_at_once(box: Box) -> None:
    box.begin(bound())
    with algorithmia() as client, ThreadPoolExecutor(16) as threads:
        results = threads.map(lambda number: client.algo("alice/same").pipe(number).result, range(64))
        assert list(results) == list(range(64))


def test_a_call_that_ends_takes_those_it_made_with_it(box: Box) -> None:
    begun = threading.Event()

    async def hang(call: HostedCall) -> None:
        begun.set()
        await call.never()

    box.gateway.host.script = hang
    box.begin(bound())
    failed = threading.Event()

    def ask() -> None:
        with algorithmia() as client, pytest.raises(OSError):
            client.algo("alice/same").pipe(1)
        failed.set()

    thread = threading.Thread(target=ask)
    thread.start()
    assert begun.wait(PATIENCE_S)
    box.relay.cut()  # the host alone: whatever runs inside has no say in it
    assert box.gateway.host.calls[-1].cancelled.wait(PATIENCE_S)
    thread.join(PATIENCE_S)
    assert failed.is_set()


_NODE = """
const http = require('http')
const agent = new http.Agent({keepAlive: true, maxSockets: 1})
const url = new URL(process.env.ALGORITHMIA_API + '/v1/algo/alice/same')
function call(input) {
  return new Promise((resolve, reject) => {
    const headers = {authorization: process.env.ALGORITHMIA_API_KEY, 'content-type': 'application/json'}
    const request = http.request(url, {method: 'POST', agent, headers}, answer => {
      let body = ''
      answer.on('data', part => body += part)
      answer.on('end', () => resolve(JSON.parse(body).result))
    })
    request.on('error', reject)
    request.end(JSON.stringify(input))
  })
}
require('readline').createInterface({input: process.stdin}).on('line', async line => {
  try { console.log(JSON.stringify(await call(JSON.parse(line)))) } catch (error) { console.log('"' + error + '"') }
})
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed: apt-get install nodejs")
def test_a_node_agent_keeps_no_connection_from_one_call_to_the_next(box: Box) -> None:
    command = ["node", "-e", _NODE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdin and node.stdout
        try:
            for payer in ("alice", "bob") * 5:
                box.begin(bound(payer=payer))
                for number in range(3):
                    node.stdin.write(f"{number}\n")
                    node.stdin.flush()
                    assert json.loads(node.stdout.readline()) == number
                    assert box.last_payer() == payer
                box.end()
        finally:
            node.kill()


def test_a_client_made_anew_for_each_call_finds_room(box: Box) -> None:
    box.begin(bound())
    for number in range(100):
        with algorithmia() as client:
            assert client.algo("alice/same").pipe(number).result == number
