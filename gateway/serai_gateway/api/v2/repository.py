"""The models that somebody may see, as the repository extension lists them."""

import asyncio
from typing import Any

import msgspec

from serai_gateway.api.v2.models import FoundModel, models_of
from serai_gateway.caches import CatalogueCache
from serai_gateway.catalogue import Account, Catalogue
from serai_gateway.catalogue.rules import MAX_PAGE_SIZE
from serai_gateway.errors import InvalidRequest, NotFound
from serai_gateway.files import NoSuchFile
from serai_gpu_pool.snapshot import ModelView


class IndexRequest(msgspec.Struct):
    ready: bool = False


class _LoadParameters(msgspec.Struct):
    config: msgspec.Raw = msgspec.Raw()
    unload_dependents: bool = False


class LoadRequest(msgspec.Struct):
    parameters: _LoadParameters | None = None


_decode_index = msgspec.json.Decoder(IndexRequest).decode
_decode_load = msgspec.json.Decoder(LoadRequest).decode


def read_index(body: bytes) -> IndexRequest:
    """Raises InvalidRequest."""
    try:
        return _decode_index(body) if body.strip() else IndexRequest()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f'the body may be {{"ready": true}} or empty: {error}') from None


def check_load(body: bytes) -> None:
    """Raises InvalidRequest for what would change a model: models change by publishing."""
    try:
        parameters = (_decode_load(body) if body.strip() else LoadRequest()).parameters
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"not a load or unload request: {error}") from None
    if parameters is not None and parameters.config:
        raise InvalidRequest("a model's configuration and files come with its version; leave config out")


async def visible_models(catalogue: Catalogue, cache: CatalogueCache, account: Account) -> list[FoundModel]:
    """Every model of every algorithm that the account may call, in the version that it would get."""
    models: list[FoundModel] = []
    marker: str | None = None
    while True:
        page = await asyncio.to_thread(
            lambda after: catalogue.list_algorithms(account, limit=MAX_PAGE_SIZE, marker=after), marker
        )
        for listing in page.results:
            try:
                version, spec = await cache.version(listing.algorithm.owner, listing.algorithm.name, None, account)
            except (NotFound, NoSuchFile):  # nothing published yet, or nothing that could be run
                continue
            models += models_of(version, spec)
        marker = page.marker
        if marker is None:
            return models


def index_entry(found: FoundModel, view: ModelView | None) -> dict[str, Any]:
    """Every model can be called at any time, so it is READY unless something is held against it."""
    verdict = view.verdict if view is not None else ""
    return {
        "name": found.name,
        "version": found.version_name,
        "state": "UNAVAILABLE" if verdict else "READY",
        "reason": verdict,
    }
