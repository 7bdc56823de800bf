"""A gateway of its own, with models in its catalogue, and what to ask it with."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from serai_gateway.api.v2.testing.fake_pool import FakePool
from serai_gateway.catalogue import (
    Account,
    Model,
    NewVersion,
    Permissions,
    TensorInfo,
    Version,
    ensure_operator,
    open_catalogue,
)
from serai_gateway.files import open_store
from serai_gateway.server.testing import Answer, RunningServer, wait_until


class Gateway:
    """A running gateway and the pool behind it.

    alice owns `same` (1.0.0 and 1.1.0), `many` with the models `first` and `infer`, `odd`, and the private `secret`.
    bob manages `team`, which owns `ours`. `keys` has one for each of them, the operator's, and two of alice's that may
    not call everything.
    """

    def __init__(self, server: RunningServer, pool: FakePool, keys: dict[str, str]) -> None:
        self.server = server
        self.pool = pool
        self.keys = keys

    def ask(self, method: str, path: str, body: bytes = b"", key: str | None = "alice", **headers: object) -> Answer:
        """One request; in names of headers, `_` is `-`."""
        given: dict[str, object] = {"Host": "x", "Content-Length": len(body)}
        if key is not None:
            given["Authorization"] = f"Simple {self.keys[key]}"
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        return self.server.ask(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)

    def infer(self, body: bytes, path: str = "alice/same", **more: Any) -> Answer:
        return self.ask("POST", f"/v2/models/{path}/infer", body, **more)


def request(*data: float, **more: Any) -> bytes:
    """The body of a call with one row of numbers as `x`."""
    tensor = {"name": "x", "shape": [1, len(data)], "datatype": "FP32", "data": data}
    return json.dumps({"inputs": [tensor], **more}).encode()


def error_of(answer: Answer) -> str:
    """What the protocol's only form of an error says."""
    told = json.loads(answer.body)
    assert list(told) == ["error"], told
    return told["error"]


@contextlib.contextmanager
def running_example(folder: Path) -> Iterator[Gateway]:
    home = folder / "home"
    keys = _publish_example(home)
    with FakePool(home / "run") as pool, running_gateway(home, "--log-level", "warning") as server:
        gateway = Gateway(server, pool, keys)
        wait_until(lambda: gateway.ask("GET", "/v2/health/ready").status == 200, "gateway and pool have met")
        yield gateway


def _publish_example(home: Path) -> dict[str, str]:
    catalogue = open_catalogue(home)
    keys = {"operator": ensure_operator(home, catalogue).key}
    alice, bob = catalogue.ensure_account("alice"), catalogue.ensure_account("bob")
    team = catalogue.ensure_account("team", "organization", owner=bob)
    keys |= {account.name: catalogue.create_key(account, "test").text for account in (alice, bob)}
    may_not = {"no calls": Permissions(call=False, manage=False), "other": Permissions(algorithms=("bob/*",))}
    keys |= {name: catalogue.create_key(alice, name, allowed).text for name, allowed in may_not.items()}
    catalogue.close()
    publish_model(home, alice, "same", {"same": b"one"})
    publish_model(home, alice, "same", {"same": b"two"}, semver="1.1.0")
    publish_model(home, alice, "secret", {"secret": b"three"}, public=False)
    publish_model(home, alice, "many", {"first": b"four", "infer": b"five"})
    publish_model(home, team, "ours", {"ours": b"six"})
    odd = (TensorInfo("t", "string", None), TensorInfo("n", "int64", ("N", 2, "")))
    publish_model(home, alice, "odd", {"odd": b"seven"}, inputs=odd, outputs=())
    return keys


def publish_model(
    home: Path,
    owner: Account,
    name: str,
    models: dict[str, bytes],
    *,
    semver: str = "1.0.0",
    public: bool = True,
    inputs: tuple[TensorInfo, ...] = (TensorInfo("x", "float32", ("N", 3)),),
    outputs: tuple[TensorInfo, ...] = (TensorInfo("X", "float32", ("N", 3)),),
) -> Version:
    """An algorithm of these models (name to content, which nobody reads), in the catalogue and the file store."""
    store = open_store(home)
    kept = []
    for model, content in models.items():
        path = home / f"{model}.tmp"
        path.write_bytes(content)
        kept.append(Model(model, store.put(path).sha256, "onnx", len(content), inputs, outputs))
        path.unlink()
    kind = "model" if len(models) == 1 else "python"
    manifest = {"owner": owner.name, "name": name, "kind": kind}
    catalogue = open_catalogue(home)
    try:
        algorithm = catalogue.ensure_algorithm(owner, name)
        number = int(semver.replace(".", "")) * 7919 + len(name)
        new = NewVersion(f"{number:040x}", kind, manifest, f"{number:064x}", models=tuple(kept))  # pyright: ignore[reportArgumentType]
        return catalogue.publish_version(catalogue.add_version(algorithm, new), semver, public=public)
    finally:
        catalogue.close()


@contextlib.contextmanager
def running_gateway(home: Path, *options: str) -> Iterator[RunningServer]:
    """The gateway alone, on a free port, with whatever speaks at HOME/run."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        server = RunningServer(listener, home, "--app", "serai_gateway.app:create_app", *options)
        try:
            yield server
        finally:
            server.stop()
