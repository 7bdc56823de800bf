"""`serai up`."""

import asyncio
import os
import sys
import time
from pathlib import Path

from serai.cli.program import program
from serai_gateway.places import first_party_folder
from serai_gateway.up.home import Home, HomeError
from serai_gateway.up.options import DEFAULT_PORT, Options, parse
from serai_gateway.up.supervisor import StartError, Supervisor


def _style(text: str, code: str) -> str:
    return f"\033[{code}m{text}\033[0m" if sys.stdout.isatty() else text


def _say(line: str) -> None:
    sys.stdout.write(f"  {_style('·', '36')} {line}\n")
    sys.stdout.flush()


def _welcome(supervisor: Supervisor, home: Home) -> None:
    took_s = time.monotonic() - supervisor.started_at
    key = home.key_file.read_text().strip()
    url = supervisor.url
    lines = [
        "",
        f"{_style('Serai is up', '1;32')} at {_style(url, '4')}  ({took_s:.1f} s; everything is in {home.path})",
        "",
        f"  operator's key  {_style(key, '33')}  (also in {home.key_file})",
        "",
        "  try it",
        f"    curl -s {url}/v1/algo/demo/hello -H 'Authorization: Simple {key}' -H 'Content-Type: text/plain' -d World",
        f"    {_variables(url, home)}{program()} call vision/classify -f {_photo()}",
        "",
        "  Ctrl-C stops it: running calls are finished first",
        "",
    ]
    sys.stdout.write("\n".join(lines))
    sys.stdout.flush()


def main() -> int:
    options = parse(sys.argv[1:])
    home = Home(options.home)
    try:
        home.open()
        asyncio.run(_supervise(options, home))
    except (HomeError, StartError) as error:
        sys.stderr.write(f"serai up: {error}\n")
        return 1
    finally:
        home.close()
    _say("stopped")
    return 0


def _photo() -> str:
    """A photograph that is there, where the first-party algorithms lie as files."""
    folder = first_party_folder()
    sample = folder / "vision/classify/sample.jpg" if folder else None
    if sample is None or not sample.is_file():
        return "photo.jpg"
    relative = os.path.relpath(sample)
    return str(sample) if relative.startswith("..") else relative


def _variables(url: str, home: Home) -> str:
    """What the `serai` command needs to be told, where this is not the usual address and home."""
    set_home = "" if home.path == Path("~/.serai").expanduser() else f"SERAI_HOME={home.path} "
    return set_home if url == f"http://127.0.0.1:{DEFAULT_PORT}" else f"{set_home}SERAI_ADDRESS={url} "


async def _supervise(options: Options, home: Home) -> None:
    await Supervisor(options, home, _say).run(lambda supervisor: _welcome(supervisor, home))


if __name__ == "__main__":
    sys.exit(main())
