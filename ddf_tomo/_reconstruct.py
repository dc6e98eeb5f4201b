"""From scans to volumes of spherical functions, in one call."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch
from tqdm.auto import tqdm

from ddf_tomo._checks import MOST_ITERATIONS, choice, even_order, flag, integer, message, number, sequence_of
from ddf_tomo.operators.base import as_tensor
from ddf_tomo.operators.observability import observability
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.priors import (
    Functional,
    NonNegativeFunction,
    NonNegativeMean,
    PositiveDefinite,
    Smoothness,
    TotalVariation,
)
from ddf_tomo.reconstruction import Reconstruction
from ddf_tomo.scan import Scan
from ddf_tomo.solvers import Checkpoint, Misfit, Solution, cgls, fista, irtt, lbfgs, nonlinear_cg, pdhg, sirt
from ddf_tomo.solvers.regularisation_weight import (
    FIRST,
    WeightChoice,
    cross_validated_weight,
    discrepant_weight,
    l_curve_weight,
    response_scale,
)

PRIORS = ("auto", "tv", "smoothness")
RULES = ("auto", "cross-validation", "discrepancy", "l-curve")
ROUNDING = 0.03  # of the total variation, for methods that need gradients; relative to the height of the volume
UNREGULARISED = 15
SEARCH_ITERATIONS = 12  # of conjugate gradients, for each weight that is tried


@dataclass(frozen=True)
class Method:
    """An algorithm as `reconstruct` offers it: its function, iterations by default, and what it can take."""

    solve: Callable[..., Solution]
    iterations: int
    takes_priors: bool = True
    takes_constraints: bool = True
    rounding: float = 0.0


def _conjugate_gradients(misfit: Misfit, terms: Sequence[Functional], **how: Any) -> Solution:
    solve = partial(cgls, misfit.A, misfit.y, weights=misfit.weights, **how)
    if not terms:
        return solve()
    if len(terms) == 1 and isinstance(terms[0], Smoothness):
        return solve(tikhonov=terms[0].weight, penalty=terms[0].operator)
    return nonlinear_cg(misfit.A, misfit.y, regularisers=list(terms), weights=misfit.weights, **how)


def _proximal(solver: Callable[..., Solution]) -> Callable[..., Solution]:
    def solve(misfit: Misfit, terms: Sequence[Functional], **how: Any) -> Solution:
        return solver(misfit.A, misfit.y, regularisers=list(terms), weights=misfit.weights, **how)

    return solve


def _constrained(solver: Callable[..., Solution]) -> Callable[..., Solution]:
    def solve(misfit: Misfit, terms: Sequence[Functional], **how: Any) -> Solution:
        constraint = {"constraint": terms[0]} if terms else {}
        return solver(misfit.A, misfit.y, weights=misfit.weights, **constraint, **how)

    return solve


METHODS = {
    "cg": Method(_conjugate_gradients, 50, takes_constraints=False, rounding=ROUNDING),
    "lbfgs": Method(_proximal(lbfgs), 60, takes_constraints=False, rounding=ROUNDING),
    "fista": Method(_proximal(fista), 60),
    "pdhg": Method(_proximal(pdhg), 100),
    "sirt": Method(_constrained(sirt), 100, takes_priors=False),
    "irtt": Method(_proximal(irtt), 60),
}


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
        Data, weights, geometry and response. Several scans (q-bins, energies, distances) are reconstructed one after
        the other, each from where the one before ended, under one progress bar.
    method
        ``"cg"`` (default): conjugate gradients, the fastest; ``"fista"``, ``"pdhg"``:
        first-order methods that can take constraints; ``"lbfgs"``: quasi-Newton; ``"sirt"``: simultaneous iterative
        reconstruction, regularised by few iterations; ``"irtt"``: positive definite tensors, for rank-2 responses.
    ell_max
        Highest order of the harmonics; ``"auto"`` takes the highest that the acquisition fully determines
        (`observability`), and warns where that is none beyond the mean. Asking for more than is determined warns.
    prior
        ``"tv"``: total variation; ``"smoothness"``: square of the differences between neighbours; ``None``; or a
        functional of your own from `ddf_tomo.priors`, with its weight. ``"auto"``: total variation where the method
        takes priors.
    weight
        Of the prior, relative to the response to a constant volume of the height of this one (so that it has no unit):
        typically 1e-3 … 1e-1. ``"auto"`` or ``"cross-validation"`` leaves one view in ten out and takes the weight that
        predicts them best; ``"discrepancy"`` that whose residual is the noise level; ``"l-curve"`` the corner of prior
        against residual. Scans of fewer than ten views get 0.01.
    positive
        Constrain the function of each voxel to be nowhere negative (positive definite for tensors; with ``"sirt"``, a
        mean that is not negative).
    iterations
        Number of iterations of the final solution; by default the method's own.
    noise_level
        Norm of the weighted residual of the truth: where to stop without a prior, and what ``weight="discrepancy"``
        aims at. By default, where weights are known, the square root of the number of data, as it is if the weights are
        inverse variances (for ``"discrepancy"`` only).
    checkpoint
        Folder to keep the state in, now and then; what was interrupted goes on from there with the same result. Not
        removed at the end. A `Checkpoint` says how often.
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
    plan = _Plan.checked(method, prior, weight, positive, iterations, noise_level, progress)
    orders = [_chosen_order(each, ell_max, plan.prior is not None) for each in scans]
    folder = _folder(checkpoint)
    done: list[Reconstruction] = []
    with closing(_Bar(len(scans) * plan.expected, progress)) as bar:
        for number_of_scan, (each, order) in enumerate(zip(scans, orders, strict=True)):
            bar.name = "" if single else f"scan {number_of_scan + 1} of {len(scans)}, "
            inside = folder if single else _folder(_inside(folder, str(number_of_scan)))
            done.append(_one(each, order, plan, inside, bar, done[-1] if done else None))
    return done[0] if single else done


@dataclass(frozen=True)
class _Plan:
    """The checked wishes."""

    name: str
    prior: str | Functional | None
    weight: float | str
    positive: bool
    iterations: int
    noise_level: float | None

    @classmethod
    def checked(
        cls, method: Any, prior: Any, weight: Any, positive: Any, iterations: Any, noise_level: Any, progress: Any
    ) -> _Plan:
        choice(method, "method", tuple(METHODS))
        taken = METHODS[method]
        if prior is not None and not isinstance(prior, (str, Functional)):
            raise TypeError(message("prior", "a name, a ddf_tomo.priors.Functional or None", type(prior).__name__))
        if isinstance(prior, str):
            choice(prior, "prior", PRIORS)
            if prior == "auto":
                prior = "tv" if taken.takes_priors else None
        if prior is not None and not taken.takes_priors:
            raise ValueError(message("prior", f"None, as method {method!r} takes none", repr(prior)))
        if isinstance(weight, str):
            weight = choice(weight, "weight", RULES)
            weight = RULES[1] if weight == "auto" else weight
            if isinstance(prior, Functional):
                weight = 1.0
        else:
            weight = number(weight, "weight", low=0.0)
        positive = flag(positive, "positive")
        if positive and not taken.takes_constraints:
            found = f"False, as method {method!r} takes no constraints"
            raise ValueError(message("positive", found, True, "'fista' does"))
        if iterations is None:
            # Without a prior the number of iterations is what keeps the noise out.
            iterations = UNREGULARISED if method == "cg" and prior is None else taken.iterations
        iterations = integer(iterations, "iterations", low=1, high=MOST_ITERATIONS)
        noise_level = None if noise_level is None else number(noise_level, "noise_level", low=0.0)
        if progress is not None:
            flag(progress, "progress")
        return cls(method, prior or None, weight, positive, iterations, noise_level)

    @property
    def expected(self) -> int:
        """About how many iterations there will be."""
        return self.iterations + (5 * SEARCH_ITERATIONS if isinstance(self.weight, str) and self.prior else 0)


def _one(
    scan: Scan, order: int, plan: _Plan, folder: Checkpoint | None, bar: _Bar, before: Reconstruction | None
) -> Reconstruction:
    method = METHODS[plan.name]
    data = as_tensor(scan.data).detach().cpu()
    weights = None if scan.weights is None else as_tensor(scan.weights).detach().cpu()
    # Weights of mean 1 keep float32 sums in range whatever the units; the minimiser does not change.
    unit = 1.0 if weights is None else float(weights[weights > 0].double().mean())
    misfit = Misfit(
        TensorXRayTransform(scan.geometry, scan.response, order), data, None if weights is None else weights / unit
    )
    scale, height = response_scale(misfit.A, misfit.weights, misfit.y)
    of_harmonics = getattr(scan.response, "of_harmonics", True)
    shape = scan.geometry.volume_shape

    def terms(weight: float, rounding: float) -> list[Functional]:
        if plan.prior is None or not weight:
            return []
        if isinstance(plan.prior, Functional):
            return [weight / unit * plan.prior]
        if plan.prior == "smoothness":
            return [weight * scale * Smoothness(shape)]
        return [weight * scale * height * TotalVariation(shape, tensor=not of_harmonics, smoothing=rounding * height)]

    def fit(part: Misfit, weight: float, x0: torch.Tensor | None) -> Solution:
        bar.stage("choosing the weight of the prior")
        part_of = "all" if part is misfit else "some"
        state = _inside(folder, f"{part_of}-views-{weight:.3g}.h5")
        count = SEARCH_ITERATIONS if x0 is not None else SEARCH_ITERATIONS * 3 // 2
        how = {"iterations": count, "callback": bar, "progress": False, "checkpoint": state}
        return _conjugate_gradients(part, terms(weight, ROUNDING), x0=x0, **how)

    start = None
    if before is not None and before.coefficients.shape == tuple(misfit.A.domain_shape):
        start = torch.from_numpy(before.coefficients).to(data) * (height / float(before.settings["height"]))
    limit = None if plan.noise_level is None else plan.noise_level / unit**0.5
    chosen = WeightChoice(plan.weight, start, ()) if not isinstance(plan.weight, str) else None
    if chosen is None and plan.prior is None:
        chosen = WeightChoice(0.0, start, ())
    if chosen is None:
        first = FIRST if before is None else float(before.settings["weight"])
        count = misfit.y.numel() if misfit.weights is None else int((misfit.weights > 0).sum())
        expected = (count / unit) ** 0.5
        if plan.weight == "cross-validation":
            chosen = cross_validated_weight(fit, misfit, first=first)
        elif plan.weight == "discrepancy":
            if limit is None and weights is None:
                raise ValueError(message("noise_level", "a number, where the scan has no weights", None))
            chosen = discrepant_weight(fit, misfit, expected if limit is None else limit, first=first)
        else:
            chosen = l_curve_weight(fit, misfit, terms(1.0, ROUNDING)[0])
    bar.stage("reconstructing")
    constraints = [_constraint(plan.name, order, of_harmonics)] if plan.positive and plan.name != "irtt" else []
    solution = method.solve(
        misfit,
        [*terms(chosen.weight, method.rounding), *constraints],
        iterations=plan.iterations,
        noise_level=limit,
        x0=chosen.x,
        callback=bar,
        progress=False,
        checkpoint=_inside(folder, "final.h5"),
    )
    norm = misfit.norm(misfit.y)
    from ddf_tomo import __version__

    return Reconstruction(
        solution.x.numpy(),
        order,
        scan.geometry,
        scan.response,
        tuple(residual * unit**0.5 for residual in solution.residuals),
        scan.voxel_size_m,
        {
            "method": plan.name,
            "prior": plan.prior if isinstance(plan.prior, str) else repr(plan.prior),
            "weight": float(chosen.weight),
            "weight_from": plan.weight if isinstance(plan.weight, str) and plan.prior else "given",
            "positive": plan.positive,
            "iterations": solution.iterations,
            "stopped_by": solution.stopped_by,
            "residual_share": solution.residuals[-1] / norm if norm else 0.0,
            "height": height,
        },
        {
            **scan.provenance,
            "title": scan.title,
            "ddf_tomo": __version__,
            "torch": torch.__version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


class _Bar:
    """One progress bar over all that a call does; a callback of solvers."""

    def __init__(self, total: int, show: bool | None) -> None:
        self.name = ""
        # Without the caller's wish it appears only when the call takes longer than two seconds.
        self.bar = tqdm(total=total, disable=show is False, delay=0.0 if show else 2.0, leave=bool(show))

    def stage(self, text: str) -> None:
        self.bar.set_description(self.name + text, refresh=False)

    def __call__(self, iteration: int, x: torch.Tensor, residual: float) -> None:
        self.bar.total = max(self.bar.total, self.bar.n + 1)
        self.bar.update()

    def close(self) -> None:
        self.bar.total = self.bar.n
        self.bar.close()


def _folder(checkpoint: Any) -> Checkpoint | None:
    """Where the states of the stages go, made if it is not there."""
    if checkpoint is None:
        return None
    folder = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    if not folder.path.parent.is_dir() or folder.path.is_file():
        raise ValueError(message("checkpoint", "a folder, or a name for one in an existing folder", str(folder.path)))
    folder.path.mkdir(exist_ok=True)
    return folder


def _constraint(method: str, order: int, of_harmonics: bool) -> Functional:
    if not of_harmonics:
        return PositiveDefinite()
    return NonNegativeMean() if method == "sirt" else NonNegativeFunction(order)


def _inside(folder: Checkpoint | None, name: str) -> Checkpoint | None:
    return None if folder is None else Checkpoint(folder.path / name, folder.every_s)


def _chosen_order(scan: Scan, ell_max: int | str, regularised: bool) -> int:
    if not getattr(scan.response, "of_harmonics", True):
        if ell_max not in ("auto", 2):
            raise ValueError(message("ell_max", "2 or 'auto' for a rank-2 tensor", repr(ell_max)))
        return 2
    if isinstance(ell_max, str):
        choice(ell_max, "ell_max", ("auto",))
        report = observability(scan.geometry, scan.response, 8)
        order = report.highest_determined_order
        if order == 0 and getattr(scan.response, "highest_order", None) != 0:
            # Few views, or one axis: with a prior a start can be made at directions, but nobody should be left unaware.
            order = report.automatic_ell_max(regularised=True) if regularised else 0
            warnings.warn(
                f"these {len(scan)} views alone do not determine directions everywhere; ell_max={order} was chosen"
                + (", and the prior carries part of it" if order else ": more views or tilts are needed"),
                UserWarning,
                stacklevel=3,
            )
        return order
    order = even_order(ell_max)
    observability(scan.geometry, scan.response, order).warn_if_undetermined(order, regularised=regularised)
    return order
