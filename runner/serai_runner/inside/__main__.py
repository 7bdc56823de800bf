"""Start of a box: say that we stand, get the job, confine ourselves, then do it.

The host runs this with `python -I -S -B -c …`, so that neither the environment, the current directory nor
site-packages decide what we import. The one argument is JSON: how to reach the host. The job comes from there.
"""

from __future__ import annotations

import json
import os
import sys

from serai_runner.inside import confine
from serai_runner.inside.host_link import HostLink, reach
from serai_runner.inside.output import Output


def main() -> None:
    link = HostLink(reach(json.loads(sys.argv.pop())))
    sys.argv[:] = ["serai"]
    work(link, link.ask_job())


def work(link: HostLink, job: dict) -> None:
    """Do the job; does not return."""
    link.keep_lifeline()
    output = Output(link.output)
    confine.limit(job["rlimits"])
    os.environ.clear()
    os.environ.update(job["variables"])
    os.environ.update(link.door_variables(job["key"]))
    os.chdir(job["algorithm"])
    if job["kind"] == "algorithmia":
        from serai_runner.inside import pipe

        pipe.serve(link, output, job)
    elif job["fork_after"]:
        from serai_runner.inside import template

        template.serve(link, output, job)
    else:
        from serai_runner.inside import native

        native.serve(link, output, job)
    output.flush()
    os._exit(0)  # threads of the author must not keep a replica alive that nobody talks to


if __name__ == "__main__":
    main()
