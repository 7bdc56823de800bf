"""TorchScript files: a zip with program text, a table of objects, and weights as they lie in memory.

    NAME/data.pkl, data/0 …         objects and their tensors
    NAME/constants.pkl, constants/  tensors that the program text names
    NAME/code/….py                  program text, in TorchScript's own language
    NAME/version, byteorder, …      a few bytes each

PyTorch reads all of that without Python. What the program may do when it runs is up to its text, so text that names
operations on files, or code from outside of PyTorch, is refused here; the wall around it is the worker's sandbox.
"""

import pickletools
import re

from serai_gpu_pool.formats.base import ModelFile, ModelFileError, shown
from serai_gpu_pool.formats.zip_file import ZipFile

#: Program text of one model: a traced net of 2000 layers has 1 MiB, and a scripted one less.
MAX_TEXT_BYTES = 16 << 20
#: Words in the program text: bounds what parsing it can cost. A large model has some hundred thousand.
MAX_WORDS = 5_000_000
#: Steps of the tables together; a model with 10,000 tensors has a million.
MAX_STEPS = 5_000_000

_MEMBER = re.compile(
    r"(data|constants|traced_inputs)\.pkl|(data|constants|traced_inputs)/\d{1,6}|code/[\w./<>-]+\.py(\.debug_pkl)?"
    r"|version|byteorder|\.format_version|\.storage_alignment|\.data/(serialization_id|version)|extra/.+"
)
_TABLE = re.compile(r"(data|constants)\.pkl")
#: What a table may refer to: classes of the program text, and how tensors and lists are put together.
_GLOBAL = re.compile(
    r"__torch__[\w.<> ]*|torch\._utils _rebuild_\w+|torch \w+Storage|torch\.jit\._pickle \w+|collections OrderedDict"
    r"|torch device|torch\._utils _rebuild_device_tensor_from_numpy"
)
_FOREIGN_CLASS = re.compile(r"__torch__\.torch\.classes")

#: Nothing is tried twice: "++" and "*+" never give back what they took, so time and memory are those of one pass.
_WORD = re.compile(
    r"#[^\n]*+|'(?:[^'\\\n]++|\\.)*+'|\"(?:[^\"\\\n]++|\\.)*+\"|[A-Za-z_]\w*+|[^\s\w]|\d[\w.]*+", re.DOTALL
)
#: Operations of PyTorch on files, and doors to code that is not PyTorch's.
_REFUSED = frozenset(("from_file", "save", "load", "classes", "jit", "package", "_export", "hub"))
#: Ways to go on after the call has been answered, in threads or elsewhere.
_LATER = re.compile(r"fork|wait|awaitable\w*|rpc_\w+")
#: Where operations may come from; others are extensions, which are not here.
_NAMESPACES = frozenset(("aten", "prim", "prims", "quantized", "_quantized"))


def read_torchscript(data: memoryview) -> ModelFile:
    """Raises ModelFileError. What goes in and out is not known from the file."""
    archive = ZipFile(data)
    root = next(iter(archive.members)).partition("/")[0]
    inside = {name.removeprefix(f"{root}/"): name for name in archive.members}
    for path, name in inside.items():
        if path == name or not _MEMBER.fullmatch(path):
            raise ModelFileError(f'TorchScript with a part that does not belong there, "{shown(name)}"; save it again')
    for names in (("data.pkl",), ("constants.pkl",), ("version", ".data/version")):  # it is written to one or the other
        if not any(name in inside for name in names):
            raise ModelFileError(f"TorchScript without {names[0]}; save it again with torch.jit.script(model).save(…)")
    if "byteorder" in inside and archive.read(inside["byteorder"]) != b"little":
        raise ModelFileError("saved on a machine with the other byte order; save it again on this kind of machine")
    text_bytes = sum(archive.members[name].num_bytes for path, name in inside.items() if path.endswith(".py"))
    if text_bytes > MAX_TEXT_BYTES:
        raise ModelFileError(f"its program text has {text_bytes:,} bytes, of at most {MAX_TEXT_BYTES >> 20} MiB")
    steps = calls = 0
    for path, name in inside.items():
        if _TABLE.fullmatch(path):
            steps = _check_table(path, archive.read(name), steps)
        elif path.endswith(".py"):
            calls += _check_text(path, archive.read(name))
        elif archive.members[name].is_packed:
            archive.read(name)  # counts against the limit
    if not calls:
        raise ModelFileError("TorchScript without program text; save it again with torch.jit.script(model).save(…)")
    return ModelFile("torchscript", None, None, calls)


def _check_table(path: str, content: bytes, steps: int) -> int:
    """Look at each step of a table without taking any. How many there were, with those before."""
    try:
        for opcode, argument, _ in pickletools.genops(content):
            steps += 1
            if steps > MAX_STEPS:
                raise ModelFileError(f"its tables have more than {MAX_STEPS:,} steps")
            if opcode.name in ("INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "PERSID"):
                raise ModelFileError(f"{path} was not written by TorchScript; save it again with torch.jit.save")
            if opcode.name == "GLOBAL":
                name = str(argument)
                if _FOREIGN_CLASS.match(name) or not _GLOBAL.fullmatch(name):
                    where = shown(name.replace(" ", "."))
                    raise ModelFileError(f"{path} refers to {where}, which is not part of a TorchScript model")
    except (ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{path} is damaged; save the model again") from None
    return steps


def _check_text(path: str, content: bytes) -> int:
    """How many operations the text names. Words are looked at one by one, so spaces and comments hide nothing."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise ModelFileError(f"{shown(path)} is not program text; save the model again") from None
    if '"""' in text or "'''" in text:
        # PyTorch never writes these, and a reader that does not know them takes program for text.
        raise ModelFileError(f"{shown(path)} was not written by TorchScript: it has triple quotes")
    calls = words = 0
    before: list[str] = ["", "", "", ""]
    for match in _WORD.finditer(text):
        word = match[0]
        if word[0] == "#" or word == "\\":
            continue
        if word in "'\"":
            raise ModelFileError(f"{shown(path)} was not written by TorchScript: a quote in it does not end")
        words += 1
        if words > MAX_WORDS:
            raise ModelFileError(f"its program text has more than {MAX_WORDS:,} words")
        before = [*before[1:], word]
        is_plain = before[2] not in (".", "def")  # else it is the model's own method or attribute
        if _LATER.fullmatch(word) and (is_plain or before[1] == "torch" or before[1] in _NAMESPACES):
            raise ModelFileError(
                f'its program uses "{word}": models may not go on after their call; give anything else another name'
            )
        if before[2] != ".":
            continue
        owner, name = before[1], word
        if owner == "torch":
            calls += 1
            if name in _REFUSED:
                raise ModelFileError(f"its program calls torch.{name}: models may not reach files or load code")
        elif owner == "ops":
            calls += 1
            if name not in _NAMESPACES:
                raise ModelFileError(
                    f"its program calls ops.{shown(name)}, an extension that is not here; use PyTorch's own operations"
                )
        elif owner in _NAMESPACES and name in _REFUSED and before[0] == ".":
            raise ModelFileError(f"its program calls {owner}.{name}: models may not reach files or load code")
    return calls
