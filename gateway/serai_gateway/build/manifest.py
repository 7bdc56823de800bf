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
from serai_gateway.build.languages import Language, parse_language
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
#: Most processor time one replica may ask for: this machine's cores. And the least in which one still gets started.
MAX_CPUS = float(len(os.sched_getaffinity(0)))
MIN_CPUS = 0.1
#: Most replicas that an author may have kept without calls: each holds its memory for ever, and costs nobody anything
#: but the operator. Enough for one that is being replaced and its neighbours.
MAX_MIN_REPLICAS = 4
#: Most replicas of one version an author may ask for; the operator's own limit is usually far below.
MAX_REPLICAS = 64
#: Longest and shortest time an idle replica is kept. Who wants one for longer than an hour wants `min = 1`.
MAX_IDLE_S = 3600.0
MIN_IDLE_S = 1.0
_MODULE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")
#: Names of a file under src/ without its suffix.
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}\Z")


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
    language: str = ""  # python, javascript; pipe or another name: bin/pipe runs it; empty: only models
    python: str = ""  # "3.12"; empty: the one Serai runs on
    entry: str = ""  # the file under src/, without its suffix
    models: dict[str, ModelEntry] = {}
    timeout_s: float = 300.0
    memory_bytes: int = 1 << 30
    concurrency: int = 1
    cpus: float = 1.0
    min_replicas: int = 0
    max_replicas: int = 0  # 0: as many as the operator allows
    idle_s: float = 0.0  # 0: as the operator says
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
    cpus: float = 1.0


class _Scaling(msgspec.Struct, forbid_unknown_fields=True):
    min: int = 0
    max: int | None = None
    idle: str | int | float | None = None


_SECTIONS = ("algorithm", "models", "limits", "scaling", "permissions", "sample")


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
    language = _language(about, models)
    least, most, idle_s = _scaling(section("scaling", document.get("scaling", {}), _Scaling))
    return Manifest(
        owner=owner,
        name=name,
        kind=_KINDS[language.name],
        tagline=_tagline(about.tagline),
        language=language.name,
        python=language.python,
        entry=_entry(about, language.name),
        models=models,
        timeout_s=_timeout(limits.timeout),
        memory_bytes=_memory(limits.memory),
        concurrency=within("limits.concurrency", limits.concurrency, 1, MAX_CONCURRENCY),
        cpus=_cpus(limits.cpus),
        min_replicas=least,
        max_replicas=most,
        idle_s=idle_s,
        permissions=section("permissions", document.get("permissions", {}), Permissions),
        sample=_sample(document["sample"]) if "sample" in document else None,
    )


def read_text(path: Path, max_bytes: int = MAX_MANIFEST_BYTES) -> str:
    """A small text file of an author. Raises InvalidManifest."""
    with path.open("rb") as file:
        raw = file.read(max_bytes + 1)
    if len(raw) > max_bytes:
        raise InvalidManifest(f"{path.name}: larger than {max_bytes >> 20} MiB")
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


def _cpus(value: float) -> float:
    if not MIN_CPUS <= value <= MAX_CPUS:
        raise refuse("limits.cpus", f"{value:g} is not between {MIN_CPUS:g} and {MAX_CPUS:g}, what this server has")
    return value


def _scaling(asked: _Scaling) -> tuple[int, int, float]:
    """Least and most replicas, and how long an idle one is kept; 0 is what the operator says."""
    least = within("scaling.min", asked.min, 0, MAX_MIN_REPLICAS)
    most = 0 if asked.max is None else within("scaling.max", asked.max, 1, MAX_REPLICAS)
    if most and least > most:
        raise refuse("scaling.min", f"{least} is more than scaling.max, {most}")
    if asked.idle is None:
        return least, most, 0.0
    idle_s = checked("scaling.idle", asked.idle, parse_duration) if isinstance(asked.idle, str) else float(asked.idle)
    if not MIN_IDLE_S <= idle_s <= MAX_IDLE_S:
        raise refuse(
            "scaling.idle",
            f"{idle_s:g} s is not between {MIN_IDLE_S:g} s and {MAX_IDLE_S:g} s; min = 1 keeps a replica for ever",
        )
    return least, most, idle_s


_KINDS: dict[str, Kind] = {"python": "python", "javascript": "algorithmia", "pipe": "algorithmia", "": "model"}


def _language(about: _Algorithm, models: dict[str, ModelEntry]) -> Language:
    if about.language:
        return checked("algorithm.language", about.language, parse_language)
    if not models:
        raise refuse("algorithm.language", 'is missing; write language = "python", or name a model under [models.…]')
    return Language("", "")


def _entry(about: _Algorithm, language: str) -> str:
    if language not in ("python", "javascript"):
        if about.entry and language:
            raise refuse("algorithm.entry", "is not for this language: bin/pipe is what runs")
        return ""
    if language == "javascript":
        entry, pattern = about.entry or about.name, _FILE_NAME
    else:
        # A module cannot have a hyphen in its name; an algorithm may.
        entry, pattern = about.entry or about.name.replace("-", "_"), _MODULE_NAME
    if not pattern.match(entry):
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
