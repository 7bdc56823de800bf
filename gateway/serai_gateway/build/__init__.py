"""The build: from an author's folder to a version that can be called."""

from serai_gateway.build.archive import extract
from serai_gateway.build.collection import collect
from serai_gateway.build.errors import (
    BuildError,
    FetchFailed,
    InvalidManifest,
    InvalidModel,
    InvalidRequirements,
    UnsafeTree,
)
from serai_gateway.build.first_party import Report, publish_first_party
from serai_gateway.build.manifest import Manifest
from serai_gateway.build.paths import TreeLimits
from serai_gateway.build.pipeline import Probe, Publish, Source, algorithm_of, build_commit, build_folder, read_manifest
from serai_gateway.build.spec import manifest_of, to_spec
from serai_gateway.build.sweep import sweep

__all__ = [
    "BuildError",
    "FetchFailed",
    "InvalidManifest",
    "InvalidModel",
    "InvalidRequirements",
    "Manifest",
    "Probe",
    "Publish",
    "Report",
    "Source",
    "TreeLimits",
    "UnsafeTree",
    "algorithm_of",
    "build_commit",
    "build_folder",
    "collect",
    "extract",
    "manifest_of",
    "publish_first_party",
    "read_manifest",
    "sweep",
    "to_spec",
]
