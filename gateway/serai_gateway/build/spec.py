"""A version as the daemons take it."""

from pathlib import Path

import msgspec

from serai.ipc.messages import Define, Limits, ModelFormat, ModelSpec, Scaling, TensorSpec, VersionSpec, encode
from serai_gateway.build.manifest import Manifest
from serai_gateway.build.sections import refuse
from serai_gateway.catalogue import Model, TensorInfo, Version
from serai_gateway.files import FileStore, open_store
from serai_gpu_pool.prepare.folder import prepared_folder, runtime_tag

#: It travels as the header of one frame (64 KiB); a home with longer paths must be able to say it too.
_MAX_DESCRIPTION_BYTES = 48 << 10


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
            with_prepared(model_spec(model, version.owner, version.name, store), home) for model in version.models
        ),
        limits=Limits(manifest.timeout_s, manifest.memory_bytes, manifest.concurrency, manifest.cpus),
        network=manifest.permissions.network,
        scaling=Scaling(manifest.min_replicas, manifest.max_replicas, manifest.idle_s),
        calls=manifest.permissions.calls,
        python=manifest.python,
    )


def check_size(spec: VersionSpec) -> None:
    """Raises InvalidManifest for a version whose description is too long for the daemons to be told about it."""
    num_bytes = len(encode(Define(spec)))
    if num_bytes > _MAX_DESCRIPTION_BYTES:
        raise refuse(
            "models",
            f"names and shapes of all inputs and outputs take {num_bytes:,} bytes, over the limit of "
            f"{_MAX_DESCRIPTION_BYTES:,}: put the models into several algorithms",
        )


def model_spec(model: Model, owner: str, algorithm: str, store: FileStore) -> ModelSpec:
    """A model of a version of `owner`/`algorithm`, as the pool takes it. Raises files.NoSuchFile."""
    return ModelSpec(
        name=model.name,
        sha256=model.sha256,
        path=str(store.path(model.sha256)),
        format=msgspec.convert(model.format, ModelFormat),
        num_bytes=model.num_bytes,
        owner=owner,
        inputs=tuple(map(_tensor, model.inputs)),
        outputs=tuple(map(_tensor, model.outputs)),
        algorithm=algorithm,
    )


def with_prepared(spec: ModelSpec, home: Path) -> ModelSpec:
    """The same, with the folder that its preparation on this machine has made, where there is one."""
    folder = prepared_folder(home, spec, runtime_tag(spec.format))
    return msgspec.structs.replace(spec, prepared=str(folder)) if folder.is_dir() else spec


def _tensor(info: TensorInfo) -> TensorSpec:
    """A free dimension's name is for people; the pool knows it as -1."""
    shape = None if info.shape is None else tuple(size if isinstance(size, int) else -1 for size in info.shape)
    return TensorSpec(info.name, info.dtype, shape)
