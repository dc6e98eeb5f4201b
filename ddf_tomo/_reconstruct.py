"""From scans to volumes of spherical functions, in one call."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

from ddf_tomo._checks import choice, even_order, message, sequence_of
from ddf_tomo._mixture import Mixture
from ddf_tomo._one_scan import Bar, OneScan, inside, of_harmonics, state_folder
from ddf_tomo._plan import Plan
from ddf_tomo.memory import check_memory
from ddf_tomo.operators.observability import observability
from ddf_tomo.priors import Functional
from ddf_tomo.reconstruction import Reconstruction
from ddf_tomo.scan import Scan
from ddf_tomo.solvers import Checkpoint


def reconstruct(
    scan: Scan | Sequence[Scan],
    method: str = "cg",
    *,
    ell_max: int | str = "auto",
    prior: str | Functional | None = "auto",
    weight: float | str = "auto",
    positive: bool = False,
    iterations: int | None = None,
    noise_level: float | None = None,
    start: str = "auto",
    levels: int = 1,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Any:
    """Reconstruct the spherical function of every voxel.

    Minimises ``½ |W^(1/2) (A c - data)|² + weight · prior(c)``: agreement with the data, and a prior that prefers
    volumes without noise. By default that is total variation over all coefficients together, which keeps edges and
    turns with the sample, at the weight that best predicts views which were left out.

    Parameters
    ----------
    scan
        Data, weights, geometry and response, in memory or, if they are too large (`Scan.read`), on the disk; from there
        some views are read at a time, and an iteration takes one projection more. Weights of more than ten times that
        of bright data are clipped: where counting statistics call empty pixels nearly exact, the model is not. Several
        scans (q-bins, energies, distances) are reconstructed one after the other under one progress bar. With a prior
        each starts from the volume and the weight of the one before; geometries and responses may differ.
    method
        ``"cg"`` (default): conjugate gradients, the fastest; ``"fista"``, ``"pdhg"``:
        first-order methods that can take constraints; ``"lbfgs"``: quasi-Newton; ``"sirt"``: simultaneous iterative
        reconstruction, regularised by few iterations; ``"irtt"``: positive definite tensors, for rank-2 responses;
        ``"fbp"``: tensor filtered backprojection, at once and without a prior.
    ell_max
        Highest order of the harmonics; ``"auto"`` takes the highest that the acquisition fully determines
        (`observability`), and warns where that is none beyond the mean. Asking for more than is determined warns.
    prior
        ``"tv"``: total variation, in which differences of the orders ℓ ≥ 2 count twice those of the mean;
        ``"smoothness"``: square of the differences between neighbours; ``"learned"``, the name of shipped weights or a
        file of them, or a `ddf_tomo.priors.learned.LearnedPrior`: a denoiser, with method ``"cg"`` in four rounds of
        `ddf_tomo.solvers.rehearsed`, which ``iterations`` counts; ``None``; or a functional of your own from
        `ddf_tomo.priors`, with its weight, in units of weights × data². ``"auto"``: total variation where the method
        takes priors. Several names with ``+`` between, as ``"tv+learned"``: each reconstructs, most views first and
        then all, and the result is the mixture that predicts the views left out best, taken a third of the way to even
        shares; it takes twice the time of all together.
    weight
        Of the prior, relative to the response to a constant volume of the height of this one (so that it has no unit):
        typically 1e-3 … 1e-1. ``"auto"`` or ``"cross-validation"`` leaves one view in ten out and takes the weight that
        predicts them best; ``"discrepancy"`` that whose residual is the noise level; ``"l-curve"`` the corner of prior
        against residual. Scans of fewer than ten views get 0.01. With a functional of your own a factor, 1 by default.
    positive
        Constrain the function of each voxel to be nowhere negative, on a fine grid of directions (no negative
        eigenvalue of tensors, which ``"irtt"`` sees to anyway; with ``"sirt"``, no negative mean). What little the
        iterations leave below zero is raised at the end, by mixing the voxel's function with its mean.
    iterations
        Number of iterations of the final solution; by default the method's own, half of them after a search.
    noise_level
        Norm of the weighted residual of the truth: where to stop without a prior, and what ``weight="discrepancy"``
        aims at, which by default is the square root of the number of data, as if weights were inverse variances.
    start
        ``"fbp"``: iterations start from filtered backprojection (`ddf_tomo.solvers.fbp`); ``"zero"``; ``"auto"``
        (default): ``"fbp"`` with a prior. A scan before gives a better start than either.
    levels
        Grids, from coarse to fine: with 2, the volume is first reconstructed with voxels and pixels twice as large,
        with 3, four times, and so on. Each grid starts from the one before, and its search for the weight there.
    checkpoint
        Folder to keep the state in, every 30 seconds (a `Checkpoint` says how often): what was interrupted, by Ctrl-C,
        a kill or a power cut, goes on from there with the same result, and what was complete goes on when asked for
        more iterations. A folder of other data or wishes is refused. It is not removed at the end.
    progress
        Whether to show a progress bar; by default when it takes longer than two seconds.

    Returns
    -------
    Reconstruction
        Or a list of them, for several scans.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.
    MemoryError
        If it would take more memory than there is (`ddf_tomo.memory.predicted_memory`), before it starts.

    Examples
    --------
    >>> from ddf_tomo import SecondMomentResponse
    >>> from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
    >>> scan = simulate(helicoidal_fibres, tilt_series((12, 12, 12)), SecondMomentResponse(), noise=0.01)
    >>> reconstruct(scan)
    <Reconstruction: 12 × 12 × 12 voxels, 6 coefficients (ell_max=2)>
    """
    single = isinstance(scan, Scan)
    if not single and (isinstance(scan, (str, bytes)) or not isinstance(scan, Sequence)):
        raise TypeError(message("scan", "a ddf_tomo.Scan or several of them", type(scan).__name__))
    scans: list[Scan] = [scan] if isinstance(scan, Scan) else list(sequence_of(Scan, scan, "scan"))
    plans = Plan.several(method, prior, weight, positive, iterations, noise_level, progress, start, levels)
    names = [""] if single else [f"scan {place + 1} of {len(scans)}" for place in range(len(scans))]
    orders = []
    for each, name in zip(scans, names, strict=True):
        with _named(name):
            for plan in plans.values():
                plan.check_scan(each)
            orders.append(_chosen_order(each, ell_max, plan.prior is not None, name))
            for plan in plans.values():
                check_memory(each, orders[-1], plan)
    folder = state_folder(checkpoint)
    done: list[Reconstruction] = []
    total = sum(plan.expected_iterations for plan in plans.values()) * (1 if len(plans) == 1 else 2)
    with closing(Bar(len(scans) * total, progress)) as bar:
        for place, (each, order, name) in enumerate(zip(scans, orders, names, strict=True)):
            bar.name = name and f"{name}, "
            kept = folder if folder is None or single else state_folder(inside(folder, str(place)))
            with _named(name):
                done.append(
                    OneScan(each, order, plan, kept, bar, done[-1] if done else None).reconstruction()
                    if len(plans) == 1
                    else Mixture(each, order, plans, kept, bar).reconstruction()
                )
    return done[0] if single else done


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Errors say which of several scans they are about."""
    try:
        yield
    except (TypeError, ValueError, MemoryError) as error:
        if name:
            error.args = (f"{name}: {error}", *error.args[1:])
        raise


def _chosen_order(scan: Scan, ell_max: int | str, regularised: bool, name: str) -> int:
    ell_max = choice(ell_max, "ell_max", ("auto",)) if isinstance(ell_max, str) else even_order(ell_max)
    if not of_harmonics(scan.response):
        if ell_max not in ("auto", 2):
            raise ValueError(message("ell_max", "2 or 'auto' for a rank-2 tensor", repr(ell_max)))
        return 2
    if isinstance(ell_max, str):
        report = observability(scan.geometry, scan.response, 8)
        order = report.highest_determined_order
        if order == 0 and getattr(scan.response, "highest_order", None) != 0:
            # Few views, or one axis: with a prior a start can be made at directions, but nobody should be left unaware.
            order = report.automatic_ell_max(regularised=True) if regularised else 0
            warnings.warn(
                (name and f"{name}: ")
                + f"these {len(scan)} views alone do not determine directions everywhere; ell_max={order} was chosen"
                + (", and the prior carries part of it" if order else ": more views or tilts are needed"),
                UserWarning,
                stacklevel=3,
            )
        return order
    observability(scan.geometry, scan.response, ell_max).warn_if_undetermined(ell_max, regularised=regularised)
    return ell_max
