"""`python -m serai_gpu_pool --home DIR [--cpu-budget BYTES]`: the pool as a process."""

import argparse
import asyncio
import gc
import os
import signal
import sys
from pathlib import Path

import structlog
import uvloop

from serai_gpu_pool.arena import Arena
from serai_gpu_pool.device.process import WorkerProcess
from serai_gpu_pool.device.process_control import die_with
from serai_gpu_pool.pool import Pool
from serai_gpu_pool.settings import SettingError, Settings, default_cpu_budget, parse_bytes


def main() -> None:
    settings = _settings(sys.argv[1:])
    die_with(os.getppid())
    _set_up_logs()
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    arena = Arena(settings.arena_bytes)
    device = WorkerProcess(settings.run / "worker", settings.threads, settings.cpu_budget_bytes, arena)
    pool = Pool(settings, device, arena)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, pool.drain)
    # What exists now lives as long as the process: looking at it again at each collection only makes pauses.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    await pool.serve()


def _settings(arguments: list[str]) -> Settings:
    parser = argparse.ArgumentParser(prog="serai_gpu_pool", description="Owns this machine's device memory.")
    parser.add_argument("--home", type=Path, required=True, help="folder of this Serai")
    parser.add_argument("--cpu-budget", default="", help="memory for loaded models, e.g. 2GiB (a quarter of RAM)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads that one run uses")
    given = parser.parse_args(arguments)
    try:
        budget = parse_bytes(given.cpu_budget) if given.cpu_budget else default_cpu_budget()
        return Settings(given.home.absolute(), budget, given.threads)
    except SettingError as error:
        parser.error(str(error))


def _set_up_logs() -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


if __name__ == "__main__":
    main()
