"""What one algorithm is given in confidence: variables of its processes, and what hides them in what is written down.

They travel as the payload of `Define`, from the gateway to the runner host, and from there into a box. They are no part
of a `VersionSpec`, which goes to other daemons too, and to whoever looks at one.
"""

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

#: A shorter value is not looked for in what is printed: it would be found where nobody meant it.
MIN_HIDDEN_CHARS = 6
#: Of a value with several lines each is looked for by itself that is at least so long: logs are kept in lines.
_MIN_HIDDEN_LINE_CHARS = 16

_NONE: Mapping[str, str] = MappingProxyType({})


class Secrets:
    """The secrets of an algorithm as of one moment. Never shows the values, whoever prints it."""

    __slots__ = ("_hidden", "changed_at", "values")

    def __init__(self, changed_at: float = 0.0, values: Mapping[str, str] = _NONE) -> None:
        self.changed_at = changed_at  # seconds since 1970; of two of one algorithm the later ones are true
        self.values = MappingProxyType(dict(values))  # name of the variable -> value
        self._hidden: list[tuple[str, bytes, str]] | None = None  # made when something is to be hidden

    def __bool__(self) -> bool:
        return bool(self.values)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self.values) or 'none'})"

    def encode(self) -> bytes:
        return msgspec.msgpack.encode((self.changed_at, dict(self.values))) if self.changed_at else b""

    @classmethod
    def decode(cls, payload: bytes) -> "Secrets":
        """Raises msgspec.DecodeError."""
        return cls(*_decode(payload)) if payload else NO_SECRETS

    def hide(self, text: str) -> str:
        """`text` with "[secret NAME]" in place of each value in it."""
        for value, _, name in self._places() if self.values else ():
            if value in text:
                text = text.replace(value, name)
        return text

    def hide_bytes(self, data: bytes) -> bytes:
        """The same of what was printed, in UTF-8."""
        for _, value, name in self._places() if self.values else ():
            if value in data:
                data = data.replace(value, name.encode())
        return data

    def _places(self) -> list[tuple[str, bytes, str]]:
        """What is looked for and what takes its place: the longest first, so that none hides a part of another."""
        if self._hidden is None:
            found: dict[str, str] = {}
            for name, value in self.values.items():
                lines = [line.strip() for line in value.splitlines()] if "\n" in value else []
                parts = [value] if len(value) >= MIN_HIDDEN_CHARS else []
                parts += [line for line in lines if len(line) >= _MIN_HIDDEN_LINE_CHARS]
                for part in parts:
                    found.setdefault(part, f"[secret {name}]")
            longest = sorted(found.items(), key=lambda item: -len(item[0]))
            self._hidden = [(part, part.encode(), name) for part, name in longest]
        return self._hidden


NO_SECRETS = Secrets()
_decode = msgspec.msgpack.Decoder(tuple[float, dict[str, str]]).decode
