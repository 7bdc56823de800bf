"""Which HTTP server carries the gateway: throughput, latency and CPU of three workers under gunicorn.

    python benchmarks/http_server.py [--rounds 5] [--seconds 4] [--server plain …]

Each server runs one worker process with the same echo app and gets 1 KB of JSON by POST from wrk, at 1 and at 32
connections. Rounds are interleaved, so that a noisy neighbour hits all of them; medians are printed, with the ratio to
the plain uvicorn worker of the same run. CPU time a request (of the whole process tree) hardly moves with
contention: where the two disagree, believe it. `asgi` uses its C parser when `gunicorn_h1c` is installed.
"""

import argparse
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

CONNECTIONS = (1, 32)
BODY = json.dumps({"values": [round(i * 0.137, 3) for i in range(140)], "name": "x" * 40}).encode()

APP = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def create(settings):
    return app
"""

WRK = """
local f = io.open(os.getenv("BODY_FILE"), "rb"); wrk.body = f:read("*a"); f:close()
wrk.method = "POST"; wrk.headers["Content-Type"] = "application/json"
function done(s, l, r)
  local e = s.errors
  io.write(string.format("RES %d %d %.1f %.1f %d\\n", s.requests, s.duration, l:percentile(50), l:percentile(99),
    e.status + e.connect + e.read + e.write + e.timeout))
end
"""


class Result(NamedTuple):
    per_second: float
    p50_us: float
    p99_us: float
    cpu_us: float  # of the server, a request


def command(server: str, fd: int, folder: Path) -> list[str]:
    gunicorn = [sys.executable, "-m", "gunicorn", "--no-control-socket", "--log-level", "error", "--workers", "1"]
    gunicorn += ["--bind", f"fd://{fd}", "--chdir", str(folder), "--keep-alive", "75"]
    return {
        "plain": [*gunicorn, "-k", "uvicorn_worker.UvicornWorker", "echo_app:app"],
        "asgi": [*gunicorn, "-k", "asgi", "echo_app:app"],
        "serai": [
            *(sys.executable, "-m", "serai_gateway.server", "--fd", str(fd), "--workers", "1"),
            *("--home", str(folder), "--app", "echo_app:create", "--log-level", "error"),
        ],
    }[server]


def process_tree(root: int) -> list[int]:
    found = [root]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            found.extend(int(child) for child in task.read_text().split())
    return found


def cpu_seconds(root: int) -> float:
    ticks = 0
    for pid in process_tree(root):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def wait_until_serving(port: int, deadline_s: float = 20.0) -> float:
    """Seconds until the first 200, sent on one connection that waits in the backlog."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=deadline_s) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY))
        answer = b""
        while BODY not in answer:
            data = client.recv(65536)
            if not data:
                raise RuntimeError(f"no echo: {answer[:300]!r}")
            answer += data
    return time.monotonic() - began


def measure(server: str, folder: Path, seconds: int) -> tuple[float, dict[int, Result]]:
    """Start one server, load it at each number of connections, stop it. Returns (start-up seconds, results)."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        port = listener.getsockname()[1]
        env = os.environ | {"PYTHONPATH": str(folder)}
        process = subprocess.Popen(command(server, listener.fileno(), folder), pass_fds=[listener.fileno()], env=env)
        try:
            started_s = wait_until_serving(port)
            load(port, 32, 1, folder)
            return started_s, {n: loaded(process.pid, port, n, seconds, folder) for n in CONNECTIONS}
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def loaded(pid: int, port: int, connections: int, seconds: int, folder: Path) -> Result:
    before = cpu_seconds(pid)
    count, duration_us, p50, p99, bad = load(port, connections, seconds, folder)
    if bad:
        raise RuntimeError(f"{bad:.0f} of {count:.0f} requests failed")
    return Result(count / duration_us * 1e6, p50, p99, (cpu_seconds(pid) - before) / count * 1e6)


def load(port: int, connections: int, seconds: int, folder: Path) -> tuple[float, ...]:
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(folder / "post.lua"), f"http://127.0.0.1:{port}/"]
    env = os.environ | {"BODY_FILE": str(folder / "body.json")}
    out = subprocess.run(["wrk", *options], env=env, check=True, capture_output=True, text=True).stdout
    found = re.search(r"^RES (.*)$", out, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"wrk said: {out}")
    return tuple(float(field) for field in found[1].split())


def table(starts: dict[str, list[float]], results: dict[str, list[dict[int, Result]]]) -> str:
    lines = ["| server | connections | requests/s | of plain | p50 µs | p99 µs | CPU µs a request | start s |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for n in CONNECTIONS:
        base = statistics.median(r[n].per_second for r in results["plain"]) if "plain" in results else float("nan")
        for server, rounds in results.items():
            rate, p50, p99, cpu = (statistics.median(values) for values in zip(*(r[n] for r in rounds), strict=True))
            fields = [f"{rate:,.0f}", f"{rate / base:.2f}", f"{p50:.0f}", f"{p99:.0f}", f"{cpu:.1f}"]
            lines.append(
                "| " + " | ".join((server, str(n), *fields, f"{statistics.median(starts[server]):.2f}")) + " |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--server", action="append", choices=("plain", "asgi", "serai"))
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    servers = options.server or ["plain", "asgi", "serai"]
    starts: dict[str, list[float]] = {server: [] for server in servers}
    results: dict[str, list[dict[int, Result]]] = {server: [] for server in servers}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "echo_app.py").write_text(APP)
        (folder / "post.lua").write_text(WRK)
        (folder / "body.json").write_bytes(BODY)
        for _ in range(options.rounds):
            for server in servers:
                started_s, measured = measure(server, folder, options.seconds)
                starts[server].append(started_s)
                results[server].append(measured)
    print(table(starts, results))


if __name__ == "__main__":
    main()
