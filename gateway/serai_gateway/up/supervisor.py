"""Starts the daemons, keeps them running, stops them in order.

The supervisor holds the listening socket: while a killed gateway is started again, connections wait in the backlog
instead of being refused. It imports nothing heavy, so that it starts at once and stays small.
"""

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable

from serai_gateway.up.daemon import Daemon
from serai_gateway.up.home import Home
from serai_gateway.up.options import Options
from serai_runner.sandbox import SandboxUnavailable, choose_sandbox
from serai_runner.sandbox.docker.options import DockerOptions
from serai_runner.settings import Settings as RunnerSettings

#: How long all parts may take to say that they are ready.
_READY_WITHIN_S = 60.0

#: Beyond the grace that running calls get: what a daemon needs to notice and to end.
_STOP_MARGIN_S = 5.0


class StartError(Exception):
    """Serai cannot start; the message says why and what to do."""


def _pool_options(options: Options) -> list[str]:
    """What the pool is told beside its home; its own defaults where nothing was said."""
    given = {
        "--cpu-budget": options.cpu_budget,
        "--threads": str(options.cpu_threads) if options.cpu_threads else None,
        "--host-budget": options.host_budget,
        "--devices": options.devices,
        "--eviction": options.eviction,
        "--placement": options.placement,
        "--sandbox": "none" if options.sandbox == "none" else "auto",
    }
    return _words(given)


def _runner_options(options: Options) -> list[str]:
    """What the runner host is told beside its home."""
    names = ("sandbox", "docker_image", "docker_runtime", "max_replicas", "max_processes", "spares", "max_templates")
    given = {name: getattr(options, name) for name in names}
    return _words({f"--{name.replace('_', '-')}": str(value) for name, value in given.items() if value is not None})


def _words(given: dict[str, str | None]) -> list[str]:
    return [word for name, value in given.items() if value for word in (name, value)]


class Supervisor:
    def __init__(self, options: Options, home: Home, say: Callable[[str], None]) -> None:
        self._options = options
        self._home = home
        self._say = say
        self._listener: socket.socket | None = None
        self._daemons: list[Daemon] = []
        self._stop = asyncio.Event()
        self.started_at = time.monotonic()

    @property
    def url(self) -> str:
        assert self._listener is not None, "bound before it has an address"
        host, port = self._listener.getsockname()[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"http://{shown}:{port}"

    async def run(self, on_ready: Callable[["Supervisor"], None]) -> None:
        """Serve until SIGTERM or SIGINT. Raises StartError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        self._bind()
        self._check_sandbox()
        try:
            await self._start_all()
            if not self._stop.is_set():
                on_ready(self)
            await self._or_stop(self._until_refused())
        finally:
            await self._stop_all()

    def _on_signal(self, number: int) -> None:
        if self._stop.is_set() and number == signal.SIGINT:  # asked twice: no more patience
            for daemon in self._daemons:
                daemon.kill()
        elif self._daemons:
            grace_s = self._options.grace_s
            self._say(f"stopping; what runs gets {grace_s:g} s to finish (Ctrl-C again: none)")
        self._stop.set()

    def _bind(self) -> None:
        options = self._options
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((options.host, options.port))
        except OSError as error:
            listener.close()
            where = f"port {options.port} on {options.host}"
            if error.errno == 98:  # EADDRINUSE
                raise StartError(f"{where} is in use; choose another with --port") from error
            raise StartError(f"cannot listen on {where}: {error.strerror or error}; check --host and --port") from error
        listener.listen(2048)
        listener.set_inheritable(True)
        self._listener = listener

    def _check_sandbox(self) -> None:
        """Say it loudly when algorithms will not be contained; the runner host decides in the same way."""
        try:
            options = self._options
            docker = DockerOptions(options.docker_image or DockerOptions.image, options.docker_runtime or "")
            settings = RunnerSettings(self._home.path, sandbox=self._options.sandbox, docker=docker)
            _, warning = choose_sandbox(settings)
            settings.remember()
        except SandboxUnavailable as error:
            raise StartError(f"--sandbox {self._options.sandbox} does not work here: {error}") from error
        if warning:
            self._say(f"WARNING: {warning}")

    async def _start_all(self) -> None:
        builder, runner, pool, gateway = self._make_daemons()
        self._daemons = [gateway, builder, runner, pool]  # in the order in which they are stopped
        prepared = asyncio.Event()
        preparing = asyncio.create_task(self._prepare(prepared))
        try:
            await asyncio.gather(runner.start(), pool.start(), builder.start())
            await self._or_stop(prepared.wait(), preparing, self._until_refused())
            if self._stop.is_set():
                return
            await gateway.start()
            await self._or_stop(self._until_ready(), self._until_refused())
            await self._or_stop(preparing)
        finally:
            if not preparing.done():
                preparing.cancel()

    async def _or_stop(self, *tasks: "asyncio.Future[None] | object") -> None:
        """Wait for the first of `tasks`, or for a signal; a task that failed raises here."""
        waiting = [asyncio.ensure_future(task) for task in tasks]  # pyright: ignore[reportArgumentType, reportCallIssue]
        stop = asyncio.create_task(self._stop.wait())
        done, _ = await asyncio.wait([*waiting, stop], return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        for task, given in zip(waiting, tasks, strict=True):
            if task is not given and task not in done:
                task.cancel()
        for task in done:
            await task

    def _make_daemons(self) -> tuple[Daemon, Daemon, Daemon, Daemon]:
        options, home = self._options, self._home
        assert self._listener is not None, "bound before the gateway is made"
        python = [sys.executable, "-m"]
        common = ["--home", str(home.path)]
        environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "PYTHONUNBUFFERED": "1"}
        runner_command = [*python, "serai_runner", *common, *_runner_options(options)]
        pool_command = [*python, "serai_gpu_pool", *common, *_pool_options(options)]
        descriptor = self._listener.fileno()
        gateway_command = [
            *python,
            "serai_gateway.server",
            *common,
            "--fd",
            str(descriptor),
            "--workers",
            str(options.workers),
        ]
        gateway_command += ["--url", self.url, "--grace", f"{options.grace_s:g}"]

        def make(name: str, command: list[str], env: dict[str, str], descriptors: tuple[int, ...] = ()) -> Daemon:
            return Daemon(
                name,
                command,
                log=home.logs / f"{name}.log",
                pid_file=home.run / f"{name}.pid",
                environment=env,
                descriptors=descriptors,
                on_event=self._say,
            )

        return (
            make("builder", [*python, "serai_gateway.builder", *common], environment),
            make("runner", runner_command, environment),
            make("pool", pool_command, environment),
            make("gateway", gateway_command, environment, (descriptor,)),
        )

    async def _prepare(self, prepared: asyncio.Event) -> None:
        """Run the preparation; `prepared` is set once accounts exist, the rest goes on beside the start."""
        command = [sys.executable, "-m", "serai_gateway.up.prepare", "--home", str(self._home.path)]
        with (self._home.logs / "prepare.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=log)
        assert process.stdout is not None, "asked for a pipe"
        try:
            async for line in process.stdout:
                event = json.loads(line)
                if event.get("operator"):
                    prepared.set()
                elif event.get("log", "").startswith("published "):
                    self._say(event["log"])
                for name, why in event.get("failed", {}).items():
                    self._say(f"{name} could not be published and is tried again at the next start: {why}")
            code = await process.wait()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if code != 0:
            raise StartError(f"preparing {self._home.path} failed; see {self._home.logs / 'prepare.log'}")

    async def _until_refused(self) -> None:
        """Until a daemon cannot work with its settings. Raises StartError."""
        refusals = [daemon.refused for daemon in self._daemons]
        done, _ = await asyncio.wait(refusals, return_when=asyncio.FIRST_COMPLETED)
        raise StartError(next(iter(done)).result().rpartition("error: ")[2])

    async def _until_ready(self) -> None:
        """Ask /readyz until all parts are there; it waits by itself for parts that are coming up."""
        deadline = time.monotonic() + _READY_WITHIN_S
        while time.monotonic() < deadline:
            if await self._ask_ready():
                return
            await asyncio.sleep(0.02)
        raise StartError(f"not ready after {_READY_WITHIN_S:g} s; see the logs in {self._home.logs}")

    async def _ask_ready(self) -> bool:
        assert self._listener is not None, "bound before it is asked"
        host, port = self._listener.getsockname()[:2]
        connect_to = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        reader, writer = await asyncio.open_connection(connect_to, port)
        try:
            writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            async with asyncio.timeout(5):
                return b" 200 " in await reader.readline()
        except (TimeoutError, OSError):
            return False
        finally:
            writer.close()

    async def _stop_all(self) -> None:
        """Gateway first, so that nothing new comes; it finishes its calls while the others still run."""
        grace_s = self._options.grace_s + _STOP_MARGIN_S
        for daemon in self._daemons:
            await daemon.stop(grace_s)
        if self._listener is not None:
            self._listener.close()
