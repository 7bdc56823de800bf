"""No sandbox: a process of our own user with resource limits. For machines where bubblewrap does not work."""

import os
from pathlib import Path

from serai_runner.sandbox.base import INSIDE_FOLDER, SDK_FOLDER, Box, SandboxUnavailable, replica_command
from serai_runner.sandbox.base import replica_environment as _replica_environment


class Plain:
    """An author's code can read and change all that our user can."""

    name = "none"
    is_isolating = False

    def __init__(self, run_directory: Path) -> None:
        self._runtime = run_directory / "runtime"

    def command(self, box: Box) -> list[str]:
        if box.spec.kind == "algorithmia":
            raise SandboxUnavailable(
                "algorithmia.conf repositories answer through /tmp/algoout and need a /tmp of their own: "
                "install bubblewrap on this machine"
            )
        return replica_command(box, self._ensure_runtime(), box.spec.code, box.spec.environment, os.getpid())

    def environment(self, box: Box) -> dict[str, str]:
        return _replica_environment(box, f"{box.models}/pool.sock")

    def _ensure_runtime(self) -> str:
        """A folder with links to what a sandbox would mount: nothing else of ours is importable."""
        package = self._runtime / "serai_runner"
        package.mkdir(parents=True, exist_ok=True)
        for link, target in ((self._runtime / "serai", SDK_FOLDER), (package / "inside", INSIDE_FOLDER)):
            if not link.is_symlink() or Path(os.readlink(link)) != target:
                link.unlink(missing_ok=True)
                link.symlink_to(target)
        return str(self._runtime)
