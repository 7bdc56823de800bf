"""Repositories of algorithms: kept bare in HOME/git, read and written by git itself, in a box."""

from serai_gateway.git.errors import GitError, PushRefused
from serai_gateway.git.fast_import import Author, Entry
from serai_gateway.git.repository import NO_COMMIT, NO_REPOSITORY, Commit, Head, Repository, repositories

__all__ = [
    "NO_COMMIT",
    "NO_REPOSITORY",
    "Author",
    "Commit",
    "Entry",
    "GitError",
    "Head",
    "PushRefused",
    "Repository",
    "repositories",
]
