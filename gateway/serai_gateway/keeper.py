"""Tells the runner host which versions keep replicas without calls: of each algorithm, the one called by default.

Every worker says so, and all say the same. It is said again when the host comes back, and when the catalogue changes.
"""

import asyncio

from serai.ipc.messages import VersionSpec
from serai_gateway.build.spec import to_spec
from serai_gateway.catalogue import Catalogue
from serai_gateway.logs import get_logger
from serai_gateway.route import Route
from serai_gateway.settings import Settings

#: Between two looks at the catalogue. A version that is to stay warm is, so long after it was published.
LOOK_S = 1.0

_log = get_logger("gateway")


class Keeper:
    """`run` until it is cancelled."""

    def __init__(self, catalogue: Catalogue, settings: Settings, runner: Route) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._runner = runner
        self._has_said = False  # that something is kept

    async def run(self) -> None:
        said: tuple[int, int] | None = None
        while True:
            try:
                seen = (await asyncio.to_thread(self._catalogue.generation), self._runner.num_opened)
                if seen != said and self._runner.is_open:
                    specs = await asyncio.to_thread(self._kept)
                    if not specs and not self._has_said:  # of most Serais there is nothing to say
                        said = seen
                    elif self._runner.keep(specs):
                        said, self._has_said = seen, bool(specs)
            except Exception:  # a busy database or a file that is being replaced: the next look is soon
                _log.exception("cannot tell which versions stay warm", action="keep")
            await asyncio.sleep(LOOK_S)

    def _kept(self) -> list[VersionSpec]:
        return [to_spec(version, self._settings.home) for version in self._catalogue.kept_versions()]
