"""What `import serai` needs inside: Serai's own code is there already, never from an index, its packages are not."""

import importlib.metadata

from serai import __version__
from serai_gateway.build.command import Log
from serai_gateway.build.errors import InvalidRequirements
from serai_gateway.build.requirements import FILE

_NAME = "serai"


def add_sdk(requirements: tuple[str, ...], python: str, log: Log, *, wanted: bool) -> tuple[str, ...]:
    """`requirements` with what the client needs, if it is `wanted` or they have a line `serai`, and without that line.

    Where only `wanted` asks for it, a `python` that is too old for it is no error: other clients may do.

    Raises InvalidRequirements.
    """
    from packaging.requirements import Requirement

    lines = [line for line in requirements if Requirement(line).name == _NAME]
    for line in lines:
        if not Requirement(line).specifier.contains(__version__, prereleases=True):
            raise InvalidRequirements(f'{FILE}: "{line}": this server has serai {__version__}; write serai alone')
    others = tuple(line for line in requirements if line not in lines)
    if not (lines or wanted):
        return others
    oldest = _oldest_python(python)
    if not oldest:
        return tuple(sorted({*others, *_needed()}))
    if lines:
        raise InvalidRequirements(f"{FILE}: serai needs Python {oldest} and this is for {python}; ask for a newer one")
    log(f"WARNING: serai.client() needs Python {oldest} and this is {python}: permissions.calls is for other clients")
    return others


def _oldest_python(python: str) -> str:
    """What the client asks of Python if `python` is not that, else empty."""
    from packaging.specifiers import SpecifierSet

    asked = importlib.metadata.metadata(_NAME)["Requires-Python"] or ""
    return "" if SpecifierSet(asked).contains(f"{python}.99") else asked


def _needed() -> list[str]:
    """The packages of the base install."""
    from packaging.requirements import Requirement

    needed = (Requirement(line) for line in importlib.metadata.requires(_NAME) or ())
    return [str(one) for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
