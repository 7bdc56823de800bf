"""A gateway of its own before a fake runner host, and a reader of its events."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serai_gateway.api.tally import Totals
from serai_gateway.api.testing.chunks import ChunkedReader
from serai_gateway.api.testing.fake_host import FakeHost
from serai_gateway.api.v2.testing.gateway import running_gateway
from serai_gateway.catalogue import Account, NewVersion, ensure_operator, open_catalogue
from serai_gateway.server.testing import Answer, RunningServer, wait_until

Event = tuple[str, Any]


class CallGateway:
    """A running gateway and the host behind it. alice owns the public `same`; bob manages `team`, which owns `ours`."""

    def __init__(self, home: Path, server: RunningServer, host: FakeHost, keys: dict[str, str]) -> None:
        self.home = home
        self.server = server
        self.host = host
        self.keys = keys

    def call(self, path: str = "alice/same", body: bytes = b"1", key: str = "alice", **headers: str) -> Answer:
        with self.server.client() as client:
            client.send(self._request(path, body, key, headers))
            return client.answer()

    def ask(self, method: str, path: str, body: object = None, key: str = "alice") -> Answer:
        """Anything but a call; `body` goes as JSON, bytes as they are; an empty `key`: without one."""
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = f"Authorization: Simple {self.keys.get(key, key)}\r\n" if key else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(raw)}\r\n{given}\r\n"
        return self.server.ask(head.encode() + raw)

    def open(
        self, path: str = "alice/same", body: bytes = b"1", key: str = "alice", receive_buffer: int = 0, **headers: str
    ) -> "EventReader":
        """Ask for events."""
        given = {"Accept": "text/event-stream", **headers}
        return EventReader(self.server.port, self._request(path, body, key, given), receive_buffer)

    def outcomes(self) -> dict[str, int]:
        """How calls have ended so far, as /metrics tells."""
        return dict(Totals(self.home / "run" / "metrics").outcomes.items())

    def _request(self, path: str, body: bytes, key: str, headers: dict[str, str]) -> bytes:
        given = {"Host": "x", "Content-Length": str(len(body)), "Content-Type": "application/json"}
        given |= {"Authorization": f"Simple {self.keys[key]}"}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        return f"POST /v1/algo/{path} HTTP/1.1\r\n{head}\r\n".encode() + body


class EventReader(ChunkedReader):
    """Reads a chunked answer of events, as fast as it is asked to."""

    _text = b""

    def next(self) -> Event:
        """The next event: its name and its data, decoded; a comment is named ":". Raises EOFError at the end."""
        if not self.status:
            self.read_head()
        while b"\n\n" not in self._text:
            chunk = self.read_chunk()
            if not chunk:
                raise EOFError("the answer has ended")
            self._text += chunk
        block, _, self._text = self._text.partition(b"\n\n")
        if block.startswith(b":"):
            return ":", block[1:].strip().decode()
        name, data = block.split(b"\n")  # exactly one line of data
        assert name.startswith(b"event: ") and data.startswith(b"data: ")
        return name[7:].decode(), json.loads(data[6:])

    def rest(self) -> list[Event]:
        """All events to the end of the answer."""
        events: list[Event] = []
        with contextlib.suppress(EOFError):
            while True:
                events.append(self.next())
        return events


@contextlib.contextmanager
def running_calls(folder: Path) -> Iterator[CallGateway]:
    home = folder / "home"
    catalogue = open_catalogue(home)
    keys = {"operator": ensure_operator(home, catalogue).key}
    alice, bob = catalogue.ensure_account("alice"), catalogue.ensure_account("bob")
    keys |= {account.name: catalogue.create_key(account, "test").text for account in (alice, bob)}
    team = catalogue.ensure_account("team", "organization", owner=bob)
    catalogue.close()
    _publish(home, alice, "same")
    _publish(home, team, "ours")
    with FakeHost(home / "run") as host, running_gateway(home, "--log-level", "warning") as server:
        gateway = CallGateway(home, server, host, keys)
        wait_until(lambda: gateway.call().status == 200, "gateway and host have met")
        yield gateway


def _publish(home: Path, owner: Account, name: str) -> None:
    """A public version in the catalogue, with code that nobody looks at."""
    catalogue = open_catalogue(home)
    try:
        algorithm = catalogue.ensure_algorithm(owner, name)
        manifest = {"owner": owner.name, "name": name, "kind": "python"}
        number = sum(name.encode())
        version = catalogue.add_version(algorithm, NewVersion(f"{number:040x}", "python", manifest, f"{number:064x}"))
        catalogue.publish_version(version, "1.0.0", public=True)
    finally:
        catalogue.close()
