"""Errors of calls: what is noted of them, for whom, and what that costs."""

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Iterator

import pytest

from serai.ipc.messages import Refusal
from serai_gateway import write_behind
from serai_gateway.api.failures import MAX_INPUT_CHARS, MAX_MESSAGE_CHARS, MAX_STACKTRACE_CHARS
from serai_gateway.api.testing.fake_host import HostedCall
from serai_gateway.api.testing.gateway import CallGateway, running_calls
from serai_gateway.server.testing import wait_until
from serai_gateway.write_behind import MAX_OF_KEY, MAX_WAITING, WriteBehind

ERRORS = "/v1/algorithms/alice/same/errors"


@pytest.fixture
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CallGateway]:
    with running_calls(tmp_path_factory.mktemp("errors")) as gateway:
        yield gateway


async def raises(call: HostedCall) -> None:
    call.fail("All I do is throw an error", stacktrace="Traceback: line 1")


def errors(gateway: CallGateway, path: str = ERRORS, key: str = "alice") -> list[dict]:
    answer = gateway.ask("GET", path, key=key)
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def wait_for(gateway: CallGateway, num: int) -> list[dict]:
    wait_until(lambda: len(errors(gateway)) >= num, f"{num} errors are there")
    return errors(gateway)


def test_an_error_is_listed_as_algorithmia_did(gateway: CallGateway) -> None:
    gateway.host.script = raises
    answer = gateway.call(body=b'"A payload"')
    [error] = wait_for(gateway, 1)
    assert error.pop("created_at") / 1000 == pytest.approx(time.time(), abs=30)
    assert error.pop("request_id") == answer.headers["x-request-id"]
    assert error == {
        "username": "alice",
        "algoname": "same",
        "algoversion": "1.0.0",
        "input": '"A payload"',
        "error": "error:\nAll I do is throw an error\nstacktrace:\nTraceback: line 1",
        "error_type": "AlgorithmError",
        "billable_to": "alice",
        "worker": "",
    }


def test_what_others_send_is_theirs(gateway: CallGateway) -> None:
    gateway.host.script = raises
    gateway.call(body=b'"my diary"', key="bob")
    [error] = wait_for(gateway, 1)
    assert (error["input"], error["billable_to"]) == ("", "bob")


def test_the_beginning_is_kept(gateway: CallGateway) -> None:
    async def at_length(call: HostedCall) -> None:
        call.fail("m" * 5000, stacktrace="s" * 20_000)

    gateway.host.script = at_length
    gateway.call(body=b'"' + "é😀".encode() * 5000 + b'"')
    [error] = wait_for(gateway, 1)
    assert error["input"] == ('"' + "é😀" * 5000)[:MAX_INPUT_CHARS]
    message, _, stacktrace = error["error"].partition("\nstacktrace:\n")
    assert (len(message), len(stacktrace)) == (len("error:\n") + MAX_MESSAGE_CHARS, MAX_STACKTRACE_CHARS)


def test_crashes_and_timeouts_are_its_own_and_what_we_refuse_is_not(gateway: CallGateway) -> None:
    async def crash(call: HostedCall) -> None:
        call.refuse(Refusal(call.call.id, "crashed", "the algorithm's process ended with exit code 3", True))

    async def busy(call: HostedCall) -> None:
        call.refuse(Refusal(call.call.id, "busy", "the queue is full", True, 1.0))

    gateway.host.script = busy
    assert gateway.call().status == 503
    assert gateway.call(body=b"{").status == 400
    assert gateway.call("alice/nothing").status == 404
    gateway.host.script = crash
    assert gateway.call().status == 502
    gateway.host.script = HostedCall.never
    assert gateway.call("alice/same?timeout=0.2").status == 504
    found = wait_for(gateway, 2)
    assert [error["error_type"] for error in found] == ["TimeoutError", "SystemError"]
    assert "exit code 3" in found[1]["error"]


def test_a_stream_that_fails_is_noted_too(gateway: CallGateway) -> None:
    async def fails_late(call: HostedCall) -> None:
        await call.item(b"1")
        call.fail("in the middle")

    gateway.host.script = fails_late
    with gateway.open() as reader:
        reader.rest()
    [error] = wait_for(gateway, 1)
    assert "in the middle" in error["error"]


def test_who_may_read_them(gateway: CallGateway) -> None:
    gateway.host.script = raises
    gateway.call("alice/same")
    gateway.call("team/ours", key="alice")
    wait_until(lambda: len(errors(gateway, "/v1/organizations/team/errors", "bob")) == 1, "both are there")
    assert gateway.ask("GET", ERRORS, key="bob").status == 403
    assert gateway.ask("GET", ERRORS, key="").status == 401
    assert [error["algoname"] for error in errors(gateway, "/v1/users/alice/errors")] == ["same"]
    assert errors(gateway, "/v1/users/alice/errors", "operator") == errors(gateway, ERRORS)
    for path in ("/v1/users/alice/errors", "/v1/users/nobody/errors", "/v1/organizations/nobody/errors"):
        assert errors(gateway, path, "bob") == []
    assert errors(gateway, "/v1/organizations/team/errors", "alice") == []


@pytest.mark.parametrize("path", ["alice/nothing", str(uuid.uuid4()), "nobody/same", "alice/a%20b"])
def test_of_an_algorithm_that_does_not_exist_there_are_none(gateway: CallGateway, path: str) -> None:
    answer = gateway.ask("GET", f"/v1/algorithms/{path}/errors")
    assert (answer.status, json.loads(answer.body)) == (404, {"error": {"message": "No such algorithm"}})


def test_a_flood_is_cut_and_nothing_that_counts_is_lost(gateway: CallGateway) -> None:
    gateway.host.script = raises
    threads = [threading.Thread(target=lambda: [gateway.call() for _ in range(75)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    found = wait_for(gateway, MAX_OF_KEY)
    assert len(found) == MAX_OF_KEY
    assert found == sorted(found, key=lambda error: -error["created_at"])


def test_a_worker_that_stops_writes_what_it_has(tmp_path_factory: pytest.TempPathFactory) -> None:
    from serai_gateway.catalogue import open_catalogue

    folder = tmp_path_factory.mktemp("stops")
    with running_calls(folder) as gateway:
        gateway.host.script = raises
        gateway.call()
    catalogue = open_catalogue(folder / "home")
    algorithm = catalogue.find_algorithm("alice", "same", None)
    assert len(catalogue.errors_of_algorithm(algorithm.id)) == 1
    catalogue.close()


# What waits


def written_by(script) -> tuple[list[list[str]], WriteBehind[str]]:
    """Run `script` with a `WriteBehind`; what it wrote, in batches."""
    batches: list[list[str]] = []

    async def run() -> WriteBehind[str]:
        notes = WriteBehind[str](lambda records: batches.append(list(records)), "notes")
        await script(notes, batches)
        await notes.close()
        return notes

    return batches, asyncio.run(run())


def test_records_are_written_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "WRITE_S", 0.01)

    async def script(notes: WriteBehind[str], batches: list[list[str]]) -> None:
        for number in range(5):
            notes.add("a", f"a{number}")
        while not batches:
            await asyncio.sleep(0.001)
        notes.add("b", "later")

    batches, _ = written_by(script)
    assert batches == [[f"a{number}" for number in range(5)], ["later"]]


def test_of_each_key_the_newest_are_kept_and_of_all_so_many() -> None:
    async def script(notes: WriteBehind[str], batches: list[list[str]]) -> None:
        for number in range(MAX_OF_KEY + 10):
            notes.add("loud", f"loud{number}")
        for key in range(2 * MAX_WAITING):
            notes.add(f"key{key}", f"{key}")
        notes.add("loud", "the last")

    [records], _ = written_by(script)
    loud = [record for record in records if record.startswith(("loud", "the"))]
    assert loud[0] == "loud11" and loud[-1] == "the last" and len(loud) == MAX_OF_KEY
    assert len(records) == MAX_WAITING


def test_what_could_not_be_written_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write_behind, "WRITE_S", 0.01)
    tries: list[list[str]] = []

    def write(records: list[str]) -> None:
        tries.append(list(records))
        if len(tries) < 3:
            raise OSError("the disk is full")

    async def run() -> None:
        notes = WriteBehind[str](write, "notes")
        notes.add("a", "1")
        while len(tries) < 2:
            await asyncio.sleep(0.001)
        notes.add("a", "2")
        while len(tries) < 3:
            await asyncio.sleep(0.001)
        await notes.close()

    asyncio.run(run())
    assert [record for records in tries[2:] for record in records] == ["1", "2"]
