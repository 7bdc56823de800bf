"""Compile an algorithm's Python once, so that no replica has to. Compiling reads code, it does not run it."""

from pathlib import Path

from serai_gateway.build.command import run_command
from serai_gateway.build.environment import clean_environment
from serai_gateway.build.errors import BuildError
from serai_runner import pythons

#: Longest compilation of one algorithm, and its most memory: constants folded out of hostile code can be large.
TIMEOUT_S = 120.0
MAX_MEMORY_BYTES = 2 << 30
_MAX_FILE_BYTES = 256 << 20

#: Where a replica sees its code: names in tracebacks.
INSIDE = "/opt/algorithm"


def compile_python(folder: Path, entry: str, python: str = "") -> None:
    """Write the bytecode of everything below `folder` for Python "3.12"; "" is ours.

    Raises BuildError if `src/<entry>.py` is no Python.
    """
    module = folder / "src" / f"{entry}.py"
    if not module.is_file():
        raise BuildError(f"there is no src/{entry}.py; the module is named like the algorithm, or by entry = …")
    # unchecked-hash: the files are read-only, so nobody needs to compare times with the source at every start.
    options = ("-q", "--invalidation-mode", "unchecked-hash", "-s", str(folder), "-p", INSIDE, "-j", "1")
    finished = run_command(
        (pythons.find(python).executable, "-I", "-m", "compileall", *options, str(folder)),
        cwd=folder,
        env=clean_environment(),
        timeout_s=TIMEOUT_S,
        log=lambda line: None,  # what matters of it is the error below; the rest may be nobody's code
        max_file_bytes=_MAX_FILE_BYTES,
        max_memory_bytes=MAX_MEMORY_BYTES,
    )
    # Other files may be templates or old Python that nobody imports.
    version = python or pythons.OURS
    if not (module.parent / "__pycache__" / f"{entry}.cpython-{version.replace('.', '')}.pyc").is_file():
        raise BuildError(f"src/{entry}.py is not Python {version}:\n" + finished.tail.replace(f"{folder}/", ""))
