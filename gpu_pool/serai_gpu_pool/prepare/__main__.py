"""python -m serai_gpu_pool.prepare: in the box. The job comes as JSON on standard input; see `job.py`."""

import os
import resource
import sys
import traceback
from pathlib import Path

import msgspec

from serai_gpu_pool.device import process_control
from serai_gpu_pool.prepare.job import RESULT, Failed, Job


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    process_control.die_with(job.parent)
    _limit(job)
    from serai_gpu_pool.prepare.inside import prepare_inside  # slow, and within the limits

    process_control.limit_memory(job.memory_bytes)
    try:
        answer = prepare_inside(job)
    except MemoryError:
        answer = Failed("memory", f'model "{job.spec.name}" cannot be loaded: not enough memory')
    except Exception:
        traceback.print_exc()
        os._exit(1)
    (Path(job.folder) / RESULT).write_bytes(msgspec.json.encode(answer))
    os._exit(0)  # threads of a framework may hang at an orderly end


def _limit(job: Job) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (job.cpu_s, job.cpu_s))
    resource.setrlimit(resource.RLIMIT_FSIZE, (job.file_bytes, job.file_bytes))
    if job.processes:
        resource.setrlimit(resource.RLIMIT_NPROC, (job.processes, job.processes))


if __name__ == "__main__":
    main()
