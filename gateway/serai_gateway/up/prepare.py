"""What must be so before calls can be served, in a process of its own: `python -m serai_gateway.up.prepare --home DIR`.

Migrates the database, makes the operator, has the builder publish the first-party algorithms. Prints JSON, a line each:
{"operator": true, "is_new": …} once accounts exist, {"log": …} while it publishes, {"done": true, …} at the end.
"""

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from serai_gateway.builder.client import BuilderClient
from serai_gateway.builder.messages import Ended
from serai_gateway.catalogue import ensure_operator, open_catalogue
from serai_gateway.vault import open_vault, reseal


def _say(**event: Any) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


async def prepare(home: Path) -> None:
    catalogue = open_catalogue(home)
    operator = ensure_operator(home, catalogue)
    catalogue.close()
    _say(operator=True, is_new=operator.is_new)
    reseal(catalogue, open_vault(home), log=lambda line: _say(log=line))
    catalogue.forget_old_call_errors()
    builder = BuilderClient(home)
    builder.start()
    async with builder.first_party() as events:
        async for event in events:
            if not isinstance(event, Ended):
                _say(log=event.text)
            elif event.outcome != "built":
                raise SystemExit(event.message)
            else:
                _say(done=True, failed=event.failed)
    await builder.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serai_gateway.up.prepare")
    parser.add_argument("--home", type=Path, required=True)
    asyncio.run(prepare(parser.parse_args().home.absolute()))


if __name__ == "__main__":
    main()
