"""Secrets at rest: sealed with a key that lies beside the database, in HOME/secrets.key, mode 0600.

A line of that file is one key of 256 bits in base64. The first seals; all of them open, which is how a key is replaced:
put a new line first and start Serai again, which seals everything anew; then the old line may go.

A sealed secret is: version (1 byte), which key (4 bytes), nonce (12), AES-256-GCM's ciphertext and tag. The ids of the
secret and of its algorithm are part of what the tag protects, so that a row of the database opens in its place alone.
"""

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from serai.ipc.secrets import Secrets
from serai_gateway.catalogue import Catalogue

FILE_NAME = "secrets.key"

_KEY_BYTES, _ID_BYTES, _NONCE_BYTES = 32, 4, 12
_VERSION = b"\x01"
_HEAD_BYTES = len(_VERSION) + _ID_BYTES + _NONCE_BYTES
#: A file with more is no key file of ours.
_MAX_FILE_BYTES = 64 * 1024


class BrokenKeyFile(Exception):
    """HOME/secrets.key is not what it should be; without it no secret can be read."""


class Unreadable(Exception):
    """A sealed secret does not open: its key is not in HOME/secrets.key, or somebody has changed it."""


class Vault:
    """Seals and opens. The keys stay in here.

    Args:
        keys: 32 bytes each; the first seals.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = {_id_of(key): AESGCM(key) for key in keys}
        self._current = _id_of(keys[0])

    def seal(self, value: str, algorithm_id: str, secret_id: str) -> bytes:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        text = self._ciphers[self._current].encrypt(nonce, value.encode(), _place(algorithm_id, secret_id))
        return _VERSION + self._current + nonce + text

    def open(self, sealed: bytes, algorithm_id: str, secret_id: str) -> str:
        """Raises Unreadable."""
        cipher = self._ciphers.get(sealed[1 : 1 + _ID_BYTES])
        if sealed[:1] != _VERSION or cipher is None:
            raise Unreadable(f"its key is not in HOME/{FILE_NAME}")
        nonce, text = sealed[1 + _ID_BYTES : _HEAD_BYTES], sealed[_HEAD_BYTES:]
        try:
            return cipher.decrypt(nonce, text, _place(algorithm_id, secret_id)).decode()
        except (InvalidTag, ValueError):
            raise Unreadable("it has been changed, or belongs to something else") from None

    def is_current(self, sealed: bytes) -> bool:
        """Whether the first key has sealed it."""
        return sealed[: 1 + _ID_BYTES] == _VERSION + self._current


def open_vault(home: Path) -> Vault:
    """The vault of a home folder; its key is made where there is none. Raises OSError, BrokenKeyFile."""
    path = home / FILE_NAME
    with contextlib.suppress(FileNotFoundError):
        return Vault(_read(path))
    _create(path)
    return Vault(_read(path))


def open_secrets(catalogue: Catalogue, vault: Vault, algorithm_id: str) -> Secrets:
    """What the processes of an algorithm are given. Blocks.

    Raises:
        NotFound: the algorithm is gone.
        Unreadable: one of them does not open, and which.
    """
    found = catalogue.secrets_of(algorithm_id)
    values: dict[str, str] = {}
    for secret in found.secrets:
        try:
            values[secret.key] = vault.open(secret.sealed, algorithm_id, secret.id)
        except Unreadable as error:
            raise Unreadable(f"the secret {secret.key} cannot be read: {error}") from None
    return Secrets(found.changed_at, values)


def reseal(catalogue: Catalogue, vault: Vault, log: Callable[[str], object]) -> None:
    """Seal with the first key what another one has sealed. What does not open is told, and left as it is."""
    for secret in catalogue.all_secrets():
        if vault.is_current(secret.sealed):
            continue
        try:
            value = vault.open(secret.sealed, secret.algorithm_id, secret.id)
        except Unreadable as error:
            log(f"the secret {secret.key} of algorithm {secret.algorithm_id} cannot be read: {error}")
        else:
            catalogue.reseal_secret(secret, vault.seal(value, secret.algorithm_id, secret.id))


def _read(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        text = file.read(_MAX_FILE_BYTES)
    try:
        keys = [base64.b64decode(line, validate=True) for line in text.split()]
    except binascii.Error:
        keys = []
    if not keys or any(len(key) != _KEY_BYTES for key in keys):
        raise BrokenKeyFile(
            f"{path} holds no key: each line must be {_KEY_BYTES} bytes in base64. Bring it back from a backup; or "
            "remove it, and set all secrets again"
        )
    return keys


def _create(path: Path) -> None:
    """Write a new key, unless another process has been first: what it may have sealed must open."""
    staged = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(staged, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(base64.b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(staged, path)
    finally:
        staged.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _id_of(key: bytes) -> bytes:
    return hashlib.sha256(b"serai secrets\0" + key).digest()[:_ID_BYTES]


def _place(algorithm_id: str, secret_id: str) -> bytes:
    return f"serai secret\0{algorithm_id}\0{secret_id}".encode()
