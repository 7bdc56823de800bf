"""`python -m serai_gateway.build.prefetch`: fetch now what the first start would fetch.

Wheels with models go to the wheel cache, environments of the first-party algorithms to the environment cache, and so
does what opening and measuring their models leads to: from there a new home takes them without a download, and without
the ten seconds that measuring takes. What is missing is made when it is needed.
"""

import sys
from pathlib import Path

from serai_gateway.build import manifest, requirements, sections
from serai_gateway.build.environment import ensure_environment, environment_cache
from serai_gateway.build.errors import BuildError
from serai_gateway.build.models import store_models
from serai_gateway.build.preparing import prepare_models
from serai_gateway.files import open_store
from serai_gateway.places import first_party_folder


def prefetch(folder: Path) -> list[str]:
    """What could not be fetched, and why."""
    failed: list[str] = []
    for place in sorted(path.parent for path in folder.glob("*/*/algorithm.toml")):
        try:
            about = manifest.parse_manifest(manifest.read_text(place / sections.FILE))
            store = open_store(environment_cache())
            models = store_models(about, place, store, _quiet)
            prepare_models(models, about.owner, environment_cache(), store, _quiet)
            asked = place / requirements.FILE
            if asked.is_file():
                ensure_environment(
                    manifest.read_text(asked),
                    environment_cache(),
                    _quiet,
                    python=about.python,
                    with_sdk=about.permissions.calls,
                )
        except (BuildError, OSError) as error:
            failed.append(f"{place.parent.name}/{place.name}: {error}")
    return failed


def _quiet(_line: str) -> None:
    """Progress of single packages is of no interest here."""


def main() -> None:
    folder = first_party_folder()
    for line in prefetch(folder) if folder else []:
        sys.stderr.write(f"  could not be fetched, tried again when it is needed: {line}\n")


if __name__ == "__main__":
    main()
