"""What the firewall is told about boxes that may use the network, as text for `iptables-restore`. Pure."""

import ipaddress
from collections.abc import Sequence

#: The bridge of Docker's network, and what the host's ends of other boxes' cables begin with.
BRIDGE = "serai0"
CABLE = "serai-"
#: Our chains: for what boxes send on, for what they send to the machine itself, and for what others send to them.
FORWARD, INPUT, BACK = "SERAI-EGRESS", "SERAI-EGRESS-IN", "SERAI-EGRESS-BACK"
#: Addresses of boxes that are not Docker's: half of the range for measuring networks, which no network uses.
BOX_NETWORK = ipaddress.ip_network("198.18.0.0/16")

#: No public address among them: this network, private ones, carriers' own, loopback, link-local (metadata services),
#: protocol assignments, measuring, multicast, reserved and broadcast. The last is Azure's metadata service.
REFUSED = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
)  # fmt: skip
#: Refused at once, so that an author learns it from an error and not from a deadline.
_REFUSE = "REJECT --reject-with icmp-admin-prohibited"
_REFUSE_6 = "REJECT --reject-with icmp6-adm-prohibited"
#: Chains of others that our jumps stand in, at the top.
_FOREIGN = ("DOCKER-USER", "FORWARD", "INPUT", "POSTROUTING")


def chains(name_servers: Sequence[str]) -> str:
    """Our chains, whole, for IPv4: public addresses, and these name servers wherever they are."""
    lines = ["*filter", *(f":{chain} - [0:0]" for chain in (FORWARD, INPUT, BACK))]
    for chain in (FORWARD, INPUT):
        lines.append(f"-A {chain} -m conntrack --ctstate ESTABLISHED -j ACCEPT")
        for server in name_servers:
            lines += [f"-A {chain} -d {server}/32 -p {kind} --dport 53 -j ACCEPT" for kind in ("udp", "tcp")]
    lines += [f"-A {FORWARD} -d {network} -j {_REFUSE}" for network in REFUSED]
    lines.append(f"-A {FORWARD} -o {BRIDGE} -j {_REFUSE}")  # other boxes, whatever addresses Docker gave them
    lines.append(f"-A {FORWARD} -j ACCEPT")
    lines.append(f"-A {INPUT} -j {_REFUSE}")
    lines.append(f"-A {BACK} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT")
    lines.append(f"-A {BACK} -j DROP")
    return "\n".join([*lines, "COMMIT", ""])


def chains_6() -> str:
    """The same for IPv6: nothing. Boxes have no such addresses, and this holds if they find a way to one."""
    lines = ["*filter"]
    for chain in (FORWARD, INPUT, BACK):
        lines += [f":{chain} - [0:0]", f"-A {chain} -j {_REFUSE_6}"]
    return "\n".join([*lines, "COMMIT", ""])


def jumps(first: str) -> list[tuple[str, list[str]]]:
    """Rules for the tops of chains of others, in the table filter. `first` is where forwarding is decided first."""
    found = [(first, ["-o", f"{CABLE}+", "-j", BACK])]
    for source in (BRIDGE, f"{CABLE}+"):
        found += [(first, ["-i", source, "-j", FORWARD]), ("INPUT", ["-i", source, "-j", INPUT])]
    return found


def masquerade() -> list[str]:
    """The rule for POSTROUTING, in the table nat, that gives boxes the machine's address outside."""
    return ["-s", str(BOX_NETWORK), "!", "-o", f"{CABLE}+", "-j", "MASQUERADE"]


def standing(saved: str) -> tuple[str, ...]:
    """What of the text of `iptables-save` matters to us: while it is the same, so are the rules that hold for boxes.

    Our chains; of others' chains what stands at the top and is ours.
    """
    found: list[str] = []
    is_top: dict[str, bool] = dict.fromkeys(_FOREIGN, True)
    for line in saved.splitlines():
        words = line.split()
        if line.startswith(":DOCKER-USER"):
            found.append(words[0])
        if len(words) < 2 or words[0] != "-A":
            continue
        chain = words[1]
        if chain in (FORWARD, INPUT, BACK):
            found.append(line)
        elif is_top.get(chain):
            is_top[chain] = is_ours(line)
            if is_top[chain]:
                found.append(line)
    return tuple(found)


def is_ours(line: str) -> bool:
    return any(chain in line.split() for chain in (FORWARD, INPUT, BACK)) or str(BOX_NETWORK) in line


def name_servers(resolv_conf: str) -> list[str]:
    """IPv4 name servers in the text of a resolv.conf that a box could reach: not the machine's own loopback."""
    found = []
    for line in resolv_conf.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address = ipaddress.IPv4Address(words[1])
        except ValueError:
            continue
        if not address.is_loopback and str(address) not in found:
            found.append(str(address))
    return found


def box_address(slot: int) -> str:
    """One of 65,024 addresses; the ends of the network are left out."""
    return str(BOX_NETWORK[256 + slot % (BOX_NETWORK.num_addresses - 512)])
