"""From a model's name to what the daemons and the catalogue know of it, and who may do what with it."""

from dataclasses import dataclass

from serai.ipc.messages import ModelSpec, VersionSpec
from serai_gateway.api.v2.names import ModelPath
from serai_gateway.caches import CatalogueCache
from serai_gateway.catalogue import Account, Caller, Model, Version, belongs_to
from serai_gateway.errors import Forbidden, NotFound, Unavailable
from serai_gateway.files import NoSuchFile


@dataclass(frozen=True, slots=True)
class FoundModel:
    """One model of one version."""

    version: Version
    spec: VersionSpec
    model: Model
    model_spec: ModelSpec

    @property
    def name(self) -> str:
        """As the protocol names it: `owner/name`, or `owner/name/model` where the algorithm has several."""
        algorithm = f"{self.version.owner}/{self.version.name}"
        return algorithm if len(self.version.models) == 1 else f"{algorithm}/{self.model.name}"

    @property
    def version_name(self) -> str:
        return self.version.semver or self.version.hash


async def find_model(cache: CatalogueCache, path: ModelPath, account: Account) -> FoundModel:
    """Raises NotFound, alike for what is private and what does not exist; Unavailable when a file is missing here."""
    try:
        version, spec = await cache.version(path.owner, path.name, path.version, account)
    except NotFound:
        asked = f"{path} version {path.version}" if path.version else str(path)
        raise NotFound(f"model {asked} not found") from None
    except NoSuchFile as error:
        raise Unavailable(f"the files of {path} are missing on this server; tell its operator") from error
    models = models_of(version, spec)
    if path.model is None and len(models) == 1:
        return models[0]
    for found in models:
        if found.model.name == path.model:
            return found
    algorithm = f"{version.owner}/{version.name}"
    if not models:
        raise NotFound(f"{algorithm} {version.semver or version.hash} has no models; call it at /v1/algo/{algorithm}")
    there_are = ", ".join(f"{algorithm}/{found.model.name}" for found in models)
    if path.model is None:
        raise NotFound(f"{algorithm} has {len(models)} models; name one of {there_are}")
    raise NotFound(f"model {path} not found; there are {there_are}")


def models_of(version: Version, spec: VersionSpec) -> list[FoundModel]:
    specs = {model.name: model for model in spec.models}
    return [FoundModel(version, spec, model, specs[model.name]) for model in version.models]


def check_manages(caller: Caller, found: FoundModel, what: str) -> None:
    """Raises Forbidden unless this key may steer the model."""
    if not caller.key.permissions.manage:
        raise Forbidden(f"this key may not {what} models; use one that may manage")
    if not belongs_to(caller.account, found.version.owner_id):
        raise Forbidden(f"only the owner of {found.name} and the operator may {what} it")
