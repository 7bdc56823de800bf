"""What there is to build, and how: one class for each way in. They all end in `build_commit`. Run in threads."""

from dataclasses import dataclass
from pathlib import Path

from serai_gateway.build import (
    BuildError,
    Probe,
    Publish,
    Source,
    algorithm_of,
    build_commit,
    build_folder,
    extract,
)
from serai_gateway.build.command import Log
from serai_gateway.builder import messages
from serai_gateway.catalogue import Account, Algorithm, Catalogue, Version
from serai_gateway.git import Repository


@dataclass(frozen=True)
class Workshop:
    """What all builds work with."""

    home: Path
    catalogue: Catalogue
    probe: Probe


@dataclass(frozen=True)
class CommitJob:
    """A commit: one that is being pushed, which must follow the head `expected`, or one that is there."""

    algorithm: Algorithm
    account: Account
    commit: str
    expected: str | None = None
    quarantine: str = ""

    def run(self, shop: Workshop, build_id: str, log: Log) -> Version:
        source = Source(Repository(shop.home, self.algorithm.id), self.commit, self.quarantine, self.expected)
        return build_commit(
            source, shop.catalogue, self.algorithm, self.account, log, build_id=build_id, probe=shop.probe
        )


@dataclass(frozen=True)
class FolderJob:
    """A folder of ours, that becomes a commit, a version, and is published."""

    algorithm: Algorithm
    account: Account
    folder: Path
    publish: Publish

    def run(self, shop: Workshop, build_id: str, log: Log) -> Version:
        return build_folder(
            self.folder, shop.home, shop.catalogue, self.account, log,
            publish=self.publish, probe=shop.probe, build_id=build_id,
        )  # fmt: skip


Job = CommitJob | FolderJob


def push_job(shop: Workshop, message: messages.Push) -> CommitJob:
    account = shop.catalogue.account_named(message.account)
    algorithm = shop.catalogue.algorithm_by_id(message.algorithm_id, account)
    return CommitJob(algorithm, account, message.commit, message.expected, message.quarantine)


def compile_job(shop: Workshop, message: messages.Compile) -> CommitJob:
    """Raises BuildError."""
    account = shop.catalogue.account_named(message.account)
    algorithm = shop.catalogue.algorithm_by_id(message.algorithm_id, account)
    repository = Repository(shop.home, algorithm.id)
    commit = repository.head().commit if repository.exists else None
    if commit is None:
        raise BuildError("there is nothing to compile: push a commit first")
    return CommitJob(algorithm, account, commit)


def take_archive(shop: Workshop, message: messages.Publish) -> FolderJob:
    """The job of a folder that came as an archive. Raises BuildError."""
    account = shop.catalogue.account_named(message.account)
    folder = Path(message.folder)
    with (folder / "archive").open("rb") as archive:
        extract(archive, folder / "tree")
    algorithm = algorithm_of(folder / "tree", shop.catalogue, account, publicly=message.public)
    return FolderJob(algorithm, account, folder / "tree", Publish(public=message.public))
