"""What the hop through the runner host and a sandboxed replica costs, against an echo of the same frames without them.

    python benchmarks/runner_hop.py [--seconds 3] [--depth 32] [--bytes 1024] [--sandbox auto|none]

Prints calls per second with `depth` calls outstanding and the median at depth 1, for the echo and for the host, and
the processor time each process used per call. The client is part of both, so the ratio is what matters.
"""

import argparse
import asyncio
import multiprocessing
import statistics
import tempfile
import time
from pathlib import Path

import msgspec
import uvloop

from serai.ipc.frames import FrameProtocol
from serai.ipc.messages import Call, Define, Result, VersionSpec
from serai.ipc.sockets import serve_unix
from serai_runner.testing import descendants, python_version, run_host, write_algorithm

_encode = msgspec.msgpack.Encoder().encode
_decode_call = msgspec.msgpack.Decoder(Call | Define).decode
_decode_result = msgspec.msgpack.Decoder(Result).decode
_KEY = "bench/echo@1"


class Echo(FrameProtocol):
    """Decodes each call, answers with its payload: the least a server of these frames can do."""

    def frame_received(self, header: bytes, payload: bytes) -> None:
        message = _decode_call(header)
        if type(message) is Call:
            self.send_frame(_encode(Result(message.id, "json", 0.0)), payload)


class Client(FrameProtocol):
    """Keeps `depth` calls outstanding until `calls` have been answered."""

    def begin(self, depth: int, calls: int, payload: bytes) -> asyncio.Future[list[float]]:
        self.done: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
        self.left, self.open, self.payload = calls, 0, payload
        self.sent_at: dict[int, float] = {}
        self.took: list[float] = []
        for _ in range(min(depth, calls)):
            self._send()
        return self.done

    def _send(self) -> None:
        call_id = self.left
        self.left -= 1
        now = time.monotonic()
        self.sent_at[call_id] = now
        self.send_frame(_encode(Call(call_id, _KEY, "json", now + 60, "req-bench", "bench")), self.payload)

    def frame_received(self, header: bytes, payload: bytes) -> None:
        message = _decode_result(header)
        assert len(payload) == len(self.payload)
        self.took.append(time.monotonic() - self.sent_at.pop(message.id))
        if self.left:
            self._send()
        elif not self.sent_at:
            self.done.set_result(self.took)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


async def measure(path: Path, spec: VersionSpec, payload: bytes, depth: int, seconds: float, pids) -> dict:
    loop = asyncio.get_running_loop()
    _, client = await loop.create_unix_connection(Client, str(path))
    client.send_frame(_encode(Define(spec)))
    await client.begin(1, 200, payload)
    rough = await client.begin(depth, 4000, payload)
    rate = 4000 / (sum(rough) / depth)
    num_calls = int(rate * seconds)
    before = {pid: cpu_s(pid) for pid in pids()}
    began = time.monotonic()
    await client.begin(depth, num_calls, payload)
    took = time.monotonic() - began
    cpu = {pid: (cpu_s(pid) - before.get(pid, 0)) / num_calls * 1e6 for pid in pids()}
    single = await client.begin(1, 3000, payload)
    client.close()
    return {"rate": num_calls / took, "p50_us": statistics.median(single) * 1e6, "cpu_us": cpu}


def run_echo(path: str) -> None:
    async def serve() -> None:
        server = await serve_unix(Path(path), Echo)
        await server.serve_forever()

    uvloop.run(serve())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--depth", type=int, default=32)
    parser.add_argument("--bytes", type=int, default=1024)
    parser.add_argument("--sandbox", default="auto")
    given = parser.parse_args()
    payload = b'["' + b"x" * (given.bytes - 4) + b'"]'
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        code = write_algorithm(home / "code", "def apply(input):\n    return input\n")
        spec = python_version(code, key=_KEY)
        echo = multiprocessing.get_context("spawn").Process(target=run_echo, args=(str(home / "echo.sock"),))
        echo.start()
        try:
            while not (home / "echo.sock").exists():
                time.sleep(0.01)
            limit = uvloop.run(
                measure(home / "echo.sock", spec, payload, given.depth, given.seconds, lambda: [echo.pid])
            )
        finally:
            echo.terminate()
            echo.join()
        with run_host(home / "home", "--sandbox", given.sandbox, "--max-replicas", "1") as host:
            path = home / "home" / "run" / "runner.sock"
            ours = uvloop.run(
                measure(path, spec, payload, given.depth, given.seconds, lambda: [host.pid, *descendants(host.pid)])
            )
    for name, figures in (("echo", limit), ("host", ours)):
        cpu = " + ".join(f"{used:.1f}" for used in figures["cpu_us"].values() if used >= 0.05)
        print(f"{name}: {figures['rate']:,.0f} calls/s at depth {given.depth}, "
              f"p50 {figures['p50_us']:.0f} µs at depth 1, processor µs a call: {cpu}")  # fmt: skip
    print(f"ratio: {ours['rate'] / limit['rate']:.2f} of the echo's calls/s, "
          f"{(ours['p50_us'] - limit['p50_us']):.0f} µs more at depth 1")  # fmt: skip


if __name__ == "__main__":
    main()
