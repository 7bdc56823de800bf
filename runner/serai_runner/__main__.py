"""`python -m serai_runner --home DIR`: start a runner host."""

import argparse
import asyncio
import dataclasses
import logging
import os
import signal
import sys
from pathlib import Path

import structlog
import uvloop

from serai_runner.host import Host
from serai_runner.inside import confine
from serai_runner.sandbox import Sandbox, SandboxUnavailable, choose_sandbox
from serai_runner.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    settings = parse(arguments)
    configure_logging()
    confine.die_with(os.getppid())
    settings.run_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        sandbox, warning = choose_sandbox(settings)
    except SandboxUnavailable as error:
        structlog.get_logger().error(str(error), action="refused_to_start")
        return 1
    if warning:
        structlog.get_logger().warning(warning, action="no_sandbox")
    uvloop.run(_serve(settings, sandbox))
    return 0


async def _serve(settings: Settings, sandbox: Sandbox) -> None:
    host = Host(settings, sandbox)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, host.drain)
    await host.serve()


def parse(arguments: list[str] | None) -> Settings:
    """Settings from the command line; a wrong value ends the program with its name."""
    parser = argparse.ArgumentParser(prog="python -m serai_runner", description="The runner host of a Serai.")
    parser.add_argument("--home", type=Path, required=True, help="folder of this Serai")
    parser.add_argument("--sandbox", choices=("auto", "bubblewrap", "none"), default="auto")
    for name, help_text in _NUMBERS.items():
        kind = {f.name: f.type for f in dataclasses.fields(Settings)}[name]
        parser.add_argument(f"--{name.replace('_', '-')}", type=_positive(kind), help=help_text)
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    return Settings(**given | {"home": given["home"].absolute()})


_NUMBERS = {
    "max_replicas": "replicas of one version (default: the number of CPUs)",
    "max_processes": "replica processes of this host",
    "max_processes_per_owner": "of those, for the versions of one owner",
    "idle_s": "seconds after which an idle replica ends",
    "load_s": "seconds that importing the code and load() may take",
    "queue_per_slot": "waiting calls per replica and unit of concurrency",
    "queue_min": "waiting calls a version may always have",
    "max_queued_bytes": "bytes of waiting inputs, all versions together",
    "drain_s": "seconds that running calls are given after SIGTERM",
    "max_pids": "processes and threads of one replica",
    "tmp_bytes": "size of a replica's /tmp",
}


def _positive(kind: object):
    def positive(text: str) -> float:
        value = int(text) if kind is int else float(text)
        if value <= 0:
            raise ValueError
        return value

    return positive


def configure_logging() -> None:
    """One JSON object a line on stderr."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


if __name__ == "__main__":
    sys.exit(main())
