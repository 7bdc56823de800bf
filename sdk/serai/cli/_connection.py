"""Which server a command talks to."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serai import Client

#: Options of every command that connects; each takes one value.
VALUED_OPTIONS = ("--address", "--key", "--profile")


def add_connection_options(parser: argparse.ArgumentParser) -> None:
    """Add them without defaults, so that they count before and after the command alike."""
    group = parser.add_argument_group("server", "left out: SERAI_ADDRESS, SERAI_API_KEY, ~/.serai/config.toml")
    group.add_argument("--address", metavar="URL", default=argparse.SUPPRESS, help="the server, http://127.0.0.1:8000")
    group.add_argument(
        "--key", default=argparse.SUPPRESS, help="API key; others on this machine can see it, SERAI_API_KEY hides it"
    )
    group.add_argument(
        "--profile", metavar="NAME", default=argparse.SUPPRESS, help="[profiles.NAME] of ~/.serai/config.toml"
    )


def connect(args: argparse.Namespace) -> "Client":
    """A client as the command line and the environment say."""
    from serai import Client  # late: the HTTP library is most of the start-up time

    return Client(*(getattr(args, name, None) for name in ("key", "address", "profile")))
