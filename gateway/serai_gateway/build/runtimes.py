"""Which runtime a new algorithm asks for: by language, by package set, or by the id of an algorithm environment.

An environment is one language at one version; ids are made of that, so that they are the same on every server. Pure.
"""

import re
import uuid
from collections.abc import Mapping
from typing import NamedTuple

from serai_gateway.build.templates import (
    NO_SUCH_MACHINE,
    NO_SUCH_PACKAGE_SET,
    UNKNOWN,
    UNSUPPORTED,
    CannotMake,
    check_language,
)

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "environments.serai")
#: Versions of Python 3 that have ids: older than ours can be, and newer than will be while this matters.
_MINORS = range(9, 40)
#: Environments that existing scripts name, with what runs their code here.
_OF_ALGORITHMIA = {
    "fd980f4f-1f1c-4b2f-a128-d60b40c6567a": "python3",
    "067110e7-8969-4441-b3d6-5333f18a3db3": "python3.6",
    "717d36e0-222c-44a0-9aa8-06f4ebc1b82a": "python2",
}
_PYTHON_SET = re.compile(r"python-?(\d)\.?(\d{0,2})\Z", re.ASCII | re.IGNORECASE)
_OTHER_SET = re.compile(r"(r\d|scala|java|ruby|rust|csharp)[0-9a-z.-]*\Z", re.ASCII | re.IGNORECASE)


class Runtime(NamedTuple):
    family: str  # python3, anaconda3, javascript: the language as clients list it
    version: str  # of Python: "3.12"; empty where the server decides

    @property
    def language(self) -> str:
        """What an algorithmia.conf says for it."""
        return f"python{self.version}" if self.family == "python3" else self.family

    @property
    def environment_id(self) -> str:
        return str(uuid.uuid5(_NAMESPACE, f"environment {self.family} {self.version} cpu"))

    @property
    def specification_id(self) -> str:
        return str(uuid.uuid5(_NAMESPACE, f"specification {self.family} {self.version}"))


RUNTIMES = (
    Runtime("anaconda3", ""),
    Runtime("javascript", ""),
    *(Runtime("python3", f"3.{minor}") for minor in _MINORS),
)
_BY_ID = {runtime.environment_id: runtime for runtime in RUNTIMES}
_BY_SPECIFICATION = {runtime.specification_id: runtime for runtime in RUNTIMES}


def runtime_of_environment(id: str) -> Runtime | None:
    return _BY_ID.get(id.lower())


def runtime_of_specification(id: str) -> Runtime | None:
    return _BY_SPECIFICATION.get(id.lower())


def language_of(settings: Mapping[str, object]) -> str:
    """The language for `template_files` that a CreateRequest's `settings` choose.

    Reads algorithm_environment, else package_set, else language, and `environment` (cpu or gpu). Algorithms' code runs
    on processors; a model in an algorithm.toml runs on the GPU, if the server has one, without being asked to.

    Raises CannotMake.
    """
    chosen = {key: settings.get(key) for key in ("algorithm_environment", "package_set", "language", "environment")}
    words = {key: value for key, value in chosen.items() if isinstance(value, str) and value}
    machine = words.get("environment", "cpu").lower()
    if machine != "cpu":
        raise CannotMake(
            NO_SUCH_MACHINE,
            f'"{machine[:40]}": code runs on "cpu"; models under [models] of an algorithm.toml run on the GPU',
        )
    if "algorithm_environment" in words:
        language = _of_environment(words["algorithm_environment"])
    elif "package_set" in words:
        language = _of_package_set(words["package_set"])
    elif "language" in words:
        language = words["language"]
    else:
        raise CannotMake(UNKNOWN, "settings: say language, package_set or algorithm_environment")
    check_language(language)
    return language


def _of_environment(text: str) -> str:
    found = runtime_of_environment(text)
    language = found.language if found else _OF_ALGORITHMIA.get(text.lower())
    if language is None:
        raise CannotMake(
            UNKNOWN,
            f"there is no algorithm environment {text[:40]!a}; "
            "GET /v1/algorithm-environments/edge/languages/python3/environments lists them",
        )
    return language


def _of_package_set(text: str) -> str:
    found = _PYTHON_SET.match(text)
    if found:
        return f"python{found[1]}.{found[2]}" if found[2] else f"python{found[1]}"
    if _OTHER_SET.match(text):
        raise CannotMake(UNSUPPORTED, f'there is no template for the package set "{text[:40]}"; python3 has one')
    if text.lower().startswith("python") and "gpu" in text.lower():
        raise CannotMake(NO_SUCH_MACHINE, f'"{text[:40]}": code runs on processors; models run on the GPU')
    raise CannotMake(
        NO_SUCH_PACKAGE_SET,
        f'there is no package set {text[:40]!a}; say language "python3" and list packages in requirements.txt',
    )
