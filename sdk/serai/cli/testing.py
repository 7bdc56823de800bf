"""A terminal for tests of what the command writes on one."""

import os
import pty
import subprocess
from collections.abc import Sequence


def run_on_terminal(command: Sequence[str], *, shows_stderr: bool = False, **environ: str) -> tuple[int, str, str]:
    """Run a command whose stdout is a terminal: its exit status, what was shown, and stderr unless it was shown too."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, **environ, "TERM": "xterm"}
    stderr = theirs if shows_stderr else subprocess.PIPE
    with subprocess.Popen(command, stdout=theirs, stderr=stderr, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 65536):
                shown += piece
        except OSError:  # Linux says this when the last writer has closed
            pass
        os.close(ours)
        _, err = process.communicate(timeout=60)
    return process.returncode, shown.decode().replace("\r\n", "\n"), (err or b"").decode()
