"""What managing asks and how its answers are read, over a transport that answers from a list."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

import serai
from serai._algorithm_asks import previous

ADDRESS = "http://serai.test"
BUILD = {"build_id": "b", "status": "succeeded", "commit_sha": "c" * 40, "started_at": "2026-05-04T10:11:01.131Z"}


def client_of(*answers: Any) -> tuple[serai.Client, list[httpx2.Request]]:
    """Each request gets the next answer: JSON, or a status."""
    seen: list[httpx2.Request] = []
    return serai.client("simkey", ADDRESS, transport=httpx2.MockTransport(answering(seen, answers))), seen


def answering(seen: list[httpx2.Request], answers: tuple[Any, ...]) -> Callable[[httpx2.Request], httpx2.Response]:
    left = iter(answers)

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        answer = next(left)
        return httpx2.Response(answer) if isinstance(answer, int) else httpx2.Response(200, json=answer)

    return handle


def asked(seen: list[httpx2.Request]) -> list[str]:
    return [f"{request.method} {request.url.raw_path.decode()}" for request in seen]


def version(number: str | None, *, public: bool = True, **info: Any) -> dict[str, Any]:
    settings = {"algorithm_callability": "public" if public else "private"}
    number_of = {} if number is None else {"semantic_version": number}
    return {"id": "x", "name": "b", "settings": settings, "version_info": {"git_hash": "c" * 40, **number_of, **info}}


def page(*results: Any, marker: str | None = None) -> dict[str, Any]:
    return {"results": list(results), "marker": marker, "next_link": None}


def routing(**shares: int) -> dict[str, Any]:
    parts = [{"semantic_version": name.replace("_", ".")[1:], "percent": part} for name, part in shares.items()]
    return {"routing": parts}


def test_a_canary_takes_its_part_from_what_most_calls_run():
    client, seen = client_of(routing(v1_0_0=70, v1_1_0=30), routing(v1_2_0=5, v1_0_0=95))
    with client:
        shares = client.algo("a/b").canary("1.2.0", 5)
    assert [(share.version, share.percent) for share in shares] == [("1.2.0", 5), ("1.0.0", 95)]
    assert asked(seen) == ["GET /v1/algorithms/a/b/routing", "PUT /v1/algorithms/a/b/routing"]
    assert json.loads(seen[1].content) == routing(v1_2_0=5, v1_0_0=95)


def test_a_canary_of_what_all_calls_run_leaves_the_rest_to_the_version_before():
    versions = page(version("1.2.0"), version("1.1.0", deprecation="bad"), version("1.0.0"))
    client, seen = client_of(routing(), version("1.2.0"), versions, routing())
    with client:
        client.algo("a/b").canary("1.2.0", 10)
    assert json.loads(seen[-1].content) == routing(v1_2_0=10, v1_0_0=90)
    client, seen = client_of(routing(), version("1.2.0"), page(version("1.2.0")))
    with client, pytest.raises(serai.InvalidRequest, match="no other public version"):
        client.algo("a/b").canary("1.2.0", 10)


def test_rolling_back_ends_a_canary_and_else_goes_one_version_back():
    versions = page(version("1.10.0"), version("1.9.0"), version("1.8.0", public=False), version(None))
    for now, then in ((routing(v1_10_0=10, v1_9_0=90), "v1_9_0"), (routing(v1_10_0=100), "v1_9_0")):
        client, seen = client_of(now, versions, routing())
        with client:
            client.algo("a/b").rollback()
        assert json.loads(seen[-1].content) == routing(**{then: 100})
    client, _ = client_of(routing(v1_9_0=100), versions)
    with client, pytest.raises(serai.NotFound, match=r"before 1\.9\.0"):
        client.algo("a/b").rollback()


def test_numbers_are_compared_as_numbers():
    records = [serai.Version(number=number, hash="", public=True) for number in ("1.9.0", "1.10.0", "2.0.0", "0.1.0")]
    assert [previous(number, records) for number in ("2.0.0", "1.10.0", "1.9.0", "0.1.0")] == [
        "1.10.0", "1.9.0", "0.1.0", None,
    ]  # fmt: skip


def test_a_secret_is_made_or_changed_whichever_it_takes():
    known = {"id": "7", "secret_key": "KEY", "short_name": "old"}
    client, seen = client_of({"results": []}, known, {"results": [known]}, known)
    with client:
        algorithm = client.algo("a/b")
        algorithm.set_secret("KEY", "hidden")
        assert algorithm.set_secret("KEY", "hidden").name == "old"
    assert asked(seen)[1::2] == ["POST /v1/algorithms/a/b/secrets", "PUT /v1/algorithms/a/b/secrets/7"]
    bodies = [json.loads(request.content) for request in seen[1::2]]
    assert [body.get("short_name") for body in bodies] == ["KEY", None]


def test_lists_are_read_page_by_page_with_the_owner_in_the_query():
    listed = [{"owner": "a", "name": name, "tagline": "", "visibility": "public"} for name in "xyz"]
    client, seen = client_of(page(*listed[:2], marker="a/y"), page(listed[2]))
    with client:
        assert [info.name for info in client.algorithms("q", owner="a")] == ["x", "y", "z"]
    assert dict(seen[1].url.params) == {"q": "q", "owner": "a", "limit": "100", "marker": "a/y"}
    client, _ = client_of(page(BUILD, marker="m"), page(BUILD, marker="m"))
    with client, pytest.raises(serai.BadAnswer, match="does not advance"):
        list(client.algo("a/b").builds())


@pytest.mark.parametrize(
    "answer",
    [{}, [], {"results": [1]}, {"results": [{"id": "x"}]}, {"results": [BUILD | {"started_at": "yesterday"}]}],
)
def test_an_answer_of_another_shape_is_a_bad_answer(answer: Any):
    client, _ = client_of(answer)
    with client, pytest.raises(serai.BadAnswer, match="another way"):
        list(client.algo("a/b").builds())


def test_refusals_keep_their_words_their_number_and_their_class():
    error = {"id": "x", "code": 1014, "reason": "not_found", "message": "no 9.0.0", "status": 404, "request_id": "r"}

    def handle(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(404, json={"error": error if "versions" in request.url.path else "No such algorithm"})

    with serai.client("simkey", ADDRESS, transport=httpx2.MockTransport(handle)) as client:
        with pytest.raises(serai.NotFound, match=r"^no 9\.0\.0 \(not_found 404\)$") as caught:
            client.algo("a/b/9.0.0").info()
        assert (caught.value.number, caught.value.code, caught.value.request_id) == (1014, "not_found", "r")
        with pytest.raises(serai.NotFound, match="there is no algorithm a/b, or it is private"):
            client.algo("a/b").info()


@pytest.mark.parametrize("hostile", ["", ".", ".."])
def test_no_part_of_a_path_leads_elsewhere(hostile: str):
    client, seen = client_of()
    with client:
        for do in (
            lambda: client.algo("a/b").deprecate(hostile, "why"),
            lambda: client.algo("a/b").build_log(hostile),
            lambda: client.user(hostile).delete(),
            lambda: client.user().revoke_key(hostile),
            lambda: client.organization(hostile).info(),
        ):
            with pytest.raises(serai.InvalidRequest, match="is no name"):
                do()
    assert seen == []


def test_parts_of_a_path_are_quoted():
    client, seen = client_of(204, 204, 204)
    with client:
        client.algo("a/b").undeprecate("../1?x=1#y")
        client.user("../me").delete()
        client.organization("o").remove_member("a/b")
    assert asked(seen) == [
        "DELETE /v1/algorithms/a/b/versions/..%2F1%3Fx%3D1%23y/deprecation",
        "DELETE /v1/users/..%2Fme",
        "DELETE /v1/organizations/o/members/a%2Fb",
    ]


def test_the_handles_of_both_clients_offer_the_same():
    for name in ("ManagedAlgorithm", "UserHandle", "OrganizationHandle"):
        from serai import _async_managed, _managed

        ours, twin = getattr(_managed, name), getattr(_async_managed, f"Async{name}")
        assert {one for one in dir(ours) if one[0] != "_"} == {one for one in dir(twin) if one[0] != "_"}


def test_the_async_client_holds_the_same_conversations():
    seen: list[httpx2.Request] = []
    versions = (page(version("1.1.0"), marker="m"), page(version("1.0.0")))
    transport = httpx2.MockTransport(answering(seen, (routing(v1_1_0=100), *versions, routing(v1_0_0=100))))

    async def roll_back() -> tuple[serai.Share, ...]:
        async with serai.async_client("simkey", ADDRESS, transport=transport) as client:
            return await client.algo("a/b").rollback()

    assert [share.version for share in asyncio.run(roll_back())] == ["1.0.0"]
    assert json.loads(seen[-1].content) == routing(v1_0_0=100)


def test_records_are_json_when_it_is_wanted():
    client, _ = client_of(page(BUILD))
    with client:
        (build,) = client.algo("a/b").builds()
    assert build.to_dict() == {
        "id": "b", "status": "succeeded", "commit": "c" * 40, "started_at": "2026-05-04T10:11:01.131000Z",
        "finished_at": None, "version": None, "log": None,
    }  # fmt: skip
