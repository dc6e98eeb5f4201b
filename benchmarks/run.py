"""Measure speed and accuracy beside the neighbours: ``python benchmarks/run.py [names] [--quick] [--size N] …``.

Every benchmark runs in a process of its own, with the same number of threads for all contestants. Without names all of
them run. The report goes to the terminal, and (at full size) to ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import date
from pathlib import Path
from typing import Any

import report
from report import Outcome

NAMES = (
    "adjoint",
    "projector",
    "roofline",
    "normal",
    "scalar",
    "first_call",
    "sigtt",
    "objective",
    "direction",
    "fbp",
    "iradon",
    "reconstruction",
    "priors",
    "learned_priors",
    "self_supervised",
    "equivariance",
    "imaging",
    "retrieval",
    "retrieval_prior",
    "retrieval_network",
    "held_out_frames",
    "deconvolution",
    "deconvolution_unrolled",
    "chain",
    "rods",
    "crossing_fibres",
    "alignment",
    "gpu",
    "growth",
    "memory",
)
RESULTS = Path(__file__).parent / "results"
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def measure(name: str, quick: bool = False, threads: int | None = None, **sizes: Any) -> Outcome:
    """Run one benchmark in this process; an error ends the outcome, and the rows before it are kept."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    module = importlib.import_module(name)
    description = inspect.getdoc(module) or ""
    rows, error, start = [], "", time.perf_counter()
    try:
        for row in module.run(quick=quick, **sizes):
            rows.append(row)
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    return Outcome(name, description, tuple(rows), time.perf_counter() - start, error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; 0 if every benchmark ran and (at full size) met its bars."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="smaller, to see that everything runs; bars do not decide")
    parser.add_argument("--size", type=int, help="edge of the volume in voxels, instead of each benchmark's own")
    parser.add_argument("--threads", type=int, default=min(2, report.cores()), help="of every contestant")
    parser.add_argument("--output", type=Path, help="Markdown file; a JSON file is written beside it")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(NAMES)}")

    # Set before the processes start: libraries read them when they are loaded.
    os.environ |= dict.fromkeys(THREAD_VARIABLES, str(options.threads))
    facts = report.machine(options.threads)
    outcomes = []
    for name in options.names or NAMES:
        print(f"{name} …", file=sys.stderr, flush=True)
        outcomes.append(_in_own_process(name, options.quick, options.threads, options.size))
    own_sizes = not options.quick and options.size is None
    heading = f"Benchmarks of {date.today()}" + ("" if own_sizes else ", of another size than the bars are for")
    text = report.markdown(outcomes, facts, heading)
    print(text)
    output = options.output
    if output is None and own_sizes:
        output = RESULTS / f"{date.today()}-{report.slug(facts)}.md"
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(text)
        output.with_suffix(".json").write_text(report.to_json(outcomes, facts, heading))
        print(f"written to {output}", file=sys.stderr)
    good = all(outcome.passed if own_sizes else not outcome.error for outcome in outcomes)
    return int(not good)


def _in_own_process(name: str, quick: bool, threads: int, size: int | None) -> Outcome:
    sizes = {} if size is None else {"size": size}
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(measure, name, quick, threads, **sizes).result()
    except BrokenProcessPool as problem:
        return Outcome(name, "", error=f"its process died: {problem}")


if __name__ == "__main__":
    sys.exit(main())
