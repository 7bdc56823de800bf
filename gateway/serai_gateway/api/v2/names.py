"""What a path under /v2 asks for. Pure; read from left to right, and the shorter reading counts.

    /v2/models/OWNER/NAME[/MODEL][/versions/VERSION][/infer|ready|stats|config]
    /v2/repository/models/OWNER/NAME[/MODEL][/versions/VERSION]/load|unload

So `…/OWNER/NAME/ready` asks whether the only model is ready. A model that is itself called infer, ready, stats or
config is out of reach for one thing: its metadata, unless it is its algorithm's only one (`…/OWNER/NAME`).
Everything else works: `…/OWNER/NAME/ready/infer` runs it.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from serai_gateway.errors import NotFound

ModelAction = Literal["metadata", "infer", "ready", "stats", "config", "load", "unload"]
ServerAction = Literal["server", "live", "health", "index", "all stats"]

#: What may be asked at which path, with which method.
METHODS: dict[ModelAction | ServerAction, str] = {
    "server": "GET",
    "live": "GET",
    "health": "GET",
    "all stats": "GET",
    "index": "POST",
    "metadata": "GET",
    "ready": "GET",
    "config": "GET",
    "stats": "GET",
    "infer": "POST",
    "load": "POST",
    "unload": "POST",
}

_SERVER: dict[str, ServerAction] = {
    "/v2": "server",
    "/v2/health/live": "live",
    "/v2/health/ready": "health",
    "/v2/models/stats": "all stats",
    "/v2/repository/index": "index",
}

_NAME = r"[A-Za-z][A-Za-z0-9_-]{0,63}"
_MODEL = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
#: With a digit in it, or a word: so that `versions` before an action is a model of that name.
_VERSION = r"(?i:latest(?:private)?)|(?=[^/]*[0-9])[A-Za-z0-9][A-Za-z0-9.*_-]{0,63}"
_WHICH = (
    rf"(?P<owner>{_NAME})/(?P<name>{_NAME})"
    rf"(?:/(?P<model>{_MODEL}))??(?:/versions/(?P<version>{_VERSION}))?"  # ?? tries to do without a model first
)
_IN_MODELS = re.compile(rf"/v2/models/{_WHICH}(?:/(?P<action>infer|ready|stats|config))?")
_IN_REPOSITORY = re.compile(rf"/v2/repository/models/{_WHICH}/(?P<action>load|unload)")

#: How many different paths are remembered; callers repeat themselves.
_REMEMBERED = 4096
#: Paths longer than any of ours are not looked at.
_MAX_PATH_CHARACTERS = 400


@dataclass(frozen=True, slots=True)
class ModelPath:
    """A model as the caller wrote it; `model` is None where the algorithm's only one is meant."""

    action: ModelAction
    owner: str
    name: str
    model: str | None
    version: str | None

    def __str__(self) -> str:
        return "/".join(part for part in (self.owner, self.name, self.model) if part)


@lru_cache(_REMEMBERED)
def parse_path(path: str) -> ModelPath | ServerAction:
    """Raises NotFound for what is no path of the protocol, or of a part of it that is not offered."""
    path = path.rstrip("/")
    if path in _SERVER:
        return _SERVER[path]
    if len(path) <= _MAX_PATH_CHARACTERS:
        found = _IN_MODELS.fullmatch(path) or _IN_REPOSITORY.fullmatch(path)
        if found is not None:
            action: ModelAction = found["action"] or "metadata"  # pyright: ignore[reportAssignmentType]
            return ModelPath(action, found["owner"], found["name"], found["model"], found["version"])
    raise NotFound("no such path in /v2; a model is at /v2/models/OWNER/NAME[/MODEL][/versions/VERSION]/infer")


def is_infer(path: str) -> bool:
    """Whether the path takes tensors, which may be large."""
    return path.startswith("/v2/models/") and path.rstrip("/").endswith("/infer")
