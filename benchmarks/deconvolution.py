"""Blind deconvolution: fibres that cross in a pixel, the reference problem beside `matching`, and the rank it takes.

* Crossing: two equally strong families of lines (σ = 2 pixels along, 0.3 across) at 60° to 90° in every pixel, whose
  orientation turns by 40° over the image, behind a displacement that varies by two pixels; 64² pixels, 20 steps of
  speckle as in `retrieval_problem`, 20,000 counts in sample and reference. Share of the valid pixels in which both
  directions are within 10°.
* Reference: 128² pixels of `retrieval_problem` at 2000 counts, 20 steps, windows of equal standard deviation. Errors at
  least 20 pixels from the edge.
* Unrolled: the same problems by a trained network, if its weights are shipped or DECONVOLUTION_MODEL names a file of
  them; classical updates are given at least its time.
* Rank: a field of directional Gaussians, σ to 2 pixels along and half of that across, direction and width turning
  smoothly, as a sum of few kernels: best linear rank (singular values) and non-negative factors (Lee & Seung's updates,
  600), error of the frame of a mask with and without its mean.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch
from harness import Row
from retrieval_problem import GRAIN, VISIBILITY, Problem, between, judge, reference_problem, tensor

from ddf_tomo.retrieval import retrieve
from ddf_tomo.retrieval.deconvolution import KernelField, deconvolve
from ddf_tomo.retrieval.deconvolution._model import ProductConvolution
from ddf_tomo.retrieval.deconvolution._starts import gaussian_kernels
from ddf_tomo.weights import shipped_weights

NEAR, MOST_FOUND = 10.0, 0.9  # degrees; bar
MOVED = 1.0  # pixels, to either side
UNROLLED = "deconvolution-unrolled"
BETTER = 0.6  # bar of its error over that of classical updates in the same time


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """All of it."""
    torch.set_num_threads(1)
    yield from crossing(48 if quick else 64, (90.0,) if quick else (90.0, 75.0, 60.0), quick)
    yield from reference(size or (64 if quick else 128), quick)
    if not quick:
        yield from rank()


def model() -> str | None:
    """Weights of the unrolled network."""
    given = os.environ.get("DECONVOLUTION_MODEL")
    return given or (UNROLLED if UNROLLED in shipped_weights() else None)


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


def crossing(size: int, angles: tuple[float, ...], quick: bool) -> Iterator[Row]:
    """Share of pixels with both directions found, for several angles between the lines."""
    pattern = speckle(20, size)
    generator = np.random.default_rng(1)
    j, k = np.meshgrid(*[np.arange(float(size))] * 2, indexing="ij")
    places = [j - MOVED * np.sin(2 * np.pi * k / size), k - MOVED * np.cos(2 * np.pi * j / size)]
    classical = {"kernels": "directions", "rank": 9, "support": 15, "iterations": 4 if quick else 12}
    for apart in angles:
        frames, first = crossed(size, apart, pattern)
        frames, first = _moved(frames, places), _moved(first[None], places)[0]
        pair = [generator.poisson(20_000 * np.maximum(each, 0)).astype(np.float32) for each in (frames, pattern)]
        ways: dict[str, dict[str, Any]] = {"classical": classical}
        if model() is not None:
            ways["unrolled"] = {"model": model()}
        for name, options in ways.items():
            begin = time.process_time()
            field = deconvolve(*pair, **options)
            off, seconds = errors_of(field, first, apart), time.process_time() - begin
            note = f"median error {np.median(off):.1f}°; {seconds:.0f} s"
            share = float((off < NEAR).mean())
            yield Row(f"lines at {apart:.0f}°, {name}: both found", share, at_least=MOST_FOUND, note=note)


def _moved(images: np.ndarray, places: list[np.ndarray]) -> np.ndarray:
    from scipy.ndimage import map_coordinates

    return np.stack([map_coordinates(each, places, order=3, mode="nearest") for each in images])


def reference(size: int, quick: bool) -> Iterator[Row]:
    """Errors of direction and blur, beside those of `matching`."""
    problem = reference_problem(2 * size).at(2000).crop(*[slice(size // 2, size // 2 + size)] * 2)
    pair = problem.sample.astype(np.float32), problem.reference.astype(np.float32)
    found = retrieve(*pair, "matching", window=2.2, progress=False)
    yield from _rows(problem, "matching", found.displacement, found.covariance)
    given = 0.0
    learned = 0.0
    if model() is not None:
        begin = time.process_time()
        field = deconvolve(*pair, model=model())
        given = time.process_time() - begin
        learned = yield from _rows(problem, f"unrolled, {given:.0f} s", field.displacement, field.covariance)
    for iterations in (2,) if quick else (1, 3, 6, 12):
        begin = time.process_time()
        field = deconvolve(*pair, iterations=iterations)
        taken = time.process_time() - begin
        label = f"{iterations} updates of 6 kernels, {taken:.0f} s"
        error = yield from _rows(problem, label, field.displacement, field.covariance)
        if learned and taken >= given:
            note = f"classical had {taken / given:.1f} times as long"
            yield Row("error of C, unrolled over classical", learned / error, "×", at_most=BETTER, note=note)
            learned = 0.0


def _rows(problem: Problem, name: str, displacement: Any, covariance: Any) -> Generator[Row, None, float]:
    """Figures; returns the root mean square of the error of C, as a matrix."""
    u, C = (np.asarray(each) for each in (displacement, covariance))
    figures = judge(problem, u, C, margin=20)
    yield Row(f"{name}: median error of the direction", figures["direction, median"], "°")
    yield Row(f"{name}: u RMSE", figures["u RMSE"], "pixel")
    jj, jk, kk = (figures[f"C_{entry}, RMSE"] for entry in ("jj", "jk", "kk"))
    error = float(np.sqrt(jj**2 + 2 * jk**2 + kk**2))
    yield Row(
        f"{name}: C RMSE", error, "pixel²", note=f"trace biased by {figures['C_jj, bias'] + figures['C_kk, bias']:.3f}"
    )
    return error


def rank(size: int = 40) -> Iterator[Row]:
    """How well few kernels make up a field of them."""
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
        note = f"mean-free {100 * free:.1f} %; linear {100 * linear[0]:.2f} %, mean-free {100 * linear[1]:.1f} %"
        yield Row(f"rank {count}: error of non-negative factors", 100 * whole, "%", note=note)
