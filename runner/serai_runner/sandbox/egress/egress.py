"""The network of boxes that may use one: public addresses and the machine's name servers, and nothing else.

A box of bubblewrap gets a network namespace with a cable of its own to the machine, Docker's containers get a bridge.
The same rules of the machine's firewall hold for both.
"""

import contextlib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from serai_runner.sandbox.egress import rules
from serai_runner.sandbox.egress.firewall import EgressError, Firewall, run

if TYPE_CHECKING:
    from serai_runner.sandbox.docker.engine import Engine

__all__ = ["DOCKER_NETWORK", "DOCKER_NETWORK_OPTIONS", "Egress", "EgressError"]

DOCKER_NETWORK = "serai-egress"
DOCKER_NETWORK_OPTIONS = {
    "com.docker.network.bridge.name": rules.BRIDGE,
    "com.docker.network.bridge.enable_icc": "false",  # containers do not see each other
}
_RESOLV_CONF = Path("/etc/resolv.conf")
#: systemd-resolved names only itself in /etc/resolv.conf, and here the servers that it asks.
_RESOLVED = Path("/run/systemd/resolve/resolv.conf")
_NAMESPACES = Path("/run/netns")
#: What passes between containers of one bridge is seen by the firewall only if this is on.
_BRIDGE_FILTER = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
#: The machine's end of every cable; a box has no other neighbour.
_GATEWAY = "169.254.1.1"
#: Tries to find a free address: with 10,000 boxes the first is free 5 times in 6.
_NUM_TRIES = 64


class Egress:
    """Everything here starts commands that take 10 to 60 ms together: call it from a thread."""

    def __init__(self, home: Path, resolv_conf: Path = _RESOLV_CONF) -> None:
        self._folder = home / "run" / "egress"
        self._source = resolv_conf
        self._firewall = Firewall()
        self._tag = hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:6]
        self._is_swept = False

    def check(self) -> str:
        """Why boxes cannot have a network here; empty: they can. Sets up the rules."""
        try:
            self._firewall.apply(self.name_servers())
        except EgressError as error:
            return str(error)
        return ""

    def docker_network(self, engine: "Engine") -> str:
        """Name of Docker's network for boxes. Made if it is not there, and the rules with it.

        Raises:
            EgressError: it cannot be made, or is not as we make it.
        """
        options = engine.network_options(DOCKER_NETWORK)
        if options is None:
            engine.create_network(DOCKER_NETWORK, DOCKER_NETWORK_OPTIONS)
            options = engine.network_options(DOCKER_NETWORK) or {}
        if not DOCKER_NETWORK_OPTIONS.items() <= options.items():
            raise EgressError(
                f"Docker's network {DOCKER_NETWORK} is not as Serai makes it: docker network rm {DOCKER_NETWORK}"
            )
        if not Path("/sys/class/net", rules.BRIDGE).exists():  # an engine of a user, or of another machine
            raise EgressError("the Docker engine has a network of its own, where this machine's firewall does not hold")
        self._firewall.apply(self.name_servers())
        if not _BRIDGE_FILTER.exists() or _BRIDGE_FILTER.read_text().strip() != "1":
            raise EgressError("the firewall does not see what passes between containers: modprobe br_netfilter")
        return DOCKER_NETWORK

    def namespace(self, number: int) -> Path:
        """A network namespace for one box, to be given to `nsenter --net=`.

        Raises:
            EgressError: it cannot be made.
        """
        self._firewall.apply(self.name_servers())
        self._write_resolv_conf()
        if not self._is_swept:
            self._is_swept = True
            self.sweep()
        name = self._name(number)
        cable = _cable(name)
        try:
            _batch(f"netns add {name}", f"link add {cable} type veth peer name eth0 netns {name}")
            _without_ipv6(name, cable)
            _batch(f"addr add {_GATEWAY}/32 dev {cable}", f"link set {cable} up")
            address = _claim_address(cable)
            _batch(
                "link set lo up",
                f"addr add {address}/32 dev eth0",
                "link set eth0 up",
                f"route add {_GATEWAY}/32 dev eth0",
                f"route add default via {_GATEWAY} dev eth0",
                namespace=name,
            )
        except EgressError:
            _remove(name)
            raise
        return _NAMESPACES / name

    def remove(self, number: int) -> None:
        """Take a namespace away again. Nothing where it is not there."""
        _remove(self._name(number))

    def sweep(self) -> None:
        """Take away what dead hosts left, of this home and of others."""
        for place in _NAMESPACES.glob(f"{rules.CABLE}*-*-*"):
            pid = place.name.split("-")[2]
            if pid.isdigit() and not Path("/proc", pid).exists():
                _remove(place.name)

    def name_servers(self) -> list[str]:
        """Those that boxes may ask. Raises EgressError: there are none."""
        for source in (self._source, _RESOLVED):
            with contextlib.suppress(OSError):
                found = rules.name_servers(source.read_text())
                if found:
                    return found
        raise EgressError(f"{self._source} names no server that a box could reach: name one that is not 127.0.0.1")

    def resolv_conf(self) -> Path:
        """What a box of bubblewrap needs as its /etc/resolv.conf. After `namespace`."""
        return self._folder / "resolv.conf"

    def _write_resolv_conf(self) -> None:
        text = "".join(f"nameserver {server}\n" for server in self.name_servers())
        path = self.resolv_conf()
        with contextlib.suppress(OSError):
            if path.read_text() == text:
                return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(text)  # in place: boxes that have it mounted see the change
        path.chmod(0o644)

    def _name(self, number: int) -> str:
        return f"{rules.CABLE}{self._tag}-{os.getpid()}-{number}"


def _cable(namespace: str) -> str:
    """The machine's end of a cable. Such names may have 15 letters."""
    return rules.CABLE + hashlib.sha256(namespace.encode()).hexdigest()[: 15 - len(rules.CABLE)]


def _remove(name: str) -> None:
    for words in (("link", "delete", _cable(name)), ("netns", "delete", name)):
        with contextlib.suppress(EgressError):
            run("ip", *words)


def _claim_address(cable: str) -> str:
    """The first free address: a route that somebody else has cannot be added a second time."""
    slot = int(cable.removeprefix(rules.CABLE), 16)
    for number in range(slot, slot + _NUM_TRIES):
        address = rules.box_address(number)
        try:
            run("ip", "route", "add", f"{address}/32", "dev", cable)
        except EgressError as error:
            if "File exists" not in str(error):
                raise
        else:
            return address
    raise EgressError(f"no free address in {rules.BOX_NETWORK}")


def _without_ipv6(namespace: str, cable: str) -> None:
    """The addresses that links give themselves would be a way to the machine."""
    ours = Path(f"/proc/sys/net/ipv6/conf/{cable}/disable_ipv6")
    if ours.exists():
        ours.write_text("1")
        off = "for file in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $file; done"
        run("nsenter", f"--net={_NAMESPACES / namespace}", "--", "sh", "-c", off)


def _batch(*commands: str, namespace: str = "") -> None:
    run("ip", *(["-n", namespace] if namespace else []), "-batch", "-", text="\n".join([*commands, ""]))
