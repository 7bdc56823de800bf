"""Asks the model pool for a socket per version, and asks again when the pool has come back."""

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from serai.ipc.link import Link
from serai.ipc.messages import Admit, Admitted, VersionSpec, Withdraw, encode

_decode = msgspec.msgpack.Decoder(Admitted).decode

#: A directory mounted into replicas, and which directory that is: a pool that comes back may make a new one.
_Place = tuple[str, int]
OnDirectory = Callable[[str], None]


class PoolLink:
    """`on_moved(key)` says that replicas of a version hold a directory that is no longer the pool's."""

    def __init__(self, path: Path, on_moved: Callable[[str], None]) -> None:
        self._on_moved = on_moved
        self._specs: dict[str, VersionSpec] = {}
        self._places: dict[str, _Place] = {}
        self._is_current: set[str] = set()  # admitted by the pool that is there now
        self._waiting: dict[str, list[OnDirectory]] = {}
        self._link = Link(path, self._on_frame, self._on_open, self._on_lost)
        self._is_started = False

    def admit(self, spec: VersionSpec, on_directory: OnDirectory) -> None:
        """`on_directory` is called once, now or when the pool answers; with "" when the pool cannot do it."""
        if spec.key in self._is_current:
            on_directory(self._places[spec.key][0])
            return
        self._waiting.setdefault(spec.key, []).append(on_directory)
        self._specs[spec.key] = spec
        if not self._is_started:  # a host without models never looks for a pool
            self._is_started = True
            self._link.start()
        elif len(self._waiting[spec.key]) == 1:
            self._send_admit(spec)

    def forget(self, key: str, on_directory: OnDirectory) -> None:
        """Nobody waits for this answer any more."""
        waiting = self._waiting.get(key, [])
        if on_directory in waiting:
            waiting.remove(on_directory)

    def withdraw(self, key: str) -> None:
        """No replica of this version is left."""
        if self._specs.pop(key, None) is not None:
            self._places.pop(key, None)
            self._is_current.discard(key)
            self._link.send(encode(Withdraw(key)))

    async def close(self) -> None:
        if self._is_started:
            await self._link.close()

    def _send_admit(self, spec: VersionSpec) -> None:
        self._link.send(encode(Admit(spec.key, spec.owner, spec.models)))

    def _on_open(self) -> None:
        for spec in self._specs.values():
            self._send_admit(spec)

    def _on_lost(self) -> None:
        self._is_current.clear()

    def _on_frame(self, header: bytes, payload: bytes) -> None:
        try:
            message = _decode(header)
        except msgspec.DecodeError:
            return  # a newer pool may say more than we know
        key = message.version
        if key not in self._specs:
            return
        place = _place(message.directory)
        before = self._places.get(key)
        if place is not None:
            self._places[key] = place
            self._is_current.add(key)
        for on_directory in self._waiting.pop(key, []):
            on_directory(place[0] if place else "")
        if before is not None and place is not None and before != place:
            self._on_moved(key)


def _place(directory: str) -> _Place | None:
    try:
        return (directory, os.stat(directory).st_ino) if directory else None
    except OSError:
        return None
