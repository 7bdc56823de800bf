"""The operator: the account that runs this Serai. Its key is also in HOME/operator.key, for those who may read it."""

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

from serai_gateway.catalogue import keys
from serai_gateway.catalogue.errors import Taken
from serai_gateway.catalogue.protocol import Catalogue
from serai_gateway.catalogue.records import Account


class Operator(NamedTuple):
    account: Account
    key: str
    is_new: bool  # the key was made just now: show it


def ensure_operator(home: Path, catalogue: Catalogue) -> Operator:
    """The operator's account and a key for it that works, made where missing.

    The file is written before the database, so a crash in between leaves a key that the next start makes valid.
    A key that was revoked is replaced.
    """
    path = home / "operator.key"
    text = _read(path)
    if text:
        caller = catalogue.caller_of_key(text)
        if caller and caller.account.kind == "operator":
            return Operator(caller.account, text, False)
        with contextlib.suppress(Taken):
            return Operator(catalogue.ensure_operator(text), text, False)
    text = keys.new_key_text()
    _write(path, text)
    return Operator(catalogue.ensure_operator(text), text, True)


def _read(path: Path) -> str | None:
    try:
        text = path.read_text("ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return text if keys.is_key_text(text) else None


def _write(path: Path, text: str) -> None:
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    staged.unlink(missing_ok=True)
    descriptor = os.open(staged, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(staged, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
