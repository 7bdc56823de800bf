"""Start of a replica: confine ourselves, take the socket out of reach, then serve.

The host runs this with `python -I -S -B -c …`, so that neither the environment, the current directory nor
site-packages decide what we import. The one argument is JSON, see `serai_runner.sandbox.base.Box.arguments`.
"""

import json
import os
import socket
import sys

from serai_runner.inside import confine, native, pipe
from serai_runner.inside.output import Output

#: Our own descriptors live from here on, where programs that count from 0 do not meet them.
_FIRST_OWN_FD = 200


def main() -> None:
    job = json.loads(sys.argv.pop())
    sys.argv[:] = ["serai"]
    confine.limit(job["rlimits"])
    if job["parent"]:
        confine.die_with(job["parent"])
    os.chdir(job["algorithm"])
    sock = socket.socket(fileno=_own(job["fd"]))
    os.close(job["fd"])
    output = Output(_own(1))
    serve = native.serve if job["kind"] == "python" else pipe.serve
    serve(sock, output, job)
    output.flush()
    os._exit(0)  # threads of the author must not keep a replica alive that nobody talks to


def _own(fd: int) -> int:
    """A duplicate in our range that children do not inherit."""
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_OWN_FD)


if __name__ == "__main__":
    main()
