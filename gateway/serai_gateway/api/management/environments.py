"""Algorithm environments: the languages that algorithms may be written in here, and the template of each.

    GET /v1/algorithm-environments/edge/languages
    GET /v1/algorithm-environments/edge/languages/{language}/environments[/current]
    GET /v1/algorithm-environments/edge/environments/available
    GET /v1/algorithm-environments/edge/environments/{id}
    GET /v1/algorithm-environments/edge/environment-specifications/{id}/template

An environment is one language at one version. Only what this server has is listed, and its machine is a processor: code
never holds the GPU, models do.
"""

import asyncio
import functools
import gzip
import io
import json
import tarfile
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serai_gateway.api.management.answers import json_answer
from serai_gateway.api.management.errors import Codes, ManagementError
from serai_gateway.api.who import caller_of
from serai_gateway.build.offered import offered_runtimes
from serai_gateway.build.runtimes import RUNTIMES, Runtime, runtime_of_environment, runtime_of_specification
from serai_gateway.build.templates import PLACEHOLDERS, CannotMake, check_language, template_files
from serai_runner import pythons

#: When these environments were defined: ids and templates are the same on every server.
_DEFINED_AT = "2026-11-20T00:00:00.000Z"
#: Name and the file with packages of each language.
_FAMILIES = {
    "anaconda3": ("Conda's place: Python 3 with requirements.txt", "requirements.txt"),
    "javascript": ("JavaScript (Node.js)", "package.json"),
    "python3": ("Python 3.x (Environments)", "requirements.txt"),
}


async def list_languages(request: Request) -> Response:
    offered = await _offered(request)
    return json_answer([_language(family) for family in dict.fromkeys(runtime.family for runtime in offered)])


async def list_environments(request: Request) -> Response:
    offered = await _offered(request)
    family = _family(request.path_params["language"])
    return json_answer({"environments": [_environment(one) for one in offered if one.family == family]})


async def current_environment(request: Request) -> Response:
    """What a new algorithm of this language gets."""
    offered = await _offered(request)
    family = _family(request.path_params["language"])
    fitting = [one for one in offered if one.family == family and one.version in ("", pythons.OURS)]
    if not fitting:
        raise ManagementError(Codes.NO_SUCH_ENVIRONMENT, f"this server has no environment for {family}")
    return json_answer(_environment(fitting[0]))


async def available_environments(request: Request) -> Response:
    return json_answer({"environments": [_environment(one) for one in await _offered(request)]})


async def get_environment(request: Request) -> Response:
    offered = await _offered(request)
    runtime = runtime_of_environment(request.path_params["id"])
    if runtime is None or runtime not in offered:
        raise ManagementError(Codes.NO_SUCH_ENVIRONMENT)
    return json_answer(_environment(runtime))


async def get_template(request: Request) -> Response:
    """Without a key, as it was: it holds nobody's secrets. Placeholders stand where owner and name belong."""
    runtime = runtime_of_specification(request.path_params["id"])
    if runtime is None:
        raise ManagementError(Codes.NO_SUCH_ENVIRONMENT, "there is no environment specification with this id")
    headers = {"content-type": "application/gzip", "content-disposition": 'attachment; filename="template.tar.gz"'}
    return Response(_packed(runtime.language), headers=headers)


async def _offered(request: Request) -> tuple[Runtime, ...]:
    """Raises Unauthenticated."""
    await caller_of(request)
    return await asyncio.to_thread(offered_runtimes, request.app.state.settings.home)


def _family(language: str) -> str:
    """Raises ManagementError for a language that has no environments here."""
    try:
        name = check_language(language)
    except CannotMake as error:
        raise ManagementError(Codes.NO_SUCH_ENVIRONMENT, str(error)) from None
    if name == "javascript":
        return name
    return "anaconda3" if language.lower().startswith("anaconda") else "python3"


def _language(family: str) -> dict[str, str]:
    display_name, packages = _FAMILIES[family]
    artifacts = [{"source": "/opt/algorithm", "destination": "/opt/algorithm/"}]
    configuration = {"display_name": display_name, "req_files": [packages], "artifacts": artifacts}
    return {"name": family, "display_name": display_name, "configuration": json.dumps(configuration)}


def _environment(runtime: Runtime) -> dict[str, Any]:
    version = f" {runtime.version}" if runtime.version else ""
    display_name = f"Python{version}" if runtime.family == "python3" else _FAMILIES[runtime.family][0]
    return {
        "id": runtime.environment_id,
        "environment_specification_id": runtime.specification_id,
        "display_name": display_name,
        "description": f"{display_name}, with what {_FAMILIES[runtime.family][1]} lists",
        "created_at": _DEFINED_AT,
        "language": _language(runtime.family),
        "machine_type": "CPU",
    }


@functools.lru_cache(maxsize=len(RUNTIMES))
def _packed(language: str) -> bytes:
    """The same bytes each time: no times, no owners."""
    unpacked = io.BytesIO()
    with tarfile.open(fileobj=unpacked, mode="w") as tar:
        for path, content in template_files(language, *PLACEHOLDERS).items():
            about = tarfile.TarInfo(path)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return gzip.compress(unpacked.getvalue(), mtime=0)


_EDGE = "/v1/algorithm-environments/edge"
ROUTES = [
    Route(f"{_EDGE}/languages", list_languages, methods=["GET"]),
    Route(f"{_EDGE}/languages/{{language}}/environments", list_environments, methods=["GET"]),
    Route(f"{_EDGE}/languages/{{language}}/environments/current", current_environment, methods=["GET"]),
    Route(f"{_EDGE}/environments/available", available_environments, methods=["GET"]),
    Route(f"{_EDGE}/environments/{{id}}", get_environment, methods=["GET"]),
    Route(f"{_EDGE}/environment-specifications/{{id}}/template", get_template, methods=["GET"]),
]
