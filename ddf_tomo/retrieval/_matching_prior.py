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
CHANGED = (
    "transmission",
    "displacement",
    "covariance",
    "transmission_error",
    "displacement_error",
    "covariance_error",
    "error_matrix",
)
DIAGONAL = [0, 3, 5]  # of an upper triangle
AT_ONCE = 1 << 16  # pixels whose small matrices are held together


class Equations(NamedTuple):
    """What the frames of single pixels say of C, in Mandel's components: ``(row, column, ...)``."""

    wanted: Tensor  # (..., 3)
    noise: Tensor  # (..., 3): a sample of it
    metric: Tensor  # (..., 6): upper triangles, zero where nothing is known


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
    names = [name for name in maps if name in CHANGED]
    others = covariance.to(valid.device), spread.to(valid.device), valid
    found = _by_rows(lambda *rows: _conditioned(names, *rows), *others, *(maps[name] for name in names))
    return dict(zip(names, found, strict=True))


def _by_rows(work: Callable[..., Iterable[Tensor]], *images: Tensor) -> list[Tensor]:
    """``work`` on some rows of images ``(row, column, ...)`` after the others: memory for matrices stays small."""
    step = max(1, AT_ONCE // images[0].shape[1])
    pieces = [work(*(each[start : start + step] for each in images)) for start in range(0, len(images[0]), step)]
    return [torch.cat(parts) for parts in zip(*pieces, strict=True)]


def _upper(matrices: Tensor) -> Tensor:
    """Upper triangles, row by row."""
    first, second = torch.triu_indices(*matrices.shape[-2:]).unbind(0)
    return matrices[..., first, second]


def _symmetric(upper: Tensor) -> Tensor:
    """Matrices of upper triangles, in double precision."""
    size = math.isqrt(2 * upper.shape[-1])
    first, second = torch.triu_indices(size, size).unbind(0)
    matrices = upper.new_zeros(*upper.shape[:-1], size, size, dtype=torch.float64)
    matrices[..., first, second] = matrices[..., second, first] = upper.double()
    return matrices


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
    pairs, size = problem.pairs, len(unknowns) + 1

    def evaluated(steps: Tensor) -> Tensor:
        """Normal matrices, scores, squared misfit and freedom, of these steps."""
        kept, problem.weight = problem.weight, problem.weight * steps
        present = torch.ones_like(valid), True, problem.transmission, problem.theta
        problem._rows(kernel.evaluate, *problem._frames(), *present, problem.terms, problem.own)
        problem.weight = kept
        return problem.terms.clone()

    distances, _, _, steps = problem.weight.shape
    every = torch.ones_like(problem.weight[:, :1, :1])
    terms = evaluated(every)
    if math.isnan(problem.counts):
        pull = terms[..., -3].square() / terms[..., pairs - 1].clamp(min=1e-30)
        frames = view.sample.shape[0] * view.sample.shape[1]
        left = terms[..., -2:] - torch.stack([pull, terms[..., -1] / frames], -1)
        misfit, freedom = problem._gather(left, problem.window).double().unbind(-1)
        problem.noise = torch.where(freedom > 0.5 * size, misfit / (freedom - 0.5 * size), 0)
        terms = evaluated(every)
    count = torch.arange(distances)[:, None, None, None] + torch.arange(steps)
    half = evaluated((count % 2 == 0).to(every))[..., pairs:-2]

    def without_t(terms: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
        normal, score = _symmetric(terms[..., :pairs]), terms[..., pairs:-2]
        scores = torch.stack([score, 2 * half - score], -1).double()
        share = normal[..., -1] / normal[..., -1, -1:].clamp(min=1e-30)
        scores = scores - share[..., None] * scores[..., -1:, :]
        normal = normal - share[..., None] * normal[..., -1:, :]
        return _upper(normal[..., :-1, :-1]).to(terms), scores[..., :-1, :].to(terms)

    def of_c(upper: Tensor, scores: Tensor, covariance: Tensor, level: Tensor, valid: Tensor) -> list[Tensor]:
        inverse, failed = torch.linalg.inv_ex(_symmetric(upper))
        mandel = torch.tensor(MANDEL).to(inverse)
        of_blur = mandel[:, None] * inverse[..., 2:5, :]
        metric, failed_too = torch.linalg.inv_ex(of_blur[..., 2:5] * mandel)
        metric = metric / level.clamp(min=1e-30)[..., None, None]
        moves = (of_blur @ scores.double()).movedim(-1, 0)
        good = valid & (failed == 0) & (failed_too == 0) & moves.isfinite().all(-1).all(0)
        good &= metric.isfinite().all(-1).all(-1)
        good &= (torch.linalg.eigvalsh(torch.where(good[..., None, None], metric, 0)) > 0).all(-1)
        found = mandel * covariance + moves[0], moves[1], _upper(metric)
        return [torch.where(good[..., None], each, 0).to(upper) for each in found]

    upper, scores = _by_rows(without_t, terms, half)
    upper = problem._gather(upper, problem.window) / problem._gather(torch.ones_like(upper[..., :1]), problem.window)
    return Equations(*_by_rows(of_c, upper, scores, known["covariance"], problem.noise, valid))


def solved(given: Equations, prior: str, weight: float | str, positive: bool) -> tuple[Tensor, Tensor]:
    """C ``(row, column, 3)`` and upper triangles ``(row, column, 6)`` of the covariance of its noise."""
    wanted, noise, metric = (each.movedim(-1, 0)[None] for each in given)
    size = given.metric[..., DIAGONAL].mean(-1)
    scale = float(size[size > 0].median()) if (size > 0).any() else 1.0
    # In units of the noise of a pixel, the weight means the same at all counts.
    solver, unit = SOLVERS[prior], math.sqrt(scale)
    wanted, noise, metric = (unit * wanted).float(), (unit * noise).float(), (metric / scale).float()
    noise = noise * _excess(wanted, noise, metric)
    if weight == "auto":
        weight = chosen_weight(wanted, noise, metric, prior)

    def solve(data: Tensor) -> Tensor:
        return (
            nearest(solver, data, metric, float(weight)) if positive else solver(data, metric, float(weight), None)[0]
        )

    found = solve(wanted)
    passed = (solve(wanted + PROBE * noise) - found) / PROBE
    known = (size > 0).float()[..., None]
    mandel = torch.tensor(MANDEL, dtype=torch.float64, device=known.device)

    def root(metric: Tensor) -> Tensor:
        matrices = _symmetric(metric) / scale
        none = (metric[..., :1] == 0)[..., None]
        return torch.linalg.cholesky(torch.where(none, torch.eye(3).to(matrices), matrices))

    def products(passed: Tensor, metric: Tensor, known: Tensor) -> list[Tensor]:
        even = root(metric).mT @ passed.double()[..., None]
        return [torch.cat([known * _upper(even @ even.mT).to(known), known], -1)]

    def covariances(around: Tensor, metric: Tensor) -> list[Tensor]:
        back = torch.linalg.inv(root(metric)) / (unit * mandel)
        return [_upper(back.mT @ _symmetric(around[..., :6] / around[..., 6:].clamp(min=1e-30)) @ back).to(metric)]

    # Averaged where its size is much the same everywhere: in units of the noise of the pixel.
    (squares,) = _by_rows(products, passed[0].movedim(0, -1), given.metric, known)
    around = _matching_fit.smooth(squares.movedim(-1, 0), SPREAD, "constant").movedim(0, -1)
    (spread,) = _by_rows(covariances, around, given.metric)
    return (found[0].movedim(0, -1) / (unit * mandel)).to(given.wanted), spread


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


def _conditioned(names: list[str], covariance: Tensor, spread: Tensor, valid: Tensor, *values: Tensor) -> list[Tensor]:
    """These maps with this C; T and u follow as far as their errors are those of C."""
    maps = dict(zip(names, values, strict=True))
    matrix, spread = _symmetric(maps["error_matrix"]), _symmetric(spread)
    lost = matrix[..., 0, 0].isinf()  # a dead pixel has the window's u and C, but no T
    matrix[..., 0, 0] = torch.where(lost, 1, matrix[..., 0, 0])
    known = valid & matrix.isfinite().all(-1).all(-1) & (spread.diagonal(dim1=-2, dim2=-1) > 0).all(-1)
    unit = torch.eye(6).to(matrix)
    known &= torch.linalg.cholesky_ex(torch.where(known[..., None, None], matrix, unit))[1] == 0
    matrix = torch.where(known[..., None, None], matrix, unit)
    slope = matrix[..., :3, 3:] @ torch.linalg.inv(matrix[..., 3:, 3:])
    cross = slope @ spread
    made = matrix.clone()
    made[..., :3, :3] += (cross - matrix[..., :3, 3:]) @ slope.mT
    made[..., :3, 3:], made[..., 3:, :3], made[..., 3:, 3:] = cross, cross.mT, spread
    made[..., 0, 0] = torch.where(lost, torch.inf, made[..., 0, 0])
    others = (slope @ (covariance - maps["covariance"]).double()[..., None])[..., 0]
    deviation = made.diagonal(dim1=-2, dim2=-1).sqrt()
    found = {
        "transmission": maps["transmission"] + others[..., 0],
        "displacement": maps["displacement"] + others[..., 1:],
        "covariance": covariance,
        "transmission_error": deviation[..., 0],
        "displacement_error": deviation[..., 1:3],
        "covariance_error": deviation[..., 3:],
        "error_matrix": _upper(made),
    }
    # Where errors are no covariance, all stays as it was.
    where = {name: known.reshape(known.shape + (1,) * (each.ndim - 2)) for name, each in found.items()}
    return [torch.where(where[name], found[name], maps[name]).to(maps[name]) for name in names]
