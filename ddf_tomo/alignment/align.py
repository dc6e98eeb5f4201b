"""Where the views of a scan really were, found together with the volume."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddf_tomo._checks import MOST_ITERATIONS, choice, even_order, flag, integer, message, number, of_kind
from ddf_tomo._scan_arrays import as_numpy
from ddf_tomo.alignment.errors import standard_errors
from ddf_tomo.alignment.freedom import Freedom
from ddf_tomo.alignment.joint import Level
from ddf_tomo.alignment.registration import register
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.geometry_gradient import corrected
from ddf_tomo.operators.observability import observability
from ddf_tomo.operators.responses import IsotropicResponse
from ddf_tomo.scan import Scan
from ddf_tomo.solvers import Checkpoint
from ddf_tomo.solvers.iteration import Step, identity, iterate
from ddf_tomo.solvers.misfit import Misfit

SMALLEST = 12  # pixels along the shorter edge of the coarsest detector
MOST_BINNING = 16
REGISTRATIONS = 4
HIGHEST_ORDER = 4
LARGEST_STEP = 2.0  # pixels of the grid, in one Gauss–Newton step
VOLUME_ITERATIONS = 12
JOINT_ITERATIONS, JOINT_ITERATIONS_COARSE = (
    15,
    40,
)  # of conjugate gradients; weakly seen modes are found where it costs little


@dataclass(frozen=True, eq=False, repr=False)
class Alignment:
    """Corrections of a scan's views, and how well they are known; made by `align`.

    Attributes
    ----------
    geometry
        The corrected geometry.
    offsets, offset_error
        What was added to ``j_offset`` and ``k_offset``, in pixels, and its standard errors; shape ``(views, 2)``.
        Infinite where no data can tell.
    rotations, rotation_error
        Rotations of the frames about their own p, j, k in radians (`ddf_tomo.operators.geometry_gradient.corrected`),
        and their standard errors; shape ``(views, 3)``. Zero if they were not asked for.
    residuals
        Share of the weighted data's norm that was left before each step of the fit, and in the end.
    binning
        Binning of the grid each of the residuals belongs to.
    stopped_by
        ``"convergence"``, ``"iterations"`` or ``"callback"``.
    settings
        How it was made.
    """

    geometry: Geometry
    offsets: NDArray[np.float64]
    rotations: NDArray[np.float64]
    offset_error: NDArray[np.float64]
    rotation_error: NDArray[np.float64]
    residuals: tuple[float, ...]
    binning: tuple[int, ...]
    stopped_by: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def apply(self, scan: Scan) -> Scan:
        """The ``scan``, or another one of the same views, with the corrected geometry; a note goes to its provenance.

        Data are not touched: projectors take offsets and frames as they are.
        """
        of_kind(Scan, scan, "scan")
        corrections = np.concatenate([self.offsets, self.rotations], axis=1)
        note = f"offsets up to {np.abs(self.offsets).max(initial=0.0):.3g} pixels, {self.settings}"
        provenance = {**scan.provenance, "alignment": note}
        return replace(scan, geometry=corrected(scan.geometry, corrections), provenance=provenance)

    def __repr__(self) -> str:
        spread = np.sqrt((self.offsets**2).sum(1).mean()) if len(self.offsets) else 0.0
        return f"<Alignment: {len(self.offsets)} views, offsets of {spread:.3g} pixels (root mean square)>"

    def summary(self) -> str:
        """A few lines for a person."""
        lines = [repr(self)]
        for kind, column in (("j", 0), ("k", 1)):
            offsets, error = self.offsets[:, column], np.median(self.offset_error[:, column])
            lines.append(f"along {kind}: {offsets.min():.3g} … {offsets.max():.3g} pixels, standard error {error:.2g}")
        if self.rotations.any():
            largest = np.degrees(np.abs(self.rotations).max())
            lines.append(f"rotations: up to {largest:.3g}°, error {np.degrees(np.median(self.rotation_error)):.2g}°")
        lines.append(f"residual {self.residuals[0]:.4g} → {self.residuals[-1]:.4g}, stopped by {self.stopped_by}")
        return "\n".join([*lines, *(f"{key}: {value}" for key, value in self.settings.items())])


def align(
    scan: Scan,
    *,
    signal: str = "data",
    ell_max: int | None = None,
    rotations: bool = False,
    drift: int | None = None,
    search: float | None = None,
    levels: int | None = None,
    iterations: int = 5,
    smoothness: float = 1e-3,
    tolerance: float = 0.01,
    callback: Callable[[int, Tensor, float], bool | None] | None = None,
    progress: bool | None = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
) -> Alignment:
    """Find the detector offset (and, if wished, the rotation) of every view, together with the volume.

    On the coarsest grid the views are first matched with reprojections of a reconstruction, by `register`. Then, from
    coarse to fine grids, Gauss–Newton steps move views and volume together, with the exact derivatives of the projector
    (`AdjustableXRayTransform`): the volume gives way at once, so that smooth drifts are found as fast as jitter.

    What only moves the volume is not determined by any data and set to zero: of the corrections the part that a
    translation (and, with rotations, a rotation) of the whole volume explains.

    Parameters
    ----------
    scan
        Data, weights, geometry and response. The sample should lie inside the detector in most views.
    signal
        ``"data"``: all channels of the scan, by a tensor model; ``"diode"``: absorption, ``-ln`` of the scan's diode,
        by a scalar model, which costs a sixth.
    ell_max
        Highest order of the tensor model. By default 4 where the views determine it (`ddf_tomo.observability`), else 2,
        and 0 for scalar responses. Orders of the sample that the model lacks bend the offsets from view to view.
    rotations
        Whether to find small rotations of the views as well.
    drift
        ``None``: every view for itself. A number: only polynomials of this degree over the views, in their order; 0 is
        a global offset, such as that of a badly centred rotation axis (`find_centre`).
    search
        Largest offset in pixels that is looked for by correlation; a quarter of the detector by default, 0 leaves it
        out. With a drift there is none.
    levels
        Grids from coarse to fine, each with pixels twice as large as the next; by default as many as leave 12 pixels.
    iterations
        Largest number of Gauss–Newton steps on each grid.
    smoothness
        Weight of the volume's squared differences, relative to the response to a constant volume. What is too small
        lets the volume explain noise, what is too large lets it explain too little; a factor of ten hardly matters.
    tolerance
        Stop when the root mean square of a step's corrections falls below so many pixels of the grid.
    callback
        ``callback(iteration, corrections, residual)`` with tensors ``(views, 5)`` in pixels and radians; returning true
        stops.
    progress
        Whether to show a progress bar; by default when it takes longer than two seconds.
    checkpoint
        File to keep the state in, and to go on from (`ddf_tomo.solvers.Checkpoint`).

    Returns
    -------
    Alignment

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above, or there is no signal.

    Examples
    --------
    >>> from dataclasses import replace
    >>> from ddf_tomo import SecondMomentResponse
    >>> from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
    >>> truth = tilt_series((16, 16, 16), views=[12, 12], tilts_rad=[0.0, 0.5])
    >>> shifts = np.random.default_rng(0).normal(0, 1, (2, 24))
    >>> moved = replace(truth, j_offset=shifts[0], k_offset=shifts[1])
    >>> scan = replace(simulate(helicoidal_fibres, moved, SecondMomentResponse()), geometry=truth)
    >>> found = align(scan)
    >>> bool(np.median(np.abs(found.offsets - shifts.T)) < 0.5 * np.median(np.abs(shifts)))
    True
    """
    of_kind(Scan, scan, "scan", "a ddf_tomo.Scan")
    fit = _Fit(with_signal(scan, signal), ell_max, flag(rotations, "rotations"), drift, smoothness)
    schedule = _schedule(fit.scan.geometry, levels, integer(iterations, "iterations", low=1, high=MOST_ITERATIONS))
    limit = number(tolerance, "tolerance", low=0.0, high=1.0)
    reach = _reach(search, fit.scan.geometry, drift)
    if reach > 0:
        schedule = [(schedule[0][0], "register")] * REGISTRATIONS + schedule

    def step(state: dict[str, Any], iteration: int) -> Step | None:
        binning, kind = schedule[iteration - 1]
        return fit.register(state, binning, reach) if kind == "register" else fit.newton(state, binning, limit)

    views = len(scan)
    state: dict[str, Any] = {"x": torch.zeros(views, 5, dtype=torch.float64), "volume": torch.zeros(0)}
    state |= {"binning": 0, "settled": 0, "residual": 1.0}
    settings = {"signal": signal, "ell_max": fit.ell_max, "rotations": bool(rotations), "smoothness": fit.smoothness}
    settings |= {"drift": "none" if drift is None else int(drift), "levels": sorted({b for b, _ in schedule})[::-1]}
    known = settings | {"search": reach, "iterations": len(schedule), "tolerance": limit}
    finest = fit.level(1)
    problem: dict[str, Any] = {}
    if checkpoint is not None:
        A = finest.transform(torch.zeros(views, 5))
        problem = identity(Misfit(A, finest.data, finest.weights), **known)
    solution = iterate(
        "alignment",
        state,
        step,
        1.0,
        problem,
        iterations=len(schedule),
        tolerance=limit,
        callback=callback,
        progress=progress,
        checkpoint=checkpoint,
    )
    corrections = solution.x
    volume = fit.volume_at(state, 1)
    volume = finest.volume(corrections, VOLUME_ITERATIONS, volume)
    errors, left = standard_errors(finest, volume, corrections, fit.freedom)
    done = tuple(binning for binning, _ in schedule[: solution.iterations])
    return Alignment(
        geometry=corrected(scan.geometry, corrections),
        offsets=corrections[:, :2].numpy().copy(),
        rotations=corrections[:, 2:].numpy().copy(),
        offset_error=errors[:, :2],
        rotation_error=errors[:, 2:] if rotations else np.zeros((views, 3)),
        residuals=(*solution.residuals[1:], left),
        binning=(*done, 1),
        stopped_by=solution.stopped_by,
        settings=settings,
    )


def absorption_of(scan: Scan) -> Scan:
    """The scan of ``-ln`` of a scan's diode: line integrals of attenuation, one channel, with weights ``diode``.

    Parameters
    ----------
    scan
        A scan with a diode, in which air reads 1. Pixels whose diode is not positive are masked; of the scan's weights
        only the masks of whole pixels are kept.

    Raises
    ------
    ValueError
        If the scan has no diode.

    Examples
    --------
    >>> from ddf_tomo import SecondMomentResponse
    >>> geometry = Geometry.from_angles(0.0, 0.0, (4, 4, 4), (4, 4))
    >>> absorption_of(Scan(np.ones((1, 4, 4, 3)), geometry, SecondMomentResponse(), diode=np.ones((1, 4, 4))))
    <Scan: 1 views of 4 × 4 pixels, 1 channels, IsotropicResponse, volume 4 × 4 × 4>
    """
    of_kind(Scan, scan, "scan", "a ddf_tomo.Scan")
    if scan.diode is None:
        raise ValueError(message("scan", "one with a diode (transmission)", "one without"))
    diode = as_numpy(scan.diode)
    counts = (diode > 0) & (as_numpy(scan.full_weights()) > 0).any(-1)
    data = np.where(counts, -np.log(np.where(counts, diode, 1)), 0)[..., None]
    # Counting noise of a transmission T has the variance T: that of its logarithm is 1/T.
    weights = np.where(counts, diode, 0)[..., None]
    return replace(scan, data=data, response=IsotropicResponse(), weights=weights, diode=None)


class _Fit:
    """The scan on all grids, and the two kinds of steps."""

    def __init__(self, scan: Scan, ell_max: int | None, rotations: bool, drift: int | None, smoothness: float) -> None:
        self.scan = _of_height_one(scan)
        self.ell_max = _order(scan) if ell_max is None else even_order(ell_max)
        self.smoothness = number(smoothness, "smoothness", low=0.0, high=1e6, low_open=True)
        self.freedom = Freedom(scan.geometry, drift, rotations)
        self._levels: dict[int, Level] = {}

    def level(self, binning: int) -> Level:
        if binning not in self._levels:
            self._levels = {1: self._levels[1]} if 1 in self._levels else {}
            self._levels[binning] = Level(self.scan.binned(binning), self.ell_max, self.smoothness)
        return self._levels[binning]

    def register(self, state: dict[str, Any], binning: int, reach: float) -> Step:
        """Reconstruct, project, and move each view to where it agrees best."""
        level, here = self.level(binning), self._on_grid(state["x"], binning)
        x = level.volume(here, VOLUME_ITERATIONS)
        model = level.transform(here)(x)
        residual = level.share_left(model)
        shifts = register(level.data, model, level.weights, largest=max(1.0, reach / binning))
        steps = torch.nn.functional.pad(-shifts, (0, self.freedom.kinds - 2))
        self._move(state, self.freedom.without_gauge(steps), binning, torch.inf)
        state["volume"], state["binning"] = x, binning
        return Step(residual)

    def newton(self, state: dict[str, Any], binning: int, limit: float) -> Step:
        """Move views and volume together."""
        if state["settled"] == binning:  # this grid has nothing more to say
            return Step(state["residual"])
        level, here = self.level(binning), self._on_grid(state["x"], binning)
        x = self.volume_at(state, binning)
        if x is None or state["binning"] != binning:
            x = level.volume(here, VOLUME_ITERATIONS, x)
        at = level.linearised(x, here, self.freedom)
        x, steps = at.step(x, JOINT_ITERATIONS if binning == 1 else JOINT_ITERATIONS_COARSE)
        moved = self._move(state, steps, binning)
        state["volume"], state["binning"] = x, binning
        state["settled"], state["residual"] = binning if moved <= limit * binning else 0, at.residual()
        return Step(state["residual"], moved if binning == 1 else float("inf"))

    def volume_at(self, state: dict[str, Any], binning: int) -> Tensor | None:
        """The state's volume on another grid: interpolated, per edge of the new voxels."""
        from ddf_tomo.solvers.multiresolution import refined

        if not state["binning"]:
            return None
        x, at = state["volume"], state["binning"]
        while at > binning:
            at //= 2
            x = refined(x, self.scan.geometry.binned(at).volume_shape) / 2
        return x if at == binning else None

    def _on_grid(self, corrections: Tensor, binning: int) -> Tensor:
        scale = torch.tensor([1 / binning] * 2 + [1.0] * 3, dtype=torch.float64)
        return corrections * scale

    def _move(self, state: dict[str, Any], steps: Tensor, binning: int, most: float = LARGEST_STEP) -> float:
        """Take a step given in pixels of a grid; root mean square of what it moves, in pixels of the data."""
        corrections = self.freedom.expand(steps)
        lever = max(self.scan.geometry.volume_shape) / (2 * binning)  # pixels that a radian moves the outermost voxels
        moved = torch.cat([corrections[:, :2], lever * corrections[:, 2:]], dim=1)
        factor = (most / moved.abs().amax(1, keepdim=True).clamp_min(1e-30)).clamp_max(1)
        if self.freedom.basis is not None:  # which must remain a drift
            factor = factor.amin()
        corrections = factor * corrections
        corrections[:, :2] *= binning
        state["x"] = state["x"] + torch.nn.functional.pad(corrections, (0, 5 - self.freedom.kinds))
        return float((factor * moved).square().sum(1).mean().sqrt()) * binning


def with_signal(scan: Scan, signal: str) -> Scan:
    """The scan in memory, of its data or of the absorption in its diode; refused if there is nothing in it."""
    scan = scan.in_memory()
    chosen = scan if choice(signal, "signal", ("data", "diode")) == "data" else absorption_of(scan)
    if not (as_numpy(chosen.data) * as_numpy(chosen.full_weights())).any():
        raise ValueError(message("scan", "a signal in some view", "zero everywhere, or masked"))
    return chosen


def _order(scan: Scan) -> int:
    """Order of the model: 4 where the views determine that, else 2; 0 for scalars."""
    if getattr(scan.response, "highest_order", None) == 0:
        return 0
    if not getattr(scan.response, "of_harmonics", True):
        return 2
    return max(2, observability(scan.geometry, scan.response, HIGHEST_ORDER).highest_determined_order)


def _of_height_one(scan: Scan) -> Scan:
    """Data and weights scaled to 1 and zero where masked: offsets do not depend on units, float32 does."""
    data, weights = (as_numpy(a).astype(np.float64) for a in (scan.data, scan.full_weights()))
    seen = weights > 0
    data, weights = data / np.abs(data[seen]).max(), weights / weights.max()
    return replace(
        scan, data=np.where(seen, data, 0).astype(np.float32), weights=weights.astype(np.float32), diode=None
    )


def _schedule(geometry: Geometry, levels: int | None, iterations: int) -> list[tuple[int, str]]:
    edge = min(*geometry.detector_shape, *geometry.volume_shape)
    if levels is None:
        levels = 1
        while levels < MOST_BINNING.bit_length() and edge >> levels >= SMALLEST:
            levels += 1
    levels = integer(levels, "levels", low=1, high=min(edge.bit_length(), MOST_BINNING.bit_length()))
    return [(2**level, "newton") for level in range(levels - 1, -1, -1) for _ in range(iterations)]


def _reach(search: float | None, geometry: Geometry, drift: int | None) -> float:
    if search is None:
        return 0.0 if drift is not None else max(geometry.detector_shape) / 4
    reach = number(search, "search", low=0.0)
    if reach and drift is not None:
        raise ValueError(message("search", "0 or None with a drift", search))
    return reach
