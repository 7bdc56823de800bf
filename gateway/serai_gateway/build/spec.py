"""A version as the daemons take it."""

from pathlib import Path

import msgspec

from serai.ipc.messages import Limits, ModelSpec, VersionSpec
from serai_gateway.build.manifest import Manifest
from serai_gateway.catalogue import Version
from serai_gateway.files import open_store


def manifest_of(version: Version) -> Manifest:
    return msgspec.convert(version.manifest, Manifest)


def to_spec(version: Version, home: Path) -> VersionSpec:
    """What runner host and pool need to run `version` on this machine.

    Raises files.NoSuchFile when a model of it is not in the file store.
    """
    home = home.absolute()
    manifest = manifest_of(version)
    store = open_store(home)
    return VersionSpec(
        key=version.key,
        owner=version.owner,
        name=version.name,
        kind=version.kind,
        code="" if version.kind == "model" else str(home / "code" / version.code_sha),
        environment=str(home / "environments" / version.environment) if version.environment else None,
        entry=manifest.entry,
        models=tuple(
            ModelSpec(model.name, model.sha256, str(store.path(model.sha256)), model.format, model.num_bytes)
            for model in version.models
        ),
        limits=Limits(manifest.timeout_s, manifest.memory_bytes, manifest.concurrency),
        network=manifest.permissions.network,
    )
