"""The build: one commit becomes one version. `git push`, `serai publish`, compile and `serai up` all come here.

    take in the tree ─▶ read the manifest ─▶ models ─▶ environment ─▶ bin/build or bytecode ─▶ code/<sha256>
                                                            ─▶ probe ─▶ catalogue: a version ─▶ published

Everything before the catalogue writes only what is named by its content, under temporary names first. So a build that
is killed at any point has changed nothing that anybody sees, and doing it again does only what is missing.
"""

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
from serai_gateway.build.built_tree import check_disk
from serai_gateway.build.checkout import export_commit
from serai_gateway.build.code import make_code
from serai_gateway.build.collection import building
from serai_gateway.build.command import Log
from serai_gateway.build.errors import BuildError, CalledOff, InvalidManifest
from serai_gateway.build.folder import entries_of
from serai_gateway.build.manifest import Manifest, Permissions, Sample
from serai_gateway.build.models import store_models
from serai_gateway.build.preparing import prepare_models
from serai_gateway.build.spec import check_size, to_spec
from serai_gateway.build.tree import Tree, flush_to_disk, make_read_only, remove_tree
from serai_gateway.catalogue import (
    Account,
    Algorithm,
    Catalogue,
    CatalogueError,
    NewVersion,
    NotFound,
    Version,
    may_administer,
    may_manage,
)
from serai_gateway.catalogue.records import BuildStatus
from serai_gateway.files import open_store
from serai_gateway.git import Author, GitError, Repository
from serai_gateway.versions import InvalidVersion, parse_semver


class Publish(NamedTuple):
    """How to publish what was built."""

    number: str = "next"  # major, minor, revision, what has to be for what has changed, or the number itself
    public: bool = True
    first: str = "1.0.0"  # when nothing was published before
    request_key: str | None = None


class Source(NamedTuple):
    """What is built: a commit of an algorithm's repository."""

    repository: Repository
    commit: str
    quarantine: str = ""  # where git keeps it while it is not accepted yet
    expected: str | None = None  # what the head must still be, "" for none yet; None: whatever it is


#: Tries a version before anybody can call it: gets its sample, if it has one; raises BuildError with what went wrong.
Probe = Callable[[VersionSpec, Sample | None, Log], None]


def build_commit(
    source: Source,
    catalogue: Catalogue,
    algorithm: Algorithm,
    account: Account,
    log: Log,
    *,
    build_id: str | None = None,
    publish: Publish | None = None,
    probe: Probe | None = None,
    accept: Callable[[], None] = lambda: None,
) -> Version:
    """Make a commit a version of `algorithm`, and publish it if asked to. Blocks; call it from a thread.

    Args:
        account: who asks, and may.
        log: gets each line as it comes.
        build_id: of a build that is listed already.
        publish: without it the version can be called by its hash only.
        accept: called when the version stands, before it is published.

    Raises:
        BuildError: the author can read why. The version that served before serves on.
        CatalogueError: the owner may not, or the number is taken.
        versions.InvalidVersion: `publish.number` is neither an increment nor a number.
    """
    job = _Build(source, catalogue, algorithm, account, BuildLog(log), build_id or uuid.uuid4().hex)
    catalogue.start_build(algorithm, source.commit, builder.this_builder(), job.id)
    try:
        with building(job.home):
            version = job.make(probe)
        accept()
        if publish:
            version = job.publish(version, publish)
        job.finish("succeeded", f"built {version.key}")
        return version
    except CalledOff as error:
        job.finish("interrupted", f"interrupted: {error}")
        raise
    except (BuildError, GitError, CatalogueError, InvalidVersion) as error:
        job.finish("failed", f"failed: {error}")
        raise
    except OSError as error:
        job.finish("failed", f"failed: {error.strerror or 'the disk or the database'}; this is the server's fault")
        raise
    except BaseException as error:
        job.finish("failed", f"failed: {type(error).__name__} in the build itself; try again")
        raise


def build_folder(
    folder: Path,
    home: Path,
    catalogue: Catalogue,
    account: Account,
    log: Log,
    *,
    publish: Publish | None = None,
    probe: Probe | None = None,
    build_id: str | None = None,
) -> Version:
    """What a push of this folder does: it becomes a commit of the algorithm that its manifest names, and is built.

    The folder must be ours: unpacked by us, or of our own distribution. One at a time for each algorithm.

    Raises like `build_commit`.
    """
    algorithm = algorithm_of(folder, catalogue, account, publicly=publish is not None and publish.public)
    repository = Repository(home, algorithm.id)
    commit = repository.commit(entries_of(folder), "published from a folder", Author(account.name))
    head = repository.head()
    return build_commit(
        Source(repository, commit), catalogue, algorithm, account, log,
        publish=publish, probe=probe, build_id=build_id, accept=lambda: repository.accept(head, commit),
    )  # fmt: skip


def algorithm_of(folder: Path, catalogue: Catalogue, account: Account, *, publicly: bool = False) -> Algorithm:
    """The algorithm that the manifest in this folder names, made if there is none.

    Raises InvalidManifest, also when `account` may not publish for its owner: publicly, owners of an organization only.
    """
    about = read_manifest(folder)
    try:
        owner = catalogue.account_named(about.owner)
    except NotFound:
        owner = None
    if owner is None or not may_manage(account, owner):
        raise InvalidManifest(f'owner: you are "{account.name}" and cannot publish for "{about.owner}"')
    if publicly and not may_administer(account, owner):
        raise InvalidManifest(f"owner: members publish privately; an owner of {owner.name} can publish for all")
    return catalogue.ensure_algorithm(owner, about.name, tagline=about.tagline)


class _Build:
    def __init__(
        self,
        source: Source,
        catalogue: Catalogue,
        algorithm: Algorithm,
        account: Account,
        log: BuildLog,
        build_id: str,
    ) -> None:
        self.source = source
        self.home = source.repository.home.absolute()
        self.catalogue = catalogue
        self.algorithm = algorithm
        self.account = account
        self.log = log
        self.id = build_id

    def finish(self, status: BuildStatus, last_line: str) -> None:
        self.log.last(last_line)
        self.catalogue.finish_build(self.id, status, self.log.text)

    def make(self, probe: Probe | None) -> Version:
        check_disk(self.home, "nothing is built")
        algorithm, hash = self.algorithm, self.source.commit
        expected = self.source.expected
        if expected is not None and (self.source.repository.head().commit or "") != expected:
            raise BuildError("somebody else has pushed meanwhile: fetch, merge, and push again")
        code = self.home / "code"
        code.mkdir(parents=True, exist_ok=True)
        part = code / builder.part_name(self.id)
        try:
            tree = export_commit(self.source.repository, hash, part, quarantine=self.source.quarantine)
            about = self._manifest(part)
            self.log(f"building {algorithm.owner}/{algorithm.name} {hash[:12]}: {tree.num_files:,} files")
            self.log("Beginning container customization")  # what tools look for in a log, word for word
            new = self._prepare(about, part, tree, hash, algorithm.owner)
        finally:
            remove_tree(part)
        spec = to_spec(_preview(algorithm, new), self.home)
        check_size(spec)
        if probe:
            probe(spec, about.sample, self.log)
        version = self.catalogue.add_version(algorithm, new)
        if about.tagline and about.tagline != algorithm.tagline:  # an algorithmia.conf has none
            self.catalogue.set_algorithm(algorithm, tagline=about.tagline)
        return version

    def _manifest(self, part: Path) -> Manifest:
        """What the commit says it is, which must be what its repository is."""
        about, algorithm = read_manifest(part), self.algorithm
        if (about.owner.lower(), about.name.lower()) != (algorithm.owner.lower(), algorithm.name.lower()):
            file = sections.FILE if (part / sections.FILE).is_file() else algorithmia_conf.FILE
            raise InvalidManifest(
                f"the manifest says {about.owner}/{about.name}, the repository is {algorithm.owner}/{algorithm.name}; "
                f"change owner or name in {file}, or push to /git/{about.owner}/{about.name}.git"
            )
        if not (part / sections.FILE).is_file():
            return self._with_settings(about)
        if about.permissions.network and (problem := network_problem(self.home)):
            raise InvalidManifest(f"permissions.network: this server cannot give it: {problem}")
        return about

    def _with_settings(self, about: Manifest) -> Manifest:
        """An algorithmia.conf says nothing of permissions: they are the algorithm's settings."""
        settings = self.algorithm.settings
        network = settings.get("network_access") == "full"
        if network and (problem := network_problem(self.home)):
            self.log(f"built without network, which this server cannot give: {problem}")
            network = False
        calls = settings.get("pipeline_enabled", about.permissions.calls)
        about = msgspec.structs.replace(about, permissions=Permissions(network=network, calls=calls is True))
        self._check_unchanged(about)
        return about

    def _check_unchanged(self, about: Manifest) -> None:
        """Raises BuildError if this commit is a version already that may do something else: versions never change."""
        try:
            before = self.catalogue.find_build_version(self.algorithm, self.source.commit).manifest
        except NotFound:
            return
        if before.get("permissions") != msgspec.to_builtins(about).get("permissions"):
            raise BuildError(
                "network_access or pipeline_enabled have changed since this commit was built, and versions never "
                "change: push another commit (git commit --allow-empty)"
            )

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

    def publish(self, version: Version, how: Publish) -> Version:
        if version.semver:
            newest = self._newest(version)
            is_increment = how.number in ("next", "major", "minor", "revision", "patch")
            is_same = newest.public == how.public and newest.code_sha == version.code_sha
            if is_same and (is_increment or newest.semver == how.number):
                self.log(f"nothing has changed since {newest.semver}")
                return newest
            version = self.catalogue.repeat_version(version)
        version = self.catalogue.publish_version(
            version, how.number, public=how.public, first=how.first, request_key=how.request_key
        )
        self.log(f"published {version.owner}/{version.name}/{version.semver}")
        return version

    def _newest(self, version: Version) -> Version:
        """The published version of this algorithm with the highest number."""
        algorithm = self.catalogue.find_algorithm(version.owner, version.name, self.account)
        published = [one for one in self.catalogue.versions_of(algorithm) if one.semver]
        return max(published, key=lambda one: parse_semver(one.semver or ""))


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
