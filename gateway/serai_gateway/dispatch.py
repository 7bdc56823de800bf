"""Chooses the daemon that runs a call.

Dispatcher ──▶ Route("runner.sock") ──▶ Link ──▶ runner host
           └─▶ Route("pool.sock")   ──▶ Link ──▶ pool      (also infer, command, inspect)
"""

from pathlib import Path

from serai.ipc.messages import VersionSpec
from serai_gateway.route import Route


class Dispatcher:
    """Chooses the daemon for a version: code runs in the runner host, a bare model in the pool."""

    def __init__(self, run_dir: Path) -> None:
        self.runner = Route("runner host", run_dir / "runner.sock")
        self.pool = Route("pool", run_dir / "pool.sock")

    def route(self, spec: VersionSpec) -> Route:
        return self.pool if spec.kind == "model" else self.runner

    def start(self) -> None:
        self.runner.start()
        self.pool.start()

    async def close(self) -> None:
        await self.runner.close()
        await self.pool.close()
