"""What must be so before calls can be served, in a process of its own: `python -m serai_gateway.up.prepare --home DIR`.

Migrates the database, makes the operator, publishes the first-party algorithms. Prints one JSON object a line:
{"operator": true, "is_new": …} once accounts exist, {"log": …} while it publishes, {"done": true, …} at the end.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from serai_gateway.build import publish_first_party, sweep
from serai_gateway.catalogue import ensure_operator, open_catalogue


def _say(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def prepare(home: Path) -> None:
    catalogue = open_catalogue(home)
    operator = ensure_operator(home, catalogue)
    _say(operator=True, is_new=operator.is_new)
    sweep(home, catalogue, log=lambda line: _say(log=line))
    report = publish_first_party(home, catalogue, log=lambda line: _say(log=line))
    _say(done=True, published=report.published, failed=report.failed)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serai_gateway.up.prepare")
    parser.add_argument("--home", type=Path, required=True)
    prepare(parser.parse_args().home)


if __name__ == "__main__":
    main()
