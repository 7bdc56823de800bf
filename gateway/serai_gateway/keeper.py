"""Tells the runner host which versions keep replicas without calls: of each algorithm, the one called by default.

Every worker says so, and all say the same. It is said again when the host comes back, and when the catalogue changes.
"""

import asyncio

from serai.ipc.messages import VersionSpec
from serai.ipc.secrets import Secrets
from serai_gateway.build.spec import to_spec
from serai_gateway.catalogue import Catalogue, NotFound
from serai_gateway.logs import get_logger
from serai_gateway.route import Route
from serai_gateway.settings import Settings
from serai_gateway.vault import Unreadable, Vault, open_secrets

#: Between two looks at the catalogue. A version that is to stay warm is, so long after it was published.
LOOK_S = 1.0

_log = get_logger("gateway")


class Keeper:
    """`run` until it is cancelled."""

    def __init__(self, catalogue: Catalogue, vault: Vault, settings: Settings, runner: Route) -> None:
        self._catalogue = catalogue
        self._vault = vault
        self._settings = settings
        self._runner = runner
        self._has_said = False  # that something is kept

    async def run(self) -> None:
        said: tuple[int, int] | None = None
        while True:
            try:
                seen = (await asyncio.to_thread(self._catalogue.generation), self._runner.num_opened)
                if seen != said and self._runner.is_open:
                    kept = await asyncio.to_thread(self._kept)
                    if not kept and not self._has_said:  # of most Serais there is nothing to say
                        said = seen
                    elif self._runner.keep(kept):
                        said, self._has_said = seen, bool(kept)
            except Exception:  # a busy database or a file that is being replaced: the next look is soon
                _log.exception("cannot tell which versions stay warm", action="keep")
            await asyncio.sleep(LOOK_S)

    def _kept(self) -> list[tuple[VersionSpec, Secrets]]:
        kept: list[tuple[VersionSpec, Secrets]] = []
        for version in self._catalogue.kept_versions():
            try:
                secrets = open_secrets(self._catalogue, self._vault, version.algorithm_id)
            except (Unreadable, NotFound) as error:  # without them it is not what its author meant
                _log.warning("a version is not kept warm", action="keep", version=version.key, why=str(error))
            else:
                kept.append((to_spec(version, self._settings.home), secrets))
        return kept
