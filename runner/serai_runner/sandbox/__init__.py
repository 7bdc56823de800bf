"""Where replicas run. One narrow protocol, a file per implementation, chosen here by name."""

from serai_runner.sandbox.base import Box, Sandbox, SandboxUnavailable
from serai_runner.sandbox.bubblewrap import Bubblewrap
from serai_runner.sandbox.plain import Plain
from serai_runner.settings import Settings

__all__ = ["Box", "Sandbox", "SandboxUnavailable", "choose_sandbox"]


def choose_sandbox(settings: Settings) -> tuple[Sandbox, str]:
    """The sandbox to use, and a warning to show (empty: none).

    Raises:
        SandboxUnavailable: the settings ask for one that does not work here.
    """
    plain = Plain(settings.run_directory)
    if settings.sandbox == "none":
        return plain, "replicas run WITHOUT a sandbox: an author's code can read and change all that this user can"
    try:
        return Bubblewrap.probe(settings), ""
    except SandboxUnavailable as error:
        if settings.sandbox == "bubblewrap":
            raise
        return plain, f"replicas run WITHOUT a sandbox ({error}): publish only code that you trust"
