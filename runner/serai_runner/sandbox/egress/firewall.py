"""Puts the rules of egress_rules.py into this machine's firewall, and looks whether they are still there."""

import contextlib
import fcntl
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from serai_runner.sandbox.egress import rules

#: Commands take milliseconds, unless they wait for the firewall's lock.
_TIMEOUT_S = 20
_LOCK = "/run/serai-egress.lock"
_FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
_IPV6 = Path("/proc/net/if_inet6")


class EgressError(Exception):
    """A network for boxes cannot be made on this machine."""


class Firewall:
    """The rules stay when we are gone: without them a box that is still there would reach everything."""

    def __init__(self) -> None:
        self._applied: tuple[object, ...] = ()

    def apply(self, name_servers: Sequence[str]) -> None:
        """Make it say what it has to, whatever it said before.

        Raises:
            EgressError: we are not root, or a command is missing or failed.
        """
        if os.geteuid() != 0:
            raise EgressError("only root can set the firewall: start Serai as root to give versions a network")
        with _one_at_a_time():
            if self._applied and self._applied == _state(name_servers):
                return
            run("iptables-restore", "-w", "--noflush", text=rules.chains(name_servers))
            for chain, rule in rules.jumps(_first_chain()):
                _put_first("iptables", "filter", chain, rule)
            _put_first("iptables", "nat", "POSTROUTING", rules.masquerade())
            if _IPV6.exists():
                run("ip6tables-restore", "-w", "--noflush", text=rules.chains_6())
                for chain, rule in rules.jumps("FORWARD"):
                    _put_first("ip6tables", "filter", chain, rule)
            _forward()
            self._applied = _state(name_servers)

    @staticmethod
    def remove() -> None:
        """Take all of it away. For whoever wants no Serai on this machine any more: boxes would reach everything."""
        with _one_at_a_time():
            for command in ("iptables", "ip6tables"):
                for first in ("DOCKER-USER", "FORWARD"):
                    for chain, rule in rules.jumps(first):
                        _delete(command, "filter", chain, rule)
                for action in ("-F", "-X"):
                    for chain in (rules.FORWARD, rules.INPUT, rules.BACK):
                        with contextlib.suppress(EgressError):
                            run(command, "-w", action, chain)
            _delete("iptables", "nat", "POSTROUTING", rules.masquerade())


def run(*words: str, text: str = "") -> str:
    """What a command printed. Raises EgressError with what it complained about."""
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except FileNotFoundError as error:
        raise EgressError(f"the command {words[0]} is missing: install the packages iproute2 and iptables") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EgressError(f"{words[0]}: {error}") from error
    if done.returncode:
        raise EgressError(f"{' '.join(words[:4])}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def _state(name_servers: Sequence[str]) -> tuple[object, ...]:
    """Whatever our rules depend on, and they themselves."""
    saved_6 = run("ip6tables-save") if _IPV6.exists() else ""
    forwards = _FORWARDING.read_text().strip()
    return (tuple(name_servers), forwards, rules.standing(run("iptables-save")), rules.standing(saved_6))


def _first_chain() -> str:
    """Where forwarding is decided first: Docker keeps its own rules above all others, but for this chain."""
    chains = run("iptables", "-w", "-S").splitlines()
    return "DOCKER-USER" if "-N DOCKER-USER" in chains else "FORWARD"


def _put_first(command: str, table: str, chain: str, rule: Sequence[str]) -> None:
    _delete(command, table, chain, rule)
    run(command, "-w", "-t", table, "-I", chain, "1", *rule)


def _delete(command: str, table: str, chain: str, rule: Sequence[str]) -> None:
    with contextlib.suppress(EgressError):  # it may not be there
        run(command, "-w", "-t", table, "-D", chain, *rule)


def _forward() -> None:
    """Let the machine pass packets on. If it did not so far, then still nothing but what a rule allows."""
    if _FORWARDING.read_text().strip() != "1":
        run("iptables", "-w", "-P", "FORWARD", "DROP")
        _FORWARDING.write_text("1")


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Two hosts that change the same rules would each undo what the other is about to do."""
    with open(_LOCK, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
