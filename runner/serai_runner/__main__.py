"""`python -m serai_runner --home DIR`: start a runner host."""

import argparse
import asyncio
import contextlib
import dataclasses
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TextIO, get_args

import structlog
import uvloop

from serai.box.cgroups import Cgroups
from serai.box.seccomp import why_no_filter
from serai.box.shield import shield_devices
from serai_runner.host import Host
from serai_runner.inside import confine
from serai_runner.sandbox import Sandbox, SandboxUnavailable, choose_sandbox
from serai_runner.sandbox.docker.options import DockerOptions
from serai_runner.settings import SandboxChoice, Settings


def main(arguments: list[str] | None = None) -> int:
    settings = parse(arguments)
    configure_logging()
    confine.die_with(os.getppid())
    settings.run_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if unshielded := shield_devices():
        structlog.get_logger().warning("boxes can change devices' permissions", action="no_shield", why=unshielded)
    if unfiltered := why_no_filter():
        structlog.get_logger().warning("no filter of system calls", action="no_filter", why=unfiltered)
    cgroups = Cgroups.detect("serai")
    try:
        sandbox, warning = choose_sandbox(settings, cgroups, _tell)
    except SandboxUnavailable as error:
        structlog.get_logger().error(str(error), action="refused_to_start")
        return 1
    if warning:
        structlog.get_logger().warning(warning, action="no_sandbox")
    uvloop.run(_serve(settings, sandbox, cgroups))
    return 0


def _tell(line: str) -> None:
    structlog.get_logger().info(line, action="sandbox")


async def _serve(settings: Settings, sandbox: Sandbox, cgroups: Cgroups) -> None:
    host = Host(settings, sandbox, cgroups)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, host.drain)
    await host.serve()


def parse(arguments: list[str] | None) -> Settings:
    """Settings from the command line; a wrong value ends the program with its name."""
    parser = argparse.ArgumentParser(prog="python -m serai_runner", description="The runner host of a Serai.")
    parser.add_argument("--home", type=Path, required=True, help="folder of this Serai")
    parser.add_argument("--sandbox", choices=get_args(SandboxChoice), default="auto")
    parser.add_argument("--docker-image", help="image of replicas, built from Dockerfile.runner")
    parser.add_argument("--docker-runtime", help="of containers, such as runsc for gVisor (default: the engine's)")
    parser.add_argument("--docker-seccomp", help="path of another seccomp profile than the engine's default")
    for name, help_text in _NUMBERS.items():
        kind = {f.name: f.type for f in dataclasses.fields(Settings)}[name]
        parser.add_argument(f"--{name.replace('_', '-')}", type=_positive(kind, name in _MAY_BE_ZERO), help=help_text)
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    wanted = [name for name in ("image", "runtime", "seccomp") if f"docker_{name}" in given]
    docker = {name: given.pop(f"docker_{name}") for name in wanted}
    return Settings(**given | {"home": given["home"].absolute(), "docker": DockerOptions(**docker)})


_NUMBERS = {
    "replicas": "replicas of a version whose author names no number (default: the number of CPUs)",
    "max_replicas": "most replicas of a version that an author may name (scaling.max)",
    "max_kept_per_owner": "replicas that one owner's versions may keep without calls (scaling.min)",
    "max_processes": "replica processes of this host",
    "max_processes_per_owner": "of those, for the versions of one owner",
    "idle_s": "seconds after which an idle replica ends, where its author names none",
    "max_idle_s": "longest such time that an author may name (scaling.idle)",
    "spares": "boxes kept ready for whichever version is called next; 0: none",
    "max_templates": "processes kept to fork replicas from; 0: none",
    "template_idle_s": "seconds after which one of those ends that nobody forked from",
    "load_s": "seconds that importing the code and load() may take",
    "queue_per_slot": "waiting calls per replica and unit of concurrency",
    "queue_min": "waiting calls a version may always have",
    "max_queued_bytes": "bytes of waiting inputs, all versions together",
    "drain_s": "seconds that running calls are given after SIGTERM",
    "memory_reserve_bytes": "memory below which idle replicas make room for what starts (default: an eighth of it)",
    "max_pids": "processes and threads of one replica",
    "tmp_bytes": "size of a replica's /tmp",
}


_MAY_BE_ZERO = ("spares", "max_templates", "max_kept_per_owner")


def _positive(kind: object, or_zero: bool):
    def positive(text: str) -> float:
        value = int(text) if kind is int else float(text)
        if value < 0 or (value == 0 and not or_zero):
            raise ValueError
        return value

    return positive


class Unfailing:
    """A stream that loses lines where the disk is full, instead of whoever wrote them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure_logging() -> None:
    """One JSON object a line on stderr."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(Unfailing(sys.stderr)),  # pyright: ignore[reportArgumentType]
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    sys.exit(main())
