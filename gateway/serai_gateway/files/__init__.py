"""The file store: immutable files by their content."""

from pathlib import Path

from serai_gateway.files.base import FileStore, FileStoreError, NoSuchFile, Stored, TooLarge, WrongContent
from serai_gateway.files.directory import DirectoryStore

__all__ = [
    "DirectoryStore",
    "FileStore",
    "FileStoreError",
    "NoSuchFile",
    "Stored",
    "TooLarge",
    "WrongContent",
    "open_store",
]


def open_store(home: Path) -> DirectoryStore:
    """The file store of a home folder."""
    return DirectoryStore(home / "files")
