"""The catalogue: accounts, keys, algorithms, versions, builds."""

from serai_gateway.catalogue.base import Catalogue, check_name, may_administer, may_manage
from serai_gateway.catalogue.errors import (
    AlreadyPublished,
    CatalogueError,
    InvalidName,
    NotFound,
    Taken,
    UnknownSchema,
)
from serai_gateway.catalogue.operator import Operator, ensure_operator
from serai_gateway.catalogue.records import (
    Account,
    Algorithm,
    Build,
    Caller,
    Key,
    Listing,
    Model,
    NewKey,
    NewVersion,
    Page,
    Permissions,
    TensorInfo,
    Version,
)
from serai_gateway.catalogue.sql import SqlCatalogue, open_catalogue

__all__ = [
    "Account",
    "Algorithm",
    "AlreadyPublished",
    "Build",
    "Caller",
    "Catalogue",
    "CatalogueError",
    "InvalidName",
    "Key",
    "Listing",
    "Model",
    "NewKey",
    "NewVersion",
    "NotFound",
    "Operator",
    "Page",
    "Permissions",
    "SqlCatalogue",
    "Taken",
    "TensorInfo",
    "UnknownSchema",
    "Version",
    "check_name",
    "ensure_operator",
    "may_administer",
    "may_manage",
    "open_catalogue",
]
