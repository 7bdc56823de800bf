"""The catalogue: who there is, what there is, and which version of it a caller gets.

`Catalogue` is what the gateway relies on; `sql.py` is one implementation. All methods are synchronous and may be
called from any thread. Every write that can be retried says which of its arguments makes it happen once.
"""

from typing import Protocol

from serai_gateway.catalogue.protocol.algorithms import AlgorithmsAndVersions
from serai_gateway.catalogue.protocol.belongings import Belongings
from serai_gateway.catalogue.protocol.people import People


class Catalogue(People, AlgorithmsAndVersions, Belongings, Protocol):
    def generation(self) -> int:
        """A cheap number (microseconds) that changes whenever anybody, in any process, has changed accounts, keys,
        algorithms or versions. While it stands still, what was read before is still true."""
        ...

    def close(self) -> None: ...
