"""Options of `serai up`, each documented where it is defined."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from serai_gpu_pool.eviction import DEFAULT_POLICY, POLICIES
from serai_gpu_pool.settings import SettingError, parse_bytes
from serai_runner.settings import SandboxChoice

DEFAULT_PORT = 8000


@dataclass(frozen=True)
class Options:
    home: Path
    host: str
    port: int
    workers: int
    cpu_budget: str | None
    cpu_threads: int | None
    host_budget: str | None
    devices: str | None
    eviction: str | None
    placement: str | None
    sandbox: SandboxChoice
    docker_image: str | None
    docker_runtime: str | None
    max_replicas: int | None
    max_processes: int | None
    spares: int | None
    max_templates: int | None
    grace_s: float


def default_home() -> Path:
    return Path(os.environ.get("SERAI_HOME") or "~/.serai").expanduser()


def default_workers() -> int:
    """One worker for every four cores: a worker routes thousands of calls a second, and the work is done elsewhere."""
    return max(1, (os.cpu_count() or 1) // 4)


def parse(arguments: list[str]) -> Options:
    parser = argparse.ArgumentParser(
        prog="serai up",
        description="Start Serai on this machine: gateway, runner host and pool, watched over until you stop it.",
        epilog="example: serai up --home /srv/serai --port 9000",
    )
    parser.add_argument(
        "--home",
        type=Path,
        default=default_home(),
        metavar="DIR",
        help="where everything is kept (SERAI_HOME; default ~/.serai)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="address to listen on (default 127.0.0.1: this machine only)"
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=DEFAULT_PORT,
        metavar="P",
        help=f"port to listen on (default {DEFAULT_PORT}; 0: any free one)",
    )
    parser.add_argument(
        "--workers",
        type=_at_least_one,
        default=default_workers(),
        metavar="N",
        help="gateway processes (default: one for every four cores)",
    )
    parser.add_argument(
        "--cpu-budget",
        type=_size,
        metavar="BYTES",
        help="memory for models on the CPU, such as 2GiB (default: a quarter of RAM)",
    )
    parser.add_argument(
        "--cpu-threads",
        type=_at_least_one,
        metavar="N",
        help="threads that one run of a model uses on the CPU (default: one for each core)",
    )
    parser.add_argument(
        "--host-budget",
        type=_size,
        metavar="BYTES",
        help="memory for weights that were evicted from a device, such as 4GiB (default: a quarter of RAM)",
    )
    parser.add_argument(
        "--devices",
        metavar="IDS",
        help="where models run, such as cuda:0,cuda:1 or cpu (default: every GPU that is found, and the CPU)",
    )
    parser.add_argument(
        "--eviction",
        choices=POLICIES,
        help=f"which model goes when another needs its room (default {DEFAULT_POLICY}: the least worth keeping)",
    )
    parser.add_argument(
        "--placement",
        choices=("spread", "best_fit"),
        help="where a model goes when several devices have room (default spread)",
    )
    parser.add_argument(
        "--sandbox",
        choices=get_args(SandboxChoice),
        default="auto",
        help="how algorithms are contained (default auto: in containers where a Docker engine has their image, else "
        "by bubblewrap; none: limits only, trusted code). Workers of the pool: by bubblewrap, unless none",
    )
    parser.add_argument(
        "--docker-image", metavar="NAME", help="image of replicas, built from Dockerfile.runner (default serai-runner)"
    )
    parser.add_argument(
        "--docker-runtime", metavar="NAME", help="of containers, such as runsc for gVisor (default: the engine's own)"
    )
    parser.add_argument(
        "--max-replicas",
        type=_at_least_one,
        metavar="N",
        help="most replicas of a version that its author may ask for (default 16)",
    )
    parser.add_argument(
        "--max-processes", type=_at_least_one, metavar="N", help="most replicas of all versions together (default 32)"
    )
    parser.add_argument(
        "--spares",
        type=_at_least_zero,
        metavar="N",
        help="boxes kept ready for whichever version is called next, about 10 MB each (default 2)",
    )
    parser.add_argument(
        "--max-templates",
        type=_at_least_zero,
        metavar="N",
        help="processes kept that have loaded a version's code, to fork replicas from (default 8)",
    )
    parser.add_argument(
        "--grace",
        dest="grace_s",
        type=float,
        default=30.0,
        metavar="S",
        help="seconds that running calls get when Serai is stopped (default 30)",
    )
    given = parser.parse_args(arguments)
    return Options(**{**vars(given), "home": given.home.expanduser().absolute()})


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; ports are 0 to 65535")
    return int(text)


def _size(text: str) -> str:
    try:
        parse_bytes(text)
    except SettingError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _at_least_zero(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return int(text)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)
