"""Measured rods: maps from some positions of the mask predict the frames of the others; the network beside `matching`.

There is no truth for measured frames, but there are frames that no method has seen: 6 of the 13 positions predict the
other 7 and the other way round, then four positions to one predict the rest, averaged over several choices. The
prediction is the model that all methods share, ``T [G_C * R](x − u)`` (`ddf_tomo.operators.imaging`), of the reference
at the position that was held out.

Methods smooth the sample by a Gaussian of 0.85 pixels, and their T is of smoothed frames. So held-out frames are
smoothed alike (the model's kernel is then C + 0.85²); and taken as they are, where they hold detail of the sample that
no T does, and C is brought to eigenvalues of zero or more.

The loss is the negative logarithm of the likelihood in nats a pixel and frame, mean over the pixels that both methods
call valid, 6 pixels off the edge: normal, of the variance of counting noise in sample and reference, ``gain (1 + T) I``
for a predicted I, less by 4π 0.85² where frames are smoothed; neighbours are taken for independent. The gain is what
frames scatter by in air, where a sample only scales its reference; drift of the mask is in it. All methods are given
it. Standard errors are those of a mean over blocks of 60 columns. χ² a pixel is far above one in rods with structure:
what they do to a wave is not in this model, whoever finds u and C. With fewer than four positions `matching` takes T
to be constant in its window, which by default is wide then; narrower ones stand beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from harness import Row, join
from numpy.typing import NDArray

from ddf_tomo import datasets
from ddf_tomo.operators.imaging import ModulatedImaging
from ddf_tomo.retrieval import Maps, retrieve
from ddf_tomo.retrieval._matching_fit import FEWEST_FRAMES, bounded, smooth

METHODS: dict[str, dict[str, Any]] = {
    "matching": {},
    "network": {},
    "network+matching": {},
    "matching, window 1.5 pixels": {"window": 1.5},
    "matching, window 1 pixel": {"window": 1.0},
}
PAIRS = (("network", "matching"), ("network+matching", "matching"))
NARROW = tuple(("network", name) for name in METHODS if "window" in name)  # for fewer than four positions
SPLITS: dict[str, Sequence[Sequence[int]]] = {  # positions that maps are retrieved from
    "6 positions predict 7": ((1, 3, 5, 7, 9, 11),),
    "7 positions predict 6": ((0, 2, 4, 6, 8, 10, 12),),
    "4 positions predict 9": ((0, 3, 6, 9), (3, 6, 9, 12)),
    "3 positions predict 10": ((0, 4, 8), (4, 8, 12)),
    "2 positions predict 11": ((0, 6), (6, 12)),
    "1 position predicts 12": ((0,), (6,), (12,)),
}
HALVES = 6  # positions, at least
AIR = slice(1430, 1550)  # columns
PARTS = {
    "smooth rod and air": (slice(560, 1060), slice(1400, 1590)),
    "rods with structure": (slice(20, 500), slice(1090, 1380), slice(1610, 2110)),
}
SPACES = {"smoothed": 0.85, "as they are": 0.0}  # pixels
EDGE, BLOCK = 6, 60  # pixels
Array = NDArray[Any]
Losses = dict[tuple[str, str], Array]


def run(quick: bool = False, size: int | None = None, path: str | None = None) -> Iterator[Row]:
    """All splits, on the rows that are shipped or those of a file; there is no other ``size``."""
    torch.set_num_threads(1)
    images = datasets.four_rods(path)
    gain = gain_in_air(images.sample, images.reference)
    yield Row("gain, from air", gain, "counts a quantum", note=f"{images.sample.shape[1]} rows")
    sample, reference = (torch.from_numpy(each.astype(np.float32)) for each in images[:2])
    if quick:
        sample, reference = sample[..., 1350:1450], reference[..., 1350:1450]
    for split, choices in list(SPLITS.items())[-1 if quick else 0 :]:
        losses = [_losses(sample, reference, list(chosen), gain) for chosen in choices[: 1 if quick else None]]
        for space in SPACES:
            for one, other in PAIRS + (NARROW if len(choices[0]) < FEWEST_FRAMES else ()):
                bar = one == "network" and len(choices[0]) >= HALVES
                found = [(each[space, one], each[space, other]) for each in losses]
                yield _gap(f"{split}, frames {space}: {one} less {other}", found, 0.0 if bar else None)


def gain_in_air(sample: Array, reference: Array) -> float:
    """Counts a quantum that would make frames scatter as they do where there is no sample; median over positions."""
    from scipy.ndimage import gaussian_filter

    ours, theirs = (each[..., AIR].astype(float) for each in (sample, reference))
    scale = gaussian_filter(ours.sum(0) / theirs.sum(0), 8)
    off = (ours - scale * theirs) / np.sqrt(ours + scale**2 * theirs)
    return float(np.median(off.var((1, 2))))


def _losses(sample: torch.Tensor, reference: torch.Tensor, chosen: list[int], gain: float) -> Losses:
    """By space and method the loss of each pixel that is not invalid ``(frame, row, column)``."""
    rest = [n for n in range(len(sample)) if n not in chosen]
    losses: Losses = {}
    for name, options in METHODS.items():
        if options and len(chosen) >= FEWEST_FRAMES:
            continue
        method = name.split(",")[0]
        maps = retrieve(sample[chosen], reference[chosen], method, gain=gain, progress=False, **options)
        judged = torch.zeros(sample.shape[1:], dtype=torch.bool)
        judged[EDGE:-EDGE, EDGE:-EDGE] = torch.as_tensor(maps.valid)[EDGE:-EDGE, EDGE:-EDGE]
        for space, width in SPACES.items():
            frames = smooth(sample[rest], width, "replicate") if width else sample[rest]
            expected = predicted(maps, reference[rest], width)
            shared = 4 * np.pi * width**2 if width else 1.0
            noise = (gain / shared * expected * (1 + torch.as_tensor(maps.transmission))).clamp(min=1e-3)
            loss = 0.5 * ((frames - expected) ** 2 / noise + torch.log(2 * np.pi * noise))
            losses[space, name] = torch.where(judged, loss, torch.nan).numpy()
    return losses


def predicted(maps: Maps, reference: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Frames ``(frame, row, column)`` behind the sample of these maps, smoothed."""
    transmission, displacement, covariance = map(
        torch.as_tensor, (maps.transmission, maps.displacement, maps.covariance)
    )
    kernel = bounded(covariance.double() + smoothing**2 * torch.tensor([1.0, 0.0, 1.0])).float()
    model = ModulatedImaging(reference, 1e-5, 1.0, flux=False)  # at one distance T holds what focusing adds
    with torch.no_grad():
        frames: torch.Tensor = model(transmission, displacement=displacement, covariance=kernel)
    return frames


def _gap(case: str, losses: list[tuple[Array, Array]], at_most: float | None) -> Row:
    """Mean difference of the losses of two methods, over choices, frames and pixels."""
    gap = np.concatenate([one - other for one, other in losses])
    judged = np.isfinite(gap)
    places = np.arange(0, gap.shape[-1], BLOCK)
    sums, counts = (np.add.reduceat(each.sum((0, 1)), places) for each in (np.nan_to_num(gap), judged))
    means = sums[counts > 0] / counts[counts > 0]
    error = f"± {means.std(ddof=1) / np.sqrt(len(means)):.2g}" if len(means) > 1 else ""
    absolute = [np.concatenate([pair[n] for pair in losses])[judged].mean() if judged.any() else np.nan for n in (0, 1)]
    regions = []
    for name, slices in PARTS.items():
        values = np.concatenate([gap[..., part].ravel() for part in slices])
        if np.isfinite(values).any():
            regions.append(f"{name} {np.nanmean(values):+.2g}")
    inner = judged[:, EDGE:-EDGE, EDGE:-EDGE].mean()
    numbers = f"{absolute[0]:.4g} less {absolute[1]:.4g}, {inner:.0%} of the pixels"
    value = float(gap[judged].mean()) if judged.any() else np.nan
    return Row(case, value, "nats", at_most=at_most, note=join(error, numbers, ", ".join(regions)))
