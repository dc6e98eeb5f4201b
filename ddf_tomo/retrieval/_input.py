"""Frames as users hold them (arrays, tensors, datasets in files), read one view at a time and checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddf_tomo._checks import NOT_NUMBERS, dense, message, number, real_array
from ddf_tomo.retrieval.maps import LENGTHS_M
from ddf_tomo.retrieval.method import View

BRIGHTEST = 1e6  # times the mean reference; beyond it products overflow float32
MOST_QUANTA = 1e30  # of the mean reference, and of its inverse: the noise is a number in float32 as well
CHECKED_AT_ONCE = 1 << 22  # numbers
Part = tuple[slice, slice]  # rows and columns


def lengths(value: Any) -> tuple[tuple[float, ...], bool]:
    """Distances in metres, and whether frames have an axis of them; none at all for ``None``."""
    low, high = LENGTHS_M["distance_m"]
    if value is None:
        return (), False
    try:
        several = np.ndim(value) > 0
    except NOT_NUMBERS as error:
        raise TypeError(message("distance_m", "a length in metres, or several", type(value).__name__)) from error
    if not several:
        return (number(value, "distance_m", low=low, high=high),), False
    found = tuple(number(each, "distance_m", low=low, high=high) for each in real_array(value, "distance_m", (None,)))
    if not found or len(set(found)) < len(found):
        hint = "Frames at one distance are steps of one another"
        raise ValueError(message("distance_m", "one length or more, all different", found, hint))
    return found, True


class Stack:
    """Frames ``(view, distance, step, row, column)`` of any kind, of which one view at a time is in memory."""

    def __init__(self, value: Any, argument: str, several: bool) -> None:
        self.argument = argument
        self.value = _numbers(value, argument)
        frame = ("distance", "step", "row", "column") if several else ("step", "row", "column")
        shape = tuple(int(n) for n in self.value.shape)
        if len(shape) < len(frame) or 0 in shape[-len(frame) :]:
            hint = "Several distances have an axis of their own" if several else ""
            expected = f"shape (..., {', '.join(frame)}) without empty axes"
            raise ValueError(message(argument, expected, shape, hint))
        self.views = shape[: -len(frame)]
        self.frame = shape[-len(frame) :] if several else (1, *shape[-3:])
        self.image = self.frame[2], self.frame[3]
        self.in_files = not isinstance(self.value, np.ndarray | Tensor)

    def __len__(self) -> int:
        return math.prod(self.views)

    @property
    def dtype(self) -> torch.dtype:
        """In which these frames are worked with."""
        return torch.float64 if "float64" in str(self.value.dtype) else torch.float32

    def read(self, view: int, order: list[int]) -> Any:
        """Frames (distance, step, row, column) of one view, as they are, their distances in this order."""
        index = tuple(int(n) for n in np.unravel_index(view, self.views)) if self.views else ()
        found = self.value[index] if index or not self.in_files else self.value[()]
        found = found if isinstance(found, Tensor) else np.asarray(found)
        found = found.reshape(self.frame)
        return found if order == sorted(order) else found[order]


def _numbers(value: Any, argument: str) -> Any:
    """The value itself if it has a shape and holds real numbers, or an array of it."""
    if isinstance(value, Tensor):
        if value.is_complex() or value.dtype == torch.bool:
            raise TypeError(message(argument, "real numbers", f"dtype {value.dtype}"))
        return value
    in_file = hasattr(value, "dtype") and hasattr(value, "__getitem__") and len(getattr(value, "shape", ())) > 2
    if not in_file or isinstance(value, np.ndarray):
        try:
            value = np.asarray(value)
        except NOT_NUMBERS as error:
            raise TypeError(message(argument, "real numbers in a regular array", type(value).__name__)) from error
    try:
        kind = np.dtype(value.dtype).kind
    except TypeError:
        kind = "?"
    if kind not in "uif":
        raise TypeError(message(argument, "real numbers", f"dtype {value.dtype}"))
    return value


def floating(part: Any, dtype: torch.dtype) -> Tensor:
    """A tensor of part of a view, itself if it can be; integers become floating."""
    if isinstance(part, Tensor):
        return part.to(dtype)
    with np.errstate(over="ignore"):  # what becomes infinite is told by the checks
        return torch.from_numpy(np.require(part, str(dtype).removeprefix("torch."), ("C", "W")))


def check_match(sample: Stack, reference: Stack) -> None:
    """Raise ``ValueError`` unless the reference belongs to the sample's frames, on the same device."""
    if reference.frame != sample.frame or reference.views not in ((), sample.views):
        expected = f"{sample.views + sample.frame}, as sample, or {sample.frame}"
        if len(sample.value.shape) < len(sample.views + sample.frame):  # the axis of distances is our own
            expected = f"{tuple(sample.value.shape)}, as sample, or {tuple(sample.value.shape[-3:])}"
        raise ValueError(message("reference", expected, tuple(reference.value.shape)))
    both = [each.value.device for each in (sample, reference) if isinstance(each.value, Tensor)]
    if len(set(both)) > 1:
        raise ValueError(message("reference", f"a tensor on {both[0]}, as sample", str(both[1])))
    for each in (sample, reference):
        if isinstance(each.value, Tensor):
            dense(each.value, each.argument)
    if len(sample) == 0:
        raise ValueError(message("sample", "at least one view", sample.views))


class Weights:
    """Confidence in each pixel of each frame, as something that broadcasts against the sample's frames."""

    def __init__(self, value: Any, sample: Stack) -> None:
        self.sample = sample
        self.value: Tensor | None = None
        if value is None:
            return
        if not isinstance(value, Tensor):
            value = torch.from_numpy(real_array(value, "weights", finite=False))
        shape = tuple(sample.value.shape)
        given = tuple(dense(value, "weights").shape)
        fits = 2 <= len(given) <= len(shape) and given[-2:] == shape[-2:]
        if not fits or any(n not in (1, m) for n, m in zip(given[::-1], shape[::-1], strict=False)):
            expected = f"shape {shape[-2:]}, or with axes in front that broadcast against {shape}"
            raise ValueError(message("weights", expected, given))
        if not torch.isfinite(value).all() or (value < 0).any() or not (value > 0).any():
            raise ValueError(message("weights", "finite, non-negative numbers, not all zero", "others"))
        # Only ratios of weights matter: bring the largest to 1, so that no sum over- or underflows.
        self.value = (value / value.max()).reshape((1,) * (len(shape) - len(given)) + given)

    def read(self, view: int, order: list[int], device: torch.device) -> Tensor:
        """Weights of one view, (distance, step, row, column), of which the first two may have length 1."""
        dtype, (rows, columns) = self.sample.dtype, self.sample.frame[-2:]
        if self.value is None:
            return torch.ones(1, 1, rows, columns, dtype=dtype, device=device)
        views = self.sample.views
        where = np.unravel_index(view, views) if views else ()
        index = tuple(int(n) if m > 1 else 0 for n, m in zip(where, self.value.shape, strict=False))
        found = self.value[index]
        found = found.reshape((1,) * (4 - found.ndim) + tuple(found.shape)).to(device, dtype)
        return found if len(found) == 1 else found[order]

    @property
    def requires_grad(self) -> bool:
        """Whether gradients with respect to them are asked for."""
        return self.value is not None and self.value.requires_grad


class Checked:
    """The frames of one view that have passed the checks; `tile` gives any part of them."""

    def __init__(
        self, sample: Any, reference: Any, weights: Tensor, saturation: float | None, dtype: torch.dtype, where: str
    ) -> None:
        # Of an array that need not change its dtype the parts are views; others are converted part by part.
        kind = str(dtype).removeprefix("torch.")
        self.sample, self.reference = (
            floating(each, dtype) if str(each.dtype) == kind else each for each in (sample, reference)
        )
        self.weights = weights
        self.saturation, self.dtype, self.where = saturation, dtype, where
        self.level = 1.0
        total = mean = brightest = 0.0
        used_pixels = dark = 0
        bad = {"sample": 0, "reference": 0}
        for part in self._parts():
            frames, used = self._read(part)
            kept = [each.detach() if used.all() else torch.where(used, each.detach(), 0) for each in frames]
            sums = [each.sum((0, 1)) for each in kept]
            for name, each, finite in zip(bad, kept, sums, strict=True):
                bad[name] += 0 if torch.isfinite(finite).all() else int((~torch.isfinite(each)).sum())
            steps = used.sum((0, 1), dtype=dtype) * (kept[0][..., 0, 0].numel() / used[..., 0, 0].numel())
            lit = steps > 0
            levels = [float((each / steps.clamp(min=1)).sum(dtype=torch.float64)) for each in sums]
            mean, total = mean + levels[0], total + levels[1]
            used_pixels += int(lit.sum())
            dark += int((lit & (sums[1] <= 0)).sum())
            brightest = max(brightest, *(abs(float(end)) for each in kept for end in (each.amin(), each.amax())))
        self.empty = used_pixels == 0
        for name, count in bad.items():
            if count:
                found = f"{count} NaN or infinite in {where}"
                raise ValueError(message(name, "finite frames", found, "Exclude dead pixels by zero weights"))
        if dark:
            found = f"{dark} pixels of zero or less in {where}"
            raise ValueError(message("reference", "positive counts on average over the steps", found))
        if self.empty:
            return
        self.level = total / used_pixels
        if not 0 < self.level < math.inf:
            raise ValueError(message("reference", "counts that floating point can hold", f"a mean of {self.level:g}"))
        if brightest > BRIGHTEST * self.level:
            expected = f"counts within {BRIGHTEST:g} times the mean reference"
            raise ValueError(message("sample, reference", expected, f"larger ones in {where}"))
        if mean < 0:
            found = f"a mean of {mean / used_pixels:.3g} in {where}"
            raise ValueError(message("sample", "counts of zero or more on average", found, "Dark subtracted twice?"))

    def _parts(self) -> Iterator[Part]:
        distances, steps, rows, columns = self.sample.shape
        height = max(1, CHECKED_AT_ONCE // (distances * steps * columns))
        for start in range(0, rows, height):
            yield slice(start, min(start + height, rows)), slice(None)

    def _read(self, part: Part) -> tuple[list[Tensor], Tensor]:
        """Both frames, and which pixels of them count."""
        device = self.weights.device
        frames = [floating(each[..., *part], self.dtype).to(device) for each in (self.sample, self.reference)]
        used = self.weights[..., *part] > 0
        if self.saturation is not None:
            used = used & (frames[0] < self.saturation) & (frames[1] < self.saturation)
        return frames, used

    def tile(self, part: Part, reach: Sequence[float], counts_per_quantum: float | None, device: Any) -> View:
        """A part of the view in units of the mean reference, on a device, 1 where the weight is zero."""
        frames, used = self._read(part)
        weights = torch.where(used, self.weights[..., *part], 0)
        scaled = (each / self.level for each in frames)
        sample, reference = ((each if used.all() else torch.where(used, each, 1)).to(device) for each in scaled)
        ratio = torch.tensor(reach, dtype=self.dtype, device=sample.device)
        counts = math.nan
        if counts_per_quantum is not None:
            counts = self.level / counts_per_quantum
            if not 1 / MOST_QUANTA < counts < MOST_QUANTA:
                expected = f"a mean reference of 1 / {MOST_QUANTA:g} to {MOST_QUANTA:g} quanta"
                raise ValueError(message("gain", expected, f"{counts:g}, from {counts_per_quantum:g} counts a quantum"))
        return View(sample, reference, weights.to(device), ratio, counts)
