"""What a model takes without any server: a process of its own, one thread, `session.run` in a loop."""

import json
import subprocess
import sys
import time
from pathlib import Path

#: Sizes of batches that are measured.
SIZES = (1, 2, 4, 8, 16, 32, 64)
#: So long each size is run; a median over more would only see more of the neighbours.
_SECONDS_A_SIZE = 0.25


def run_seconds(model: Path, width: int) -> dict[int, float]:
    """Seconds of one run by batch size, for a model that takes float32 [rows, width] as "x"."""
    command = [sys.executable, "-m", "benchmarks.in_process", str(model), str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {int(size): took_s for size, took_s in json.loads(done.stdout).items()}


def main() -> None:
    import numpy as np

    from benchmarks.by_hand import open_session

    session, width = open_session(Path(sys.argv[1])), int(sys.argv[2])
    found: dict[int, float] = {}
    for size in SIZES:
        rows = np.random.default_rng(0).random((size, width), np.float32)
        session.run(None, {"x": rows})
        took: list[float] = []
        until = time.perf_counter() + _SECONDS_A_SIZE
        while not took or time.perf_counter() < until:
            began = time.perf_counter()
            session.run(None, {"x": rows})
            took.append(time.perf_counter() - began)
        found[size] = sorted(took)[len(took) // 2]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
