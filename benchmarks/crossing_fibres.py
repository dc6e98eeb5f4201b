"""Two families of fibres that cross, from the frames of a mask: visibilities beside second moments.

24³ voxels, 200 views, tilts to 45°, ℓ ≤ 4. The sample consists of random grains of 6 voxels; in each, two families of
equal strength cross at 60° to 90° in random orientation. Their scattering has a cusp: −ln V ∝ ξ |cos ψ| (β = 1).

Frames are made without any retrieval's model: in each view ``−ln V(q)`` of every detector pixel is projected from the
tensor volume on a grid several times finer, and the mask's Fourier components are summed in each pixel with the
visibilities that they have *there*. Mask: speckle of 4 to 5 pixels,
visibility 0.3, 20 steps; 20,000 counts in sample and reference.

Maps are retrieved with ``method="visibility"`` as it is, averaged over the pixels of a voxel and reconstructed with
total variation; second moments are the covariances of the same maps. Nothing was chosen by the truth: the weight is
that of cross-validation, three samples have masks and noise of their own. Weights of the data are inverse variances of
retrieval's errors and of a hundredth of the largest value.

Both directions are found by the two fibre functions that, summed, come nearest to a voxel's coefficients. A voxel
counts where *both* are within 15° of the truth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from harness import Row, difference, require
from torch import Tensor
from torch.nn.functional import interpolate

from ddf_tomo import (
    DirectionalVisibilityResponse,
    Geometry,
    IsotropicResponse,
    Scan,
    SecondMomentResponse,
    TensorXRayTransform,
    reconstruct,
)
from ddf_tomo.phantoms import tilt_series, zonal
from ddf_tomo.phantoms._fields import coordinates, inside, truth_of
from ddf_tomo.phantoms.truth import FIBRE_LEGENDRE, Truth
from ddf_tomo.retrieval import retrieve
from ddf_tomo.retrieval._log_visibility import LogVisibility
from ddf_tomo.retrieval._warped import spline_coefficients, warped

SIZE, FINE = 24, 4  # voxels along each edge, of the reconstruction; times finer where frames are made
VIEWS = (19, 35, 33, 31, 31, 27, 24)  # 200, in the proportions of a real scan
GRAIN, CONTRAST, STEPS, COUNTS = 1.35, 0.3, 20, 20_000.0  # the mask and its light, as in `retrieval_problem`
PERIOD, EXPONENT, STRONGEST = 8.0, 1.0, 0.8  # pixels; β; the largest −ln V at that period
AZIMUTHS = np.arange(8) * np.pi / 8
ANGLES = ((60, 70, 0.75), (70, 80, 0.9), (80, 90, 0.9))  # crossing angles in degrees, and the share to reach
NEAR = math.radians(15)
SAMPLED = 300  # pixels whose blurs stand for all
SEEDS = (1, 2, 3)  # of samples, masks and noise
PATTERNS = 2  # how often the error of the shared reference is taken off


def grains(shape: tuple[int, int, int], seed: int = 0, across: int = 4) -> Truth:
    """Grains of about 1/``across`` of the volume's edge: cells of random points, each with two families of fibres.

    They are made of the voxels of the coarse grid, `SIZE`, on any finer one: every voxel belongs to one grain.
    """
    generator = np.random.default_rng(seed)
    points = generator.uniform(-1, 1, (across**3, 3))
    first, away = generator.normal(size=(2, across**3, 3))
    first /= np.linalg.norm(first, axis=-1, keepdims=True)
    away -= (away * first).sum(-1, keepdims=True) * first
    away /= np.linalg.norm(away, axis=-1, keepdims=True)
    angle = np.radians(generator.uniform(60, 90, (across**3, 1)))
    second = np.cos(angle) * first + np.sin(angle) * away
    x, y, z = (each.astype(np.float32) for each in coordinates(shape))
    edge = min(SIZE, *shape)
    places = (np.floor(np.stack([x, y, z], -1) * edge / 2) + 0.5) * 2 / edge
    cell = np.zeros(shape, int)
    nearest = np.full(shape, np.inf, np.float32)
    for number, point in enumerate(points):
        distance = ((places - point.astype(np.float32)) ** 2).sum(-1)
        cell = np.where(distance < nearest, number, cell)
        nearest = np.minimum(nearest, distance)
    density = inside(np.sqrt((x / 0.8) ** 2 + (y / 0.8) ** 2 + (z / 0.8) ** 2), 1.0)
    families = [(0.5 * density, first[cell]), (0.5 * density, second[cell])]
    return truth_of(families, 4, 0.2, 2, second=second[cell])


# -- both directions --------------------------------------------------------------------------------------------------


@cache
def _half_sphere(count: int = 300) -> Tensor:
    height = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    turn = math.pi * (1 + 5**0.5) * torch.arange(count, dtype=torch.float64)
    flat = (1 - height**2).sqrt()
    return torch.stack([flat * turn.cos(), flat * turn.sin(), height], -1)


def _fibres(directions: Tensor) -> Tensor:
    """Coefficients of ℓ = 2 and 4 of fibres, without the mean, in which isotropic ground hides."""
    return torch.from_numpy(zonal(directions.numpy(), FIBRE_LEGENDRE))[..., 1:]


def _explained(b: Tensor, other: Tensor, own: float, cross: Tensor) -> Tensor:
    """Square explained by the best non-negative sum of two functions of the projections ``b``."""
    first, second = own * b - cross * other, own * other - cross * b
    both = (b * first + other * second) / (own**2 - cross**2).clamp(min=1e-9)
    single = torch.maximum(b, other).clamp(min=0).square() / own
    return torch.where((first > 0) & (second > 0), both, single)


def two_directions(coefficients: np.ndarray) -> Tensor:
    """The two fibres that come nearest to coefficients ``(n, 15)``: unit vectors ``(n, 2, 3)``."""
    wanted = torch.as_tensor(np.asarray(coefficients), dtype=torch.float64)[:, 1:]
    grid = _half_sphere()
    functions = _fibres(grid)
    own = float(functions[0].square().sum())
    pairs = torch.triu_indices(len(grid), len(grid), 1)
    gram = functions @ functions.T
    pairs = pairs[:, (grid @ grid.T).abs()[tuple(pairs)] < math.cos(math.radians(40))]
    cross = gram[tuple(pairs)]
    best = torch.cat(
        [_explained(b[:, pairs[0]], b[:, pairs[1]], own, cross).argmax(1) for b in (wanted @ functions.T).split(64)]
    )
    found = torch.stack([grid[pairs[0, best]], grid[pairs[1, best]]], 1)
    for step in np.radians([5, 5, 3, 3, 2, 1, 0.5]):
        for one in (0, 1):
            found[:, one] = _better(wanted, found[:, one], found[:, 1 - one], own, float(step))
    return found


def _better(wanted: Tensor, direction: Tensor, other: Tensor, own: float, step: float) -> Tensor:
    """The best of a direction and eight around it."""
    helper = torch.where(direction[:, :1].abs() < 0.7, torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 1.0, 0]]))
    u = torch.linalg.cross(direction, helper.double())
    u = u / u.norm(dim=-1, keepdim=True)
    v = torch.linalg.cross(direction, u)
    turns = torch.arange(8, dtype=torch.float64) * math.pi / 4
    ring = turns.cos()[:, None, None] * u + turns.sin()[:, None, None] * v
    tried = torch.cat([direction[None], math.cos(step) * direction + math.sin(step) * ring])
    functions, fixed = _fibres(tried), _fibres(other)
    explained = _explained(
        (functions * wanted).sum(-1), (fixed * wanted).sum(-1)[None], own, (functions * fixed).sum(-1)
    )
    return tried.gather(0, explained.argmax(0)[None, :, None].expand(1, -1, 3))[0]


def shares(coefficients: np.ndarray, truth: Truth) -> list[float]:
    """Of the voxels of each range of crossing angles: those with both directions within 15°."""
    assert truth.second_directions is not None
    inner = truth.mask
    found = two_directions(coefficients[inner])
    true = torch.as_tensor(np.stack([truth.directions[inner], truth.second_directions[inner]], 1))
    cosine = torch.einsum("nac,nbc->nab", found, true).abs().clamp(max=1)
    straight = torch.minimum(cosine[:, 0, 0], cosine[:, 1, 1])
    swapped = torch.minimum(cosine[:, 0, 1], cosine[:, 1, 0])
    good = torch.maximum(straight, swapped) > math.cos(NEAR)
    crossing = torch.rad2deg(torch.arccos((true[:, 0] * true[:, 1]).sum(-1).abs()))
    return [float(good[(crossing >= low) & (crossing < high)].double().mean()) for low, high, _ in ANGLES]


# -- frames -----------------------------------------------------------------------------------------------------------


class Scanned(NamedTuple):
    """What the detector's pixels see of the sample, ``(view, row, column[, channel])``."""

    curve: Tensor  # −ln V at `PERIOD` and `AZIMUTHS`
    transmission: Tensor
    shift: Tensor  # pixels


def scanned(geometry: Geometry, pixels: int, seed: int = 0) -> Scanned:
    """Line integrals on a grid `FINE` times finer, scaled to `STRONGEST`, interpolated to ``pixels`` along a voxel."""
    fine = geometry.refined(FINE)
    truth = grains(fine.volume_shape, seed)
    seen = TensorXRayTransform(fine, DirectionalVisibilityResponse(AZIMUTHS, EXPONENT), 4)
    curve = seen(torch.from_numpy(truth.coefficients)).clamp(min=0)
    thick = TensorXRayTransform(fine, IsotropicResponse(), 0)(torch.from_numpy(truth.coefficients[..., :1].copy()))
    both = torch.cat([STRONGEST * curve / curve.max(), thick / thick.max()], -1).movedim(-1, 1)
    both = interpolate(both, scale_factor=pixels / FINE, mode="bilinear").movedim(1, -1)
    curve, thick = both[..., :-1], both[..., -1]
    slope = torch.stack(torch.gradient(thick, dim=(1, 2)), -1)
    return Scanned(curve, torch.exp(-0.3 * thick), slope / slope.abs().max())


def mask(shape: tuple[int, int], seed: int = 1) -> Tensor:
    """Periodic speckle of mean 1, ``(step, row, column)``."""
    noise = torch.randn(STEPS, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    f_j, f_k = (torch.fft.fftfreq(n, dtype=torch.float64) for n in shape)
    smooth = torch.exp(-2 * (math.pi * GRAIN) ** 2 * (f_j[:, None] ** 2 + f_k**2))
    pattern = torch.fft.ifft2(torch.fft.fft2(noise) * smooth).real
    return (1 + CONTRAST * pattern / pattern.std()).clamp(min=0.05).float()


def summed(reference: Tensor, curve: Tensor, at: Tensor) -> Tensor:
    """Σ_q V(x, q) r̂(q) exp(iqx) at pixels ``at``, one by one: slow and exact; ``(step, pixel)``."""
    spectrum = torch.fft.fft2(reference.double()) / reference[0].numel()
    f_j, f_k = torch.meshgrid(*(torch.fft.fftfreq(n, dtype=torch.float64) for n in reference.shape[1:]), indexing="ij")
    frequency, azimuth = torch.hypot(f_j, f_k), torch.atan2(f_k, f_j)
    orders = torch.fft.rfft(curve.double(), dim=-1) / len(AZIMUTHS)  # over 0 … π: the orders 0, 2, 4 …
    result = []
    for j, k in at.tolist():
        loss = orders[j, k, 0].real + sum(2 * (orders[j, k, n] * torch.exp(2j * n * azimuth)).real for n in (1, 2))
        wave = torch.exp(2j * math.pi * (f_j * j + f_k * k) - (frequency * PERIOD).clamp(max=PERIOD * 0.4) * loss)
        result.append((spectrum * wave).sum((1, 2)).real)
    return torch.stack(result, 1)


def exposed(reference: Tensor, curve: Tensor) -> Tensor:
    """`summed` at all pixels: as few blurs as span those of some pixels, each the same everywhere, with weights."""
    law = LogVisibility((PERIOD,), 4, EXPONENT)
    series = torch.linalg.pinv(law.angular(torch.from_numpy(AZIMUTHS)).T)
    amplitudes = (curve.double() @ series.T).flatten(0, 1)
    rows, columns = reference.shape[1:]
    f_j, f_k = torch.fft.fftfreq(rows, dtype=torch.float64)[:, None], torch.fft.rfftfreq(columns, dtype=torch.float64)
    grid = law.at(f_j, f_k[None]).flatten(1)
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(len(amplitudes), generator=generator)[:SAMPLED]
    seen = torch.nonzero(torch.hypot(*torch.broadcast_tensors(f_j, f_k)).flatten() < 0.35)[
        :, 0
    ]  # where a mask has power
    nodes = seen[torch.randperm(len(seen), generator=generator)[: 2 * SAMPLED]]
    _, size, blurs = torch.linalg.svd(torch.exp(-amplitudes[some] @ grid), full_matrices=False)
    blurs = blurs[size > 1e-6 * size[0]]
    into = torch.linalg.pinv(blurs[:, nodes])
    weights = torch.cat([torch.exp(-part @ grid[:, nodes]) @ into for part in amplitudes.split(1 << 13)])
    spectra = torch.fft.rfft2(reference.double())
    result = torch.zeros_like(reference, dtype=torch.float64)
    for blur, weight in zip(blurs, weights.T, strict=True):
        moved = torch.fft.irfft2(spectra * blur.reshape(spectra.shape[1:]), s=(rows, columns))
        result += weight.reshape(rows, columns) * moved
    return result.float()


def voxel_means(maps: Tensor, pixels: int) -> Tensor:
    """Means over the pixels of a voxel."""
    rows, columns = (n // pixels for n in maps.shape[:2])
    return maps.reshape(rows, pixels, columns, pixels, -1).mean((1, 3))


class View(NamedTuple):
    """Of one view, averaged over the pixels of a voxel: visibility, covariance, and their variances."""

    visibility: Tensor
    covariance: Tensor
    visibility_error: Tensor
    covariance_error: Tensor


def retrieved(part: Scanned, reference: Tensor, noisy: Tensor, pixels: int, seed: int, **options: Any) -> View:
    """Frames of one view, and what is retrieved from them."""
    # What refraction moved is spread where it arrives: frequencies are those on the detector.
    moved = warped(spline_coefficients(reference), part.shift.movedim(-1, 0))
    expected = part.transmission * exposed(moved, part.curve)
    frames = torch.poisson(COUNTS * expected.clamp(min=0), generator=torch.Generator().manual_seed(seed))
    maps = retrieve(
        frames, noisy, "visibility", gain=1.0, periods=PERIOD, exponent=EXPONENT, azimuths=len(AZIMUTHS), order=4,
        progress=False, **options,
    )  # fmt: skip
    found = (maps.visibility, maps.covariance, maps.visibility_error, maps.covariance_error)
    return View(*(voxel_means(torch.as_tensor(each), pixels) for each in found))


def run(
    quick: bool = False, size: int | None = None, pixels: int | None = None, seeds: tuple[int, ...] | None = None
) -> Iterator[Row]:
    """Shares of voxels with both directions right, from visibilities and from second moments: means over samples."""
    edge, pixels = size or (12 if quick else SIZE), pixels or (4 if quick else 8)
    views = tuple(max(n // 10, 1) for n in VIEWS) if quick else VIEWS
    geometry = tilt_series((edge,) * 3, views=views)
    found: dict[str, list[list[float]]] = {}
    for seed in seeds or ((1,) if quick else SEEDS):
        yield from _one(geometry, pixels, seed, found)
    for name, each in found.items():
        for mean, low, high, (start, stop, bar) in zip(
            *(statistic(each, 0) for statistic in (np.mean, np.min, np.max)), ANGLES, strict=True
        ):
            bars = {"at_least": bar} if name == "visibility" else {}
            what = f"{name}: both directions within 15°, crossing at {start} to {stop}°"
            yield Row(what, float(mean), note=f"{low:.3f} … {high:.3f} in {len(each)} samples", **bars)


def _one(geometry: Geometry, pixels: int, seed: int, found: dict[str, list[list[float]]]) -> Iterator[Row]:
    """One sample, mask and noise: what is retrieved, and what it is good for."""
    truth = grains(geometry.volume_shape, seed)
    sample = scanned(geometry, pixels, seed)
    reference = mask(sample.curve.shape[1:3], 1 + 10 * seed)
    some = torch.randint(0, min(reference.shape[1:]), (40, 2), generator=torch.Generator().manual_seed(2))
    middle = sample.curve[len(geometry) // 2]
    made = exposed(reference, middle)[:, some[:, 0], some[:, 1]]
    yield require("frames against a sum over all frequencies", difference(made, summed(reference, middle, some)), 2e-3)
    noisy = torch.poisson(COUNTS * reference, generator=torch.Generator().manual_seed(3 + 1000 * seed))
    parts = [
        retrieved(Scanned(*each), reference, noisy, pixels, 100 + n + 1000 * seed)
        for n, each in enumerate(zip(*sample, strict=True))
    ]
    yield from _errors(parts, sample.curve, pixels)
    responses = DirectionalVisibilityResponse(AZIMUTHS, EXPONENT), SecondMomentResponse()
    for name, response, value in zip(("visibility", "second moments"), responses, (0, 1), strict=True):
        data, sigma = (torch.stack([each[n] for each in parts]).float().numpy() for n in (value, value + 2))
        for round_, coefficients in enumerate(volumes(data, sigma, geometry, response)):
            what = name if round_ == PATTERNS else f"{name}, pattern taken off {round_} times"
            found.setdefault(what, []).append(shares(coefficients, truth))


def volumes(data: np.ndarray, sigma: np.ndarray, geometry: Geometry, response: Any) -> Iterator[np.ndarray]:
    """Reconstructions, before and after what all views have in common on the detector was taken off.

    One noisy reference serves all views, and so does its error: the same in the same pixel. Of what a reconstruction
    does not explain, the mean over the views is that error; no truth is asked.
    """
    weights = 1 / (1 + (sigma / (0.01 * np.abs(data).max())) ** 2)
    seen = TensorXRayTransform(geometry, response, 4)
    common, weight = np.zeros_like(data[0]), "auto"
    for _ in range(PATTERNS + 1):
        scan = Scan(data - common, geometry, response, weights=weights)
        volume = reconstruct(scan, ell_max=4, weight=weight, iterations=60, progress=False)
        weight = volume.settings["weight"]
        common = (data - seen(volume.coefficients)).mean(0)
        yield volume.coefficients


def _errors(parts: list[View], curve: Tensor, pixels: int) -> Iterator[Row]:
    found = torch.stack([each.visibility for each in parts])
    true = torch.stack([voxel_means(each, pixels) for each in curve])
    yield Row(
        "−ln V, root mean square error over its largest", float((found - true).square().mean().sqrt() / STRONGEST)
    )
    yield Row("−ln V, mean error over its largest", float((found - true).mean() / STRONGEST))
