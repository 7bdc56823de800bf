"""The file store: immutable files by the SHA-256 of their content.

`FileStore` is what the gateway relies on; `directory.py` is one implementation.
"""

from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol


class FileStoreError(Exception):
    """The store cannot do that."""


class NoSuchFile(FileStoreError):
    """Nothing with this content is stored."""


class WrongContent(FileStoreError):
    """The bytes that came are not those that were announced."""


class TooLarge(FileStoreError):
    """More bytes than this store, or this request, allows."""


class Stored(NamedTuple):
    sha256: str
    num_bytes: int


class FileStore(Protocol):
    def put(self, source: Path | BinaryIO, *, sha256: str | None = None, max_bytes: int | None = None) -> Stored:
        """Keep what `source` holds, to its end. When this returns it is there after a power cut too.

        Putting the same content again is fine and cheap.

        Args:
            sha256: what the content must be.
            max_bytes: the most it may be.

        Raises:
            WrongContent, TooLarge: nothing was stored.
        """
        ...

    def open(self, sha256: str) -> BinaryIO:
        """Raises NoSuchFile."""
        ...

    def path(self, sha256: str) -> Path:
        """Where this machine can read and map it, absolute. Raises NoSuchFile."""
        ...

    def exists(self, sha256: str) -> bool: ...
