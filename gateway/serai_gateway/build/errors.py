"""Why a build did not become a version.

BuildError
├── UnsafeTree        a file or name that we do not take in
├── InvalidManifest   algorithm.toml or algorithmia.conf
├── InvalidModel      a model file that may not run here
├── InvalidRequirements
├── FetchFailed       something from a package index did not come: worth another try
└── CalledOff         nobody wants the build any more, or Serai is stopping
"""


class BuildError(Exception):
    """The author can read why, and what to change."""


class UnsafeTree(BuildError):
    """A file or name that we do not take in."""


class InvalidManifest(BuildError):
    """algorithm.toml or algorithmia.conf does not say what we need."""


class InvalidModel(BuildError):
    """A model file that may not run here."""


class InvalidRequirements(BuildError):
    """A line of requirements.txt that we do not install."""


class FetchFailed(BuildError):
    """Something from a package index did not come: worth another try."""


class CalledOff(BuildError):
    """Nobody wants the build any more, or Serai is stopping."""
