"""What builds and pushes leave on the disk: looked for when the builder starts, and at most once an hour after that."""

import time
from pathlib import Path

from serai_gateway.build import collect
from serai_gateway.builder.repositories import sweep_repositories
from serai_gateway.catalogue import Catalogue
from serai_gateway.logs import get_logger

_log = get_logger("builder")

#: Between two looks.
TIDY_EVERY_S = 3600.0


def tidy(home: Path, catalogue: Catalogue) -> None:
    """Blocks, for as long as it takes to remove what there is. What goes wrong is for the operator's log alone."""
    for what, work in (
        ("unused content", lambda: collect(home, catalogue, time.time(), lambda line: _log.info(line, action="tidy"))),
        ("repositories", lambda: sweep_repositories(home, catalogue)),
    ):
        try:
            work()
        except Exception:
            _log.exception(f"not all {what} could be looked at", action="tidy")
