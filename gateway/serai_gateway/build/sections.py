"""Reading a section of algorithm.toml strictly: every message names the file and the key, and says what to write."""

import difflib
import re
from collections.abc import Callable
from typing import Any, TypeVar, get_args

import msgspec

from serai.ipc.messages import ModelFormat
from serai_gateway.build.errors import InvalidManifest
from serai_gateway.catalogue import CatalogueError

FILE = "algorithm.toml"

_Value = TypeVar("_Value")
_Struct = TypeVar("_Struct", bound=msgspec.Struct)


def refuse(key: str, message: str, file: str = FILE) -> InvalidManifest:
    return InvalidManifest(f"{file}: {key}: {message}")


def section(name: str, table: Any, form: type[_Struct]) -> _Struct:
    if not isinstance(table, dict):
        raise refuse(name, f"is a section; write it as [{name}]")
    check_keys(name, table, form.__struct_fields__)
    try:
        return msgspec.convert(table, form)
    except msgspec.ValidationError as error:
        message, _, where = str(error).partition(" - at `$.")
        key = f"{name}.{where.rstrip('`')}" if where else name
        raise refuse(key, _plain(message)) from None


def check_keys(section: str, table: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
            raise refuse(f"{section}.{key}"[:150].lstrip("."), f"unknown key; {hint}")


#: msgspec's words for what tomllib can produce, in TOML's.
_TYPES = {"str": "text in quotes", "int": "a whole number", "float": "a number", "bool": "true or false"}


def _plain(message: str) -> str:
    found = re.match(r"Expected `(.*)`, got `(.*)`", message)
    if found:
        wanted = " or ".join(_TYPES.get(part.strip(), part.strip()) for part in found[1].split("|"))
        return f"must be {wanted}, not {_TYPES.get(found[2], found[2])}"
    if message.startswith("Invalid enum value"):
        return f"is not a format; write one of {', '.join(get_args(ModelFormat))}, or leave it out"
    found = re.match(r"Object missing required field `(.*)`", message)
    return f"{found[1]} is missing" if found else message


def checked(key: str, text: str, check: Callable[[str], _Value]) -> _Value:
    try:
        return check(text)
    except (ValueError, CatalogueError) as error:
        raise refuse(key, str(error)) from None


def within(key: str, value: int, least: int, most: int) -> int:
    if not least <= value <= most:
        raise refuse(key, f"{value} is not between {least} and {most}")
    return value
