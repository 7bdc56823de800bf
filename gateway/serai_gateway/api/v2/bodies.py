"""Reading bodies that may be large: bounded in size, in time, and in what they and their answers may take together."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from serai_gateway.api.call_request import Headers, find_header
from serai_gateway.api.calls import CallerGone, Receive
from serai_gateway.errors import InvalidRequest, TooLarge, TooManyRequests, Unavailable, UnsupportedType

#: For a whole body. The server holds paths with a raised limit to a rate alone, and that could last for hours.
BODY_DEADLINE_S = 60.0

#: What bodies and answers of one worker may take together until they are sent. Eight of the largest.
MAX_HELD_BYTES = 512 * 1024 * 1024
#: And those of one account: two of the largest and what belongs to them. So one that sends or reads slowly leaves room.
MAX_PAYER_BYTES = 192 * 1024 * 1024
#: A request that takes no more is never refused for what others hold; how many there are is bounded by connections.
ALWAYS_BYTES = 256 * 1024

#: A body's type decides nothing here, so what v2 clients say is accepted, curl's form included. Others are a mistake.
_ACCEPTED = (b"", b"application/json", b"application/octet-stream", b"application/x-www-form-urlencoded")


class BodyTooSlow(InvalidRequest):
    status = 408


def check_types(headers: Headers) -> None:
    """Raises UnsupportedType for a body that we would not understand."""
    encoding = find_header(headers, b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise UnsupportedType("compressed bodies are not accepted; send the body as it is")
    kind = (find_header(headers, b"content-type") or b"").partition(b";")[0].strip().lower()
    if kind not in _ACCEPTED:
        text = kind[:100].decode("latin-1")
        raise UnsupportedType(f"Content-Type {text!r} is not accepted; send application/json or octet-stream")


class TooMuchAtOnce(TooManyRequests):
    """One account holds as much as it may."""


class HeldBytes:
    """What the requests of this worker take, all together and for each payer."""

    def __init__(
        self, limit: int = MAX_HELD_BYTES, payer_limit: int = MAX_PAYER_BYTES, always: int = ALWAYS_BYTES
    ) -> None:
        self._limit = limit
        self._payer_limit = payer_limit
        self._always = always
        self._held = 0
        self._of_payers: Counter[str] = Counter()

    @contextmanager
    def account(self, payer: str = "") -> Iterator["Account"]:
        """One request's account; what it took is given back at the end."""
        account = Account(self, payer)
        try:
            yield account
        finally:
            self._held -= account.num_bytes
            self._of_payers[payer] -= account.num_bytes
            if not self._of_payers[payer]:
                del self._of_payers[payer]

    def take(self, account: "Account", num_bytes: int) -> None:
        if account.num_bytes + num_bytes > self._always:
            if self._of_payers[account.payer] + num_bytes > self._payer_limit:
                text = f"your requests and their answers take over {self._payer_limit >> 20} MiB at once"
                raise TooMuchAtOnce(f"{text}; send fewer large ones at a time", retry_after_s=1.0)
            if self._held + num_bytes > self._limit:
                raise Unavailable("too many large requests at once; try again", retry_after_s=1.0)
        self._held += num_bytes
        self._of_payers[account.payer] += num_bytes
        account.num_bytes += num_bytes


class Account:
    def __init__(self, held: HeldBytes, payer: str) -> None:
        self._held = held
        self.payer = payer
        self.num_bytes = 0

    def take(self, num_bytes: int) -> None:
        """Raises Unavailable when all requests together take too much, TooMuchAtOnce when those of this payer do."""
        self._held.take(self, num_bytes)


async def read_body(receive: Receive, max_bytes: int, account: Account) -> bytes:
    """The whole body.

    Raises:
        TooLarge: it is over `max_bytes`.
        BodyTooSlow: it was not there in time.
        Unavailable, TooMuchAtOnce: this worker holds too much already, or too much of this payer.
        CallerGone: nobody is left to answer.
    """
    parts: list[bytes] = []
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise CallerGone
                part: bytes = message.get("body", b"")
                account.take(len(part))
                if account.num_bytes > max_bytes:
                    raise TooLarge(f"the body exceeds {max_bytes} bytes ({max_bytes >> 20} MiB); send less at once")
                parts.append(part)
                if not message.get("more_body"):
                    return parts[0] if len(parts) == 1 else b"".join(parts)
    except TimeoutError:
        raise BodyTooSlow(f"the body was not there after {BODY_DEADLINE_S:g} s; send less at once") from None
