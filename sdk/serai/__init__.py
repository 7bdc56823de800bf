"""Serai: call algorithms from anywhere, and write them.

    import serai
    serai.client().algo("vision/classify").pipe(open("photo.jpg", "rb").read()).result

Inside an algorithm, `serai.model("name").run(...)` runs a model of its manifest.

Names load on first use: inside an algorithm's own interpreter only the standard library may be there.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serai._async_client import AsyncAlgorithm, AsyncClient, async_client
    from serai._async_managed import AsyncOrganizationHandle, AsyncUserHandle
    from serai._client import Algorithm, Client, client
    from serai._events import Progress, Waiting
    from serai._logs import LogEntry
    from serai._managed import OrganizationHandle, UserHandle
    from serai._records import (
        AlgorithmDetails,
        Build,
        CallError,
        Commit,
        Key,
        Member,
        Organization,
        Secret,
        Share,
        User,
        Version,
    )
    from serai._requests import OutputType
    from serai._responses import AlgorithmInfo, Metadata, PublishedVersion, Response
    from serai._running import progress
    from serai._streams import AsyncStream, Stream
    from serai.errors import (
        AlgorithmError,
        ApiError,
        BadAnswer,
        Conflict,
        ConnectionFailed,
        DeadlineExceeded,
        FolderError,
        Forbidden,
        InvalidRequest,
        NotFound,
        PaymentRequired,
        RateLimited,
        SeraiError,
        ServerFault,
        SettingsError,
        TooLarge,
        Unauthorized,
        Unavailable,
    )
    from serai.model import Model, ModelError, model

__version__ = "0.1.0"

#: Module -> the public names it has.
_NAMES_OF = {
    "serai._async_client": ("AsyncAlgorithm", "AsyncClient", "async_client"),
    "serai._client": ("Algorithm", "Client", "client"),
    "serai._events": ("Progress", "Waiting"),
    "serai._async_managed": ("AsyncOrganizationHandle", "AsyncUserHandle"),
    "serai._managed": ("OrganizationHandle", "UserHandle"),
    "serai._records": (
        "AlgorithmDetails",
        "Build",
        "CallError",
        "Commit",
        "Key",
        "Member",
        "Organization",
        "Secret",
        "Share",
        "User",
        "Version",
    ),
    "serai._requests": ("OutputType",),
    "serai._responses": ("AlgorithmInfo", "Metadata", "PublishedVersion", "Response"),
    "serai._streams": ("AsyncStream", "Stream"),
    "serai.errors": (
        "AlgorithmError",
        "ApiError",
        "BadAnswer",
        "Conflict",
        "ConnectionFailed",
        "DeadlineExceeded",
        "FolderError",
        "Forbidden",
        "InvalidRequest",
        "NotFound",
        "PaymentRequired",
        "RateLimited",
        "SeraiError",
        "ServerFault",
        "SettingsError",
        "TooLarge",
        "Unauthorized",
        "Unavailable",
    ),
    "serai.model": ("Model", "ModelError", "model"),
    "serai._logs": ("LogEntry",),
    "serai._running": ("progress",),
}
#: What the client is built on. An algorithm has it only where its author asks for it.
_CLIENT_NEEDS = ("httpx2", "msgspec")
_WHERE = {name: module for module, names in _NAMES_OF.items() for name in names}

__all__ = [
    "Algorithm",
    "AlgorithmDetails",
    "AlgorithmError",
    "AlgorithmInfo",
    "ApiError",
    "AsyncAlgorithm",
    "AsyncClient",
    "AsyncOrganizationHandle",
    "AsyncStream",
    "AsyncUserHandle",
    "BadAnswer",
    "Build",
    "CallError",
    "Client",
    "Commit",
    "Conflict",
    "ConnectionFailed",
    "DeadlineExceeded",
    "FolderError",
    "Forbidden",
    "InvalidRequest",
    "Key",
    "LogEntry",
    "Member",
    "Metadata",
    "Model",
    "ModelError",
    "NotFound",
    "Organization",
    "OrganizationHandle",
    "OutputType",
    "PaymentRequired",
    "Progress",
    "PublishedVersion",
    "RateLimited",
    "Response",
    "Secret",
    "SeraiError",
    "ServerFault",
    "SettingsError",
    "Share",
    "Stream",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "User",
    "UserHandle",
    "Version",
    "Waiting",
    "__version__",
    "async_client",
    "client",
    "model",
    "progress",
]


def __getattr__(name: str) -> Any:
    module = _WHERE.get(name)
    if module is None:
        raise AttributeError(f"module 'serai' has no attribute {name!r}")
    try:
        value = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name not in _CLIENT_NEEDS:
            raise
        message = f"serai.{name} needs {error.name}; an algorithm has it with calls = true under [permissions]"
        raise ModuleNotFoundError(message, name=error.name) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Importing a submodule sets it as an attribute of its package; `serai.model` must stay the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _WHERE and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
