"""`python -m serai_gpu_pool --home DIR [--cpu-budget BYTES] …`: the pool as a process."""

import argparse
import asyncio
import gc
import os
import signal
import sys
from pathlib import Path

import structlog
import uvloop

from serai.box.cgroups import Cgroups
from serai.box.seccomp import why_no_filter
from serai.box.shield import shield_devices
from serai_gpu_pool.arena import Arena
from serai_gpu_pool.device import sandbox
from serai_gpu_pool.device.process_control import die_with
from serai_gpu_pool.device.processes import WorkerProcesses
from serai_gpu_pool.eviction import DEFAULT_POLICY, POLICIES
from serai_gpu_pool.hardware import find_devices
from serai_gpu_pool.pool import Pool
from serai_gpu_pool.settings import (
    Limits,
    SettingError,
    Settings,
    default_cpu_budget,
    default_host_budget,
    parse_bytes,
)


def main() -> None:
    settings = _settings(sys.argv[1:])
    die_with(os.getppid())
    _set_up_logs()
    try:
        uvloop.run(_serve(settings))
    except SettingError as error:
        sys.stderr.write(f"serai_gpu_pool: error: {error}\n")
        sys.exit(2)  # as argparse: it is of no use to start it again with the same settings


async def _serve(settings: Settings) -> None:
    devices = find_devices(settings.devices, settings.cpu_budget_bytes)
    complaint = shield_devices()  # after looking for GPUs, because their driver may have to make their files in /dev
    if complaint:
        structlog.get_logger().warning(complaint, action="no_shield")
    budgets = {device.id: device.budget_bytes for device in devices}
    arena = Arena(settings.arena_bytes)
    prepared = settings.home / "prepared"
    prepared.mkdir(mode=0o700, parents=True, exist_ok=True)
    workers = WorkerProcesses(
        settings.run / "worker",
        prepared,
        settings.threads,
        budgets.__getitem__,
        arena,
        _is_boxed(settings.sandbox),
        settings.host_bytes,
        Cgroups.detect("serai-pool"),
    )
    pool = Pool(settings, devices, workers, arena)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, pool.drain)
    # What exists now lives as long as the process: looking at it again at each collection only makes pauses.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    await pool.serve()


def _is_boxed(choice: str) -> bool:
    if choice == "none":
        return False
    complaint = sandbox.probe()
    if not complaint:
        if why_no_filter():
            structlog.get_logger().warning(why_no_filter(), action="no_filter")
        return True
    if choice == "bubblewrap":
        raise SettingError(f"--sandbox bubblewrap: {complaint}")
    structlog.get_logger().warning("workers run without a box", action="no_sandbox", why=complaint)
    return False


def _settings(arguments: list[str]) -> Settings:
    parser = argparse.ArgumentParser(prog="serai_gpu_pool", description="Owns the memory of this machine's devices.")
    parser.add_argument("--home", type=Path, required=True, help="folder of this Serai")
    parser.add_argument("--cpu-budget", default="", help="memory for loaded models, e.g. 2GiB (a quarter of RAM)")
    parser.add_argument("--host-budget", default="", help="memory for evicted weights, e.g. 4GiB (a quarter of RAM)")
    parser.add_argument("--eviction", choices=POLICIES, default=DEFAULT_POLICY, help="who is evicted")
    parser.add_argument("--placement", choices=("best_fit", "spread"), default="spread", help="with several devices")
    parser.add_argument("--devices", default="auto", help="which ones, e.g. cuda:0,cpu (all that are found)")
    parser.add_argument("--sandbox", choices=("auto", "bubblewrap", "none"), default="auto", help="what workers run in")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads that one run uses")
    given = parser.parse_args(arguments)
    try:
        return Settings(
            given.home.absolute(),
            parse_bytes(given.cpu_budget) if given.cpu_budget else default_cpu_budget(),
            parse_bytes(given.host_budget) if given.host_budget else default_host_budget(),
            given.eviction,
            given.devices,
            given.sandbox,
            given.threads,
            limits=Limits(placement=given.placement),
        )
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
