"""One connection from a gateway: its versions, its open calls, its answers."""

from typing import TYPE_CHECKING

import msgspec

from serai.ipc.frames import FrameProtocol
from serai.ipc.messages import (
    Call,
    Cancel,
    Define,
    Drain,
    Failure,
    Item,
    Keep,
    More,
    Progress,
    ReadLog,
    Refusal,
    Result,
    Stats,
    Unknown,
    Waiting,
)
from serai.ipc.secrets import Secrets
from serai.ipc.sockets import is_own_peer
from serai_runner.logs.readers import LogReaders

if TYPE_CHECKING:
    import asyncio

    from serai_runner.host import Host
    from serai_runner.scheduling.calls import PendingCall
    from serai_runner.scheduling.version import VersionState

_decode = msgspec.msgpack.Decoder(Define | Call | Cancel | Drain | Stats | More | Keep | ReadLog).decode
_encode = msgspec.msgpack.Encoder().encode


class GatewayLink(FrameProtocol):
    """Turns frames into events of the host, and its answers into frames."""

    def __init__(self, host: "Host") -> None:
        super().__init__()
        self._host = host
        self._versions: dict[str, VersionState] = {}
        self._calls: dict[int, PendingCall] = {}
        self._logs = LogReaders(host.logbook, self)

    def connection_made(self, transport: "asyncio.BaseTransport") -> None:
        super().connection_made(transport)
        if not is_own_peer(transport):
            transport.close()
            return
        self._host.links.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._host.links.discard(self)
        self._logs.close()
        calls, self._calls = self._calls, {}
        for call in calls.values():
            self._host.on_cancel(call)

    def frame_received(self, header: bytes, payload: bytes) -> None:
        try:
            message = _decode(header)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            self._host.log.warning("a gateway sent what is no message", action="gateway_refused", error=str(error))
            self.close()
            return
        if type(message) is Call:
            self._call(message, payload)
        elif type(message) is Define:
            self._define(message, payload)
        elif type(message) is Cancel:
            call = self._calls.pop(message.id, None)
            if call is not None:
                self._host.on_cancel(call)
            else:
                self._logs.on_cancel(message.id)
        elif type(message) is More:
            call = self._calls.get(message.id)
            if call is not None:
                self._host.on_more(call, message.num_items)
        elif type(message) is Keep:
            self._host.on_keep([key for key in message.versions if key in self._versions])
        elif type(message) is ReadLog:
            self._logs.on_read_log(message)
        elif type(message) is Stats:
            self.send_frame(_encode(message), self._host.stats())
        else:
            self._host.drain()

    def _define(self, message: Define, payload: bytes) -> None:
        try:
            secrets = Secrets.decode(payload)
        except msgspec.DecodeError:  # without the error's text: it may hold what must not be logged
            self._host.log.warning("a gateway sent what are no secrets", action="gateway_refused")
            self.close()
            return
        self._versions[message.spec.key] = self._host.define(message.spec, secrets)

    def answer(self, call: "PendingCall", message: Result | Failure | Refusal, payload: bytes) -> None:
        self._calls.pop(call.call.id, None)
        self.send_frame(_encode(message), payload)

    def tell(self, call: "PendingCall", message: Item | Progress | Waiting, payload: bytes) -> None:
        """Something before the answer."""
        message = msgspec.structs.replace(message, id=call.call.id)
        self.send_frame(_encode(message), payload)

    def _call(self, message: Call, payload: bytes) -> None:
        version = self._versions.get(message.version)
        if version is None:
            self.send_frame(_encode(Unknown(message.id)))
            return
        if message.id in self._calls:
            self._host.log.warning("a gateway used an id twice", action="gateway_refused", call_id=message.call_id)
            self.close()
            return
        call = self._host.on_call(self, message, payload, version)
        if not call.ended:
            self._calls[message.id] = call
