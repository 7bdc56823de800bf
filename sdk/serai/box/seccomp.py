"""A filter for the system calls of a box: a program for the kernel, in classic BPF, made without any library.

The kernel runs it for each call of each process in the box; nobody in there can take it off. Calls that it allows
whatever their arguments are, which are nearly all, are remembered by the kernel (from Linux 5.11 on) and cost next to
nothing.
"""

import errno
import functools
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from serai.box import system_calls

#: (code, jump if true, jump if false, constant): one instruction. Jumps count the instructions that are passed over.
_Instruction = tuple[int, int, int, int]
#: Instructions of which every path ends in a verdict: so blocks can be put behind and inside each other.
_Block = list[_Instruction]

_LOAD_WORD, _AND = 0x20, 0x54
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT = 0x15, 0x35, 0x45
_RETURN = 0x06

_VERDICT_KILL, _VERDICT_ERRNO, _VERDICT_ALLOW = 0x8000_0000, 0x0005_0000, 0x7FFF_0000
#: Where the kernel lays a call's number, its architecture and its six arguments of 64 bits.
_AT_NUMBER, _AT_ARCHITECTURE, _AT_ARGUMENTS = 0, 4, 16
#: linux/audit.h: the machine's number, with marks for 64 bits and for little endian.
_ARCHITECTURES = {"x86_64": (0, 0xC000_003E), "aarch64": (1, 0xC000_00B7)}

#: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. (NEWTIME is no flag of `clone`.)
_NEW_NAMESPACES = 0x7E02_0000
#: TIOCSTI and TIOCLINUX put input into a terminal; TIOCSETD loads drivers for modems, with holes, into one's own.
_TERMINAL_REQUESTS = (0x5412, 0x541C, 0x5423)
#: `personality` that changes nothing: the usual one, and the question which one it is.
_PERSONALITIES = (0, 0xFFFF_FFFF)
#: Without the flags for close-on-exec and non-blocking.
_SOCKET_TYPE = 0xF
#: TCP, UDP and ping; the others are other drivers, loaded on demand.
_PROTOCOLS = (0, socket.IPPROTO_ICMP, socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMPV6)
_NETLINK_ROUTE = 0


def open_filter() -> int | None:
    """A descriptor of the filter for one start of one box: `bwrap --seccomp FD` reads it to its end.

    To be passed on (it is inheritable) and closed by the caller after the start. None: there is no filter for this
    machine, because of its architecture or because its kernel has none.
    """
    if why_no_filter():
        return None
    descriptor = os.memfd_create("serai-filter", 0)
    os.write(descriptor, filter_program())
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


@functools.cache
def filter_program(machine: str = os.uname().machine) -> bytes:
    """An array of `struct sock_filter` for `machine`; empty where system calls have numbers that we do not know."""
    if machine not in _ARCHITECTURES:
        return b""
    column, architecture = _ARCHITECTURES[machine]
    # Calls of another architecture (32-bit ones on a 64-bit machine) have other numbers: nobody needs them here.
    kill = _verdict(_VERDICT_KILL)
    program = [(_LOAD_WORD, 0, 0, _AT_ARCHITECTURE), (_IF_EQUAL, len(kill), 0, architecture), *kill]
    program += [(_LOAD_WORD, 0, 0, _AT_NUMBER), *_search(_sections(column))]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


@functools.cache
def why_no_filter() -> str:
    """Why there is no filter for this machine, for the log of a daemon's start; empty: there is one."""
    machine = os.uname().machine
    if not filter_program(machine):
        return f"boxes may make any system call: there is no filter for the architecture {machine}"
    try:
        known = Path("/proc/sys/kernel/seccomp/actions_avail").read_text().split()
    except OSError as error:
        return f"boxes may make any system call: this kernel has no filters ({error})"
    lacking = {"kill_process", "errno", "allow"} - set(known)
    return f"boxes may make any system call: this kernel's filters lack {', '.join(lacking)}" if lacking else ""


def _sections(column: int) -> list[tuple[int, _Block]]:
    """What to do with system calls from a number on, up to the next one's number; the first number is 0."""
    special: dict[int, _Block] = {}

    def add(numbers: system_calls.Numbers, block: _Block) -> None:
        number = numbers[column]
        if number is not None:
            assert number not in special, "a system call has two verdicts"
            special[number] = block

    for numbers in system_calls.FORBIDDEN.values():
        add(numbers, _refuse(errno.EPERM))
    for numbers in system_calls.MISSING.values():
        add(numbers, _refuse(errno.ENOSYS))
    add(system_calls.CLONE, _clone())
    add(system_calls.IOCTL, _load(1) + _when(_TERMINAL_REQUESTS, _refuse(errno.EPERM), _ALLOW))
    add(system_calls.PERSONALITY, _load(0) + _when(_PERSONALITIES, _ALLOW, _refuse(errno.EPERM)))
    add(system_calls.SOCKET, _socket())
    add(system_calls.SOCKETPAIR, _load(0) + _when((socket.AF_UNIX,), _ALLOW, _refuse(errno.EAFNOSUPPORT)))

    newest = system_calls.NEWEST[column]
    assert newest is not None
    gap, after_gap = system_calls.GAP[column]
    # The last section goes on to the highest number, so x86_64's calls of the kind "x32" (from 2^30 on) are in it.
    starts = {0: _ALLOW, gap: _refuse(errno.ENOSYS), after_gap: _ALLOW, newest + 1: _refuse(errno.ENOSYS)}
    for number, block in sorted(special.items()):
        starts.setdefault(number + 1, _ALLOW)
        starts[number] = block
    sections: list[tuple[int, _Block]] = []
    for number, block in sorted(starts.items()):
        if not sections or sections[-1][1] != block:
            sections.append((number, block))
    return sections


def _search(sections: Sequence[tuple[int, _Block]]) -> _Block:
    """Binary search by the call's number: seven comparisons where a list would need ninety."""
    if len(sections) == 1:
        return sections[0][1]
    middle = len(sections) // 2
    below, from_there_on = _search(sections[:middle]), _search(sections[middle:])
    assert len(below) < 256, "a jump is one byte"
    return [(_IF_AT_LEAST, len(below), 0, sections[middle][0]), *below, *from_there_on]


def _clone() -> _Block:
    """Threads and processes, but no new namespaces: a new user has all rights over them, and most holes start there."""
    refuse = _refuse(errno.EPERM)
    return [*_load(0), (_IF_ANY_BIT, 0, len(refuse), _NEW_NAMESPACES), *refuse, *_ALLOW]


def _socket() -> _Block:
    """Unix, and the Internet as ordinary programs use it: no raw packets, no host of a virtual machine, no ciphers."""
    protocol = _load(2) + _when(_PROTOCOLS, _ALLOW, _refuse(errno.EPROTONOSUPPORT))
    kind = [*_load(1), (_AND, 0, 0, _SOCKET_TYPE)]
    internet = kind + _when((socket.SOCK_STREAM, socket.SOCK_DGRAM), protocol, _refuse(errno.EPERM))
    # Libraries ask for their interfaces and addresses there; its other protocols are firewalls and the like.
    netlink = _load(2) + _when((_NETLINK_ROUTE,), _ALLOW, _refuse(errno.EPROTONOSUPPORT))
    rest = _when((socket.AF_NETLINK,), netlink, _refuse(errno.EAFNOSUPPORT))
    rest = _when((socket.AF_INET, socket.AF_INET6), internet, rest)
    return _load(0) + _when((socket.AF_UNIX,), _ALLOW, rest)


def _load(argument: int) -> _Block:
    """The lower half of an argument.

    All that are looked at here are 32 bits to the kernel, which cuts the upper half off. Comparing that too would let
    forbidden values through, with any bit set in it.
    """
    return [(_LOAD_WORD, 0, 0, _AT_ARGUMENTS + 8 * argument)]


def _when(values: Sequence[int], then: _Block, otherwise: _Block) -> _Block:
    """`then` if what was loaded is one of `values`."""
    last = len(values) - 1
    tests = [
        (_IF_EQUAL, last - at, len(then) if at == last else 0, value & 0xFFFF_FFFF) for at, value in enumerate(values)
    ]
    assert len(then) < 256, "a jump is one byte"
    return tests + then + otherwise


def _verdict(verdict: int) -> _Block:
    return [(_RETURN, 0, 0, verdict)]


def _refuse(error: int) -> _Block:
    return _verdict(_VERDICT_ERRNO | error)


_ALLOW = _verdict(_VERDICT_ALLOW)
