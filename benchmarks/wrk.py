"""Load from wrk (Debian package `wrk`): closed loop, exact percentiles."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

_SCRIPT = """
local body = io.open(os.getenv("BENCH_BODY"), "rb")
wrk.body = body:read("*a")
body:close()
wrk.method = "POST"
for line in string.gmatch(os.getenv("BENCH_HEADERS"), "[^\\n]+") do
  local name, value = string.match(line, "^(.-): (.*)$")
  wrk.headers[name] = value
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT{"num":%d,"us":%d,"p50":%.1f,"p99":%.1f,"errors":%d}\\n', summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass(frozen=True)
class Load:
    """One measured run. Times in ms."""

    per_second: float
    p50_ms: float
    p99_ms: float
    num_errors: int


def require() -> None:
    if shutil.which("wrk") is None:
        sys.exit("the benchmarks need wrk: apt-get install wrk")


def run(url: str, body: bytes, headers: dict[str, str], *, connections: int, seconds: float) -> Load:
    """POST `body` to `url` over `connections` for `seconds`."""
    with tempfile.TemporaryDirectory() as folder:
        script, body_file = Path(folder, "post.lua"), Path(folder, "body")
        script.write_text(_SCRIPT)
        body_file.write_bytes(body)
        lines = "\n".join(f"{name}: {value}" for name, value in headers.items())
        environment = {**os.environ, "BENCH_BODY": str(body_file), "BENCH_HEADERS": lines}
        command = [
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "--timeout",
            "20s",
            "-s",
            str(script),
            url,
        ]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=seconds + 60, check=True
        )
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))
    found = json.loads(line.removeprefix("RESULT"))
    return Load(found["num"] / found["us"] * 1e6, found["p50"] / 1e3, found["p99"] / 1e3, found["errors"])
