"""`python -m serai_gateway.builder --home DIR`: the daemon that builds."""

import argparse
import asyncio
import signal
from pathlib import Path

import uvloop

from serai.box.shield import shield_devices
from serai.ipc.sockets import serve_unix
from serai_gateway.build import sweep
from serai_gateway.builder.builds import Builds
from serai_gateway.builder.client import socket_path
from serai_gateway.builder.jobs import Workshop
from serai_gateway.builder.server import BuilderConnection
from serai_gateway.builder.tidying import tidy
from serai_gateway.builder.trial import Trial
from serai_gateway.catalogue import open_catalogue
from serai_gateway.dispatch import Dispatcher
from serai_gateway.logs import get_logger
from serai_gateway.server.process import die_with_parent
from serai_gateway.vault import open_vault

_log = get_logger("builder")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m serai_gateway.builder")
    parser.add_argument("--home", type=Path, required=True, metavar="DIR", help="folder of this Serai")
    home = parser.parse_args().home.absolute()
    die_with_parent()
    if unshielded := shield_devices():
        _log.warning("boxes can change devices' permissions", action="no_shield", why=unshielded)
    uvloop.run(_serve(home))


async def _serve(home: Path) -> None:
    """Until SIGTERM: then what runs is called off and said to be interrupted."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    catalogue = open_catalogue(home)
    sweep(home, catalogue, log=lambda line: _log.info(line, action="sweep"))
    dispatcher = Dispatcher(home / "run")
    dispatcher.start()
    shop = Workshop(home, catalogue, Trial(catalogue, open_vault(home), dispatcher, loop))
    builds = Builds(shop)
    server = await serve_unix(socket_path(home), lambda: BuilderConnection(shop, builds))
    tidying = loop.run_in_executor(None, tidy, home, catalogue)
    await stop.wait()
    server.close()
    builds.stop()
    await tidying
    await builds.join()
    await dispatcher.close()
    catalogue.close()


if __name__ == "__main__":
    main()
