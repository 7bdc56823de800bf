"""Both clients: wire forms over a transport without sockets, streams and pooling over a real server."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

import serai
from serai import _http
from serai.testing import Answer, FakeMarket, Received, error_answer, result_answer, run_server

ADDRESS = "http://serai.test/prefix"


def over(handler: Any) -> serai.Client:
    return serai.client("simkey", ADDRESS, transport=httpx2.MockTransport(handler))


def ok(result: Any = None) -> httpx2.Response:
    return httpx2.Response(200, json={"result": result, "metadata": {"content_type": "json", "duration": 0.1}})


@pytest.fixture
def market() -> FakeMarket:
    return FakeMarket(key="simkey")


@pytest.fixture
def address(market: FakeMarket) -> Iterator[str]:
    with run_server(market) as address:
        yield address


def test_a_call_looks_on_the_wire_as_algorithmias_clients_made_it():
    seen: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return ok(1)

    with over(handle) as client:
        algorithm = client.algo("algo://vision/classify/1.*").set_options(timeout=60, stdout=True, output="raw")
        algorithm.pipe("HAL")
    request = seen[0]
    assert request.method == "POST"
    assert str(request.url) == f"{ADDRESS}/v1/algo/vision/classify/1.*?timeout=60&stdout=true&output=raw"
    assert request.headers["authorization"] == "Simple simkey"
    assert request.headers["content-type"] == "text/plain"
    assert request.headers["content-length"] == "3"
    assert request.headers["user-agent"].startswith(f"serai/{serai.__version__}")
    assert request.content == b"HAL"
    assert request.extensions["timeout"] == {"connect": 5.0, "read": 70.0, "write": 70.0, "pool": 70.0}


def test_without_a_key_no_authorization_is_sent():
    seen: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return ok()

    with serai.client(address=ADDRESS, transport=httpx2.MockTransport(handle)) as client:
        client.algo("a/b").pipe(1)
    assert "authorization" not in seen[0].headers


def refusing(attempts: list[int], failures: int, error: type[httpx2.RequestError]) -> Any:
    def handle(request: httpx2.Request) -> httpx2.Response:
        attempts.append(1)
        if len(attempts) <= failures:
            raise error("refused", request=request)
        return ok("made it")

    return handle


@pytest.mark.parametrize("error", [httpx2.ConnectError, httpx2.ConnectTimeout])
def test_a_connection_that_was_never_made_is_tried_three_times(
    error: type[httpx2.RequestError], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(_http, "RETRY_DELAYS_S", (0.0, 0.0))
    attempts: list[int] = []
    with over(refusing(attempts, 2, error)) as client:
        assert client.algo("a/b").pipe(1).result == "made it"
    assert len(attempts) == 3

    attempts = []
    with over(refusing(attempts, 3, error)) as client, pytest.raises(serai.ConnectionFailed) as caught:
        client.algo("a/b").pipe(1)
    assert len(attempts) == 3
    assert not caught.value.maybe_sent


@pytest.mark.parametrize(
    "error", [httpx2.ReadError, httpx2.ReadTimeout, httpx2.WriteError, httpx2.RemoteProtocolError, httpx2.WriteTimeout]
)
def test_a_request_that_may_have_arrived_is_never_sent_again(error: type[httpx2.RequestError]):
    attempts: list[int] = []
    with over(refusing(attempts, 1, error)) as client, pytest.raises(serai.ConnectionFailed) as caught:
        client.algo("a/b").pipe(1)
    assert len(attempts) == 1
    assert caught.value.maybe_sent


def test_a_refusal_is_not_retried_even_if_it_says_one_may():
    attempts: list[int] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        attempts.append(1)
        answer = error_answer(503, "unavailable", "busy", retriable=True)
        return httpx2.Response(503, content=answer.body, headers={"retry-after": "2"})

    with over(handle) as client, pytest.raises(serai.Unavailable) as caught:
        client.algo("a/b").pipe(1)
    assert len(attempts) == 1
    assert (caught.value.retriable, caught.value.retry_after_s) == (True, 2.0)


def test_a_redirect_does_not_carry_the_key_elsewhere():
    seen: list[str] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.url.host)
        return httpx2.Response(307, headers={"location": "http://evil.test/"})

    with over(handle) as client, pytest.raises(serai.BadAnswer, match=r"evil\.test"):
        client.algo("a/b").pipe(1)
    assert seen == ["serai.test"]


def test_the_async_client_tries_again_in_the_same_way(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_http, "RETRY_DELAYS_S", (0.0, 0.0))

    async def attempt(failures: int, error: type[httpx2.RequestError]) -> tuple[int, Any]:
        attempts: list[int] = []
        transport = httpx2.MockTransport(refusing(attempts, failures, error))
        async with serai.async_client("simkey", ADDRESS, transport=transport) as client:
            try:
                outcome = (await client.algo("a/b").pipe(1)).result
            except serai.ConnectionFailed as failed:
                outcome = failed.maybe_sent
        return len(attempts), outcome

    assert asyncio.run(attempt(2, httpx2.ConnectError)) == (3, "made it")
    assert asyncio.run(attempt(3, httpx2.ConnectError)) == (3, False)
    assert asyncio.run(attempt(1, httpx2.ReadError)) == (1, True)


def test_the_clients_offer_the_same():
    for ours, twin in ((serai.Client, serai.AsyncClient), (serai.Algorithm, serai.AsyncAlgorithm)):
        public = {name for name in vars(ours) if not name.startswith("_")}
        assert public == {name for name in vars(twin) if not name.startswith("_")}


def test_calls_go_over_a_real_server_and_back(address: str):
    with serai.client("simkey", address) as client:
        assert client.algo("demo/echo").pipe("Grüße").result == "Grüße"
        assert client.algo("demo/echo").pipe({"a": [1, None]}).result == {"a": [1, None]}
        large = bytes(range(256)) * 40_000
        assert client.algo("demo/reverse").pipe(large).result == large[::-1]
        assert client.algo("demo/echo").set_options(stdout=True).pipe(1).metadata.stdout == "working\n"
        with pytest.raises(serai.AlgorithmError, match="cannot do that"):
            client.algo("demo/fail").pipe(1)
        with pytest.raises(serai.NotFound):
            client.algo("demo/nothing").pipe(1)
        assert client.algo("demo/echo").exists()
        assert not client.algo("demo/nothing").exists()


def test_a_wrong_key_is_unauthorized_everywhere(address: str):
    with serai.client("simwrong", address) as client:
        with pytest.raises(serai.Unauthorized):
            client.algo("demo/echo").pipe(1)
        with pytest.raises(serai.Unauthorized):
            client.algo("demo/echo").exists()
        with pytest.raises(serai.Unauthorized):
            list(client.algorithms())


def test_one_client_serves_many_threads_at_once():
    together = threading.Barrier(8, timeout=10)

    def handle(request: Received) -> Answer:
        together.wait()  # passes only when all eight calls are under way
        return result_answer(json.loads(request.body))

    results: list[int] = []
    with run_server(handle) as address, serai.client("simkey", address) as client:
        calls = [
            threading.Thread(target=lambda number=number: results.append(client.algo("a/b").pipe(number).result))
            for number in range(8)
        ]
        for call in calls:
            call.start()
        for call in calls:
            call.join()
    assert sorted(results) == list(range(8))


def test_a_listing_is_read_page_by_page():
    market = FakeMarket(listed=250)
    with run_server(market) as address, serai.client(address=address) as client:
        names = [info.name for info in client.algorithms()]
        assert len(set(names)) == len(names) == 250
        assert [request.query.get("marker") for request in market.received] == [None, "100", "200"]
        assert [info.name for info in client.algorithms("spare12")] == ["spare12", *(f"spare12{n}" for n in range(10))]


def test_a_listing_that_never_advances_is_given_up():
    def handle(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"results": [], "marker": "again"})

    with over(handle) as client, pytest.raises(serai.BadAnswer, match="does not advance"):
        list(client.algorithms())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "fresh"
    (folder / "src").mkdir(parents=True)
    (folder / "algorithm.toml").write_text('[algorithm]\nowner = "demo"\nname = "fresh"\n')
    (folder / "src" / "fresh.py").write_text("def apply(input):\n    return input\n")
    return folder


def test_publishing_sends_the_folder_and_returns_the_version(address: str, market: FakeMarket, folder: Path):
    (folder / "link").symlink_to("algorithm.toml")
    log: list[str] = []
    with serai.client("simkey", address) as client:
        version = client.publish(folder, visibility="public", on_log=log.append)
    assert (str(version), version.details["visibility"]) == ("demo/fresh/1.0.0", "public")
    assert log == ["left out link: not a regular file", "read algorithm.toml", "read src/fresh.py"]
    sent = market.received[-1]
    assert (sent.method, sent.path, sent.query) == ("POST", "/v1/publish", {"visibility": "public"})
    assert sent.headers["content-type"] == "application/gzip"
    assert int(sent.headers["content-length"]) == len(sent.body)


def test_the_log_is_shown_while_the_build_still_runs(folder: Path):
    seen = threading.Event()

    def lines() -> Iterator[bytes]:
        yield b'{"log": "first"}\n'
        # The build goes on only once its first line has been shown.
        yield b'{"version": {"owner": "a", "name": "b", "version": "1"}}\n' if seen.wait(10) else b""

    with run_server(lambda request: Answer(200, lines())) as address, serai.client(address=address) as client:
        assert str(client.publish(folder, on_log=lambda line: seen.set())) == "a/b/1"


def test_a_build_that_fails_or_is_cut_off_is_an_error(folder: Path):
    endings = iter(
        [
            Answer(
                200, iter([b'{"log": "x"}\n{"error": {"code": "unprocessable", "message": "no", "status": 422}}\n'])
            ),
            Answer(200, iter([b'{"log": "x"}\n'])),
            error_answer(413, "too_large", "at most 100 MB"),
        ]
    )
    with run_server(lambda request: next(endings)) as address, serai.client(address=address) as client:
        with pytest.raises(serai.InvalidRequest, match="no"):
            client.publish(folder)
        with pytest.raises(serai.ConnectionFailed, match="without saying"):
            client.publish(folder)
        with pytest.raises(serai.TooLarge, match="100 MB"):
            client.publish(folder)


def test_the_async_client_does_all_of_it_too(address: str, folder: Path):
    async def everything() -> None:
        async with serai.async_client("simkey", address) as client:
            echo = client.algo("demo/echo")
            results = await asyncio.gather(*(echo.pipe(number) for number in range(20)))
            assert [response.result for response in results] == list(range(20))
            assert await echo.exists()
            assert [info.name async for info in client.algorithms("echo")] == ["echo"]
            with pytest.raises(serai.AlgorithmError):
                await client.algo("demo/fail").pipe(1)
            log: list[str] = []
            assert str(await client.publish(folder, on_log=log.append)) == "demo/fresh/1.0.0"
            assert log[-1] == "read src/fresh.py"

    asyncio.run(everything())


def test_a_proxy_of_the_environment_does_not_see_calls_to_this_machine(address: str, monkeypatch: pytest.MonkeyPatch):
    seen: list[Received] = []

    def proxy(request: Received) -> Answer:
        seen.append(request)
        return Answer(502)

    with run_server(proxy) as proxy_address:
        monkeypatch.setenv("HTTP_PROXY", proxy_address)
        with serai.client("simkey", address) as client:
            assert client.algo("demo/echo").pipe(1).result == 1
        assert seen == []
        with serai.client("simkey", "http://serai.invalid") as client, pytest.raises(serai.ServerFault):
            client.algo("demo/echo").pipe(1)
        assert len(seen) == 1
