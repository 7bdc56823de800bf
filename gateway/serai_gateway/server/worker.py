"""The gunicorn worker: uvicorn's life cycle on uvloop, with our own HTTP protocol."""

import asyncio
import dataclasses
import gc
import os
import resource
import signal
import socket
import sys
from types import FrameType
from typing import Any

import uvloop
from gunicorn.arbiter import Arbiter
from uvicorn import Config, Server
from uvicorn_worker import UvicornWorker

from serai_gateway.server.connection import HttpConnection
from serai_gateway.server.connections import Connections
from serai_gateway.server.inside import CallsSocket, Introduction
from serai_gateway.server.limits import HttpLimits
from serai_gateway.server.process import die_with_parent

#: Allocations between two collections of the youngest generation (Python: 700). A request makes no cycles, so a
#: collection finds nothing and costs the requests of that moment up to milliseconds.
_GC_THRESHOLDS = (20_000, 20, 50)

#: Share of the process's open files that connections may take; the rest is for the application.
_CONNECTIONS_OF_OPEN_FILES = 0.8

#: While the server stops, connections are looked at this often.
_DRAIN_SWEEP_S = 0.1


class HttpServer(Server):
    """uvicorn's server, woken by signals instead of looking for them, with one sweep for all deadlines."""

    def __init__(
        self, config: Config, limits: HttpLimits, worker: "SeraiWorker", calls: CallsSocket | None = None
    ) -> None:
        super().__init__(config)
        self._limits = limits
        self._calls = calls
        self._inside: asyncio.AbstractServer | None = None
        self._worker = worker
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.connections: Connections | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        state = self.server_state
        connections = Connections(
            self.config.loaded_app,
            self._limits,
            self._loop,
            open_=state.connections,
            tasks=state.tasks,
            app_state=self.lifespan.state,
        )
        self.connections = connections
        self.lifespan.state["http_server"] = connections
        # Called by uvicorn with what its own protocols need.
        self.config.http_protocol_class = lambda **_: HttpConnection(connections)  # pyright: ignore[reportAttributeAccessIssue]
        await super().startup(sockets)
        if self._calls is not None:
            self._inside = await self._loop.create_unix_server(
                lambda: Introduction(connections), sock=self._calls.listener
            )
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        self._tick()

    def _tick(self) -> None:
        assert self.connections is not None, "made before the first tick"
        self.connections.sweep()
        self._worker.notify()
        interval_s = _DRAIN_SWEEP_S if self.connections.draining else self._limits.sweep_s
        self._timer = self._loop.call_later(interval_s, self._tick)

    async def main_loop(self) -> None:
        await self._stop.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._loop.call_soon_threadsafe(self._stop.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        assert self.connections is not None, "made at start-up"
        self._cancel_timer()
        self.connections.drain()
        self._tick()
        await super().shutdown(None)  # the listening sockets close with uvicorn's servers
        if self._inside is not None:  # only now: calls that run to their end still call others
            self._inside.close()
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class SeraiWorker(UvicornWorker):
    """Takes `limits`, `grace_s` and `calls` from the gunicorn application, `body_limit` from the ASGI application."""

    CONFIG_KWARGS: dict[str, Any] = {  # noqa: RUF012 # as the class above has it
        "loop": "uvloop",
        "http": HttpConnection,
        "ws": "none",
        "interface": "asgi3",
        "lifespan": "on",
        "access_log": False,
        "proxy_headers": False,
        "server_header": False,
    }

    def init_process(self) -> None:
        die_with_parent(self.ppid)
        super().init_process()

    def _install_sigquit_handler(self) -> None:
        """SIGQUIT is the master's "now": nothing is drained."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGQUIT, os._exit, 0)

    async def _serve(self) -> None:
        if not isinstance(asyncio.get_running_loop(), uvloop.Loop):
            raise RuntimeError("the gateway must run on uvloop: install serai[gateway]")
        self.config.app = self.wsgi
        self.config.timeout_graceful_shutdown = getattr(self.app, "grace_s", self.cfg.graceful_timeout)
        self._install_sigquit_handler()
        server = HttpServer(self.config, self._limits(), self, getattr(self.app, "calls", None))
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def _limits(self) -> HttpLimits:
        limits: HttpLimits = getattr(self.app, "limits", None) or HttpLimits()
        open_files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        max_connections = limits.max_connections
        if open_files != resource.RLIM_INFINITY:
            max_connections = min(max_connections, max(1, int(open_files * _CONNECTIONS_OF_OPEN_FILES)))
        body_limit = getattr(self.wsgi, "body_limit", None) or limits.body_limit
        return dataclasses.replace(limits, max_connections=max_connections, body_limit=body_limit)
