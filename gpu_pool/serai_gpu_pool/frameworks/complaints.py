"""What frameworks complain about, in a line that an author can read; whose fault it is."""

import hashlib
import mmap
import os
import re

from serai.ipc.messages import ModelSpec
from serai_gpu_pool.core import LoadFailure
from serai_gpu_pool.frameworks.base import LoadError

#: Errors repeat a model's internals at length; this much of one helps.
MAX_MESSAGE_CHARS = 300

_PATH = re.compile(r"(/[\w.+-]+){2,}/?")
_NO_MEMORY = re.compile(
    r"can.t allocate memory|out of memory|bad_alloc|failed to allocate|OOM when|RESOURCE_EXHAUSTED", re.I
)
#: How TorchScript begins: where it happened. What happened stands at the end.
_TRACE = re.compile(r"The following operation failed in the TorchScript interpreter|Traceback|Graph execution error")


def short(error: BaseException) -> str:
    """One line of what a framework said, without our paths."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    if _TRACE.match(text):
        said = [line for line in lines if re.match(r"(\w+Error|RuntimeError|Exception)\b|.*\{\{function_node", line)]
        text = said[-1] if said else lines[-1]
    return _PATH.sub("…", text)[:MAX_MESSAGE_CHARS]


def is_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


def broken(spec: ModelSpec, why: str) -> LoadError:
    return LoadError(LoadFailure("broken", f'model "{spec.name}" cannot be loaded: {why}'))


def no_memory(spec: ModelSpec) -> LoadError:
    return LoadError(LoadFailure("memory", f'model "{spec.name}" cannot be loaded: not enough memory on the device'))


def damaged(spec: ModelSpec, why: str) -> LoadError:
    return LoadError(LoadFailure("damaged", f'model "{spec.name}" {why}; publish it again'))


def map_file(spec: ModelSpec, path: str, checked: set[str]) -> mmap.mmap:
    """The stored file in memory: pages of the file, of which a writer gets copies of its own.

    Args:
        checked: files whose checksum was right before, by sha256; added to.

    Raises:
        LoadError: it is not there, or not what was published.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise damaged(spec, f"cannot be read from the file store ({error.strerror})") from None
    try:
        if os.fstat(descriptor).st_size == 0:
            raise damaged(spec, "is stored as an empty file")
        mapped = mmap.mmap(descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    except MemoryError:
        raise no_memory(spec) from None
    except OSError as error:
        raise (no_memory(spec) if error.errno == 12 else damaged(spec, f"cannot be read ({error.strerror})")) from None
    finally:
        os.close(descriptor)
    if spec.sha256 not in checked:
        if hashlib.sha256(mapped).hexdigest() != spec.sha256:
            raise damaged(spec, "is stored with a wrong checksum")
        checked.add(spec.sha256)
    return mapped
