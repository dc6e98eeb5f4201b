"""What this process may still take: memory."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "/sys/fs/cgroup/memory/memory.stat",
    ),
)
MEMINFO = "/proc/meminfo"
UNKNOWN = 2**62  # bytes: where a system does not tell, nothing is refused


def available_memory() -> int:
    """Bytes that this process can still take before the machine swaps or the system kills it.

    The smallest of what is free on the machine (caches count as free), of what the container (cgroup) leaves, and of
    the limit on the address space. Where the system tells none of them, as Windows, more than there can be.

    Examples
    --------
    >>> available_memory() > 0
    True
    """
    left = [found for found in (_machine(), _container(), _limit()) if found is not None]
    return max(0, min(left, default=UNKNOWN))


def _machine() -> int | None:
    """Linux tells what is free and what of the caches can be; macOS the total alone, of which half is taken."""
    try:
        for line in Path(MEMINFO).read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, OSError, ValueError):
        return None


def _container() -> int | None:
    """Limit of the cgroup less what is taken for good: pages of files can be dropped."""
    for limit, used, statistics in CGROUPS:
        try:
            total, taken = int(Path(limit).read_text()), int(Path(used).read_text())
            lines = (line.split() for line in Path(statistics).read_text().splitlines())
            cached = sum(int(line[1]) for line in lines if line and line[0] in ("inactive_file", "active_file"))
        except (OSError, ValueError, IndexError):  # "max": no limit
            continue
        return total - max(0, taken - cached)
    return None


def _limit() -> int | None:
    """What ``ulimit -v`` leaves."""
    try:
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft == resource.RLIM_INFINITY:
            return None
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        return soft - pages * resource.getpagesize()
    except (ImportError, OSError, ValueError, IndexError):
        return None
