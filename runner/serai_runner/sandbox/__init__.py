"""Where replicas run. One narrow protocol, a file per implementation, chosen here by name."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from serai.box.cgroups import Cgroups
from serai_runner.sandbox.base import Box, BuildBox, Sandbox, SandboxUnavailable
from serai_runner.sandbox.bubblewrap import Bubblewrap
from serai_runner.sandbox.plain import Plain

if TYPE_CHECKING:  # the settings name what is here
    from serai_runner.settings import Settings

__all__ = ["Box", "BuildBox", "Sandbox", "SandboxUnavailable", "choose_sandbox"]


def choose_sandbox(
    settings: "Settings", cgroups: Cgroups | None = None, log: Callable[[str], None] = lambda line: None
) -> tuple[Sandbox, str]:
    """The sandbox to use, and a warning to show (empty: none).

    "auto" takes Docker where an engine answers that has the image of replicas: somebody has built it for that. Else
    bubblewrap.

    Args:
        cgroups: what limits the boxes of this host; None for one that starts none.
        log: told what an operator should know of the choice.

    Raises:
        SandboxUnavailable: the settings ask for one that does not work here.
    """
    cgroups = cgroups or Cgroups.detect("serai", membership=Path(os.devnull))
    plain = Plain(settings.run_directory, cgroups)
    if settings.sandbox == "none":
        return plain, "replicas run WITHOUT a sandbox: an author's code can read and change all that this user can"
    reasons = []
    for name in ("docker", "bubblewrap"):
        if settings.sandbox not in ("auto", name):
            continue
        try:
            return _probe(name, settings, cgroups, log), ""
        except SandboxUnavailable as error:
            if settings.sandbox == name:
                raise
            reasons.append(str(error))
    return plain, f"replicas run WITHOUT a sandbox ({'; '.join(reasons)}): publish only code that you trust"


def _probe(name: str, settings: "Settings", cgroups: Cgroups, log: Callable[[str], None]) -> Sandbox:
    if name == "bubblewrap":
        return Bubblewrap.probe(settings, cgroups)
    engine = settings.docker.engine
    if engine.startswith("unix://") and not Path(engine.removeprefix("unix://")).is_socket():
        raise SandboxUnavailable(f"no Docker engine answers at {engine}")
    from serai_runner.sandbox.docker.sandbox import Docker  # the engine's library takes 150 ms to import

    return Docker.probe(settings.home, settings.docker, log)
