"""How git gets at the repositories of a server: their addresses, and a credential helper that knows the key."""

import os
import shlex
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

from serai.settings import Settings


def repository(settings: Settings, owner: str, name: str) -> str:
    return f"{settings.address}/git/{owner}/{name}.git"


def helper_name(settings: Settings) -> str:
    """Git's setting: who is asked for the password of this server alone."""
    parts = urlsplit(settings.address)
    return f"credential.{parts.scheme}://{parts.netloc}.helper"


def helper(settings: Settings, profile: str | None) -> str:
    """What that setting says: this program, found from whichever folder git runs in. The key itself is not in it."""
    command = [*_program(), "credential", "--address", settings.address]
    return "!" + shlex.join([*command, "--profile", profile] if profile else command)


def _program() -> list[str]:
    own = Path(sys.executable).with_name("serai")
    found = shutil.which("serai")
    if found is not None and os.path.isabs(found) and (not own.exists() or Path(found) == own):
        return ["serai"]
    return [str(own)] if own.exists() else [sys.executable, "-m", "serai"]
