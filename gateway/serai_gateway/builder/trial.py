"""Try a version before anybody can call it: its sample is run as a call would be, in a replica or in the pool."""

import asyncio
import concurrent.futures
import time

import msgspec

from serai.ipc.messages import ContentType, Failure, Refusal, Result, VersionSpec
from serai.ipc.secrets import Secrets
from serai_gateway.build import BuildError
from serai_gateway.build.command import Log
from serai_gateway.build.manifest import Sample
from serai_gateway.build.patience import check_patience
from serai_gateway.catalogue import Catalogue
from serai_gateway.dispatch import Dispatcher
from serai_gateway.pending import Asked
from serai_gateway.request_id import new_request_id
from serai_gateway.vault import Unreadable, Vault, open_secrets

#: Longest time for a sample, whatever the algorithm's own limit: it loads code and models, and answers once.
TRIAL_S = 120.0
#: How long runner host or pool may take to be there: they are started at the same time as we are.
DAEMON_S = 60.0
#: Between two looks whether the build is still wanted.
_LOOK_S = 1.0


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
        if sample is None or sample.input is None:
            log("there is no sample in the manifest, so it was not tried; [sample] input = … makes it so")
            return
        started = time.monotonic()
        running = asyncio.run_coroutine_threadsafe(self._run(spec, sample, self._secrets(spec)), self._loop)
        try:
            while not running.done():
                concurrent.futures.wait([running], _LOOK_S)
                check_patience()
        finally:
            running.cancel()
        running.result()
        log(f"tried the sample: it answered after {time.monotonic() - started:.2f} s")

    def _secrets(self, spec: VersionSpec) -> Secrets:
        """It runs as it would for a caller. Raises BuildError."""
        owner = self._catalogue.account_named(spec.owner)
        algorithm = self._catalogue.find_algorithm(spec.owner, spec.name, owner)
        try:
            return open_secrets(self._catalogue, self._vault, algorithm.id)
        except Unreadable as error:
            raise BuildError(str(error)) from None

    async def _run(self, spec: VersionSpec, sample: Sample, secrets: Secrets) -> None:
        route = self._dispatcher.route(spec)
        if not await route.wait_open(DAEMON_S):
            raise BuildError(f"the {route.name} does not answer, so the sample cannot be tried; this is our fault")
        content_type, payload = _encode(sample.input)
        within_s = min(TRIAL_S, spec.limits.timeout_s)
        asked = Asked(time.monotonic() + within_s, new_request_id(), spec.owner, secrets=secrets)
        message, _ = await route.call(spec, content_type, payload, asked)
        match message:
            case Result():
                return
            case Failure():
                trace = f"\n{message.stacktrace}" if message.stacktrace else ""
                raise BuildError(secrets.hide(f"sample: {message.error_type}: {message.message}{trace}"))
            case Refusal():
                raise BuildError(f"sample: {message.message}")


def _encode(value: object) -> tuple[ContentType, bytes]:
    """As a client sends it: text as text, all else as JSON."""
    if isinstance(value, str):
        return "text", value.encode()
    return "json", msgspec.json.encode(value)
