"""What tests of sandboxes need: a box whose code has run, and an internet of our own."""

import asyncio
import contextlib
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

from serai import _wire
from serai_runner.replicas.boot import Boot, send_job
from serai_runner.sandbox.base import Box, Sandbox
from serai_runner.sandbox.docker.engine import Engine
from serai_runner.sandbox.docker.labels import home_label
from serai_runner.sandbox.docker.options import DockerOptions
from serai_runner.scheduling.calls import Ending


class Events:
    """What a box said, and the means to wait for it."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.connected: asyncio.Future[socket.socket] = loop.create_future()
        self.ended: asyncio.Future[Ending] = loop.create_future()

    def on_connected(self, sock: socket.socket) -> None:
        assert not self.ended.done()
        self.connected.set_result(sock)

    def on_booted(self, sock: socket.socket, door: socket.socket | None) -> None:
        raise AssertionError("a sandbox says that a box has connected, and no more")

    def on_ended(self, ending: Ending) -> None:
        self.ended.set_result(ending)  # a second end is an InvalidStateError in the log, and the test's failure


class RunningCode:
    """A box whose author's code is at work, or has been."""

    def __init__(self, sandbox: Sandbox, box: Box) -> None:
        self.events = Events()
        self._job = sandbox.job(box).encode()
        self.output = os.memfd_create("output")
        fcntl.fcntl(self.output, fcntl.F_SETFL, os.O_APPEND)
        self.running = sandbox.start(box, self.output, self.events)
        self._held: list[socket.socket] = []

    async def boot(self) -> None:
        loop = asyncio.get_running_loop()
        booted: asyncio.Future[socket.socket] = loop.create_future()

        def on_booted(sock: socket.socket, door: socket.socket | None) -> None:
            if door is not None:
                door.close()
            booted.set_result(sock)

        Boot(await self.events.connected, on_booted)
        self.sock = await booted
        self._held = [self.sock, send_job(self.sock, self._job, self.output)]

    async def said(self) -> bytes:
        """What its code printed while it was imported."""
        await self.boot()
        loop = asyncio.get_running_loop()
        data = b""
        while len(data) < 6 or len(data) < 4 + int.from_bytes(data[:4], "little"):
            part = await loop.sock_recv(self.sock, 65536)
            assert part, os.pread(self.output, 4096, 0)
            data += part
        header_bytes = int.from_bytes(data[4:6], "little")
        message = _wire.unpack_header(data[6 : 6 + header_bytes])
        assert not message[1], message
        return data[6 + header_bytes :]

    async def end(self) -> Ending:
        ending = await self.events.ended
        self.close()
        return ending

    def close(self) -> None:
        for sock in self._held:
            sock.close()
        if self.events.connected.done():
            self.events.connected.result().close()
        os.close(self.output)


def sweep_containers(home: Path) -> int:
    """Remove what killed hosts of this home have left, as the next one would. How many there were."""
    engine = Engine(DockerOptions().engine)
    with contextlib.closing(engine):
        left = engine.containers(f"serai.home={home_label(home)}")
        for container in left:
            engine.remove(container.id)
    return len(left)


class Internet:
    """A network namespace that this machine routes some addresses to, with a listener on each of them.

    Port 8080 says the address that was called. Port 53 answers every question with `public`.
    """

    def __init__(self) -> None:
        self.name = f"inet-{os.getpid()}"
        part = os.getpid() % 60
        self._cable = f"inet{os.getpid() % 100_000}"
        #: This machine, on the way there; then addresses that are public, private, link-local, and a name server's.
        self.machine = f"203.0.113.{4 * part + 1}"
        self.public = f"203.0.113.{4 * part + 2}"
        self.private = f"10.91.{part}.10"
        self.metadata = f"169.254.77.{part + 1}"
        self.name_server = f"10.91.{part}.53"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Internet":
        try:
            self._lay_cable()
            words = ["nsenter", f"--net=/run/netns/{self.name}", "--", sys.executable, "-c", _LISTEN, self.public]
            self._process = subprocess.Popen(words, stdout=subprocess.PIPE)
            assert self._process.stdout is not None and self._process.stdout.readline() == b"listening\n"
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        for words in (["link", "delete", self._cable], ["netns", "delete", self.name]):
            subprocess.run(["ip", *words], check=False, stderr=subprocess.DEVNULL)

    def resolv_conf(self, folder: Path) -> Path:
        path = folder / "resolv.conf"
        path.write_text(f"search example\nnameserver 127.0.0.1\nnameserver {self.name_server}\n")
        return path

    def _lay_cable(self) -> None:
        others = [self.private, self.metadata, self.name_server]
        _ip(
            f"netns add {self.name}",
            f"link add {self._cable} type veth peer name eth0 netns {self.name}",
            f"addr add {self.machine}/30 dev {self._cable}",
            f"link set {self._cable} up",
        )
        inside = [f"addr add {address}/32 dev lo" for address in others]
        inside += ["link set lo up", f"addr add {self.public}/30 dev eth0", "link set eth0 up"]
        _ip(*inside, namespace=self.name)
        _ip(*(f"route add {address}/32 via {self.public}" for address in others))


def _ip(*commands: str, namespace: str = "") -> None:
    words = ["ip", *(["-n", namespace] if namespace else []), "-batch", "-"]
    subprocess.run(words, input="\n".join([*commands, ""]), text=True, check=True)


_LISTEN = """
import socket, struct, sys, threading
answer = socket.inet_aton(sys.argv[1])
web = socket.create_server(("0.0.0.0", 8080))
names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind(("0.0.0.0", 53))
names.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO: to answer from the address that was asked

def tell_names():
    while True:
        data, extra, _, peer = names.recvmsg(512, 64)
        end = data.index(0, 12) + 5
        is_a = data[end - 4 : end - 2] == bytes([0, 1])
        head = data[:2] + struct.pack(">HHHHH", 0x8180, 1, is_a, 0, 0) + data[12:end]
        record = struct.pack(">HHHIH", 0xC00C, 1, 1, 60, 4) + answer
        asked = extra[0][2][8:12]
        info = struct.pack("I4s4s", 0, asked, asked)
        names.sendmsg([head + record * is_a], [(socket.IPPROTO_IP, 8, info)], 0, peer)

threading.Thread(target=tell_names, daemon=True).start()
print("listening", flush=True)
while True:
    sock, _ = web.accept()
    with sock:
        sock.sendall(sock.getsockname()[0].encode())
"""
