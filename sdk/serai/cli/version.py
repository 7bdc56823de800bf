"""Say which version of Serai this is."""

import argparse
import platform

from serai import __version__

EXAMPLE = """
example:
  serai version
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def run(args: argparse.Namespace) -> int:
    print(f"serai {__version__} (Python {platform.python_version()})")
    return 0
