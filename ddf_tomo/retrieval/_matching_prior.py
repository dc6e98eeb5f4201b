"""Maps of C that agree with the frames of every pixel and with a prior, solved jointly over a whole view.

The windowed fit gives each pixel its unknowns θ, and with them a linearisation of the model. There the frames of one
pixel, without any window, have a score ``s`` and, on average over the window, a normal matrix ``A``: they want ``C`` at
``z = [θ + A⁻¹ s]_C`` with the inverse covariance ``F``, T, u and the background being free. What is minimised is

    ½ Σ_x (C − z)ᵀ F (C − z) + λ · prior(C)

over all pixels of the view, after its tiles, so that tiles leave no trace. Estimates of a window share noise, scores of
single pixels do not, but for the smoothing of the frames. That remainder is measured: halves of the mask steps give two
scores, and half of their difference is noise as the view has it, without signal. With it as the probe, Stein's
unbiased estimate of the risk (Stein 1981, Ann. Stat. 9, 1135; by a probe: Ramani, Blu & Unser 2008, IEEE Trans. Image
Process. 17, 1540) needs no noise model, chooses the weight, and standard errors are what of that noise gets through.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ddf_tomo.retrieval import _matching_fit
from ddf_tomo.retrieval._matching_solve import SOLVERS, apply, nearest
from ddf_tomo.retrieval._tiles import Tile
from ddf_tomo.retrieval.method import View

PROBE = 0.3  # share of the noise that is added to see how much gets through
BLOCK, TRIED = 64, 1 << 17  # side of blocks, pixels at most, on which weights are tried
TRIALS = 24
DETAIL = 1.5  # pixels
SPREAD = 24.0  # pixels, over which noise that gets through is averaged
MANDEL = (1.0, math.sqrt(2), 1.0)  # (jj, jk, kk) as a vector whose length is the Frobenius norm
UPPER = (0, 0, 0, 1, 1, 2), (0, 1, 2, 1, 2, 2)


class Equations(NamedTuple):
    """What the frames of single pixels say of C, in Mandel's components: ``(row, column, ...)``."""

    wanted: Tensor  # (..., 3)
    noise: Tensor  # (..., 3): a sample of it
    metric: Tensor  # (..., 3, 3), zero where nothing is known


def regularised(
    maps: dict[str, Tensor], tiles: Iterable[Tile], view_of: Callable[..., View], options: dict[str, Any]
) -> dict[str, Tensor]:
    """The maps of a view ``(row, column, ...)`` that a prior on C changes: T, u, C and their errors."""
    valid = maps["valid"]
    found: list[Tensor] = []
    for tile in tiles:
        part = equations(view_of(tile.used), {name: each[tile.used] for name, each in maps.items()}, options)
        found = found or [each.new_zeros(*valid.shape, *each.shape[2:]) for each in part]
        for whole, each in zip(found, part, strict=True):
            whole[tile.place] = each[tile.kept]
    covariance, spread = solved(Equations(*found), options["prior"], options["weight"], options["positive"])
    return _conditioned(maps, covariance.to(valid.device), spread.to(valid.device))


def equations(view: View, maps: dict[str, Tensor], options: dict[str, Any]) -> Equations:
    """Scores of single pixels at these maps, and their normal matrices."""
    from ddf_tomo.retrieval import _matching_kernel as kernel

    problem = _matching_fit._problem(view, options, 0)
    # T as an unknown like the others: it is eliminated below, in halves of the frames as in all of them.
    unknowns, _ = _matching_fit.unknowns_of(view.sample.shape, options["background"])
    problem.chosen, problem.pixelwise = torch.tensor([*unknowns, 6]).to(problem.chosen), False
    problem.__post_init__()
    known = {name: each.to(problem.theta) for name, each in maps.items() if name != "valid"}
    valid = maps["valid"].to(problem.theta.device)
    transmission = known["transmission"] / (1 + known["background"])
    problem.transmission[:] = torch.where(valid, transmission, problem.transmission)
    columns = known["displacement"], known["covariance"], known["background"][..., None]
    problem.theta[:] = torch.cat([*columns, problem.transmission.log()[..., None]], -1)
    problem._measure_slopes()
    # Beside a pixel without values there are no slopes.
    problem.slope[max_pool2d((~valid).double()[None], 3, 1, 1)[0] > 0] = 0
    size = len(unknowns) + 1
    first, second = torch.triu_indices(size, size).unbind(0)

    def evaluated(steps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normal matrices, scores, squared misfit and freedom, of these steps."""
        kept, problem.weight = problem.weight, problem.weight * steps
        present = torch.ones_like(valid), True, problem.transmission, problem.theta
        problem._rows(kernel.evaluate, *problem._frames(), *present, problem.terms, problem.own)
        problem.weight = kept
        matrix = problem.terms.new_zeros(*valid.shape, size, size, dtype=torch.float64)
        matrix[..., first, second] = matrix[..., second, first] = problem.terms[..., : problem.pairs].double()
        return matrix, *problem.terms[..., problem.pairs :].to(torch.float64, copy=True).split([size, 2], -1)

    def gathered(values: Tensor) -> Tensor:
        flat = values.to(problem.terms).flatten(2).contiguous()
        return problem._gather(flat, problem.window).double().reshape(values.shape)

    distances, _, _, steps = problem.weight.shape
    every = torch.ones_like(problem.weight[:, :1, :1])
    normal, score, left = evaluated(every)
    if math.isnan(problem.counts):
        pull = score[..., -1].square() / normal[..., -1, -1].clamp(min=1e-30)
        frames = view.sample.shape[0] * view.sample.shape[1]
        misfit, freedom = gathered(left - torch.stack([pull, left[..., 1] / frames], -1)).unbind(-1)
        problem.noise = torch.where(freedom > 0.5 * size, misfit / (freedom - 0.5 * size), 0)
        normal, score, left = evaluated(every)
    count = torch.arange(distances)[:, None, None, None] + torch.arange(steps)
    half = evaluated((count % 2 == 0).to(every))[1]
    scores = torch.stack([score, 2 * half - score], -1)
    share = normal[..., -1] / normal[..., -1, -1:].clamp(min=1e-30)
    scores = scores - share[..., None] * scores[..., -1:, :]
    normal = normal - share[..., None] * normal[..., -1:, :]
    ones = gathered(torch.ones_like(left[..., :1]))
    inverse, failed = torch.linalg.inv_ex(gathered(normal[..., :-1, :-1].contiguous()) / ones[..., None])
    mandel = torch.tensor(MANDEL).to(inverse)
    of_blur = mandel[:, None] * inverse[..., 2:5, :]
    metric, failed_too = torch.linalg.inv_ex(of_blur[..., 2:5] * mandel)
    metric = metric / problem.noise.clamp(min=1e-30)[..., None, None]
    moves = (of_blur @ scores[..., :-1, :]).movedim(-1, 0)
    good = valid & (failed == 0) & (failed_too == 0) & moves.isfinite().all(-1).all(0)
    good &= metric.isfinite().all(-1).all(-1)
    good &= (torch.linalg.eigvalsh(torch.where(good[..., None, None], metric, 0)) > 0).all(-1)
    wanted, noise = torch.where(good[..., None], torch.stack([mandel * known["covariance"] + moves[0], moves[1]]), 0)
    return Equations(wanted, noise, torch.where(good[..., None, None], metric, 0))


def solved(given: Equations, prior: str, weight: float | str, positive: bool) -> tuple[Tensor, Tensor]:
    """C ``(row, column, 3)`` and the covariance of its noise ``(row, column, 3, 3)``."""
    metric, wanted, noise = (
        each.movedim(-1, 0)[None] for each in (given.metric[..., *UPPER], given.wanted, given.noise)
    )
    size = given.metric.diagonal(dim1=-2, dim2=-1).mean(-1)
    scale = float(size[size > 0].median()) if (size > 0).any() else 1.0
    # In units of the noise of a pixel, the weight means the same at all counts.
    solver, unit = SOLVERS[prior], math.sqrt(scale)
    metric, wanted, noise = ((f * each).float() for f, each in ((1 / scale, metric), (unit, wanted), (unit, noise)))
    noise = noise * _excess(wanted, noise, metric)
    if weight == "auto":
        weight = chosen_weight(wanted, noise, metric, prior)

    def solve(data: Tensor) -> Tensor:
        return (
            nearest(solver, data, metric, float(weight)) if positive else solver(data, metric, float(weight), None)[0]
        )

    found = solve(wanted)
    passed = (solve(wanted + PROBE * noise) - found) / PROBE
    # Averaged where its size is much the same everywhere: in units of the noise of the pixel.
    root = torch.linalg.cholesky(given.metric / scale + 1e-12 * torch.eye(3).to(given.metric))
    even = (root.mT @ passed[0].to(root).movedim(0, -1)[..., None])[..., 0]
    products = even[..., UPPER[0]] * even[..., UPPER[1]] * (size > 0)[..., None]
    around = _matching_fit.smooth(torch.cat([products, (size > 0)[..., None]], -1).movedim(-1, 0), SPREAD, "constant")
    spread = torch.zeros_like(root)
    spread[..., *UPPER] = (around[:6] / around[6:].clamp(min=1e-30)).movedim(0, -1)
    spread = spread + spread.triu(1).mT
    back = torch.linalg.inv(torch.where((size > 0)[..., None, None], root, torch.eye(3).to(root))) / unit
    mandel = torch.tensor(MANDEL).to(back)
    spread = (back.mT @ spread @ back) / (mandel[:, None] * mandel)
    return found[0].to(mandel).movedim(0, -1) / (unit * mandel), spread


def _excess(wanted: Tensor, noise: Tensor, metric: Tensor) -> float:
    """How much larger noise is than half of the difference of halves.

    T and the window's unknowns have followed part of it, and an average normal matrix adds some. Detail of a pixel or
    two is noise nearly everywhere: medians of it tell.
    """
    fine = [each - _matching_fit.smooth(each, DETAIL, "replicate") for each in (wanted, noise)]
    found, expected = ((each * apply(metric, each)).sum(1)[metric[:, 0] > 0] for each in fine)
    return math.sqrt(float(found.median() / expected.median())) if len(found) else 1.0


def chosen_weight(wanted: Tensor, noise: Tensor, metric: Tensor, prior: str) -> float:
    """The weight of least risk, estimated without knowing the truth, on blocks of a large view."""
    wanted, noise, metric = (_blocks(each) for each in (wanted, noise, metric))
    start, ratio = {"total-variation": (2.0, math.sqrt(2)), "smoothness": (64.0, 4.0)}[prior]
    found: list[Any] = [(None, None), (None, None)]  # images and where to go on from, of data and of noisier data
    risks: dict[int, float] = {}

    def risk(power: int) -> float:
        if power not in risks:
            data = wanted, wanted + PROBE * noise
            for n in range(2):
                found[n] = SOLVERS[prior](data[n], metric, start * ratio**power, found[n][1])
            off, passed = wanted - found[0][0], (found[1][0] - found[0][0]) / PROBE
            risks[power] = float((off * apply(metric, off)).sum() + 2 * (noise * apply(metric, passed)).sum())
        return risks[power]

    best = 0
    for _ in range(TRIALS):
        step = min((0, -1, 1), key=lambda n: risk(best + n))
        if step == 0:
            break
        best += step
    # The least of the parabola through three of them.
    below, here, above = (risk(best + n) for n in (-1, 0, 1))
    bend = below + above - 2 * here
    offset = 0.5 * (below - above) / bend if bend > 0 else 0.0
    return start * ratio ** (best + max(-0.5, min(0.5, offset)))


def _blocks(images: Tensor) -> Tensor:
    """An image ``(1, channel, row, column)`` as it is, or evenly spaced blocks of a large one."""
    _, channels, rows, columns = images.shape
    if rows * columns <= TRIED or min(rows, columns) < BLOCK:
        return images
    down, across = rows // BLOCK, columns // BLOCK
    cut = images[0, :, : down * BLOCK, : across * BLOCK].reshape(channels, down, BLOCK, across, BLOCK)
    blocks = cut.permute(1, 3, 0, 2, 4).reshape(-1, channels, BLOCK, BLOCK)
    step = -(-len(blocks) * BLOCK**2 // TRIED)
    return blocks[step // 2 :: step].contiguous()


def _conditioned(maps: dict[str, Tensor], covariance: Tensor, spread: Tensor) -> dict[str, Tensor]:
    """Maps with this C; T and u follow as far as their errors are those of C."""
    error = maps["error_matrix"].double()
    first, second = torch.triu_indices(6, 6).unbind(0)
    matrix = error.new_zeros(*error.shape[:-1], 6, 6)
    matrix[..., first, second] = matrix[..., second, first] = error
    lost = matrix[..., 0, 0].isinf()  # a dead pixel has the window's u and C, but no T
    matrix[..., 0, 0] = torch.where(lost, 1, matrix[..., 0, 0])
    known = maps["valid"] & matrix.isfinite().all(-1).all(-1) & (spread.diagonal(dim1=-2, dim2=-1) > 0).all(-1)
    unit = torch.eye(6).to(matrix)
    known &= torch.linalg.cholesky_ex(torch.where(known[..., None, None], matrix, unit))[1] == 0
    matrix = torch.where(known[..., None, None], matrix, unit)
    slope = matrix[..., :3, 3:] @ torch.linalg.inv(matrix[..., 3:, 3:])
    cross = slope @ spread
    made = matrix.clone()
    made[..., :3, :3] += (cross - matrix[..., :3, 3:]) @ slope.mT
    made[..., :3, 3:], made[..., 3:, :3], made[..., 3:, 3:] = cross, cross.mT, spread
    made[..., 0, 0] = torch.where(lost, torch.inf, made[..., 0, 0])
    change = covariance - maps["covariance"]
    others = (slope @ change[..., None])[..., 0]
    deviation = made.diagonal(dim1=-2, dim2=-1).sqrt()
    found = {
        "transmission": maps["transmission"] + others[..., 0],
        "displacement": maps["displacement"] + others[..., 1:],
        "covariance": maps["covariance"] + change,
        "transmission_error": deviation[..., 0],
        "displacement_error": deviation[..., 1:3],
        "covariance_error": deviation[..., 3:],
        "error_matrix": made[..., first, second],
    }
    where = {name: known.reshape(known.shape + (1,) * (each.ndim - 2)) for name, each in found.items()}
    return {name: torch.where(where[name], each, maps[name]).to(maps[name]) for name, each in found.items()}
