"""What killed builds left behind: run once when Serai starts."""

import os
import time
from pathlib import Path

from serai_gateway.build import builder, environment
from serai_gateway.build.command import Log
from serai_gateway.build.tree import remove_tree
from serai_gateway.catalogue import Catalogue
from serai_gateway.files import open_store

#: A build of another machine that is older than this has ended without saying so.
LOST_AFTER_S = 4 * environment.TIMEOUT_S


def sweep(home: Path, catalogue: Catalogue, log: Log) -> None:
    """Mark builds whose process is gone as interrupted, and remove their unfinished files."""
    for build in catalogue.running_builds():
        alive = builder.is_alive(build.builder)
        if alive is None:
            alive = time.time() < build.started_at + LOST_AFTER_S
        if not alive:
            catalogue.finish_build(build.id, "interrupted", "interrupted: its process ended; push or publish again")
            log(f"build {build.id} was interrupted")
    for name in ("code", "environments"):
        folder = home / name
        for entry in os.listdir(folder) if folder.is_dir() else ():
            if builder.is_abandoned(entry):
                remove_tree(folder / entry)
    open_store(home).sweep(time.time())
