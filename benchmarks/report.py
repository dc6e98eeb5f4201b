"""Results as Markdown and JSON, with the machine they were measured on."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness import Row

DISTRIBUTIONS = ("ddf_tomo", "torch", "numpy", "numba", "scipy", "mumott", "scikit-image")


@dataclass(frozen=True)
class Outcome:
    """What one benchmark gave: its rows, or the error that ended it."""

    name: str
    description: str
    rows: tuple[Row, ...] = ()
    seconds: float = 0.0
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether it ran to its end and met every bar."""
        return not self.error and all(row.passed is not False for row in self.rows)


def machine(threads: int) -> dict[str, str]:
    """Processor, cores, threads, memory, load, versions; no name of the host."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    facts = {
        "processor": processor(),
        "cores": str(cores()),
        "threads used": str(threads),
        "memory": memory(),
        "system": f"{platform.system()} {platform.machine()}",
        "load before": f"{load:.2f}",
        "Python": platform.python_version(),
    }
    for name in DISTRIBUTIONS:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    return facts | {"commit": commit()}


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor() -> str:
    """Model of the processor."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def memory() -> str:
    """Installed memory."""
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (AttributeError, ValueError, OSError):
        return "unknown"


def commit() -> str:
    """Commit of the source, marked if tracked files have changed since."""

    def git(*arguments: str) -> str:
        here = Path(__file__).parent
        return subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return git("rev-parse", "--short", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def slug(facts: dict[str, str]) -> str:
    """Short name of the machine for a file name."""
    return re.sub(r"[^a-z0-9]+", "-", f"{facts['processor']} {facts['cores']} cores".lower()).strip("-")


def markdown(outcomes: Sequence[Outcome], facts: dict[str, str], heading: str) -> str:
    """The report."""
    lines = [f"# {heading}", "", "| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in facts.items())]
    for outcome in outcomes:
        lines += ["", f"## {outcome.name}", "", outcome.description.strip(), ""]
        if outcome.rows:
            lines += ["| | measured | bar | | |", "|---|---|---|---|---|"]
        for row in outcome.rows:
            cells = row.what, f"{row.value:.3g} {row.unit}".strip(), row.bar, row.verdict, row.note
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        if outcome.error:
            lines += ["", f"**FAILED**: {outcome.error}"]
        lines += ["", f"({outcome.seconds:.0f} s)"]
    return "\n".join(lines) + "\n"


def to_json(outcomes: Sequence[Outcome], facts: dict[str, str], heading: str) -> str:
    """The same for programs."""
    results: list[dict[str, Any]] = []
    for outcome in outcomes:
        rows = [asdict(row) | {"passed": row.passed} for row in outcome.rows]
        results.append(asdict(outcome) | {"rows": rows, "passed": outcome.passed})
    whole = {"heading": heading, "machine": facts, "results": results}
    return json.dumps(whole, indent=1, ensure_ascii=False, default=float) + "\n"
