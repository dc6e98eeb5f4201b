"""The terms beside the misfit: how they are given, told apart, and brought together in one proximal map."""

from __future__ import annotations

import math
from typing import Any

import torch

from ddf_tomo._checks import message
from ddf_tomo.operators.base import fits, shape_text
from ddf_tomo.priors.functional import Functional
from ddf_tomo.solvers.checkpoint import State
from ddf_tomo.solvers.misfit import Misfit, dot


class Terms:
    """``Σ weight_i g_i(L_i x)``, told apart: one proximal map on ``x`` itself, and what needs dual variables.

    Parameters
    ----------
    regularisers
        One `Functional`, several in a list or tuple, or ``None``.
    like
        An iterate, for shape and device.

    Attributes
    ----------
    all
        All terms but those of weight 0.
    simple
        One with ``L = 1``, whose proximal map can be used as it is, or ``None``; a constraint if there is one, so that
        the iterates satisfy it.
    composite
        The others.

    Raises
    ------
    TypeError, ValueError
        If one is no `Functional`, or does not fit ``x``.

    Examples
    --------
    >>> import torch
    >>> from ddf_tomo.priors import Smoothness
    >>> Terms([2.0 * Smoothness((3, 1, 1))], torch.zeros(3, 1, 1, 1)).composite
    [<2 · Smoothness>]
    """

    def __init__(self, regularisers: Any, like: torch.Tensor) -> None:
        given = as_list(regularisers)
        for term in given:
            if not fits(like.shape, shape := term.domain_shape(like.shape)):
                raise ValueError(
                    message(
                        "regularisers",
                        f"one on ({shape_text(tuple(like.shape))})",
                        f"{term!r} on ({shape_text(shape)})",
                    )
                )
        self.all = [term for term in given if term.weight or term.is_constraint]
        plain = [i for i, term in enumerate(self.all) if term.operator is None]
        chosen = min(plain, key=lambda i: not self.all[i].is_constraint, default=None)
        self.simple = None if chosen is None else self.all[chosen]
        self.composite = [term for i, term in enumerate(self.all) if i != chosen]
        self.norms = [term.norm() or 1.0 for term in self.composite]  # steps mean nothing to what sees nothing

    def value(self, x: torch.Tensor) -> float:
        """Sum of the terms; constraints give 0."""
        return sum(term(x) for term in self.all)

    def duals(self, x: torch.Tensor) -> State:
        """Dual variables of the composite terms, zero: a part of a solver's state."""
        return {f"dual{i}": torch.zeros_like(term.apply(x)) for i, term in enumerate(self.composite)}

    def simple_proximal(self, v: torch.Tensor, step: float) -> torch.Tensor:
        """``argmin_x step · simple(x) + ½ |x - v|²``."""
        return v if self.simple is None else self.simple.proximal(v, step * self.simple.weight)

    def proximal(self, v: torch.Tensor, step: float, state: State, iterations: int) -> torch.Tensor:
        """``argmin_x step · Σ weight_i g_i(L_i x) + ½ |x - v|²`` by fast projected gradients on the dual variables.

        Beck & Teboulle 2009, IEEE Trans. Image Process. 18, 2419. The duals in ``state`` are where it starts, and where
        it leaves what it found: from call to call of an outer iteration the map becomes exact.
        """
        names = [f"dual{i}" for i in range(len(self.composite))]
        if not names:
            return self.simple_proximal(v, step)
        dual_step = 1 / (step * sum(norm**2 for norm in self.norms))

        def primal(duals: list[torch.Tensor]) -> torch.Tensor:
            shifted = v.clone()
            for term, dual in zip(self.composite, duals, strict=True):
                shifted -= step * term.apply_adjoint(dual)
            return self.simple_proximal(shifted, step)

        found, t = [state[name] for name in names], 1.0
        ahead = found
        for _ in range(iterations):
            x, before, t_before = primal(ahead), found, t
            found = [
                term.proximal_dual(dual + dual_step * term.apply(x), dual_step)
                for term, dual in zip(self.composite, ahead, strict=True)
            ]
            t = (1 + math.sqrt(1 + 4 * t**2)) / 2
            ahead = [new + (t_before - 1) / t * (new - old) for new, old in zip(found, before, strict=True)]
        state.update(zip(names, found, strict=True))
        return primal(found)

    def identity(self, misfit: Misfit) -> list[Any]:
        """What tells these terms from others in a checkpoint: what they make of the backprojected data."""
        probe = misfit.backprojected()
        probe = probe / (math.sqrt(dot(probe, probe) / max(probe.numel(), 1)) or 1.0)
        told = []
        for term in self.all:
            z = term.apply(probe)
            mapped = term.proximal(z, 0.5)
            told.append([type(term).__name__, term.weight, float(term.value(z)), math.sqrt(dot(mapped, mapped))])
        return told


def as_list(regularisers: Any) -> list[Functional]:
    """One term, several, or ``None``, as a list."""
    given = [] if regularisers is None else regularisers
    given = [given] if isinstance(given, Functional) else given
    if not isinstance(given, (list, tuple)):
        raise TypeError(message("regularisers", "a Functional, or a list of them", type(given).__name__))
    for term in given:
        if not isinstance(term, Functional):
            raise TypeError(message("regularisers", "Functionals only", type(term).__name__))
    return list(given)
