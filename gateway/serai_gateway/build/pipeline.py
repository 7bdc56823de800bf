"""The build: one folder of an author becomes one version. `serai up`, `serai publish` and git push all come here.

    take in the tree ─▶ read the manifest ─▶ models ─▶ environment ─▶ bin/build or bytecode ─▶ code/<sha256>
                                                            ─▶ probe ─▶ catalogue: a version ─▶ published

Everything before the catalogue writes only what is named by its content, under temporary names first. So a build that
is killed at any point has changed nothing that anybody sees, and doing it again does only what is missing.
"""

import hashlib
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from serai.ipc.messages import VersionSpec
from serai_gateway.build import algorithmia_conf, builder, manifest, sections
from serai_gateway.build.box import network_problem
from serai_gateway.build.build_log import BuildLog
from serai_gateway.build.code import make_code
from serai_gateway.build.command import Log
from serai_gateway.build.errors import BuildError, InvalidManifest
from serai_gateway.build.manifest import Manifest
from serai_gateway.build.models import store_models
from serai_gateway.build.preparing import prepare_models
from serai_gateway.build.spec import check_size, to_spec
from serai_gateway.build.tree import Tree, copy_tree, flush_to_disk, make_read_only, remove_tree
from serai_gateway.catalogue import (
    Account,
    Algorithm,
    Catalogue,
    CatalogueError,
    NewVersion,
    NotFound,
    Version,
    may_manage,
)
from serai_gateway.files import open_store
from serai_gateway.versions import InvalidVersion, parse_semver


class Publish(NamedTuple):
    """How to publish what was built."""

    number: str = "next"  # major, minor, revision, what has to be for what has changed, or the number itself
    public: bool = True
    first: str = "1.0.0"  # when nothing was published before
    request_key: str | None = None


#: Tries a version before anybody can call it; raises BuildError with what went wrong.
Probe = Callable[[VersionSpec], None]


def build(
    source: Path,
    home: Path,
    catalogue: Catalogue,
    owner: Account,
    log: Log,
    *,
    publish: Publish | None = None,
    algorithm: Algorithm | None = None,
    commit: str | None = None,
    build_id: str | None = None,
    probe: Probe | None = None,
    is_ours: bool = False,
) -> Version:
    """Build the folder `source`, and publish it if asked to. Blocks; call it from a thread.

    Args:
        owner: who asks. The manifest's owner must be this account or one that it manages.
        log: gets each line as it comes.
        publish: without it the version can be called by its hash only.
        algorithm: what the folder must be, for a push to its repository; the build is listed from the start then.
        commit: the version's hash (40 hex digits); made from the tree where there is no commit.
        is_ours: the folder belongs to our own distribution.

    Raises:
        BuildError: the author can read why. The version that served before serves on.
        CatalogueError: the owner may not, or the number is taken.
        versions.InvalidVersion: `publish.number` is neither an increment nor a number.
    """
    job = _Build(source, home.absolute(), catalogue, owner, BuildLog(log), build_id or uuid.uuid4().hex, is_ours)
    try:
        if algorithm and commit:
            job.start(algorithm, commit)
        version = job.make(algorithm, commit, probe)
        if publish:
            version = job.publish(version, publish)
        job.finish("succeeded", f"built {version.key}")
        return version
    except (BuildError, CatalogueError, InvalidVersion) as error:
        job.finish("failed", f"failed: {error}")
        raise
    except OSError as error:
        job.finish("failed", f"failed: {error.strerror or 'the disk or the database'}; this is the server's fault")
        raise
    except BaseException as error:
        job.finish("failed", f"failed: {type(error).__name__} in the build itself; try again")
        raise


class _Build:
    def __init__(
        self,
        source: Path,
        home: Path,
        catalogue: Catalogue,
        owner: Account,
        log: BuildLog,
        build_id: str,
        is_ours: bool,
    ) -> None:
        self.source = source
        self.home = home
        self.catalogue = catalogue
        self.owner = owner
        self.log = log
        self.id = build_id
        self.is_ours = is_ours
        self._is_recorded = False

    def start(self, algorithm: Algorithm, hash: str) -> None:
        if not self._is_recorded:
            self.catalogue.start_build(algorithm, hash, builder.this_builder(), self.id)
            self._is_recorded = True

    def finish(self, status: str, last_line: str) -> None:
        self.log.last(last_line)
        if self._is_recorded:
            self.catalogue.finish_build(self.id, "succeeded" if status == "succeeded" else "failed", self.log.text)

    def make(self, expected: Algorithm | None, commit: str | None, probe: Probe | None) -> Version:
        code = self.home / "code"
        code.mkdir(parents=True, exist_ok=True)
        part = code / builder.part_name(self.id)
        try:
            tree = copy_tree(self.source, part, is_ours=self.is_ours)
            about = read_manifest(part)
            account = self._account(about, expected)
            if about.permissions.network and (problem := network_problem(self.home)):
                raise InvalidManifest(f"permissions.network: this server cannot give it: {problem}")
            algorithm = expected or self.catalogue.ensure_algorithm(account, about.name, tagline=about.tagline)
            hash = commit or tree.sha256[:40]
            self.start(algorithm, hash)
            self.log(f"building {algorithm.owner}/{algorithm.name} {hash[:12]}: {tree.num_files:,} files")
            new = self._prepare(about, part, tree, hash, algorithm.owner)
        finally:
            remove_tree(part)
        spec = to_spec(_preview(algorithm, new), self.home)
        check_size(spec)
        if probe:
            probe(spec)
        return self.catalogue.add_version(algorithm, new)

    def _prepare(self, about: Manifest, part: Path, tree: Tree, hash: str, owner: str) -> NewVersion:
        store = open_store(self.home)
        models = store_models(about, part, store, self.log)
        prepare_models(models, owner, self.home, store, self.log)
        environment = None
        if about.kind != "model":
            about, environment, tree = make_code(about, part, tree, self.home, self.log)
        place = self.home / "code" / tree.sha256
        if not place.is_dir():
            make_read_only(part)
            flush_to_disk(part)
            try:
                os.rename(part, place)
            except OSError:
                if not place.is_dir():  # else another build of the same tree was faster
                    raise
            flush_to_disk(place.parent)
        return NewVersion(
            hash=hash,
            kind=about.kind,
            manifest=msgspec.to_builtins(about),
            code_sha=tree.sha256,
            environment=environment,
            models=models,
        )

    def _account(self, about: Manifest, expected: Algorithm | None) -> Account:
        """The account that the manifest names, if whoever asks may publish for it."""
        if expected and (about.owner.lower(), about.name.lower()) != (expected.owner.lower(), expected.name.lower()):
            raise InvalidManifest(
                f"the manifest says {about.owner}/{about.name}, the repository is {expected.owner}/{expected.name}"
            )
        try:
            account = self.catalogue.account_named(about.owner)
        except NotFound:
            account = None
        if account is None or not may_manage(self.owner, account):
            raise InvalidManifest(f'owner: you are "{self.owner.name}" and cannot publish for "{about.owner}"')
        return account

    def publish(self, version: Version, how: Publish) -> Version:
        if version.semver:
            newest = self._newest(version)
            is_increment = how.number in ("next", "major", "minor", "revision", "patch")
            is_same = newest.public == how.public and newest.code_sha == version.code_sha
            if is_same and (is_increment or newest.semver == how.number):
                self.log(f"nothing has changed since {newest.semver}")
                return newest
            version = self._again(version, newest)
        version = self.catalogue.publish_version(
            version, how.number, public=how.public, first=how.first, request_key=how.request_key
        )
        self.log(f"published {version.owner}/{version.name}/{version.semver}")
        return version

    def _newest(self, version: Version) -> Version:
        """The published version of this algorithm with the highest number."""
        algorithm = self.catalogue.find_algorithm(version.owner, version.name, self.owner)
        published = [one for one in self.catalogue.versions_of(algorithm) if one.semver]
        return max(published, key=lambda one: parse_semver(one.semver or ""))

    def _again(self, version: Version, newest: Version) -> Version:
        """The same code once more, to be published after `newest`: versions never change, so going back, or from
        private to public, makes a new one. Its hash says where it comes from, as a commit's does."""
        algorithm = self.catalogue.find_algorithm(version.owner, version.name, self.owner)
        hash = hashlib.sha256(f"{version.hash} after {newest.hash}".encode()).hexdigest()[:40]
        return self.catalogue.add_version(
            algorithm,
            NewVersion(
                hash=hash,
                kind=version.kind,
                manifest=version.manifest,
                code_sha=version.code_sha,
                environment=version.environment,
                models=version.models,
            ),
        )


def read_manifest(folder: Path) -> Manifest:
    """What the tree in `folder` (our own copy) says it is. Raises InvalidManifest."""
    if (folder / sections.FILE).is_file():
        return manifest.parse_manifest(manifest.read_text(folder / sections.FILE))
    if (folder / algorithmia_conf.FILE).is_file():
        return algorithmia_conf.parse_conf(manifest.read_text(folder / algorithmia_conf.FILE), folder)
    raise InvalidManifest(f"there is no {sections.FILE} in this folder; `serai new NAME` makes a folder with one")


def _preview(algorithm: Algorithm, new: NewVersion) -> Version:
    """The version as it will be, for those who try it before it is in the catalogue."""
    return Version(
        id="",
        algorithm_id=algorithm.id,
        owner_id=algorithm.owner_id,
        owner=algorithm.owner,
        name=algorithm.name,
        semver=None,
        public=False,
        created_at=0.0,
        published_at=None,
        **msgspec.structs.asdict(new),
    )
