"""The author's module, imported and made ready. Whatever that raises goes through."""

from __future__ import annotations

import importlib
import importlib.util
import os
import site
import sys
import types
from collections.abc import Callable
from typing import Any

#: The flag of functions with *args, as `inspect` has it.
_VARARGS = 0x04


def import_ours() -> None:
    """What authors import from us, found before their folders are searched."""
    if importlib.util.find_spec("serai.model") is not None:
        importlib.import_module("serai.model")


def import_author(job: dict[str, Any]) -> types.ModuleType:
    """The module that the job names.

    The standard library comes first in `sys.path`, so that an author's `json.py` breaks nobody else's import; then
    the author's folders, then the packages.
    """
    root = job["algorithm"]
    source = os.path.join(root, "src")
    sys.path += [root, source]
    if job["environment"]:
        site.addsitedir(job["environment"])
    _make_package("src", source)
    module = importlib.import_module(f"src.{job['entry']}")
    if not callable(getattr(module, "apply", None)):
        raise AttributeError(f"src/{job['entry']}.py has no function apply(input)")
    if not _takes_input(module.apply):
        raise TypeError(f"src/{job['entry']}.py: apply is called with one argument: write def apply(input)")
    return module


def _takes_input(apply: Any) -> bool:
    """Whether it can be called with one argument. Said by hand: `inspect` takes as long to import as all of us."""
    if type(apply) is not types.FunctionType:
        return True  # an object or a native function: it knows by itself
    code = apply.__code__
    num_needed = code.co_argcount - len(apply.__defaults__ or ())
    takes_any = bool(code.co_argcount or code.co_flags & _VARARGS)
    return num_needed <= 1 and takes_any and code.co_kwonlyargcount <= len(apply.__kwdefaults__ or ())


def prepare(module: types.ModuleType, finish: Callable[[Any], Any]) -> None:
    """Run the module's `load`, if it has one. `finish` waits for what an `async def` returns."""
    load = getattr(module, "load", None)
    if callable(load):
        finish(load())


def _make_package(name: str, folder: str) -> None:
    """`name` as a package whose modules lie in `folder`, whatever else on the path bears that name."""
    if os.path.exists(os.path.join(folder, "__init__.py")):
        return  # an ordinary package, and the author's folder is searched first
    package = types.ModuleType(name)
    package.__path__ = [folder]
    sys.modules[name] = package
