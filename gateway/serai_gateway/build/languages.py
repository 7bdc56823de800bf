"""What languages are called, in algorithm.toml and by Algorithmia. Pure."""

import re
from typing import NamedTuple

#: Algorithmia's names for versions of Python; "python3-1" was the name of an environment, and is no version.
_CONF_VERSION = re.compile(r"python-?3\.?(\d{1,2})(?!\d)", re.ASCII | re.IGNORECASE)
_JAVASCRIPT = re.compile(r"(javascript|node(\.?js)?)([_-].*|-?\d.*)?\Z", re.ASCII | re.IGNORECASE)
_CONF_PYTHON = re.compile(r"(python|python-?3([.-]?\d+)*|anaconda-?3)([_ -].*)?\Z", re.ASCII | re.IGNORECASE)
_PYTHON_2 = re.compile(r"(python|anaconda)-?2", re.ASCII | re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9 .+#_-]{0,39}\Z", re.ASCII)


class Language(NamedTuple):
    name: str  # python, javascript; else bin/pipe runs it
    python: str  # "3.12"; empty: the one Serai runs on


def parse_language(text: str) -> Language:
    """What an algorithm.toml says. Raises ValueError with what to write."""
    found = re.fullmatch(r"python(3(?:\.(\d{1,2}))?)?", text, re.ASCII | re.IGNORECASE)
    if found:
        return Language("python", f"3.{int(found[2])}" if found[2] else "")
    if text.lower() in ("javascript", "node"):
        return Language("javascript", "")
    if text.lower() == "pipe":
        return Language("pipe", "")
    raise ValueError(
        f'"{text[:40]}" cannot run here; write "python", "python3.12", "javascript", or "pipe" for any other language, '
        "which bin/pipe runs"
    )


def parse_conf_language(text: str) -> Language:
    """What an algorithmia.conf says. A version of Python is what the author had, and may be missing here.

    Raises ValueError.
    """
    if _PYTHON_2.match(text):
        raise ValueError(f'"{text[:40]}" is Python 2, which cannot run here; port it and write "python3"')
    if _CONF_PYTHON.match(text):
        found = _CONF_VERSION.match(text)
        return Language("python", f"3.{int(found[1])}" if found else "")
    if _JAVASCRIPT.match(text):
        return Language("javascript", "")
    if not _WORD.match(text):
        raise ValueError(f"{text[:40]!r} is not the name of a language")
    return Language(text.lower(), "")
