"""P2: lists, searches and resolution in a catalogue of 5,000 algorithms with ten versions each, beside one of 500.

Nothing is cached: every question goes to the database, through the same functions as the gateway's. Limit, in the same
rounds: bare sqlite3 that reads the same rows by their primary keys, without asking which ones; for searches that find
nothing, bare sqlite3 that looks at each text once. Target: every p99 below 10 ms. Processor time stands beside it:
what others do on the machine is in the one and not in the other.
"""

import random
import sqlite3
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.table import Rounds, print_table
from serai_gateway.catalogue import Account, Catalogue, open_catalogue, tables
from serai_gateway.catalogue.database import Database, sqlite_url

_SIZES = (500, 5000)
_VERSIONS_EACH = 10
_OWNERS = 250
_PAGE = 50
_TARGET_MS = 10.0
_WORDS = [
    *("face", "image", "text", "speech", "audio", "classify", "detect", "translate", "summarize", "vector", "embed"),
    *("search", "rank", "graph", "table", "parse", "mesh", "molecule", "protein", "forecast", "series", "price"),
    *("video", "frame", "depth", "pose", "style", "music", "chord", "sentiment", "language", "entity", "topic"),
    *("cluster", "anomaly", "resize", "crop"),
]

Operation = Callable[[int], Any]


class _Market:
    """A catalogue of `num_algorithms`, nine of ten public, and what is asked of it."""

    def __init__(self, home: Path, num_algorithms: int) -> None:
        self.rng = random.Random(1)
        catalogue = open_catalogue(home)
        owners = [catalogue.ensure_account(f"{self._word()}-{at}") for at in range(_OWNERS)]
        self.me = owners[7]
        catalogue.close()
        algorithms = [self._algorithm(at, owners[at % len(owners)]) for at in range(num_algorithms)]
        versions = [self._version(one, number) for one in algorithms for number in range(_VERSIONS_EACH)]
        database = Database(sqlite_url(home / "serai.db"))
        with database.write() as connection:
            connection.execute(sa.insert(tables.algorithms), algorithms)
            connection.execute(sa.insert(tables.versions), versions)
        database.close()
        self.catalogue: Catalogue = open_catalogue(home)
        self.bare = sqlite3.connect(home / "serai.db")
        self._owners = {owner.id: owner for owner in owners}
        self._algorithms, self._versions = algorithms, versions
        self._markers = self._all_markers()

    def _word(self) -> str:
        return self.rng.choice(_WORDS)

    def _algorithm(self, at: int, owner: Account) -> dict[str, Any]:
        name = f"{self._word().title()}{self._word().title()}{at}"
        tagline = " ".join(self.rng.choices(_WORDS, k=10))
        label = f"{self._word()} {self._word()}"
        return {
            "id": uuid.UUID(int=self.rng.getrandbits(128)).hex,
            "owner_id": owner.id,
            "name": name,
            "name_key": name.lower(),
            "visibility": "public" if at % 10 else "private",
            "tagline": tagline,
            "search_text": f"{owner.name} {name} {tagline} {label}".lower(),
            "details": {
                "label": label,
                "summary": "What it does, and how. " * 30,
                "sample_input": '"' + "x" * 100 + '"',
            },
            "settings": {
                "source_visibility": "closed",
                "license": "apl",
                "network_access": "isolated",
                "pipeline_enabled": False,
                "language": "python3-1",
                "environment": "cpu",
            },
            "routing": [],
            "created_at": float(at),
        }

    def _version(self, algorithm: dict[str, Any], number: int) -> dict[str, Any]:
        return {
            "id": uuid.UUID(int=self.rng.getrandbits(128)).hex,
            "algorithm_id": algorithm["id"],
            "hash": f"{self.rng.getrandbits(160):040x}",
            "semver": f"{1 + number // 5}.{number % 5}.0",
            "public": algorithm["visibility"] == "public",
            "kind": "python",
            "manifest": {
                "owner": self._word(),
                "name": algorithm["name"],
                "kind": "python",
                "tagline": algorithm["tagline"],
                "language": "python",
                "entry": "main",
                "timeout_s": 300.0,
                "memory_bytes": 1 << 30,
                "permissions": {"network": False, "calls": False},
                "sample": {"input": "x" * 200},
            },
            "code_sha": f"{self.rng.getrandbits(256):064x}",
            "models": [],
            "created_at": float(number),
            "published_at": float(number),
            "details": {"release_notes": "Better. " * 20, "settings": algorithm["settings"]},
        }

    def _all_markers(self) -> list[str]:
        markers: list[str] = []
        page = self.catalogue.list_algorithms(self.me, limit=_PAGE)
        while page.marker:
            markers.append(page.marker)
            page = self.catalogue.list_algorithms(self.me, limit=_PAGE, marker=page.marker)
        return markers

    def _one(self, at: int) -> tuple[str, str, Account, dict[str, Any]]:
        """Some algorithm: its owner, its name, who may see it, and one of its versions."""
        index = at * 7919 % len(self._algorithms)
        algorithm = self._algorithms[index]
        owner = self._owners[algorithm["owner_id"]]
        return owner.name, algorithm["name"], owner, self._versions[index * _VERSIONS_EACH + at % _VERSIONS_EACH]

    def operations(self) -> dict[str, Operation]:
        lists, find = self.catalogue.list_algorithms, self.catalogue.find_versions

        def resolve(wanted: Callable[[dict[str, Any]], str | None]) -> Operation:
            def ask(at: int) -> Any:
                owner, name, caller, version = self._one(at)
                return find(owner, name, wanted(version), caller)

            return ask

        def versions(at: int) -> Any:
            owner, name, caller, _ = self._one(at)
            return self.catalogue.list_versions(self.catalogue.find_algorithm(owner, name, caller))

        return {
            "list, first page": lambda at: lists(self.me),
            "list, first page, nobody": lambda at: lists(None),
            "list, last page but one": lambda at: lists(self.me, marker=self._markers[-2]),
            "list of one owner": lambda at: lists(self.me, owner=self._one(at)[0]),
            "search, one word": lambda at: lists(self.me, query=_WORDS[at % len(_WORDS)]),
            "search, three words": lambda at: lists(self.me, query="face image text"),
            "search, many hits": lambda at: lists(self.me, query="e"),
            "search, no hits": lambda at: lists(self.me, query="nothing like this"),
            "versions of one": versions,
            "resolve nothing said": resolve(lambda version: None),
            "resolve 1": resolve(lambda version: version["semver"].split(".")[0] if version["public"] else None),
            "resolve 1.2.*": resolve(lambda version: f"{version['semver'][:-2]}.*" if version["public"] else None),
            "resolve 1.2.0": resolve(lambda version: version["semver"]),
            "which stay warm": lambda at: self.catalogue.kept_versions(),
            "resolve a hash": resolve(lambda version: version["hash"]),
        }

    def limits(self) -> dict[str, Operation]:
        """What bare sqlite3 needs to read a page of rows, one version with its neighbours' numbers, and each text."""
        algorithm = "SELECT * FROM algorithms WHERE id = ?"
        number, version = "SELECT semver, hash FROM versions WHERE id = ?", "SELECT * FROM versions WHERE id = ?"

        def page(at: int) -> None:
            first = at * 7919 % (len(self._algorithms) - _PAGE)
            for one in self._algorithms[first : first + _PAGE]:
                self.bare.execute(algorithm, (one["id"],)).fetchone()
            for one in self._versions[first * _VERSIONS_EACH : (first + _PAGE) * _VERSIONS_EACH]:
                self.bare.execute(number, (one["id"],)).fetchone()

        def single(at: int) -> None:
            index = at * 7919 % len(self._algorithms)
            self.bare.execute(algorithm, (self._algorithms[index]["id"],)).fetchone()
            for one in self._versions[index * _VERSIONS_EACH : (index + 1) * _VERSIONS_EACH]:
                self.bare.execute(number, (one["id"],)).fetchone()
            self.bare.execute(version, (self._versions[index * _VERSIONS_EACH]["id"],)).fetchone()

        def texts(at: int) -> None:
            index = "algorithms INDEXED BY ix_algorithms_search_text"
            self.bare.execute(f"SELECT count(*) FROM {index} WHERE search_text LIKE '%nothing%'").fetchall()

        return {"limit: a page by keys": page, "limit: one by keys": single, "limit: each text once": texts}

    def close(self) -> None:
        self.catalogue.close()
        self.bare.close()


def run(*, rounds: int, seconds: float) -> None:
    found = Rounds()
    with tempfile.TemporaryDirectory() as folder:
        markets = {size: _Market(Path(folder) / str(size), size) for size in _SIZES}
        asked = {size: market.operations() | market.limits() for size, market in markets.items()}
        names = list(asked[_SIZES[0]])
        for _ in range(rounds):
            for name in names:
                for size in _SIZES:  # interleaved: what disturbs one disturbs the other
                    took, busy = _measure(asked[size][name], seconds / len(names) / len(_SIZES))
                    found.add(name, f"p50 {size}", statistics.median(took))
                    found.add(name, f"p99 {size}", statistics.quantiles(took, n=100)[98])
                    found.add(name, f"cpu {size}", statistics.quantiles(busy, n=100)[98])
        for market in markets.values():
            market.close()
    small, large = _SIZES
    print(
        f"\nP2 {small:,} and {large:,} algorithms with {_VERSIONS_EACH} versions each: medians of {rounds} rounds, ms"
    )
    rows = [
        [
            name,
            *(f"{found.median(name, f'{part} {size}'):.2f}" for size in _SIZES for part in ("p50", "p99", "cpu")),
            f"{found.median(name, f'p50 {large}') / found.median(name, f'p50 {small}'):.2f}",
        ]
        for name in names
    ]
    print_table(["", *(f"{part}, {size:,}" for size in _SIZES for part in ("p50", "p99", "cpu p99")), "growth"], rows)
    own = [name for name in names if not name.startswith("limit")]
    slowest = max(own, key=lambda name: found.median(name, f"p99 {large}"))
    print(f"slowest p99: {slowest}, {found.median(slowest, f'p99 {large}'):.2f} ms (target: below {_TARGET_MS:g})")


def _measure(operation: Operation, seconds: float) -> tuple[list[float], list[float]]:
    """Milliseconds of each: on the clock, and of processor time."""
    for at in range(5):
        operation(at)
    took, busy, until = [], [], time.monotonic() + seconds
    while time.monotonic() < until or len(took) < 200:
        began, worked = time.perf_counter(), time.thread_time()
        operation(len(took))
        busy.append((time.thread_time() - worked) * 1e3)
        took.append((time.perf_counter() - began) * 1e3)
    return took, busy
