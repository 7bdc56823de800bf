"""What to type to run this very program: for messages that say what to do next."""

import os
import shutil
import sys
from pathlib import Path


def program() -> str:
    """`serai` where the shell finds it, else the path of the script beside our interpreter, short where it can be."""
    own = Path(sys.executable).with_name("serai")
    found = shutil.which("serai")
    if found is not None and Path(found).absolute() == own.absolute():
        return "serai"
    if not own.exists():
        return "serai"
    relative = os.path.relpath(own)
    return str(own) if relative.startswith("..") else relative
