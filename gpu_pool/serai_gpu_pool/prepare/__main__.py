"""python -m serai_gpu_pool.prepare: in the box. The job comes as a line of JSON on standard input; see `job.py`."""

import os
import resource
import sys
import threading
import traceback
from pathlib import Path

import msgspec

from serai_gpu_pool.device import process_control
from serai_gpu_pool.prepare.job import RESULT, Answer, Failed, Job


class _Result:
    """The one file that is the answer: written once, whoever comes first."""

    def __init__(self, job: Job) -> None:
        self._path = Path(job.folder) / RESULT
        self._lock = threading.Lock()
        self._give_up_s = job.give_up_s

    def opened(self, answer: Answer) -> None:
        """From now on there is something to fall back on."""
        timer = threading.Timer(self._give_up_s, self.end, (answer,))
        timer.daemon = True
        timer.start()

    def end(self, answer: Answer) -> None:
        with self._lock:
            self._path.write_bytes(msgspec.json.encode(answer))
            os._exit(0)  # threads of a framework may hang at an orderly end


def main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.readline(), type=Job)
    process_control.die_with(job.parent)
    threading.Thread(target=_end_with_input, daemon=True).start()
    _limit(job)
    from serai_gpu_pool.prepare.inside import prepare_inside  # slow, and within the limits

    process_control.limit_memory(job.memory_bytes)
    result = _Result(job)
    try:
        answer = prepare_inside(job, result.opened)
    except MemoryError:
        answer = Failed("memory", f'model "{job.spec.name}" cannot be loaded: not enough memory')
    except Exception:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    result.end(answer)


def _end_with_input() -> None:
    """Whoever asked holds the other end of our input for as long as the answer is of use."""
    os.read(0, 1)
    os._exit(1)


def _limit(job: Job) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (job.cpu_s, job.cpu_s))
    resource.setrlimit(resource.RLIMIT_FSIZE, (job.file_bytes, job.file_bytes))
    if job.processes:
        resource.setrlimit(resource.RLIMIT_NPROC, (job.processes, job.processes))


if __name__ == "__main__":
    main()
