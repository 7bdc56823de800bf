"""What an author says about an algorithm: algorithm.toml, read strictly.

Every message names the file and the key, and says what to write instead.
"""

import math
import os
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from serai.ipc.messages import Kind
from serai_gateway.build.errors import InvalidManifest
from serai_gateway.build.model_entry import ModelEntry, read_models
from serai_gateway.build.sections import FILE, check_keys, checked, refuse, section, within
from serai_gateway.build.units import parse_duration, parse_size
from serai_gateway.catalogue import check_name

#: Largest manifest we read. A sample input of some size fits.
MAX_MANIFEST_BYTES = 1 << 20
#: Longest call, as on Algorithmia.
MAX_TIMEOUT_S = 3000.0
#: Most memory one replica may ask for: half of this machine's, so that no author's wish can take the service down.
MAX_MEMORY_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
#: Least memory that an interpreter starts in.
MIN_MEMORY_BYTES = 32 << 20
#: Most calls one replica handles at once.
MAX_CONCURRENCY = 256
_MODULE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")


class Permissions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    network: bool = False
    calls: bool = False  # may call other algorithms


class Sample(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the algorithm's page offers to try."""

    input: Any = None
    output: Any = None


class Manifest(msgspec.Struct, frozen=True):
    """An algorithm as its author describes it, checked. The catalogue keeps it as JSON."""

    owner: str
    name: str
    kind: Kind
    tagline: str = ""
    language: str = ""
    entry: str = ""  # the module under src/
    models: dict[str, ModelEntry] = {}
    timeout_s: float = 300.0
    memory_bytes: int = 1 << 30
    concurrency: int = 1
    permissions: Permissions = Permissions()
    sample: Sample | None = None


class _Algorithm(msgspec.Struct, forbid_unknown_fields=True):
    owner: str
    name: str
    tagline: str = ""
    language: str = ""
    entry: str = ""


class _Limits(msgspec.Struct, forbid_unknown_fields=True):
    timeout: str | int | float = "300s"
    memory: str | int = "1GiB"
    concurrency: int = 1


_SECTIONS = ("algorithm", "models", "limits", "permissions", "sample")


def parse_manifest(text: str) -> Manifest:
    """The content of an algorithm.toml. Raises InvalidManifest."""
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise InvalidManifest(f"{FILE}: is not TOML: {str(error)[:200] or 'nested too deep'}") from None
    check_keys("", document, _SECTIONS)
    if "algorithm" not in document:
        raise InvalidManifest(f'{FILE}: the section [algorithm] is missing; it needs owner = "…" and name = "…"')
    about = section("algorithm", document["algorithm"], _Algorithm)
    owner = checked("algorithm.owner", about.owner, check_name)
    name = checked("algorithm.name", about.name, check_name)
    limits = section("limits", document.get("limits", {}), _Limits)
    models = read_models(document.get("models", {}))
    kind = _kind(about, models)
    return Manifest(
        owner=owner,
        name=name,
        kind=kind,
        tagline=_tagline(about.tagline),
        language="python" if kind == "python" else "",
        entry=_entry(about) if kind == "python" else "",
        models=models,
        timeout_s=_timeout(limits.timeout),
        memory_bytes=_memory(limits.memory),
        concurrency=within("limits.concurrency", limits.concurrency, 1, MAX_CONCURRENCY),
        permissions=section("permissions", document.get("permissions", {}), Permissions),
        sample=_sample(document["sample"]) if "sample" in document else None,
    )


def read_text(path: Path) -> str:
    """A small text file of an author. Raises InvalidManifest."""
    with path.open("rb") as file:
        raw = file.read(MAX_MANIFEST_BYTES + 1)
    if len(raw) > MAX_MANIFEST_BYTES:
        raise InvalidManifest(f"{path.name}: larger than {MAX_MANIFEST_BYTES >> 20} MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidManifest(f"{path.name}: is not UTF-8 text") from None


def _timeout(value: str | float) -> float:
    seconds = checked("limits.timeout", value, parse_duration) if isinstance(value, str) else float(value)
    if not 0 < seconds <= MAX_TIMEOUT_S:
        raise refuse("limits.timeout", f"{seconds:g} s is not between 1 ms and {MAX_TIMEOUT_S:g} s")
    return seconds


def _memory(value: str | int) -> int:
    num_bytes = checked("limits.memory", value, parse_size) if isinstance(value, str) else value
    if not MIN_MEMORY_BYTES <= num_bytes <= MAX_MEMORY_BYTES:
        most = f"{MAX_MEMORY_BYTES >> 20}MiB, half of this server's memory"
        raise refuse("limits.memory", f"{num_bytes:,} bytes is not between 32MiB and {most}")
    return num_bytes


def _tagline(text: str) -> str:
    if len(text) > 300 or "\n" in text:
        raise refuse("algorithm.tagline", "is one line of at most 300 characters; the README has room for more")
    return text


def _kind(about: _Algorithm, models: dict[str, ModelEntry]) -> Kind:
    if not about.language:
        if not models:
            raise refuse(
                "algorithm.language", 'is missing; write language = "python", or name a model under [models.…]'
            )
        return "model"
    if about.language.lower() not in ("python", "python3"):
        raise refuse("algorithm.language", f'"{about.language[:40]}" cannot run here; write "python"')
    return "python"


def _entry(about: _Algorithm) -> str:
    # A module cannot have a hyphen in its name; an algorithm may.
    entry = about.entry or about.name.replace("-", "_")
    if not _MODULE_NAME.match(entry):
        raise refuse("algorithm.entry", f'"{entry[:70]}" is not the name of a module under src/, like "classify"')
    return entry


def _sample(table: Any) -> Sample:
    sample = section("sample", table, Sample)
    for key, value in (("input", sample.input), ("output", sample.output)):
        if not _is_json(value, 0):
            raise refuse(f"sample.{key}", "is not JSON: no dates, no nan, no inf, nesting up to 64")
    return sample


def _is_json(value: Any, depth: int) -> bool:
    if depth > 64:
        return False
    if isinstance(value, dict):
        return all(_is_json(item, depth + 1) for item in value.values())
    if isinstance(value, list):
        return all(_is_json(item, depth + 1) for item in value)
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return -(2**63) <= value < 2**64
    return value is None or isinstance(value, str | bool)
