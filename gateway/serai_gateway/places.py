"""Where things lie that come with Serai itself."""

from pathlib import Path


def first_party_folder() -> Path | None:
    """OWNER/NAME folders of algorithms: inside the installed package, or in the repository that it runs from."""
    package = Path(__file__).resolve().parent
    for folder in (package / "first_party", package.parent.parent / "algorithms"):
        if folder.is_dir():
            return folder
    return None
