"""The catalogue in a SQL database. SQLite today; nothing in the queries is SQLite's alone."""

from pathlib import Path

import sqlalchemy as sa

from serai_gateway.catalogue.algorithms import Algorithms
from serai_gateway.catalogue.builds import Builds
from serai_gateway.catalogue.call_errors import CallErrors
from serai_gateway.catalogue.callers import Callers
from serai_gateway.catalogue.database import Database, sqlite_url
from serai_gateway.catalogue.finding import Finding
from serai_gateway.catalogue.insights import Insights
from serai_gateway.catalogue.listing import Lists
from serai_gateway.catalogue.migrate import migrate
from serai_gateway.catalogue.organizations import Organizations
from serai_gateway.catalogue.protocol import Catalogue
from serai_gateway.catalogue.publishing import Publishing
from serai_gateway.catalogue.secrets import Secrets


class SqlCatalogue(
    Callers, Organizations, Algorithms, Lists, Finding, Publishing, Builds, Secrets, CallErrors, Insights
):
    """Open it in the process that uses it: connections do not survive a fork."""

    def __init__(self, url: str | sa.URL) -> None:
        self._database = Database(url)

    def generation(self) -> int:
        return self._database.generation()

    def close(self) -> None:
        self._database.close()


def open_catalogue(home: Path) -> Catalogue:
    """The catalogue of a home folder, brought to the newest schema.

    Raises UnknownSchema when a newer Serai has written it.
    """
    home.mkdir(parents=True, exist_ok=True)
    url = sqlite_url(home / "serai.db")
    migrate(url)
    return SqlCatalogue(url)
