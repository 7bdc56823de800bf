"""`python -m serai`: the `serai` command where the script itself is not on PATH."""

import sys

from serai.cli import main

if __name__ == "__main__":
    sys.exit(main())
