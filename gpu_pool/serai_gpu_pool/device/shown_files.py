"""Which files of the store a worker in a box may read: a folder of links, mounted read-only, with one while it is
loaded.

Not as descriptors: those of a file that our own user may write can be opened again for writing from inside.
"""

import contextlib
import errno
import os
import shutil
from pathlib import Path

from serai.ipc.messages import ModelSpec

#: Where the folder is inside the box.
SHOWN_AT = "/models"


class ShownFiles:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, str] = {}  # by the model's key

    def show(self, model: ModelSpec) -> str:
        """Make a model's file visible; its path inside. Raises OSError."""
        name = model.sha256
        try:
            os.link(model.path, self.folder / name)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            shutil.copyfile(model.path, self.folder / name)  # the store is on another file system
        self._names[model.key] = name
        return f"{SHOWN_AT}/{name}"

    def hide(self, key: str) -> None:
        """Take it away again. A worker that has it open or mapped keeps it."""
        name = self._names.pop(key, None)
        if name is not None and name not in self._names.values():
            with contextlib.suppress(FileNotFoundError):
                (self.folder / name).unlink()
