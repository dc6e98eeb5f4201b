"""Blind deconvolution: fibres that cross in a pixel, the reference problem beside `matching`, and the rank it takes.

``python benchmarks/deconvolution.py [crossing] [reference] [rank]`` prints figures as they come; all of it takes some
minutes of one core.

* crossing: two equally strong families of lines (σ = 2 pixels along, 0.3 across) at 60° to 90° in every pixel, whose
  orientation turns by 40° over the image; 64² pixels, 20 steps of speckle as in `retrieval_problem`, 20,000 counts in
  sample and reference. Share of the valid pixels in which both directions are within 10°, and their median error.
* reference: 128² pixels of `retrieval_problem` at 2000 counts, 20 steps, windows of equal standard deviation. Errors of
  the displacement and of the blur at least 20 pixels from the edge.
* rank: a field of directional Gaussians, σ to 2 pixels along and half of that across, direction and width turning
  smoothly, as a sum of few kernels: best linear rank (singular values) and non-negative factors (Lee & Seung's updates,
  600), error of the frame of a mask with and without its mean.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from retrieval_problem import GRAIN, VISIBILITY, Problem, between, judge, reference_problem, tensor

from ddf_tomo.retrieval import retrieve
from ddf_tomo.retrieval.deconvolution import KernelField, deconvolve
from ddf_tomo.retrieval.deconvolution._model import ProductConvolution
from ddf_tomo.retrieval.deconvolution._starts import gaussian_kernels

NEAR = 10.0  # degrees
ROUNDS = {"iterations": 12}


def speckle(steps: int, size: int, seed: int = 0) -> np.ndarray:
    """Log-normal frames of mean 1, ``(step, row, column)``, periodic."""
    generator = np.random.default_rng(seed)
    f = np.fft.fftfreq(size)
    smooth = np.exp(-2 * np.pi**2 * GRAIN**2 * (f[:, None] ** 2 + f**2))
    field = np.fft.ifft2(np.fft.fft2(generator.standard_normal((steps, size, size))) * smooth).real
    pattern = np.exp(field * np.sqrt(np.log(1 + VISIBILITY**2)) / field.std())
    return pattern / pattern.mean()


def crossed(size: int, apart: float, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected frames behind two families of lines, and the angle of the first in each pixel (radians)."""
    model = ProductConvolution((size, size), torch.ones(len(reference), dtype=torch.float64), 17, 2, 4.0)
    light = model.padded(torch.from_numpy(reference))
    turn = np.deg2rad(40) * np.add.outer(np.arange(size), np.arange(size)) / (2 * size)
    angles = np.linspace(0, np.deg2rad(40), 21)
    widths = [torch.from_numpy(tensor(2.0, 0.3, angles + more)) for more in (0, np.deg2rad(apart))]
    kernels = sum(gaussian_kernels(model.positions, each) for each in widths) / 2
    frames = np.zeros_like(reference)
    place = np.clip(turn / angles[1], 0, len(angles) - 1)
    for n, kernel in enumerate(kernels):
        seen = model.terms(light, slice(0, len(reference)), model.spectra(kernel[None]))[:, 0].numpy()
        frames += np.clip(1 - np.abs(place - n), 0, 1) * seen
    return frames, turn


def errors_of(field: KernelField, first: np.ndarray, apart: float) -> np.ndarray:
    """Larger of both errors in degrees, in each valid pixel."""
    found = np.rad2deg(field.directions().angle_rad.numpy())
    truth = np.rad2deg(first)[..., None] + np.array([0.0, apart])
    off = [np.abs((found - each + 90) % 180 - 90).max(-1) for each in (truth, truth[..., ::-1])]
    return np.minimum(*off)[field.valid.numpy()]


def crossing(size: int = 64) -> None:
    reference = speckle(20, size)
    generator = np.random.default_rng(1)
    for kernels, rank in (("directions", 9), ("clusters", 4)):
        for apart in (90.0, 75.0, 60.0):
            frames, first = crossed(size, apart, reference)
            pair = [generator.poisson(20_000 * each).astype(np.float32) for each in (frames, reference)]
            begin = time.process_time()
            field = deconvolve(*pair, kernels=kernels, rank=rank, support=15, **ROUNDS)
            off = errors_of(field, first, apart)
            print(
                f"crossing {apart:.0f}°, {kernels} {rank}: both within {NEAR:.0f}° in {100 * (off < NEAR).mean():.0f} %"
                f" (median {np.median(off):.1f}°), {time.process_time() - begin:.0f} s",
                flush=True,
            )


def reference() -> None:
    problem = reference_problem(256).at(2000).crop(slice(64, 192), slice(64, 192))
    pair = problem.sample.astype(np.float32), problem.reference.astype(np.float32)
    found = retrieve(*pair, "matching", window=2.2)
    _show(problem, "matching", found.displacement, found.covariance)
    for rank in (8, 16):
        begin = time.process_time()
        field = deconvolve(*pair, rank=rank, **ROUNDS)
        taken = f"deconvolution, rank {rank}, {time.process_time() - begin:.0f} s"
        _show(problem, taken, field.displacement.numpy(), field.covariance.numpy())


def _show(problem: Problem, name: str, displacement: np.ndarray, covariance: np.ndarray) -> None:
    figures = judge(problem, displacement, covariance, margin=20)
    parts = {key: value for key, value in figures.items() if "RMSE" in key or "direction" in key}
    print(name, ", ".join(f"{key} {value:.4f}" for key, value in parts.items()), flush=True)


def rank(size: int = 40) -> None:
    generator = np.random.default_rng(0)
    j, k = np.meshgrid(*[2 * np.pi * np.arange(size) / size] * 2, indexing="ij")
    waves = [np.cos(a * j + b * k + generator.uniform(0, 2 * np.pi)) for a, b in ((1, 0), (0, 1), (1, 1), (1, -1))]
    width = between(waves[0] + waves[1], 0.6, 2.0)
    angle = between(waves[2] + waves[3], 0, np.pi)
    taps = torch.arange(-7, 8, dtype=torch.float64)
    covariance = torch.from_numpy(tensor(width, width / 2, angle)).reshape(-1, 3)
    kernels = gaussian_kernels(taps, covariance).flatten(1).numpy()
    patches = np.stack(
        [np.roll(speckle(1, 64)[0], (-a, -b), (0, 1))[:15, :15].ravel() for a in range(8) for b in range(8)]
    )
    patches = patches - patches.mean()
    seen = kernels @ patches.T

    def error(approximate: np.ndarray) -> tuple[float, float]:
        off = (approximate - kernels) @ patches.T
        whole = off + (approximate - kernels).sum(1, keepdims=True)
        return float(np.sqrt((whole**2).mean() / ((1 + seen) ** 2).mean())), float(
            np.sqrt((off**2).mean() / (seen**2).mean())
        )

    u, s, v = np.linalg.svd(kernels, full_matrices=False)
    for count in (4, 6, 8, 10, 12, 14, 16, 24, 32):
        w, k_r = generator.uniform(size=(size**2, count)), generator.uniform(size=(count, kernels.shape[1]))
        for _ in range(600):
            w *= kernels @ k_r.T / (w @ (k_r @ k_r.T) + 1e-12)
            k_r *= w.T @ kernels / (w.T @ w @ k_r + 1e-12)
        whole, free = error(w @ k_r)
        linear = error((u[:, :count] * s[:count]) @ v[:count])
        print(
            f"rank {count}: non-negative {100 * whole:.2f} %, mean-free {100 * free:.1f} %;"
            f" linear {100 * linear[0]:.2f} %, mean-free {100 * linear[1]:.1f} %",
            flush=True,
        )


if __name__ == "__main__":
    for name in sys.argv[1:] or ("crossing", "reference", "rank"):
        {"crossing": crossing, "reference": reference, "rank": rank}[name]()
