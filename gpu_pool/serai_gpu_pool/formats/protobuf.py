"""Walk a protobuf message without knowing its schema: field numbers, wire types, raw values.

Strict where protobuf is lenient: what a lenient reader would skip, another one might not. The whole walk has one
budget of fields, so a small file cannot keep us busy for long.
"""

from collections.abc import Iterator

Value = int | memoryview

VARINT, I64, LEN, I32 = 0, 1, 2, 5


class NotProtobuf(ValueError):
    """These bytes are no protobuf message."""


class Walk:
    """Hands out fields until `max_fields` of them have been seen, over all messages together."""

    def __init__(self, max_fields: int) -> None:
        self._left = self._max = max_fields

    def fields(self, message: memoryview) -> Iterator[tuple[int, int, Value]]:
        """Field number, wire type, value: an int for numbers (as unsigned), a view for everything with a length.

        Raises NotProtobuf.
        """
        at, end = 0, len(message)
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise NotProtobuf(f"more than {self._max:,} fields")
            tag, at = read_varint(message, at)
            number, wire_type = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                raise NotProtobuf(f"field number {number}")
            if wire_type == LEN:
                size, at = read_varint(message, at)
                if size > end - at:
                    raise NotProtobuf("a field runs past the end of its message")
                yield number, LEN, message[at : at + size]
                at += size
            elif wire_type == VARINT:
                value, at = read_varint(message, at)
                yield number, VARINT, value
            elif wire_type in (I32, I64):
                size = 4 if wire_type == I32 else 8
                if size > end - at:
                    raise NotProtobuf("a field runs past the end of its message")
                yield number, wire_type, int.from_bytes(message[at : at + size], "little")
                at += size
            else:
                raise NotProtobuf(f"wire type {wire_type}")


def read_varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number at `at`, and where it ends. Raises NotProtobuf."""
    value, shift, end = 0, 0, len(message)
    while at < end and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
    raise NotProtobuf("a number without an end")


def signed(value: int) -> int:
    """An int64 field's value."""
    return value - (1 << 64) if value >= 1 << 63 else value


def message(value: Value) -> memoryview:
    """The value of a field that has a length. Raises NotProtobuf."""
    if isinstance(value, int):
        raise NotProtobuf("a number where a message belongs")
    return value


def string(value: Value) -> str:
    """Raises NotProtobuf."""
    try:
        return bytes(message(value)).decode()
    except UnicodeDecodeError:
        raise NotProtobuf("a name that is not UTF-8") from None
