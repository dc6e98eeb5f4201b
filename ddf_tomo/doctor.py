"""What works in this installation, what does not, and what to do about it: ``ddf-tomo doctor``."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

import ddf_tomo
from ddf_tomo._checks import INSTALL_LINES

__all__ = ["Finding", "Report", "examine", "show"]
DISTRIBUTIONS = ("torch", "numpy", "scipy", "numba", "h5py", "typer", "rich", "matplotlib")
PROBE_TIMEOUT_S = 120
AGREEMENT = 1e-5  # relative, between float32 and the reference in float64
CURES = {
    "reference": "pip install --upgrade torch",
    "numba": 'pip install --upgrade "numba>=0.61"; if it cannot write its cache, set NUMBA_CACHE_DIR to a folder',
    "files": "pip install --upgrade h5py",
    "GPU": "compare torch's CUDA version with the driver's (nvidia-smi)",
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: whether it ``works`` (``None``: not there, and not needed), and what to do if it does not.

    Attributes
    ----------
    name
        What was looked at.
    works
        Whether it works; ``None`` if it is not there and not needed.
    detail
        What was found.
    cure
        What to do about it.

    Examples
    --------
    >>> Finding("numba", works=True, detail="adjoint exact to 6e-08").cure
    ''
    """

    name: str
    works: bool | None
    detail: str
    cure: str = ""


@dataclass(frozen=True)
class Report:
    """All that `examine` found.

    Attributes
    ----------
    versions, machine
        Versions of packages, and facts about the machine, by name.
    core, devices, neighbours
        What must work, what may, and whom the package can speak with.

    Examples
    --------
    >>> report = Report({}, {}, (Finding("numba", True, "fine"),), (), (Finding("mumott", None, "not installed"),))
    >>> report.works
    True
    """

    versions: dict[str, str]
    machine: dict[str, str]
    core: tuple[Finding, ...]
    devices: tuple[Finding, ...]
    neighbours: tuple[Finding, ...]

    @property
    def works(self) -> bool:
        """Whether the core works; other devices and neighbours are optional."""
        return all(finding.works for finding in self.core)

    def to_json(self) -> str:
        """The report as JSON text, with the verdict under ``works``."""
        return json.dumps({"works": self.works, **asdict(self)}, indent=2)


def examine() -> Report:
    """Look at this installation: run a small projection on every backend, write a file, import every neighbour.

    Neighbours are imported in a process of their own, so that a broken one cannot harm this one.

    Examples
    --------
    >>> from ddf_tomo.doctor import examine
    >>> [finding.name for finding in examine().core]
    ['reference', 'numba', 'files']
    """
    core = _try_backend("reference", "reference"), _try_backend("numba", "numba"), _try_files()
    return Report(_versions(), _machine(), core, (_try_gpu(), _try_threads()), tuple(_neighbours()))


def show(report: Report) -> None:
    """Print a report as tables, for a person.

    Parameters
    ----------
    report
        What to print.

    Examples
    --------
    >>> show(Report({"torch": "2.13.0"}, {"cores": "2"}, (), (), ()))  # doctest: +ELLIPSIS
      torch...2.13.0...
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    facts = Table(box=None, show_header=False)
    for name, text in (report.versions | report.machine).items():
        facts.add_row(f" {name}", escape(text))
    console.print(facts)
    signs = {True: "[green]works[/]", False: "[red]broken[/]", None: "[yellow]absent[/]"}
    for title, findings in (
        ("Core", report.core),
        ("Other devices", report.devices),
        ("Neighbours (optional)", report.neighbours),
    ):
        console.print(f"\n[bold]{title}[/]")
        table = Table(box=None, show_header=False)
        for finding in findings:
            cure = f"\n→ {escape(finding.cure)}" if finding.cure else ""
            table.add_row(f" {finding.name}", signs[finding.works], escape(finding.detail) + cure)
        console.print(table)
    verdict = "[green]The core works.[/]" if report.works else "[red]The core does not work: see above.[/]"
    console.print(f"\n{verdict}")


def _versions() -> dict[str, str]:
    found = {"ddf_tomo": ddf_tomo.__version__, "python": platform.python_version()}
    return found | {name: _version(name) or "not installed" for name in DISTRIBUTIONS}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _machine() -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limit = os.environ.get("OMP_NUM_THREADS")
    return {
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "cores": str(cores),
        "threads": f"{torch.get_num_threads()}" + (f" (OMP_NUM_THREADS={limit})" if limit else ""),
        "memory": _memory(),
    }


def _memory() -> str:
    try:
        pages = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")
        total, free = (count * os.sysconf("SC_PAGE_SIZE") / 2**30 for count in pages)
    except (AttributeError, OSError, ValueError):  # not on every system
        return "unknown"
    text = f"{total:.1f} GiB, {free:.1f} GiB free"
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        limit = Path(place).read_text().strip() if os.access(place, os.R_OK) else "max"
        if limit.isdigit() and int(limit) / 2**30 < total:
            text += f", limited to {int(limit) / 2**30:.1f} GiB for this process"
    return text


def _try_backend(name: str, backend: str, device: str = "cpu") -> Finding:
    """Project noise, hold it against the reference in float64, and check the adjoint."""
    geometry = ddf_tomo.Geometry.from_angles([0.1, 0.9, 2.0], [0.0, 0.3, 0.6], (9, 8, 7), (10, 9))
    noise = torch.randn(9, 8, 7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    try:
        operator = ddf_tomo.XRayTransform(geometry, backend, device)
        x = noise.to(device, torch.float32)
        y = operator(x)
        right = ddf_tomo.XRayTransform(geometry, "reference")(noise)
        defect = float((y.cpu() - right).norm() / right.norm())
        there, back = float(y.double().square().sum()), float((x.double() * operator.T(y).double()).sum())
        adjoint = abs(there - back) / there
    except Exception as error:
        return Finding(name, False, f"{type(error).__name__}: {error}".splitlines()[0], CURES[name])
    detail = f"projection right to {defect:.0e}, adjoint to {adjoint:.0e} (float32)"
    right_enough = defect < AGREEMENT and adjoint < AGREEMENT
    return Finding(name, right_enough, detail, "" if right_enough else "wrong numbers: please report this")


def _try_files() -> Finding:
    try:
        import h5py

        with h5py.File("doctor.h5", "w", driver="core", backing_store=False) as file:
            file["data"] = np.arange(3)
            total = int(file["data"][:].sum())
    except Exception as error:
        return Finding("files", False, f"{type(error).__name__}: {error}".splitlines()[0], CURES["files"])
    return Finding("files", total == 3, f"HDF5 {h5py.version.hdf5_version} writes and reads")


def _try_gpu() -> Finding:
    if torch.cuda.is_available():
        finding = _try_backend("GPU", "auto", "cuda")
        return (
            replace(finding, detail=f"{torch.cuda.get_device_name()}: {finding.detail}") if finding.works else finding
        )
    reason = "finds no device" if torch.version.cuda else "is a build without CUDA"
    return Finding("GPU", None, f"torch {torch.__version__} {reason}; everything runs on the CPU")


def _try_threads() -> Finding:
    """By default threads of OpenMP spin while they wait: those of several runtimes fight for the cores."""
    runtimes = _openmp_runtimes()
    if os.environ.get("OMP_WAIT_POLICY", "").lower() == "passive":
        return Finding("threads", True, "sleep while they wait (OMP_WAIT_POLICY=passive)")
    if find_spec("mumott") is not None:
        runtimes.append("that of MUMOTT")
    detail = f"spin while they wait; OpenMP here: {', '.join(runtimes) or 'unknown'}"
    if len(runtimes) < 2:
        return Finding("threads", True, detail)
    detail += ", which fight for the cores where both are used"
    return Finding("threads", None, detail, "export OMP_WAIT_POLICY=passive, before Python starts")


def _openmp_runtimes() -> list[str]:
    """Files of OpenMP runtimes that this process has loaded, where the system tells (Linux)."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    files = {Path(line.split()[-1]).name for line in lines if "/" in line}
    return sorted(name for name in files if name.startswith(("libgomp", "libiomp", "libomp")))


def _neighbours() -> Iterator[Finding]:
    for name, probe, what in (
        ("mumott", "mumott", "exchange and pipelines"),
        ("astra", "astra", "geometries"),
        ("tomosipo", "tomosipo", "geometries; projectors with ASTRA on a GPU"),
        ("deepinv", "deepinv", "learned methods on our operators"),
        ("matplotlib", "matplotlib.pyplot", "figures"),
    ):
        yield _try_neighbour(name, probe, what)


def _try_neighbour(name: str, module: str, what: str) -> Finding:
    if find_spec(name) is None:
        return Finding(name, None, f"not installed ({what})", INSTALL_LINES[name])
    # ASTRA without a driver kills the process when its 3-D projectors are called; use_cuda() only asks.
    question = (
        "; print('projectors too' if module.use_cuda() else 'not its 3-D projectors: they need a GPU')"
        if name == "astra"
        else ""
    )
    code = f"import sys, importlib; sys.path[:] = {sys.path!r}; module = importlib.import_module({module!r}){question}"
    try:
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return Finding(name, False, f"its import takes more than {PROBE_TIMEOUT_S} s", INSTALL_LINES[name])
    distribution = {"astra": "astra-toolbox"}.get(name, name)
    title = _version(distribution) or "unknown version"
    if result.returncode == 0:
        answer = result.stdout.strip().splitlines()[-1:] if question else []
        return Finding(name, True, "; ".join([title, what, *answer]))
    said = (result.stderr.strip().splitlines() or [f"its import ended with code {result.returncode}"])[-1]
    return Finding(name, False, f"{title} does not import: {said}{_trap(name, said)}", INSTALL_LINES[name])


def _trap(name: str, said: str) -> str:
    """What is behind the ways in which MUMOTT 2.3 and deepinv often fail to import; their errors do not say."""
    if name == "deepinv" and "torchvision::" in said:
        return " (torchvision was built for another torch: install the two from one index)"
    if name != "mumott":
        return ""
    if "number of threads" in said:
        limit = os.environ.get("NUMBA_NUM_THREADS")
        return f" (MUMOTT 2.3 asks for a thread per core: unset NUMBA_NUM_THREADS, which is {limit})"
    found = _version("matplotlib")
    parts = found.split(".")
    is_new = len(parts) > 1 and parts[0].isdigit() and parts[1].isdigit() and (int(parts[0]), int(parts[1])) >= (3, 9)
    reason = f"MUMOTT 2.3 needs a function that matplotlib 3.9 removed, and here is {found}"
    return f" (the matplotlib trap: {reason})" if is_new else ""
