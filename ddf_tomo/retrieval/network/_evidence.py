"""What frames tell of each pixel, as a quadratic: the input of the network, whatever the number of steps or counts.

Around a start θ₀ the misfit of a pixel is ``½ θᵀ A θ − bᵀ θ`` in θ = (u_j, u_k, C_jj, C_jk, C_kk, ln T), in units of
the noise. A and b are sums over steps and distances: the order of the steps cannot matter, one step or twenty are the
same to the network, and A says how much is known. The start and its model are those of `ddf_tomo.retrieval.matching`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

from ddf_tomo.retrieval import _matching_fit as matching
from ddf_tomo.retrieval._matching_torch import of_pixels
from ddf_tomo.retrieval.method import View

UNKNOWNS = [0, 1, 2, 3, 4, 6]  # of matching: u, C, ln T
PAIRS, QUANTITIES = 21, 6
ROW_OF_T = (5, 10, 14, 17, 19, 20)  # of the upper triangle
CHANNELS = PAIRS + QUANTITIES + 2  # and misfit, degrees of freedom
BINS = 2  # pixels of the frames in one of the evidence, along each axis
MOST_CORRELATED, SMALLEST_PIVOT = 0.985, 1e-3


class Evidence(NamedTuple):
    """Quadratics of a view, and where they were taken; made by `evidence`.

    Attributes
    ----------
    terms : (29, row/2, column/2)
        Upper triangle of A, b, squared misfit, degrees of freedom: sums over 2 × 2 pixels.
    start : (6, row, column)
        u, C, ln T at which the model was evaluated.
    coarse : (6, row/2, column/2)
        Their means over 2 × 2 pixels.
    single : (7, row, column) or None
        The row of A that belongs to ln T in each pixel, and its entry of b, where T can be told from that pixel.
    noise : (row, column)
        Variance of one unit of intensity.
    same : (row, column), bool
        Whether sample and reference can be of one mask.
    """

    terms: Tensor
    start: Tensor
    coarse: Tensor
    single: Tensor | None
    noise: Tensor
    same: Tensor


def evidence(view: View, options: dict[str, Any], tick: Callable[[], object] = int) -> Evidence:
    """The quadratics of a view; differentiable in its frames, at a start that is not.

    Parameters
    ----------
    view
        Frames ``(distance, step, row, column)``, checked.
    options
        Those of `ddf_tomo.retrieval.matching`, checked.
    tick
        Called for each frame and iteration.

    Examples
    --------
    >>> from ddf_tomo.retrieval.matching import METHOD
    >>> mask = 1 + 0.2 * torch.rand(1, 2, 24, 32, generator=torch.Generator().manual_seed(0))
    >>> view = View(0.8 * mask, mask, torch.ones(1, 1, 24, 32), torch.ones(1), 1000.0)
    >>> found = evidence(view, METHOD.check(METHOD.options, (1, 2, 24, 32)))
    >>> found.terms.shape, found.start.shape
    (torch.Size([29, 12, 16]), torch.Size([6, 24, 32]))
    """
    with torch.no_grad():
        problem = _started(view, options, tick)
        terms = _evaluated(problem)
    if torch.is_grad_enabled() and any(each.requires_grad for each in view[:3]):
        score = _score(view, problem, options)
        moved = terms[PAIRS : PAIRS + QUANTITIES] + score - score.detach()
        terms = torch.cat([terms[:PAIRS], moved, terms[PAIRS + QUANTITIES :]])
    noise = problem.noise.clamp(min=1e-12).to(terms)
    terms = terms / noise
    pixelwise = view.sample.shape[0] * view.sample.shape[1] >= matching.FEWEST_FRAMES
    single = terms[[*ROW_OF_T, PAIRS + QUANTITIES - 1]] if pixelwise else None
    start = problem.theta[..., UNKNOWNS].movedim(-1, 0).to(terms)
    return Evidence(binned(terms), start, binned(start, mean=True), single, noise, problem.same)


def binned(images: Tensor, mean: bool = False) -> Tensor:
    """Sums (or means) over 2 × 2 pixels of images ``(channel, row, column)``; nothing is beyond odd sides."""
    rows, columns = images.shape[-2:]
    widths = (0, -columns % BINS, 0, -rows % BINS)
    padded = pad(images[None], widths, mode="replicate" if mean else "constant")
    return avg_pool2d(padded, BINS)[0] * (1 if mean else BINS**2)


def _started(view: View, options: dict[str, Any], tick: Callable[[], object]) -> matching._Problem:
    """A short fit by matching, from coarse to fine, in a window."""
    sample, reference, weights = (each.detach() for each in view[:3])
    problem = matching.approached(view._replace(sample=sample, reference=reference, weights=weights), options, tick)
    # What a window found far from what it can tell would be no place to take a quadratic at.
    problem.theta.nan_to_num_(0, 0, 0)
    problem.transmission.nan_to_num_(1, 1, 1)
    return problem


def _evaluated(problem: matching._Problem) -> Tensor:
    """Quadratics of single pixels ``(29, row, column)``, for noise of variance 1."""
    from ddf_tomo.retrieval import _matching_kernel as kernel

    unknowns = torch.tensor(UNKNOWNS).to(problem.chosen)
    terms, own = problem._zeros(CHANNELS), problem._zeros(1 + QUANTITIES)
    frames = list(problem._frames())
    frames[-2:] = unknowns, False
    everywhere = torch.ones_like(problem.same)
    problem._rows(kernel.evaluate, *frames, everywhere, False, problem.transmission, problem.theta, terms, own)
    return terms.movedim(-1, 0).nan_to_num(0, 0, 0)


def _score(view: View, problem: matching._Problem, options: dict[str, Any]) -> Tensor:
    """The part of b that follows the frames ``(6, row, column)``, in torch."""
    sample, reference, alive, weights = matching.prepared(view, options["smoothing"])
    sample, reference, weights = (each.movedim(1, -1) for each in (sample, reference - 1, weights))
    present = problem.transmission, problem.theta
    row, column = torch.ones_like(problem.transmission).nonzero(as_tuple=True)
    given = sample, reference, alive, weights, problem.reach, problem.factor, problem.slope, problem.noise
    found = of_pixels(*given, options["smoothing"] ** 2, (row, column), *present)
    return found.score[:, UNKNOWNS].T.unflatten(-1, problem.transmission.shape).to(view.sample)


def factor(terms: Tensor, least: Tensor) -> tuple[list[list[Tensor]], Tensor]:
    """Cholesky factor of A plus a diagonal ``least``, and the variances it leaves ``(..., 6, row, column)``.

    ``terms`` is the upper triangle ``(..., 21, row, column)``. Noise may make a matrix indefinite: correlations are
    kept below one.
    """
    entry = _places()
    lower: list[list[Tensor]] = []
    for a in range(QUANTITIES):
        row: list[Tensor] = []
        own = terms[..., entry[a][a], :, :].clamp(min=0) + least[a]
        left = own
        for c in range(a):
            total = terms[..., entry[c][a], :, :]
            for n in range(c):
                total = total - row[n] * lower[c][n]
            most = MOST_CORRELATED * left.sqrt()
            row.append(torch.maximum(torch.minimum(total / lower[c][c], most), -most))
            left = torch.maximum(left - row[c].square(), SMALLEST_PIVOT * own)
        lower.append([*row, left.sqrt()])
    # Rows of the inverse factor: variances are sums of squares of its columns.
    inverse: list[list[Tensor]] = []
    for a in range(QUANTITIES):
        row = []
        for c in range(a):
            total = sum((lower[a][n] * inverse[n][c] for n in range(c + 1, a)), lower[a][c] * inverse[c][c])
            row.append(-total / lower[a][a])
        inverse.append([*row, 1 / lower[a][a]])
    variances = [sum((inverse[n][a] ** 2 for n in range(a + 1, QUANTITIES)), inverse[a][a] ** 2) for a in range(6)]
    return lower, torch.stack(variances, -3)


def solved(lower: list[list[Tensor]], right: Tensor) -> Tensor:
    """``(L Lᵀ)⁻¹`` times ``(..., 6, row, column)``."""
    values = list(right.unbind(-3))
    for a in range(QUANTITIES):
        for n in range(a):
            values[a] = values[a] - lower[a][n] * values[n]
        values[a] = values[a] / lower[a][a]
    for a in reversed(range(QUANTITIES)):
        for n in range(a + 1, QUANTITIES):
            values[a] = values[a] - lower[n][a] * values[n]
        values[a] = values[a] / lower[a][a]
    return torch.stack(values, -3)


def applied(terms: Tensor, theta: Tensor) -> Tensor:
    """A θ, of an upper triangle ``(..., 21, row, column)``."""
    entry = _places()
    rows = [
        sum((terms[..., entry[min(a, c)][max(a, c)], :, :] * theta[..., c, :, :] for c in range(1, QUANTITIES)),
            terms[..., entry[0][a], :, :] * theta[..., 0, :, :])
        for a in range(QUANTITIES)
    ]  # fmt: skip
    return torch.stack(rows, -3)


def _places() -> list[list[int]]:
    """Where in the upper triangle an entry stands."""
    return [[a * QUANTITIES - a * (a - 1) // 2 + c - a for c in range(QUANTITIES)] for a in range(QUANTITIES)]


assert math.comb(QUANTITIES + 1, 2) == PAIRS
