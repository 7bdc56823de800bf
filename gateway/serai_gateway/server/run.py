"""Runs the gateway's HTTP server: gunicorn on a socket that somebody else holds open.

Whoever starts us binds the port and hands down the listening socket. So nothing is refused while a killed gateway is
started again: connections wait in the socket's queue. SIGTERM finishes what runs, then exits with 0.
"""

import argparse
import dataclasses
import gc
import importlib
import math
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter

from serai_gateway.server.inside import CallsSocket
from serai_gateway.server.limits import HttpLimits
from serai_gateway.server.process import die_with_parent, raise_open_files_limit
from serai_gateway.server.worker import SeraiWorker
from serai_gateway.settings import Settings

DEFAULT_APP = "serai_gateway.app:create_app"

#: A worker whose loop stands still for so long is killed. Nothing in a handler may block for even a tenth of it.
_WORKER_TIMEOUT_S = 30

#: Beyond the grace of running requests: what a worker needs to refuse the last ones and to end. Then it is killed.
_STOP_MARGIN_S = 2

#: A connection whose peer takes no byte for so long is ended by the kernel, whatever our buffers say.
_TCP_USER_TIMEOUT_MS = 30_000
_TCP_KEEPALIVE_IDLE_S = 30
_TCP_KEEPALIVE_INTERVAL_S = 10
_TCP_KEEPALIVE_PROBES = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """What one gunicorn master needs to know."""

    fd: int  # a listening socket, inherited
    workers: int
    app: str  # "module:factory"; the factory gets `gateway` and returns an ASGI application
    gateway: Settings
    limits: HttpLimits = dataclasses.field(default_factory=HttpLimits)
    grace_s: float = 30.0  # for running requests when we stop
    log_level: str = "info"


class GatewayApplication(BaseApplication):
    """gunicorn's view of us: its configuration, and how a worker makes its ASGI application."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.grace_s = settings.grace_s
        self.calls: CallsSocket | None = None  # made when we run
        self._factory = _find_factory(settings.app)
        super().__init__()

    def load_config(self) -> None:
        settings = self.settings
        chosen: dict[str, Any] = {
            "bind": [f"fd://{settings.fd}"],
            "workers": settings.workers,
            "worker_class": SeraiWorker,
            "timeout": _WORKER_TIMEOUT_S,
            "graceful_timeout": math.ceil(settings.grace_s) + _STOP_MARGIN_S,
            "control_socket_disable": True,
            "accesslog": None,
            "errorlog": "-",
            "loglevel": settings.log_level,
            "proc_name": "serai-gateway",
            "when_ready": _before_workers,
            "on_exit": _after_workers,
        }
        if os.access("/dev/shm", os.W_OK):  # noqa: S108 # gunicorn makes a nameless file there for heartbeats
            chosen["worker_tmp_dir"] = "/dev/shm"  # noqa: S108
        assert self.cfg is not None, "made by our base class just before"
        for name, value in chosen.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """Called in each worker: connections and threads of the application belong to one process."""
        return self._factory(self.settings.gateway)


def _find_factory(name: str) -> Callable[[Settings], Any]:
    """Import the application in the master, once for all workers and before any of them is needed."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _before_workers(_arbiter: Arbiter) -> None:
    gc.collect()
    gc.freeze()  # what the master has made stays shared with its workers


def _after_workers(arbiter: Arbiter) -> None:
    calls: CallsSocket | None = getattr(arbiter.app, "calls", None)
    if calls is not None:
        calls.remove()


def prepare_listener(fd: int) -> None:
    """Set the options that accepted connections inherit.

    Raises:
        ValueError: the descriptor is no listening socket.
    """
    try:
        with socket.socket(fileno=os.dup(fd)) as listener:
            if not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise ValueError(
                    f"descriptor {fd} is a socket that does not listen: call listen() before handing it over"
                )
            if listener.family not in (socket.AF_INET, socket.AF_INET6):
                return
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in (
                (socket.TCP_NODELAY, 1),
                (socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS),
                (socket.TCP_KEEPIDLE, _TCP_KEEPALIVE_IDLE_S),
                (socket.TCP_KEEPINTVL, _TCP_KEEPALIVE_INTERVAL_S),
                (socket.TCP_KEEPCNT, _TCP_KEEPALIVE_PROBES),
            ):
                listener.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError as error:
        raise ValueError(f"descriptor {fd} is no inherited socket: {error.strerror}") from error


def run(settings: ServerSettings) -> None:
    """Serve until SIGTERM; does not return. Dies when its parent dies."""
    die_with_parent()
    prepare_listener(settings.fd)
    raise_open_files_limit()
    application = GatewayApplication(settings)
    path = settings.gateway.run_dir / "calls.sock"
    try:
        application.calls = CallsSocket(path)
    except OSError as error:
        raise ValueError(f"cannot listen at {path}: {error}") from error
    application.run()


def parse(arguments: Sequence[str] | None = None) -> ServerSettings:
    parser = argparse.ArgumentParser(
        prog="python -m serai_gateway.server",
        description="Serve the gateway on an inherited listening socket.",
    )
    parser.add_argument("--fd", type=int, required=True, metavar="N", help="the listening socket")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default 1)")
    parser.add_argument("--home", type=Path, required=True, metavar="DIR", help="folder of this Serai")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="where callers reach us")
    parser.add_argument("--grace", type=float, default=30.0, metavar="S", help="for running requests at the end")
    parser.add_argument("--app", default=DEFAULT_APP, metavar="MODULE:FACTORY", help="makes the ASGI application")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error", "critical"))
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=NUMBER",
        help="replace one of the HTTP limits, such as max_connections_per_peer=4096; may be repeated",
    )
    given = parser.parse_args(arguments)
    if given.workers < 1:
        parser.error("--workers must be at least 1")
    try:
        limits = HttpLimits().with_overrides(dict(pair.partition("=")[::2] for pair in given.limit))
    except ValueError as error:
        parser.error(f"--limit: {error}")
    return ServerSettings(
        fd=given.fd,
        workers=given.workers,
        app=given.app,
        gateway=Settings(home=given.home, public_url=given.url),
        limits=limits,
        grace_s=given.grace,
        log_level=given.log_level,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    try:
        run(parse(arguments))
    except ValueError as error:
        raise SystemExit(f"serai gateway: {error}") from error
