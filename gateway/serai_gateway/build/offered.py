"""The runtimes that this server really has: Pythons that are installed and that its sandbox can show, and Node."""

import functools
from pathlib import Path

from serai_gateway.build.box import python_problem
from serai_gateway.build.errors import BuildError
from serai_gateway.build.node_environment import node_version
from serai_gateway.build.runtimes import RUNTIMES, Runtime
from serai_runner import pythons


@functools.cache
def offered_runtimes(home: Path) -> tuple[Runtime, ...]:
    """Conda's stand-in first, as clients look for it there, then the others.

    Blocks: it starts interpreters. Looked for once in the life of a process, as Pythons are.
    """
    installed = pythons.installed()
    has_node = _has_node(home)
    return tuple(
        runtime
        for runtime in RUNTIMES
        if runtime.family == "anaconda3"
        or (runtime.family == "javascript" and has_node)
        or (runtime.version in installed and not python_problem(home, runtime.version))
    )


def _has_node(home: Path) -> bool:
    try:
        node_version(home)
    except BuildError:
        return False
    return True
