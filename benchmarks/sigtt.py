"""MUMOTT's pipeline ``run_sigtt`` with its own projector and with ours, same data, same iterations.

A simulated SAXS scan (helicoidal fibres, eight segments, tilts to 45°, 1 % noise, from a twice finer grid). L-BFGS is
allowed as many evaluations as 20 iterations need, and a mask keeps the reconstruction to the sample: at the faces of
volume and detector MUMOTT 2.3 reads wrong neighbours, so that there its gradient is not one and its line search stalls.
MUMOTT compiles in every run; its users wait for that as well, and it is counted.

`VoxelDrivenProjector` has MUMOTT's back-projection and must give MUMOTT's numbers. `Projector` has the exact transpose:
it descends along the true gradient, and after a finite number of iterations is somewhere else. Its difference is judged
by the same bar, and explained by the loss, which it brings lower.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from harness import Row, difference, in_turn, quiet, require

from ddf_tomo import SaxsResponse
from ddf_tomo.phantoms import SCAN_VIEWS, helicoidal_fibres, simulate, tilt_series

ITERATIONS = 20
SEGMENTS = 8
THEIRS, DRIVEN, OURS = "MUMOTT", "VoxelDrivenProjector", "Projector"


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Equality of the results, then times."""
    size = size or (16 if quick else 48)
    views = [count // 4 for count in SCAN_VIEWS] if quick else SCAN_VIEWS
    os.environ["TQDM_DISABLE"] = "1"  # MUMOTT's own way to be quiet (no_tqdm) breaks its L-BFGS
    logging.disable(logging.WARNING)
    with quiet():
        from mumott.methods.projectors import SAXSProjector
        from mumott.pipelines import run_sigtt

        from ddf_tomo.interop.mumott import Projector, VoxelDrivenProjector, to_data_container
    geometry = tilt_series((size, size, size), views=views)
    response = SaxsResponse(np.arange(SEGMENTS) * np.pi / SEGMENTS)
    scan = simulate(helicoidal_fibres, geometry, response, noise=0.01)
    coefficients, _, sample = helicoidal_fibres((size, size, size))
    inside = np.pad(np.ones([size - 4] * 3), 2)
    mask = inside[..., None] * (coefficients[..., :1] > 0)
    found: dict[str, dict[str, Any]] = {}

    def pipeline(name: str, projector: Any) -> None:
        with quiet():
            found[name] = run_sigtt(
                to_data_container(scan),
                Projector=projector,
                maxiter=ITERATIONS,
                ftol=1e-15,
                loss_function_kwargs={"preconditioner": mask},
                optimizer_kwargs={"maxfun": 10 * ITERATIONS},
            )["result"]

    contestants = {THEIRS: SAXSProjector, DRIVEN: VoxelDrivenProjector, OURS: Projector}
    timings = in_turn(
        {name: lambda name=name, p=p: pipeline(name, p) for name, p in contestants.items()},
        rounds=2,
        warm_up=False,
    )
    defects = {name: difference(found[name]["x"][sample], found[THEIRS]["x"][sample]) for name in (DRIVEN, OURS)}
    counts = {name: (int(result["nit"]), int(result["nfev"])) for name, result in found.items()}
    yield Row("iterations, MUMOTT", counts[THEIRS][0], note=f"{counts[THEIRS][1]} evaluations")
    for name in (DRIVEN, OURS):
        more = abs(counts[name][0] - counts[THEIRS][0])
        yield Row(f"iterations more or less, {name}", more, at_most=0, note=f"{counts[name][1]} evaluations")
    yield require(f"difference of the result from MUMOTT's, {DRIVEN}", defects[DRIVEN], 0.01)
    note = "another result by design: exact transpose"
    yield Row(f"difference of the result from MUMOTT's, {OURS}", defects[OURS], at_most=0.01, note=note)
    ratio = float(found[OURS]["fun"]) / float(found[THEIRS]["fun"])
    yield Row(f"final loss, {OURS} / MUMOTT", ratio, at_most=1.0)
    yield from (timings.row(name) for name in contestants)
    firsts = {name: timings.ratios(name, THEIRS)[0] for name in (DRIVEN, OURS)}
    for name in (DRIVEN, OURS):
        note = f"first run in the process {firsts[name]:.3g}"
        yield timings.ratio_row(f"wall time, {name} / MUMOTT", name, THEIRS, note, at_most=0.125)
