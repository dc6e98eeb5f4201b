"""What `reconstruct` can do: its methods, and the wishes of a call, checked against them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ddf_tomo._checks import MOST_ITERATIONS, choice, flag, integer, message, number
from ddf_tomo.operators.base import fits, shape_text
from ddf_tomo.priors import Functional, Smoothness
from ddf_tomo.priors.learned import LearnedPrior
from ddf_tomo.scan import Scan
from ddf_tomo.solvers import (
    Misfit,
    Solution,
    cgls,
    fbp,
    fista,
    irtt,
    lbfgs,
    nonlinear_cg,
    pdhg,
    plug_and_play,
    rehearsed,
    sirt,
)
from ddf_tomo.solvers.multiresolution import MOST_LEVELS
from ddf_tomo.weights import shipped_weights

PRIORS = ("auto", "tv", "smoothness")
STARTS = ("auto", "fbp", "zero")
RULES = ("auto", "cross-validation", "discrepancy", "l-curve")
ROUNDING = 0.03  # of the total variation, for methods that need gradients; relative to the height of the volume
UNREGULARISED = 15
LEARNED, ROUNDS = 24, 4  # iterations with a learned prior, without a rehearsal and with one
SEARCH_ITERATIONS = 12  # of conjugate gradients, for each weight that is tried


@dataclass(frozen=True)
class Method:
    """An algorithm as `reconstruct` offers it: its function, iterations by default, and what it can take."""

    solve: Callable[..., Solution]
    iterations: int
    takes_priors: bool = True
    takes_constraints: bool = True
    rounding: float = 0.0
    of_tensors: bool = False
    streams: bool = True
    direct: bool = False


def conjugate_gradients(misfit: Misfit, terms: Sequence[Functional], **how: Any) -> Solution:
    """Linear where the prior is quadratic, nonlinear where it is not; between two steps of a learned denoiser."""
    if terms and isinstance(prior := terms[0], LearnedPrior):
        how |= {"weights": misfit.weights, "strength": prior.weight, "positive": len(terms) > 1}
        if prior.iterates:
            return plug_and_play(misfit.A, misfit.y, prior.denoiser, sigma=prior.sigma, **how)
        how["rounds"] = how.pop("iterations")
        # Rehearsals find the level, and start from linear reconstructions: so does the volume, even within a series.
        del how["noise_level"], how["x0"]
        return rehearsed(misfit.A, misfit.y, prior.denoiser, prior.volumes(misfit.A.domain_shape), **how)
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


def _filtered(misfit: Misfit, terms: Sequence[Functional], **how: Any) -> Solution:
    x = fbp(misfit.A, misfit.y, weights=misfit.weights)
    residual = misfit.norm(misfit.residual(x))
    how["callback"](1, x, residual)
    return Solution(x, (misfit.size(), residual), "iterations")


METHODS = {
    "cg": Method(conjugate_gradients, 60, takes_constraints=False, rounding=ROUNDING),
    "lbfgs": Method(_proximal(lbfgs), 60, takes_constraints=False, rounding=ROUNDING),
    "fista": Method(_proximal(fista), 60),
    "pdhg": Method(_proximal(pdhg), 100, streams=False),
    "sirt": Method(_constrained(sirt), 100, takes_priors=False, streams=False),
    "irtt": Method(_proximal(irtt), 60, of_tensors=True),
    "fbp": Method(_filtered, 1, takes_priors=False, takes_constraints=False, direct=True),
}


@dataclass(frozen=True)
class Plan:
    """The checked wishes of a call."""

    name: str
    prior: str | Functional | None
    weight: float | str
    positive: bool
    iterations: int
    noise_level: float | None
    start: str = "auto"
    levels: int = 1

    @classmethod
    def checked(
        cls,
        method: Any,
        prior: Any,
        weight: Any,
        positive: Any,
        iterations: Any,
        noise_level: Any,
        progress: Any,
        start: Any = "auto",
        levels: Any = 1,
    ) -> Plan:
        """From what was given to `reconstruct`."""
        taken = METHODS[choice(method, "method", tuple(METHODS))]
        choice(start, "start", STARTS)
        levels = integer(levels, "levels", low=1, high=MOST_LEVELS)
        if taken.direct:
            wishes = {"iterations": iterations, "noise_level": noise_level}
            wishes |= {"start": None if start == "auto" else start, "levels": None if levels == 1 else levels}
            for name, value in wishes.items():
                if value is not None:
                    raise ValueError(message(name, f"none, as method {method!r} does not iterate", repr(value)))
        prior = _checked_prior(prior, method)
        if levels > 1 and isinstance(prior, Functional):
            raise ValueError(message("levels", "1, as a prior of your own is for one grid", levels))
        weight = _checked_weight(weight, prior)
        positive = flag(positive, "positive")
        learned = isinstance(prior, LearnedPrior)
        if learned and not prior.iterates and start != "auto":
            raise ValueError(message("start", "'auto' with a prior that is rehearsed from its own start", repr(start)))
        if positive and not taken.takes_constraints and not learned:
            found = f"False, as method {method!r} takes no constraints"
            raise ValueError(message("positive", found, True, "'fista' does"))
        if iterations is None:
            # Without a prior the number of iterations is what keeps the noise out.
            iterations = UNREGULARISED if method == "cg" and prior is None else taken.iterations
            iterations = (LEARNED if prior.iterates else ROUNDS) if learned else iterations
            if prior is not None and isinstance(weight, str):
                iterations = iterations // 2  # the search for the weight has come the other half of the way
        iterations = integer(iterations, "iterations", low=1, high=MOST_ITERATIONS)
        if noise_level is not None:
            aims = weight == "discrepancy"
            noise_level = number(noise_level, "noise_level", low=0.0, low_open=aims)
            if prior is not None and not aims:
                hint = "it is where to stop without a prior, and what weight='discrepancy' aims at"
                raise ValueError(
                    message("noise_level", f"None with prior={prior!r}, weight={weight!r}", noise_level, hint)
                )
        if progress is not None:
            flag(progress, "progress")
        return cls(method, prior, weight, positive or taken.of_tensors, iterations, noise_level, start, levels)

    @classmethod
    def several(cls, method: Any, prior: Any, weight: Any, *wishes: Any) -> dict[str, Plan]:
        """One for each prior of ``"tv+learned"``, by its name; of one prior, one."""
        if not isinstance(prior, str) or "+" not in prior or os.path.isfile(prior):  # no Path: long names are errors
            return {str(prior): cls.checked(method, prior, weight, *wishes)}
        names, (_, iterations, noise_level, *_rest) = prior.split("+"), wishes
        own = {"weight": (weight, "auto"), "iterations": (iterations, None), "noise_level": (noise_level, None)}
        for name, (given, usual) in own.items():
            if given is not usual and not (isinstance(given, str) and given == usual):
                expected = f"{usual!r}, as each of several priors has its own"
                raise ValueError(message(name, expected, repr(given)))
        if len(set(names)) < len(names):
            raise ValueError(message("prior", "different priors", repr(prior)))
        return {name: cls.checked(method, name, weight, *wishes) for name in names}

    @property
    def method(self) -> Method:
        return METHODS[self.name]

    @property
    def expected_iterations(self) -> int:
        """About how many there will be for a scan."""
        return self.iterations + (5 * SEARCH_ITERATIONS if isinstance(self.weight, str) else 0)

    @property
    def starts_filtered(self) -> bool:
        """Whether iterations start from filtered backprojection.

        By default where a prior says what the end is. Without one the number of iterations keeps the noise out, and
        from another start the same number would let in more.
        """
        return self.start == "fbp" or (self.start == "auto" and self.prior is not None and not self.is_learned)

    @property
    def is_learned(self) -> bool:
        return isinstance(self.prior, LearnedPrior)

    def check_scan(self, scan: Scan) -> None:
        """Raise if a scan does not allow what was asked for; told before the work, which may take hours."""
        harmonics = getattr(scan.response, "of_harmonics", True)
        if self.name == "sirt" and self.positive and not harmonics:
            hint = "'irtt', 'fista' and 'pdhg' can"
            raise ValueError(message("positive", "False, as method 'sirt' cannot see to that for tensors", True, hint))
        if self.method.of_tensors and harmonics:
            expected = f"one for harmonics, which {type(scan.response).__name__} sees"
            hint = "second moments become rank-2 data by operators.rank_two.rank_two_from_second_moment"
            raise ValueError(message("method", expected, repr(self.name), hint))
        if self.is_learned and not harmonics:
            hint = "second moments of order 2 are harmonics as well as tensors"
            raise ValueError(message("prior", "one for rank-2 tensors", repr(self.prior), hint))
        if scan.streams and self.is_learned:
            hint = "Scan.read(..., in_memory=True) gets them, if there is room"
            raise ValueError(message("prior", "another one for data on the disk", repr(self.prior), hint))
        if scan.streams and not self.method.streams:
            able = " or ".join(repr(name) for name, method in METHODS.items() if method.streams)
            hint = "Scan.read(..., in_memory=True) gets them, if there is room"
            raise ValueError(message("method", f"{able} for data on the disk", repr(self.name), hint))
        shortest = min(*scan.geometry.volume_shape, *scan.geometry.detector_shape)
        if 2 ** (self.levels - 1) > shortest:
            expected = f"at most {shortest.bit_length()} for {shortest} voxels or pixels"
            raise ValueError(message("levels", expected, self.levels))
        if self.weight == "discrepancy" and self.noise_level is None and scan.weights is None:
            raise ValueError(message("noise_level", "a number, where the scan has no weights", None))

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise if a prior of the caller's own does not fit volumes of this shape."""
        if isinstance(self.prior, Functional) and not fits(shape, on := self.prior.domain_shape(shape)):
            raise ValueError(message("prior", f"one on ({shape_text(shape)})", f"{self.prior!r} on ({shape_text(on)})"))


def _checked_prior(prior: Any, method: str) -> str | Functional | None:
    takes = METHODS[method].takes_priors
    if isinstance(prior, str) and (prior == "learned" or prior.endswith(".safetensors") or prior in shipped_weights()):
        prior = LearnedPrior(prior)
    if isinstance(prior, LearnedPrior):
        if method != "cg":
            raise ValueError(message("method", "'cg' with a learned prior", repr(method)))
        return prior
    if prior is not None and not isinstance(prior, (str, Functional)):
        raise TypeError(message("prior", "a name, a ddf_tomo.priors.Functional or None", type(prior).__name__))
    if isinstance(prior, str) and choice(prior, "prior", PRIORS) == "auto":
        return "tv" if takes else None
    if prior is not None and not takes:
        raise ValueError(message("prior", f"None, as method {method!r} takes none", repr(prior)))
    if isinstance(prior, Functional) and METHODS[method].rounding and not prior.is_smooth:
        hint = "give it smoothing=, where it takes that, or take method='fista' or 'pdhg'"
        raise ValueError(message("prior", f"a smooth one, as method {method!r} follows gradients", prior, hint))
    return prior


def _checked_weight(weight: Any, prior: str | Functional | None) -> float | str:
    """A number (without prior 0), or the name of the rule that finds it."""
    own = isinstance(prior, Functional)
    if not isinstance(weight, str):
        weight = number(weight, "weight", low=0.0, low_open=isinstance(prior, LearnedPrior))
        if weight and prior is None:
            raise ValueError(message("weight", "'auto' or 0 without a prior", weight))
        return weight
    rule = choice(weight, "weight", RULES)
    if rule != "auto" and (prior is None or own):
        expected = "'auto', or a factor, with a prior of your own" if own else "'auto' or 0 without a prior"
        raise ValueError(message("weight", expected, repr(rule)))
    return float(own) if own or prior is None else (RULES[1] if rule == "auto" else rule)
