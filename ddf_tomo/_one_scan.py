"""One scan to one volume: the weight of the prior is found, then the volume; each stage can be interrupted.

In the folder of a checkpoint, ``plan.h5`` tells what is being done, ``search`` holds the states of the weights that are
tried, ``weight.h5`` what came of them (``search`` then vanishes), and ``final.h5`` the state of the final iteration.
"""

from __future__ import annotations

import math
import warnings
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddf_tomo._balanced import balanced
from ddf_tomo._checks import message
from ddf_tomo._data_fit import data_fit
from ddf_tomo._plan import ROUNDING, SEARCH_ITERATIONS, Plan, conjugate_gradients
from ddf_tomo._progress import progress_bar
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.priors import (
    Functional,
    NonNegativeFunction,
    NonNegativeMean,
    PositiveDefinite,
    Smoothness,
    TotalVariation,
)
from ddf_tomo.priors.learned import LearnedPrior
from ddf_tomo.priors.learned.familiar import doubts
from ddf_tomo.priors.positive_definite import OFF_DIAGONAL
from ddf_tomo.priors.positivity import nowhere_negative
from ddf_tomo.reconstruction import DataFit, Reconstruction
from ddf_tomo.scan import Scan
from ddf_tomo.solvers import Checkpoint, Misfit, Solution, fbp
from ddf_tomo.solvers.iteration import identity
from ddf_tomo.solvers.misfit import misfit_of, overflow
from ddf_tomo.solvers.multiresolution import FACTOR, refined
from ddf_tomo.solvers.regularisation_weight import (
    FIRST,
    STRONGEST,
    WEAKEST,
    WeightChoice,
    cross_validated_weight,
    discrepant_weight,
    l_curve_weight,
    response_scale,
)

PLAN, WEIGHT, FINAL, SEARCH = "plan.h5", "weight.h5", "final.h5", "search"
TRIED = "*-views-*.h5"


DIRECTIONAL = 4.0  # weight of each order above 0 in the total variation, of 1 to 16 the best on three phantoms


class Bar:
    """One progress bar over all that a call does; a callback of solvers."""

    def __init__(self, total: int, show: bool | None) -> None:
        self.name = ""
        self.bar = progress_bar(total, "", show)

    def stage(self, text: str) -> None:
        self.bar.set_description(self.name + text, refresh=False)

    def __call__(self, iteration: int, x: torch.Tensor, residual: float) -> None:
        self.bar.total = max(self.bar.total, self.bar.n + 1)
        self.bar.update()

    def close(self) -> None:
        self.bar.total = self.bar.n
        self.bar.close()


class OneScan:
    """The work on one scan: ``before`` is the reconstruction of the scan before it, ``folder`` where states go."""

    def __init__(
        self, scan: Scan, order: int, plan: Plan, folder: Checkpoint | None, bar: Bar, before: Reconstruction | None
    ) -> None:
        self.scan, self.order, self.plan, self.folder, self.bar, self.before = scan, order, plan, folder, bar, before
        A = TensorXRayTransform(scan.geometry, scan.response, order)
        data, weights, self.unit = balanced(scan)
        self.misfit = misfit_of(A, data, weights)
        self.shape = tuple(int(n or 1) for n in A.domain_shape)
        plan.check_shape(self.shape)
        self.scale, self.height = response_scale(A, weights, self.misfit.y)
        if not math.isfinite(self.scale * self.height):
            raise ValueError(overflow(self.misfit.like))
        self.of_harmonics = of_harmonics(scan.response)
        self.first_weight: float | None = None

    def reconstruction(self) -> Reconstruction:
        """All stages."""
        plan, misfit, unit = self.plan, self.misfit, self.unit
        self.keep_the_plan()
        start = self.warm_start()
        if self.plan.levels > 1:
            self.bar.stage("a coarser grid")
            start = self.coarse_start()
        self.bar.stage("choosing the weight of the prior")
        chosen = self.choose_weight()
        self.bar.stage("reconstructing")
        solution = plan.method.solve(
            misfit,
            [*self.terms(chosen.weight, plan.method.rounding), *self.constraints()],
            iterations=plan.iterations,
            noise_level=self.noise_level if plan.prior is None else None,
            x0=self.started(misfit, start) if chosen.x is None else chosen.x,
            callback=self.bar,
            progress=False,
            checkpoint=self.state(FINAL),
        )
        x, residuals = self.raised(solution.x), list(solution.residuals)
        if x is not solution.x:
            residuals[-1] = misfit.norm(misfit.residual(x))
        norm = misfit.size()
        settings = {
            "method": plan.name,
            "prior": plan.prior if isinstance(plan.prior, str) else "none" if plan.prior is None else repr(plan.prior),
            "weight": float(chosen.weight),
            "weight_from": self.origin_of(chosen),
            "positive": plan.positive,
            "iterations": solution.iterations,
            "stopped_by": solution.stopped_by,
            "residual_share": residuals[-1] / norm if norm else 0.0,
            "height": self.height,
        }
        settings["start"] = "fbp" if plan.starts_filtered else "zero"
        settings |= {} if plan.levels == 1 else {"levels": plan.levels}
        fit = data_fit(misfit, x, unit)
        if (strength := getattr(solution, "strength", None)) is not None:
            settings["prior_strength"] = (unit * np.atleast_1d(strength)).tolist()
        if isinstance(plan.prior, LearnedPrior):
            settings["doubts"] = self.doubts(x, fit, plan.prior)
        return Reconstruction(
            x.numpy(),
            self.order,
            self.scan.geometry,
            self.scan.response,
            tuple(residual * unit**0.5 for residual in residuals),
            self.scan.voxel_size_m,
            settings,
            self.provenance(),
            fit=fit,
        )

    @property
    def noise_level(self) -> float | None:
        """As given, in the units of the misfit."""
        return None if self.plan.noise_level is None else self.plan.noise_level / self.unit**0.5

    def terms(self, weight: float, rounding: float) -> list[Functional]:
        """The prior at this relative weight."""
        prior, shape = self.plan.prior, self.scan.geometry.volume_shape
        if prior is None or not weight:
            return []
        if isinstance(prior, LearnedPrior):
            return [weight * prior]  # the noise that it is relative to is measured
        if isinstance(prior, Functional):
            return [weight / self.unit * prior]
        if prior == "smoothness":
            return [weight * self.scale * Smoothness(shape)]
        orders = [1.0, *[DIRECTIONAL] * (self.order // 2)] if self.of_harmonics else None
        rounded = TotalVariation(
            shape, order_weights=orders, tensor=not self.of_harmonics, smoothing=rounding * self.height
        )
        return [weight * self.scale * self.height * rounded]

    def doubts(self, x: torch.Tensor, fit: DataFit | None, prior: LearnedPrior) -> list[str]:
        """Why this may not be what the network was made for; what there is, is warned of."""
        brightest = float(self.misfit.y.abs().max()) or 1.0
        card = getattr(prior.denoiser, "card", None)
        per_datum, noise = (math.nan, math.nan) if fit is None else (fit.per_datum, fit.noise / brightest)
        told = doubts(x, per_datum, noise, {} if card is None else card.data.get("statistics", {}))
        if told:
            warnings.warn("the learned prior may be wrong here: " + "; ".join(told), UserWarning, stacklevel=4)
        return told

    def constraints(self) -> list[Functional]:
        if not self.plan.positive or self.plan.method.of_tensors:  # such a method has its constraint in it
            return []
        if not self.of_harmonics:
            return [PositiveDefinite()]
        return [NonNegativeMean() if self.plan.name == "sirt" else NonNegativeFunction(self.order)]

    def raised(self, x: torch.Tensor) -> torch.Tensor:
        """Constraints behind operators hold in the limit only, between their directions not even there: the rest."""
        if not self.constraints() or self.plan.name == "sirt":
            return x
        if self.of_harmonics:
            return nowhere_negative(x, self.order)
        lengths = x.new_tensor(OFF_DIAGONAL)
        return PositiveDefinite(scaled=True).proximal(x * lengths, 1.0) / lengths

    def warm_start(self) -> torch.Tensor | None:
        """The volume of the scan before, of the height of this one; orders that it lacks are zero.

        Not without a prior: there the number of iterations keeps the noise out, and the scan before had its own.
        """
        before, shape = self.before, self.shape
        if before is None or self.plan.prior is None or before.coefficients.shape[:3] != shape[:3]:
            return None
        if of_harmonics(before.response) != self.of_harmonics:
            return None
        start, shared = self.misfit.like.new_zeros(shape), min(shape[3], before.coefficients.shape[3])
        factor = self.height / float(before.settings["height"])
        start[..., :shared] = factor * torch.from_numpy(before.coefficients[..., :shared])
        return start

    def started(self, part: Misfit, start: torch.Tensor | None) -> torch.Tensor | None:
        """Where to start on all views or some: ``start``, or what the plan says."""
        if start is not None or not self.plan.starts_filtered:
            return start
        return fbp(part.A, part.y, weights=part.weights)

    def coarse_start(self) -> torch.Tensor:
        """A volume of twice as large voxels, made finer; the search for the weight begins at what was best there."""
        # A quarter of the data; of means the noise is half as large, unless weights tell of it.
        share = 1 / FACTOR if self.scan.weights is not None else 1 / FACTOR**2
        level = None if self.plan.noise_level is None else share * self.plan.noise_level
        plan = replace(self.plan, levels=self.plan.levels - 1, noise_level=level)
        coarse = OneScan(self.scan.binned(FACTOR), self.order, plan, None, self.bar, self.before).reconstruction()
        start = refined(torch.from_numpy(coarse.coefficients), self.shape[:3]).to(self.misfit.like)
        self.first_weight = float(coarse.settings["weight"])
        return start * (self.height / float(coarse.settings["height"]))

    def choose_weight(self) -> WeightChoice:
        """As given, as found, or as found by a call that was interrupted later."""
        if not isinstance(self.plan.weight, str):
            return WeightChoice(self.plan.weight, None, ())
        kept = self.state(WEIGHT)
        state: dict[str, Any] = {"x": self.misfit.start(None), "weight": 0.0, "tried": []}
        problem = {"rule": self.plan.weight} | (identity(self.misfit) if kept is not None else {})
        if kept is not None and kept.read(state, problem) is not None:
            chosen = WeightChoice(state["weight"], state["x"], tuple(map(tuple, state["tried"])))
        else:
            chosen = self.search()
            if kept is not None and chosen.x is not None:
                kept.write({"x": chosen.x, "weight": chosen.weight, "tried": chosen.tried}, problem, [], "convergence")
        if self.folder is not None:
            _remove(self.folder.path / SEARCH, TRIED)
        return chosen

    def search(self) -> WeightChoice:
        """By the rule; from the weight of the scan before, if there is one."""
        misfit = self.misfit
        first = FIRST if self.before is None else float(self.before.settings["weight"])
        first = self.first_weight or first
        first = min(max(first, WEAKEST), STRONGEST)
        if self.plan.weight == "cross-validation":
            return cross_validated_weight(self.fit, misfit, first=first)
        if self.plan.weight == "l-curve":
            return l_curve_weight(self.fit, misfit, self.terms(1.0, ROUNDING)[0])
        level = self.noise_level
        if level is None:  # that of weights which are inverse variances
            level = (misfit.count() / self.unit) ** 0.5
        return discrepant_weight(self.fit, misfit, level, first=first)

    def fit(self, part: Misfit, weight: float, x0: torch.Tensor | None) -> Solution:
        """A quick solution, of all views or some, with this weight."""
        x0 = self.started(part, x0)
        count = SEARCH_ITERATIONS if x0 is not None else SEARCH_ITERATIONS * 3 // 2
        state = self.state(SEARCH, f"{'all' if part is self.misfit else 'some'}-views-{weight!r}.h5")
        how: dict[str, Any] = {"iterations": count, "callback": self.bar, "progress": False, "checkpoint": state}
        return conjugate_gradients(part, self.terms(weight, ROUNDING), x0=x0, **how)

    def origin_of(self, chosen: WeightChoice) -> str:
        if self.plan.prior is None:
            return "no prior"
        if not isinstance(self.plan.weight, str):
            return "given"
        return self.plan.weight if chosen.tried else f"{self.plan.weight} was impossible: a typical weight"

    def keep_the_plan(self) -> None:
        """Leave word of what is done here, or refuse a folder in which something else is."""
        kept, plan = self.state(PLAN), self.plan
        if kept is None:
            return
        told = {
            "method": plan.name,
            "prior": repr(plan.prior),
            "weight": plan.weight,
            "positive": plan.positive,
            "ell_max": self.order,
            "noise_level": plan.noise_level,
        }
        told |= {"start": plan.start, "levels": plan.levels}
        told |= identity(self.misfit)
        if kept.read({}, told, f"remove the folder {kept.path.parent}, or name another") is None:
            kept.write({}, told, [], "iterations")

    def state(self, *names: str) -> Checkpoint | None:
        return None if self.folder is None else inside(self.folder, *names)

    def provenance(self) -> dict[str, Any]:
        from ddf_tomo import __version__

        made = {"title": self.scan.title, "ddf_tomo": __version__, "torch": torch.__version__}
        return {**self.scan.provenance, **made, "created": datetime.now(UTC).isoformat(timespec="seconds")}


def of_harmonics(response: Any) -> bool:
    """Whether it sees harmonics (the rule), not tensors."""
    return bool(getattr(response, "of_harmonics", True))


def state_folder(checkpoint: Any) -> Checkpoint | None:
    """Where the states of the stages go, made if it is not there."""
    if checkpoint is None:
        return None
    folder = checkpoint if isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)
    if not folder.path.parent.is_dir() or folder.path.is_file():
        raise ValueError(message("checkpoint", "a folder, or a name for one in an existing folder", str(folder.path)))
    folder.path.mkdir(exist_ok=True)
    return folder


def inside(folder: Checkpoint, *names: str) -> Checkpoint:
    """A file in it, in a folder that is made if it is not there."""
    path = folder.path.joinpath(*names)
    path.parent.mkdir(exist_ok=True)
    return Checkpoint(path, folder.every_s)


def holds_states(folder: Path) -> bool:
    """Whether a call with this checkpoint would go on from something."""
    return any(folder.glob(PLAN)) or any(folder.glob(f"[0-9]*/{PLAN}"))


def remove_states(folder: Path) -> None:
    """Remove what calls keep in a folder, and the folder if nothing else is in it; somebody's own files may be."""
    for place in (*folder.glob("[0-9]*/"), folder):
        _remove(place / SEARCH, TRIED)
        _remove(place, PLAN, WEIGHT, FINAL)


def _remove(folder: Path, *patterns: str) -> None:
    """Files of these names, what was left of writing them, and the folder, if then it is empty."""
    with suppress(OSError):
        for pattern in patterns:
            for file in (*folder.glob(pattern), *folder.glob(f".{pattern}.*.part")):
                file.unlink(missing_ok=True)
        folder.rmdir()
