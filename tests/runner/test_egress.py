"""Boxes with a network reach public addresses, and nothing that is private, the machine's or another box's."""

import asyncio
import contextlib
import ipaddress
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from serai_runner.sandbox.base import Box, Limits
from serai_runner.sandbox.docker.engine import Engine
from serai_runner.sandbox.docker.sandbox import Docker, DockerOptions
from serai_runner.sandbox.egress import rules
from serai_runner.sandbox.egress.egress import DOCKER_NETWORK, Egress, EgressError
from serai_runner.sandbox.egress.firewall import Firewall, run
from serai_runner.sandbox.testing import Internet, RunningCode
from serai_runner.testing import PATIENCE_S, python_version, write_algorithm

#: What a box says about addresses: what it heard there, or why it heard nothing.
PROBE = """
import errno, json, socket
def call(address, port=8080):
    try:
        with socket.create_connection((address, port), timeout=5) as sock:
            return sock.recv(100).decode()
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
def resolve(name):
    try:
        return socket.gethostbyname(name)
    except OSError as error:
        return str(error)
"""


# Pure


def is_let_out(address: str) -> bool:
    return not any(ipaddress.ip_address(address) in ipaddress.ip_network(network) for network in rules.REFUSED)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "9.255.255.255", "11.0.0.0", "100.128.0.1", "172.32.0.1", "223.255.0.1"]
)
def test_public_addresses_are_let_out(address):
    assert is_let_out(address)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "100.100.100.200", "127.0.0.1", "169.254.169.254", "172.31.255.255"),
        *("192.0.0.192", "192.168.1.1", "198.18.0.1", "198.19.255.255", "224.0.0.1", "255.255.255.255"),
        *("168.63.129.16", rules.box_address(0), rules.box_address(65_023)),
    ],
)
def test_all_others_are_refused(address):
    assert not is_let_out(address)


def test_every_address_that_is_let_out_is_a_global_one():
    edges = {int(end) + step for network in map(ipaddress.ip_network, rules.REFUSED)
             for end in (network[0], network[-1]) for step in (-1, 1)}  # fmt: skip
    documented = [ipaddress.ip_network(net) for net in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]
    for number in (edge for edge in edges if 0 <= edge < 1 << 32):
        address = ipaddress.ip_address(number)
        assert not is_let_out(str(address)) or address.is_global or any(address in net for net in documented)


def test_refusals_stand_below_the_name_servers_and_above_the_end():
    lines = [line for line in rules.chains(["10.0.0.53"]).splitlines() if line.startswith(f"-A {rules.FORWARD} ")]
    kinds = ["53" if "--dport 53" in line else line.split(" -j ")[1].split()[0] for line in lines]
    assert kinds == ["ACCEPT", "53", "53", *["REJECT"] * (len(rules.REFUSED) + 1), "ACCEPT"]
    assert rules.chains([]).splitlines().count(f"-A {rules.INPUT} -j REJECT --reject-with icmp-admin-prohibited") == 1
    assert "ACCEPT" not in rules.chains_6()


def test_name_servers_are_those_that_a_box_can_reach():
    text = (
        "# nameserver 1.1.1.1\nsearch x\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver\nnameserver fe80::1\n"
    )
    assert rules.name_servers(text + "nameserver 10.0.0.2\nnameserver 9.9.9.9; reboot\nnameserver 8.8.8.8 # x\n") == [
        *("10.0.0.2", "8.8.8.8"),
    ]


def test_a_rule_of_others_above_ours_is_seen():
    ours = "-A INPUT -i serai0 -j SERAI-EGRESS-IN"
    first, second = f"*filter\n{ours}\n-A INPUT -j ACCEPT\n", f"*filter\n-A INPUT -j ACCEPT\n{ours}\n"
    assert rules.standing(first) == (ours,) and rules.standing(second) == ()
    assert rules.standing(first + ":DOCKER-USER - [0:0]\n") != rules.standing(first)


# Real


@pytest.fixture(scope="module")
def internet() -> Iterator[Internet]:
    can_look = os.geteuid() == 0 and shutil.which("iptables-save") is not None
    had_rules = can_look and ":SERAI-EGRESS " in run("iptables-save")
    problem = Egress(Path("/nowhere")).check()
    if problem:
        reason = f"boxes can have no network here: {problem}"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    with Internet() as internet:
        yield internet
    if not had_rules:
        Firewall.remove()


@pytest.fixture
def egress(tmp_path: Path, internet: Internet) -> Iterator[Egress]:
    egress = Egress(tmp_path, internet.resolv_conf(tmp_path))
    try:
        yield egress
    finally:
        assert not list(Path("/run/netns").glob(f"serai-*-{os.getpid()}-*"))
        Egress(tmp_path).check()  # with this machine's own name servers again


@contextlib.contextmanager
def machine_listens() -> Iterator[int]:
    """A port of this machine on all of its addresses."""
    with socket.create_server(("", 0)) as server:
        yield server.getsockname()[1]


def ask(namespace: Path, expression: str):
    words = ["nsenter", f"--net={namespace}", "--", sys.executable, "-c", f"{PROBE}\nprint(json.dumps({expression}))"]
    return json.loads(subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=True).stdout)


def test_a_namespace_reaches_public_addresses_and_nothing_else(egress, internet):
    namespace, other = egress.namespace(1), egress.namespace(2)
    try:
        assert ask(namespace, f"call({internet.public!r})") == internet.public
        for address in (internet.private, internet.metadata, internet.name_server):
            assert ask(namespace, f"call({address!r})") == "EHOSTUNREACH"
        with machine_listens() as port:
            for address in (internet.machine, "169.254.1.1", _own_address(), "172.17.0.1"):
                assert ask(namespace, f"call({address!r}, {port})") == "EHOSTUNREACH", address
            assert ask(namespace, f"call('127.0.0.1', {port})") == "ECONNREFUSED"  # its own, empty one
        assert ask(namespace, f"call({_address_in(other)!r})") == "EHOSTUNREACH"
        assert ask(namespace, "open('/proc/net/if_inet6').read()") == ""
    finally:
        egress.remove(1)
        egress.remove(2)
    assert not namespace.exists()


def test_names_are_resolved_by_the_machines_name_servers_wherever_they_are(egress, internet):
    namespace = egress.namespace(1)
    try:
        assert egress.resolv_conf().read_text() == f"nameserver {internet.name_server}\n"
        words = ["unshare", "--mount", "sh", "-c"]
        script = 'mount --bind "$1" /etc/resolv.conf; shift; exec "$@"'
        code = f"{PROBE}\nprint(resolve('somewhere.example'))"
        words += [script, "sh", str(egress.resolv_conf()), sys.executable, "-c", code]
        words = ["nsenter", f"--net={namespace}", "--", *words]
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
        assert done.stdout.strip() == internet.public
    finally:
        egress.remove(1)


def test_rules_that_somebody_took_away_are_there_again_for_the_next_box(egress, internet):
    assert egress.check() == ""
    before = rules.standing(run("iptables-save"))
    first = next(line for line in before if line.endswith(f"-j {rules.INPUT}"))
    run("iptables", "-F", rules.FORWARD)
    run("iptables", "-D", *first.split()[1:])
    assert rules.standing(run("iptables-save")) != before
    egress.namespace(1)
    egress.remove(1)
    assert sorted(rules.standing(run("iptables-save"))) == sorted(before)


def test_what_a_dead_host_left_is_taken_away(egress, tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    place = egress.namespace(3)
    left = place.with_name(place.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
    run("ip", "netns", "add", left.name)
    egress.remove(3)
    Egress(tmp_path, tmp_path / "resolv.conf").namespace(3)
    egress.remove(3)
    assert not left.exists()


def test_without_a_name_server_that_a_box_could_reach_there_is_no_network(tmp_path):
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    egress = Egress(tmp_path, tmp_path / "resolv.conf")
    if not Path("/run/systemd/resolve/resolv.conf").exists():
        assert "names no server that a box could reach" in egress.check()
        with pytest.raises(EgressError, match="names no server"):
            egress.namespace(1)


def test_a_user_that_is_not_root_is_told_why(tmp_path, monkeypatch):
    (tmp_path / "resolv.conf").write_text("nameserver 10.0.0.1\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "only root can set the firewall" in Egress(tmp_path, tmp_path / "resolv.conf").check()


@pytest.mark.needs_docker
def test_a_container_reaches_public_addresses_and_nothing_else(egress, internet, tmp_path):
    engine = Engine(DockerOptions().engine)
    had_network = engine.network_options(DOCKER_NETWORK) is not None
    limits = Limits(memory_bytes=256 << 20, pids=64, cpus=1.0, tmp_bytes=8 << 20)

    async def scenario():
        sandbox = Docker(tmp_path, DockerOptions(), engine, "", egress)
        try:
            async with asyncio.timeout(PATIENCE_S):
                source = "import socket\nprint(socket.gethostbyname(socket.gethostname()))\ndef apply(i): pass"
                spec = python_version(write_algorithm(tmp_path / "other", source), network=True)
                other = RunningCode(sandbox, Box(1, spec, limits))
                neighbour = (await other.said()).decode().strip()
                gateway = str(ipaddress.ip_address(neighbour) - (int(ipaddress.ip_address(neighbour)) & 0xFFFF) + 1)
                with machine_listens() as port:
                    machine = [internet.machine, gateway, _own_address(), "172.17.0.1"]
                    asked = [*((a, 8080) for a in (internet.public, internet.private, internet.metadata, neighbour)),
                             *((a, port) for a in machine)]  # fmt: skip
                    source = f"{PROBE}\nimport sys\nprint(json.dumps([[call(*each) for each in {asked!r}], "
                    source += "resolve('somewhere.example'), open('/proc/net/if_inet6').read()]))\ndef apply(i): pass"
                    spec = python_version(write_algorithm(tmp_path / "code", source), network=True)
                    code = RunningCode(sandbox, Box(2, spec, limits))
                    said = json.loads(await code.said())
                for each in (code, other):
                    each.running.kill()
                    await each.end()
        finally:
            await sandbox.close()
        return said

    try:
        calls, name, addresses_6 = asyncio.run(scenario())
    finally:
        if not had_network:
            with contextlib.closing(Engine(DockerOptions().engine)) as engine:
                engine.api.remove_network(DOCKER_NETWORK)
    assert calls == [internet.public, *["EHOSTUNREACH"] * 7]
    assert name == internet.public and addresses_6 == ""


def _own_address() -> str:
    """One that others know this machine by."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("192.0.2.200", 9))  # sends nothing
        return sock.getsockname()[0]


def _address_in(namespace: Path) -> str:
    text = run("ip", "-n", namespace.name, "-4", "-o", "addr", "show", "dev", "eth0")
    return text.split()[3].partition("/")[0]
