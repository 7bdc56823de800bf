"""Bodies are bounded in size, in time, and all together."""

import asyncio
from typing import Any

import pytest

from serai_gateway.api.calls import CallerGone
from serai_gateway.api.v2 import bodies
from serai_gateway.api.v2.bodies import BodyTooSlow, HeldBytes, TooMuchAtOnce, check_types, read_body
from serai_gateway.errors import InvalidRequest, TooLarge, Unavailable, UnsupportedType


def receiving(*parts: bytes, gone: bool = False) -> Any:
    """An ASGI `receive` that brings these parts, and then nothing, or that the caller has left."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if gone:
        messages.append({"type": "http.disconnect"})
    else:
        messages[-1]["more_body"] = False

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    return receive


def read(receive: Any, max_bytes: int, held: HeldBytes) -> bytes:
    with held.account() as account:
        return asyncio.run(read_body(receive, max_bytes, account))


def test_parts_are_put_together() -> None:
    assert read(receiving(b"ab", b"", b"cd"), 4, HeldBytes(4)) == b"abcd"
    assert read(receiving(b""), 4, HeldBytes(4)) == b""


def test_one_byte_too_many_is_too_large() -> None:
    with pytest.raises(TooLarge, match="exceeds 3 bytes"):
        read(receiving(b"ab", b"cd"), 3, HeldBytes())


def test_all_bodies_together_have_a_limit_and_what_ends_is_given_back() -> None:
    held = HeldBytes(5, always=0)
    with held.account() as account:
        account.take(3)
        with pytest.raises(Unavailable, match="at once"):
            read(receiving(b"abc"), 10, held)
        assert read(receiving(b"ab"), 10, held) == b"ab"
    assert read(receiving(b"abcde"), 10, held) == b"abcde"
    with pytest.raises(TooLarge):
        read(receiving(b"abcde"), 4, held)
    assert read(receiving(b"abcde"), 10, held) == b"abcde"


def test_one_payer_has_a_limit_of_their_own_and_others_do_not_notice() -> None:
    held = HeldBytes(100, payer_limit=10, always=0)
    with held.account("mallory") as first, held.account("mallory") as second, held.account("alice") as other:
        first.take(6)
        with pytest.raises(TooMuchAtOnce, match="fewer large ones") as caught:
            second.take(5)
        assert caught.value.status == 429
        other.take(10)
    with held.account("mallory") as again:
        again.take(10)


def test_small_requests_pass_whatever_others_hold() -> None:
    held = HeldBytes(10, payer_limit=10, always=3)
    with held.account("mallory") as large, held.account("alice") as small:
        large.take(10)
        small.take(3)
        with pytest.raises(Unavailable):
            small.take(1)


def test_a_caller_who_leaves_in_the_middle_is_gone() -> None:
    with pytest.raises(CallerGone):
        read(receiving(b"a", gone=True), 10, HeldBytes())


def test_a_body_that_does_not_come_is_too_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_DEADLINE_S", 0.01)

    async def receive() -> Any:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(BodyTooSlow) as caught:
        read(receive, 10, HeldBytes())
    assert caught.value.status == 408


@pytest.mark.parametrize("kind", [b"application/json; charset=utf-8", b"Application/Octet-Stream", b""])
def test_types_that_clients_of_the_protocol_send_are_taken(kind: bytes) -> None:
    check_types([(b"content-type", kind), (b"content-encoding", b"identity")])
    check_types([])


@pytest.mark.parametrize(
    "header",
    [
        (b"content-type", b"application/x-python-pickle"),
        (b"content-type", b"text/plain"),
        (b"content-type", b"\xff\xfe"),
        (b"content-encoding", b"gzip"),
        (b"content-encoding", b"identity, deflate"),
    ],
)
def test_other_types_and_compression_are_refused(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(UnsupportedType):
        check_types([header])
    with pytest.raises(InvalidRequest, match="given twice"):
        check_types([header, header])
