"""What this process may still take: memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS, OWN_CGROUP = "/sys/fs/cgroup", "/proc/self/cgroup"
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
    """What the tightest cgroup around this process leaves, of a container or of a job in a queue (SLURM)."""
    left = [found for folder, limit, used in _cgroups() if (found := _left(folder, limit, used)) is not None]
    return min(left, default=None)


def _cgroups() -> Iterator[tuple[Path, str, str]]:
    """Folders of the cgroup of this process and of those around it, with the names of the files of both versions."""
    try:
        lines = Path(OWN_CGROUP).read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root, names = Path(CGROUPS), ("memory.max", "memory.current")
        if "memory" in controllers.split(","):
            root, names = root / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes")
        elif controllers:
            continue
        own = Path(path.lstrip("/"))
        for folder in (own, *own.parents):
            yield root / folder, *names


def _left(folder: Path, limit: str, used: str) -> int | None:
    """Limit of a cgroup less what is taken for good: pages of files can be dropped."""
    try:
        total, taken = (int((folder / name).read_text()) for name in (limit, used))
        lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        cached = sum(int(line[1]) for line in lines if line and line[0] in ("inactive_file", "active_file"))
    except (OSError, ValueError, IndexError):  # "max": no limit
        return None
    return total - max(0, taken - cached)


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
