"""How much memory this machine has, and has left. Replicas may ask for more together: most use little of it."""

import os


def total_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def available_bytes() -> int:
    """What can be had without swapping, as the kernel estimates it (MemAvailable of proc(5))."""
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return total_bytes()
