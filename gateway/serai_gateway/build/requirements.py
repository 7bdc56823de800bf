"""requirements.txt, as far as we install from it: names, versions and markers, a line each. Pure.

Everything else a requirements file may say would fetch from somewhere, or run something, of the author's choice.
"""

import re

from serai_gateway.build.errors import InvalidRequirements

FILE = "requirements.txt"
#: Lines with a requirement in them.
MAX_REQUIREMENTS = 500
MAX_LINE_CHARS = 1000

_COMMENT = re.compile(r"(^|\s)#.*$")


def parse_requirements(text: str) -> tuple[str, ...]:
    """The requirements in one normal form, sorted, each once. Raises InvalidRequirements with the line's number."""
    found: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        line = _COMMENT.sub("", line).strip()
        if not line:
            continue
        found.add(_requirement(line, number))
        if len(found) > MAX_REQUIREMENTS:
            raise _refuse(number, line, f"more than {MAX_REQUIREMENTS} requirements")
    return tuple(sorted(found))


def _requirement(line: str, number: int) -> str:
    # 20 ms to import, and only builds need it.
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import InvalidName, canonicalize_name

    if len(line) > MAX_LINE_CHARS or not line.isprintable():
        raise _refuse(number, line, "is not a requirement; write name or name==1.2.3")
    if line.startswith("-"):
        raise _refuse(number, line, "options are not taken from an algorithm; write only names and versions")
    if line.endswith("\\"):
        raise _refuse(number, line, "lines are not continued here; write name==1.2.3 on one line, without hashes")
    try:
        requirement = Requirement(line)
        requirement.name = canonicalize_name(requirement.name, validate=True)  # a Requirement may still be called "x_"
    except (InvalidRequirement, InvalidName):
        reason = "is not a requirement; write name or name==1.2.3"
        if "/" in line or "://" in line or line.startswith("."):
            reason = "is a path or an address; only names from the package index are installed"
        raise _refuse(number, line, reason) from None
    except RecursionError:
        raise _refuse(number, line, "is nested too deep") from None
    if requirement.url:
        raise _refuse(number, line, "is a path or an address; only names from the package index are installed")
    # What the installer gets is what we have understood, not what was written.
    return str(requirement)


def _refuse(number: int, line: str, reason: str) -> InvalidRequirements:
    shown = ascii(line)[1:-1] if not line.isprintable() else line
    shown = shown if len(shown) <= 100 else shown[:99] + "…"
    return InvalidRequirements(f'{FILE} line {number}: "{shown}" {reason}')
