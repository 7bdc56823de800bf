"""Try a version before anybody can call it: its sample is run as a call would be, in a replica or in the pool.

A version without a sample has its code or its models loaded at least: most of what is wrong shows then.
"""

import asyncio
import concurrent.futures
import time

import msgspec

from serai.ipc.messages import ContentType, Failure, Refusal, Result, VersionSpec
from serai.ipc.secrets import NO_SECRETS, Secrets
from serai_gateway.build import BuildError
from serai_gateway.build.command import Log
from serai_gateway.build.manifest import Sample
from serai_gateway.build.patience import check_patience
from serai_gateway.catalogue import Catalogue
from serai_gateway.dispatch import Dispatcher
from serai_gateway.pending import Asked
from serai_gateway.request_id import new_request_id
from serai_gateway.route import Route
from serai_gateway.vault import Unreadable, Vault, open_secrets

#: Longest time for a sample, whatever the algorithm's own limit: it loads code and models, and answers once. More than
#: a runner host gives to loading, so that what it has to say about that arrives.
TRIAL_S = 120.0
#: How long runner host or pool may take to be there: they are started at the same time as we are.
DAEMON_S = 60.0
#: Between two looks whether the build is still wanted.
_LOOK_S = 1.0
#: Until the pool says that a model need not stay; it stays otherwise, until others need its room.
_RELEASE_S = 5.0


class Trial:
    """Runs samples on the daemons of this machine; for build threads."""

    def __init__(
        self, catalogue: Catalogue, vault: Vault, dispatcher: Dispatcher, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._catalogue = catalogue
        self._vault = vault
        self._dispatcher = dispatcher
        self._loop = loop

    def __call__(self, spec: VersionSpec, sample: Sample | None, log: Log) -> None:
        """Raises BuildError with what the algorithm said."""
        started = time.monotonic()
        value = sample.input if sample is not None else None
        work = self._load(spec, self._secrets(spec)) if value is None else self._run(spec, value, self._secrets(spec))
        running = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            while not running.done():
                concurrent.futures.wait([running], _LOOK_S)
                check_patience()
        finally:
            running.cancel()
        running.result()
        took = f"after {time.monotonic() - started:.2f} s"
        if value is None:
            log(f"loaded {took}; there is no sample, so it was not run: [sample] input = … in algorithm.toml")
        else:
            log(f"tried the sample: it answered {took}")

    def _secrets(self, spec: VersionSpec) -> Secrets:
        """It runs as it would for a caller. Raises BuildError."""
        owner = self._catalogue.account_named(spec.owner)
        algorithm = self._catalogue.find_algorithm(spec.owner, spec.name, owner)
        try:
            return open_secrets(self._catalogue, self._vault, algorithm.id)
        except Unreadable as error:
            raise BuildError(str(error)) from None

    async def _run(self, spec: VersionSpec, value: object, secrets: Secrets) -> None:
        content_type, payload = _encode(value)
        within_s = min(TRIAL_S, spec.limits.timeout_s)
        message = await self._call(spec, content_type, payload, within_s, secrets)
        if isinstance(message, Refusal) and message.code == "deadline":
            why = f" ({message.message})" if message.message else ""
            raise BuildError(f"sample: no answer within {within_s:g} s{why}; limits.timeout is what a call may take")
        if not isinstance(message, Result):
            raise _error_of("sample", message, secrets)

    async def _load(self, spec: VersionSpec, secrets: Secrets) -> None:
        if spec.kind == "model":
            await self._load_models(spec)
            return
        message = await self._call(spec, "void", b"", TRIAL_S, secrets, only_load=True)
        if not isinstance(message, Result):
            raise _error_of("it cannot be loaded", message, secrets)

    async def _load_models(self, spec: VersionSpec) -> None:
        route = await self._there(spec)
        for model in spec.models:
            message = await route.command(spec, "load", model.name, time.monotonic() + TRIAL_S)
            if isinstance(message, Failure | Refusal):
                raise _error_of(f"models.{model.name}: it cannot be loaded", message, NO_SECRETS)
            await route.command(spec, "release", model.name, time.monotonic() + _RELEASE_S)

    async def _call(
        self,
        spec: VersionSpec,
        content_type: ContentType,
        payload: bytes,
        within_s: float,
        secrets: Secrets,
        *,
        only_load: bool = False,
    ) -> Result | Failure | Refusal:
        """Once more if the daemon dies meanwhile: it may be another version's doing."""
        for _ in range(2):
            route = await self._there(spec)
            times_opened, deadline = route.num_opened, time.monotonic() + within_s
            asked = Asked(deadline, new_request_id(), spec.owner, secrets=secrets, only_load=only_load)
            message, _ = await route.call(spec, content_type, payload, asked)
            if not isinstance(message, Refusal) or (route.is_open and route.num_opened == times_opened):
                return message
        raise BuildError("what runs versions died while this one was tried, twice; the operator's logs say of what")

    async def _there(self, spec: VersionSpec) -> Route:
        """The way to a daemon that answers: one that is just dying may still take a connection."""
        route, until = self._dispatcher.route(spec), time.monotonic() + DAEMON_S
        while (left_s := until - time.monotonic()) > 0:
            if await route.wait_open(left_s) and await route.stats():
                return route
        raise BuildError(f"the {route.name} does not answer, so nothing can be tried; this is our fault")


def _error_of(what: str, message: Failure | Refusal, secrets: Secrets) -> BuildError:
    """With what the algorithm said, but for what nobody may read."""
    if isinstance(message, Refusal):
        return BuildError(secrets.hide(f"{what}: {message.message}"))
    trace = f"\n{message.stacktrace}" if message.stacktrace else ""
    return BuildError(secrets.hide(f"{what}: {message.error_type}: {message.message}{trace}"))


def _encode(value: object) -> tuple[ContentType, bytes]:
    """As a client sends it: text as text, all else as JSON."""
    if isinstance(value, str):
        return "text", value.encode()
    return "json", msgspec.json.encode(value)
