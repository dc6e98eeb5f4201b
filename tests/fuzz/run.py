"""The long fuzz run: ``python -m tests.fuzz.run --cases 20000 --seed 0 --output tests/fuzz/results/DATE.md``.

Every case is made from (seed, entry point, index) alone and can be repeated alone: ``--only "Scan.read" 17``. Cases run
in batches in processes of their own, so that the death of one, or a call that never ends, is seen and counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

BATCH = 1000
SILENCE_S = 120.0  # no case takes longer than `oracle.LIMIT_S` but one that never ends
MEMORY_BYTES = 12 * 2**30  # of address space; numpy and torch then raise instead of taking the whole machine


def plan(cases: int, weights: dict[str, float]) -> list[tuple[str, int]]:
    """Entry point and index of each case, all entry points mixed."""
    unit = cases / sum(weights.values())
    counts = {name: max(1, round(weight * unit)) for name, weight in weights.items()}
    counts[max(weights, key=lambda name: weights[name])] += max(0, cases - sum(counts.values()))
    planned = [(name, index) for name, count in counts.items() for index in range(count)]
    random.Random(0).shuffle(planned)
    return planned


def run_one(seed: int, name: str, index: int) -> Any:
    from tests.fuzz.entry_points import TABLE, case
    from tests.fuzz.oracle import judge

    function, arguments = case(name, random.Random(f"{seed}/{name}/{index}"))
    entry = TABLE[name]
    return judge(function, arguments, propagates=entry.propagates, raw=entry.raw)


def child(seed: int, batch: Path, log: Path) -> None:
    """Run a batch; each case is announced before it runs."""
    import resource

    import torch

    from tests.fuzz.entry_points import folder

    os.chdir(folder())  # texts that stand for paths are names of files here
    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with log.open("a", buffering=1) as report:
        for name, index in json.loads(batch.read_text()):
            report.write(json.dumps([name, index]) + "\n")
            outcome = run_one(seed, name, index)
            report.write(json.dumps([name, index, outcome.kind, outcome.fault]) + "\n")


def run_batch(seed: int, batch: list[tuple[str, int]], folder: Path) -> list[list[Any]]:
    """Results of a batch; what killed a process or did not end is a result too, and the rest goes to a new process."""
    results: list[list[Any]] = []
    left = list(batch)
    while left:
        cases, log = folder / "cases.json", folder / "log.jsonl"
        cases.write_text(json.dumps(left))
        log.write_text("")
        command = [sys.executable, "-m", "tests.fuzz.run", "--child", str(cases), str(log), "--seed", str(seed)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        size, heard, ended = -1, time.monotonic(), False
        while process.poll() is None and not ended:
            try:
                process.wait(1.0)
            except subprocess.TimeoutExpired:
                now = log.stat().st_size
                if now != size:
                    size, heard = now, time.monotonic()
                elif ended := time.monotonic() - heard > SILENCE_S:
                    process.kill()
        said = (process.communicate()[1].strip().splitlines() or [""])[-1]
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        results += [line for line in lines if len(line) == 4]
        done = sum(len(line) == 4 for line in lines)
        if done < len(left):
            how = f"no answer in {SILENCE_S:.0f} s" if ended else f"the process died, code {process.returncode}: {said}"
            results.append([*left[done], "hang" if ended else "death", how])
            done += 1
        left = left[done:]
    return results


def summary(results: list[list[Any]], seed: int, seconds: float) -> str:
    """The table that is kept."""
    kinds, faults = Counter(kind for _, _, kind, _ in results), [line for line in results if line[3]]
    by_entry: dict[str, Counter[str]] = defaultdict(Counter)
    for name, _, kind, fault in results:
        by_entry[name][kind] += 1
        by_entry[name]["fault"] += bool(fault)
    columns = [kind for kind, _ in kinds.most_common()]
    versions = ", ".join(f"{name} {_version(name)}" for name in ("torch", "numpy", "h5py", "numba", "mumott"))
    lines = [
        "# Fuzz run over all public entry points",
        "",
        f"{len(results)} cases, seed {seed}, {seconds:.0f} s; Python {platform.python_version()}, {versions};"
        f" {platform.system()} {platform.machine()}.",
        "",
        "Each case calls an entry point with arguments of which none to three are broken: shapes, units, NaN and"
        " infinities, empty and zero-size arrays, zero weights, frames that are not orthonormal, odd orders, other"
        " dtypes and devices, read-only and reversed arrays, huge and tiny numbers, foreign objects, damaged files."
        " A case is right if it is accepted with finite results for finite input, or refused by a check of the"
        " package's own (`tests/fuzz/oracle.py`). Repeat it with `python -m tests.fuzz.run --cases"
        f" {len(results)} --seed {seed}`.",
        "",
        f"**Violations: {len(faults)}.** Outcomes: {', '.join(f'{kind} {n}' for kind, n in kinds.most_common())}.",
        "",
        "| entry point | cases | " + " | ".join(columns) + " | violations |",
        "|---|" + "---:|" * (len(columns) + 2),
    ]
    for name, counts in sorted(by_entry.items()):
        cells = [sum(counts[kind] for kind in columns), *(counts[kind] for kind in columns), counts["fault"]]
        lines.append(f"| {name} | " + " | ".join(str(cell or "") for cell in cells[:-1]) + f" | {cells[-1]} |")
    lines += ["", "## Violations", ""] if faults else []
    lines += [f"- {name} {index}: {fault.splitlines()[0]}" for name, index, _, fault in faults]
    return "\n".join(lines) + "\n"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs=2, metavar=("ENTRY", "INDEX"), help="repeat one case and show it")
    options = parser.parse_args()
    if options.child:
        child(options.seed, *options.child)
        return 0
    from tests.fuzz.entry_points import TABLE, case

    if options.only:
        name, index = options.only[0], int(options.only[1])
        function, arguments = case(name, random.Random(f"{options.seed}/{name}/{index}"))
        print(arguments)
        print(run_one(options.seed, name, index))
        print(function(**case(name, random.Random(f"{options.seed}/{name}/{index}"))[1]))
        return 0
    planned = plan(options.cases, {name: entry.weight for name, entry in TABLE.items()})
    start, results = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="ddf_tomo_fuzz_") as folder:
        for first in range(0, len(planned), BATCH):
            results += run_batch(options.seed, planned[first : first + BATCH], Path(folder))
            print(f"{len(results)} cases, {sum(bool(line[3]) for line in results)} violations", file=sys.stderr)
    text = summary(results, options.seed, time.monotonic() - start)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text)
    else:
        print(text)
    return int(any(line[3] for line in results))


if __name__ == "__main__":
    sys.exit(main())
