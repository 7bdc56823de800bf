"""What the management API answers with: algorithms, versions, builds and pages, in Algorithmia's shapes."""

from collections.abc import Sequence
from typing import Any

import msgspec

from serai_gateway.api.management.ids import public_id
from serai_gateway.api.management.times import iso_time
from serai_gateway.catalogue import Algorithm, Build, Version

Object = dict[str, Any]

#: The only place that code comes from, as it is listed among source-code hosts, too.
INTERNAL = {"id": "internal", "name": "", "provider": "internal", "default": True, "enabled": True}
_SOURCE = {"scm": INTERNAL}
_STATUS = {"running": "in-progress", "succeeded": "succeeded", "failed": "failed", "interrupted": "failed"}


def version_response(algorithm: Algorithm, version: Version | None, build: Build | None, base_url: str) -> Object:
    """A version of an algorithm; without one the algorithm itself. The build's log is shown if it is there: leave it
    out for who may not read it."""
    answer: Object = {
        "id": public_id(algorithm.id),
        "name": algorithm.name,
        "details": _details(algorithm),
        "settings": settings_object(algorithm, version),
        "source": _SOURCE,
        "self_link": algorithm_link(algorithm, base_url),
        "resource_type": "algorithm",
    }
    if version is not None:
        answer["version_info"] = _version_info(algorithm, version)
        answer["self_link"] += f"/versions/{version.git_hash}"
    if build is not None:
        answer["build"] = build_object(build, version)
        if build.status != "running":
            answer["compilation"] = {"successful": build.status == "succeeded", "output": build.log}
    return answer


def hash_response(algorithm: Algorithm, base_url: str) -> Object:
    """What creating and updating answer."""
    return version_response(algorithm, None, None, base_url)


def build_object(build: Build, version: Version | None) -> Object:
    """A build without its log; `version` is what became of it, where it has been published."""
    answer: Object = {
        "build_id": public_id(build.id),
        "status": _STATUS[build.status],
        "commit_sha": build.hash,
        "started_at": iso_time(build.started_at),
        "resource_type": "algorithm_build",
    }
    if build.finished_at is not None:
        answer["finished_at"] = iso_time(build.finished_at)
    if version is not None and version.semver is not None:
        answer["version_info"] = {"semantic_version": version.semver}
    return answer


def page(results: Sequence[Any], marker: str | None, next_link: str | None) -> Object:
    return {"marker": marker, "next_link": next_link, "results": results}


def algorithm_link(algorithm: Algorithm, base_url: str) -> str:
    return f"{base_url}/v1/algorithms/{algorithm.owner}/{algorithm.name}"


def settings_object(algorithm: Algorithm, version: Version | None) -> Object:
    """What a version was published with, and else the algorithm's settings of today. What it may do is what its own
    manifest says: that is what is enforced."""
    settings = {
        "algorithm_callability": algorithm.visibility,
        "source_visibility": "closed",
        "license": "apl",
        "environment": "cpu",
        "royalty_microcredits": 0,
        "network_access": "isolated",
        "pipeline_enabled": False,
        "insights_enabled": False,
        **algorithm.settings,
    }
    if version is not None:
        settings |= version.details.get("settings", {})
        settings["algorithm_callability"] = "public" if version.public else "private"
        if "permissions" in version.manifest:
            permissions = version.manifest["permissions"]
            settings["network_access"] = "full" if permissions.get("network") else "isolated"
            settings["pipeline_enabled"] = bool(permissions.get("calls"))
        if "language" in version.manifest:
            language = version.manifest["language"]
            settings.setdefault("language", "python3" if language == "python" else language)
    return settings


def _details(algorithm: Algorithm) -> Object:
    details = algorithm.details
    return {
        "label": details.get("label") or algorithm.name,
        "summary": details.get("summary", ""),
        "tagline": algorithm.tagline,
    }


def _version_info(algorithm: Algorithm, version: Version) -> Object:
    details = version.details
    insights = settings_object(algorithm, version)["insights_enabled"]
    info: Object = {
        "git_hash": version.git_hash,
        "version_uuid": public_id(version.id),
        "insights_enabled": insights,
    }
    if version.semver is not None:
        info["semantic_version"] = version.semver
    if version.published_at is not None:
        info["published_at"] = iso_time(version.published_at)
    info |= {key: details[key] for key in ("release_notes", "sample_input", "sample_output") if key in details}
    sample = version.manifest.get("sample") or {}
    for ours, theirs in (("input", "sample_input"), ("output", "sample_output")):
        if theirs not in info and sample.get(ours) is not None:
            info[theirs] = msgspec.json.encode(sample[ours]).decode()
    if "sample_input" not in info and "sample_input" in algorithm.details:
        info["sample_input"] = algorithm.details["sample_input"]
    if version.deprecation is not None:
        info["deprecation"] = version.deprecation
    return info
