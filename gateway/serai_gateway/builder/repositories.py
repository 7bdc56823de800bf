"""What killed processes have left in HOME/git: looked for once, when the builder starts."""

import shutil
import time
from pathlib import Path

from serai_gateway.catalogue import Catalogue
from serai_gateway.git import NO_REPOSITORY, Repository, repositories
from serai_gateway.git.writers import writer

#: A repository is made before its algorithm, and removed after it: one without is given this long.
_LOST_AFTER_S = 3600.0


def sweep_repositories(home: Path, catalogue: Catalogue) -> None:
    """Remove repositories without an algorithm, and in others what was pushed and never accepted."""
    folder = home / "git"
    old = time.time() - _LOST_AFTER_S
    for part in folder.glob(".*") if folder.is_dir() else ():
        if part.stat().st_mtime < old:
            shutil.rmtree(part, ignore_errors=True)
    for id in repositories(home):
        repository = Repository(home, id)
        try:
            is_lost = id != NO_REPOSITORY and repository.path.stat().st_mtime < old
            if is_lost and catalogue.name_of_algorithm(id) is None:
                repository.remove()
                continue
            with writer(repository.path):
                pass
        except FileNotFoundError:  # removed meanwhile
            continue
