"""The door of the room: frames are checked here once, whatever the method that retrieves maps from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ddf_tomo._checks import check_shape, choice, dense, flag, message, number, real_array
from ddf_tomo._progress import progress_bar
from ddf_tomo.retrieval._filters import DERIVATIVE_REACH, gaussian_taps
from ddf_tomo.retrieval.differential import MINIMUM_STEPS, PASSES, Fit, fit_view, halo
from ddf_tomo.retrieval.maps import Array, Maps

# A method takes the frames of one view and gives a `Fit`: a new one is a file of its own and a line here.
METHODS: dict[str, Callable[..., Fit]] = {"differential": fit_view}
BAND = 1 << 19  # pixels fitted at once: some 2 GB, whatever the size of the image
BRIGHTEST = 1e6  # times the mean reference; beyond it products overflow float32


def retrieve(
    sample: ArrayLike | Tensor,
    reference: ArrayLike | Tensor,
    method: str = "differential",
    *,
    window: float = 3.0,
    smoothing: float = 1.0,
    background: bool = True,
    weights: ArrayLike | Tensor | None = None,
    pixel_size_m: float | None = None,
    distance_m: float | None = None,
    progress: bool | None = None,
) -> Maps:
    """Maps of transmission, displacement and blur from frames taken through a mask, with standard errors.

    Parameters
    ----------
    sample : (..., step, row, column)
        Frames with the sample in the beam, any real dtype, dark-subtracted; views in front.
    reference : (..., step, row, column)
        Frames without it at the same mask positions, equally exposed: of each view, or one set for all.
    method : {"differential"}
        See `ddf_tomo.retrieval.differential`: linear, for displacements below about half a grain of the mask's
        pattern and blurs below its size.
    window : float
        Standard deviation in pixels of the Gaussian window over which u and C are taken to be constant. T belongs to
        a pixel.
    smoothing : float
        Standard deviation in pixels of the Gaussian that smooths both frames before derivatives are taken. It does
        not bias u and C; less resolves finer patterns, more lowers the noise of frames with few counts.
    background : bool
        Fit the pattern-free share of the intensity too. It raises the error of the isotropic part of C by a third at
        most in the measured example, and leaves displacement and direction alone.
    weights : (row, column), optional
        Non-negative confidence in each pixel; zero excludes it, whatever its frames hold.
    pixel_size_m, distance_m : float, optional
        Pixel (in the plane of the sample for a cone beam) and the distance over which angles become displacements.
    progress : bool, optional
        Show a progress bar; by default only when it takes long.

    Returns
    -------
    Maps
        Of the kind (numpy or torch) and floating dtype of ``sample``; integers become float32. Differentiable.

    Raises
    ------
    ValueError, TypeError
        For frames of unequal shape, too few steps or pixels, non-finite or dark reference frames, and where the
        frames of a view carry no information (all steps equal, no contrast).

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> reference = 1000 * (1 + 0.3 * torch.rand(8, 40, 40, generator=generator))
    >>> maps = retrieve(0.5 * reference.roll(1, dims=2), reference)
    >>> maps.transmission.shape, maps.displacement.shape, maps.covariance.shape
    (torch.Size([40, 40]), torch.Size([40, 40, 2]), torch.Size([40, 40, 3]))
    """
    fit = METHODS[choice(method, "method", tuple(METHODS))]
    frames, beam = _frames(sample, "sample"), _frames(reference, "reference")
    _check_match(frames, beam)
    frames, beam = dense(frames, "sample"), dense(beam, "reference")
    rows, columns = frames.shape[-2:]
    smoothing = number(smoothing, "smoothing", low=0, high=10)
    window = number(window, "window", low=0.5, high=max(rows, columns))
    least = 2 * (len(gaussian_taps(smoothing)) - 1 + DERIVATIVE_REACH) + 1
    if min(rows, columns) < least:
        hint = f"Smoothing and derivatives reach over {least // 2} pixels to every side"
        raise ValueError(message("sample", f"at least {least} rows and columns", (rows, columns), hint))
    background = flag(background, "background")
    progress = None if progress is None else flag(progress, "progress")
    confidence = _weights(weights, frames)

    bands = _bands(rows, max(1, BAND // columns), halo(window, smoothing))
    total = frames.numel() // (rows * columns) * len(bands)

    views = frames.shape[:-3]
    frames = frames.reshape(-1, *frames.shape[-3:])
    shared = beam.ndim == 3 or beam.shape[:-3].numel() == 1
    beam = beam.reshape(-1, *beam.shape[-3:])
    if len(frames) == 0:
        raise ValueError(message("sample", "at least one view", tuple(views)))
    fits = []
    needs_gradient = torch.is_grad_enabled() and any(each.requires_grad for each in (frames, beam, confidence))
    bar = progress_bar(PASSES * total, "retrieving", progress, unit="frame")
    with torch.set_grad_enabled(needs_gradient), bar:
        for view, frame in enumerate(frames):
            pair = _prepared(frame, beam[0 if shared else view], confidence, f"view {view}" if views else "the view")
            parts = []
            for used, kept in bands:
                options = {"window": window, "smoothing": smoothing, "background": background, "tick": bar.update}
                part = fit(*(each[..., used, :] for each in pair), confidence[used], **options)
                parts.append([each[..., kept, :] for each in part])
            found = Fit(*(torch.cat(pieces, dim=-2) for pieces in zip(*parts, strict=True)))
            if not found.valid.any():
                raise ValueError(
                    message(
                        "sample, reference",
                        "mask patterns that differ from step to step, above the noise",
                        f"no information in {f'view {view}' if views else 'any pixel'}",
                    )
                )
            fits.append(found)

    def gathered(part: Callable[[Fit], Tensor]) -> Array:
        stacked = torch.stack([part(each) for each in fits])
        shaped = stacked.reshape(*views, *stacked.shape[1:])
        return shaped if isinstance(sample, Tensor) else shaped.detach().numpy()

    def kappa(part: Callable[[Fit], Tensor]) -> Array:
        return gathered(lambda each: part(each)[5] if background else torch.zeros_like(each.transmission))

    return Maps(
        transmission=gathered(lambda each: each.transmission),
        displacement=gathered(lambda each: each.unknowns[:2].movedim(0, -1)),
        covariance=gathered(lambda each: each.unknowns[2:5].movedim(0, -1)),
        background=kappa(lambda each: each.unknowns),
        transmission_error=gathered(lambda each: each.transmission_error),
        displacement_error=gathered(lambda each: each.unknowns_error[:2].movedim(0, -1)),
        covariance_error=gathered(lambda each: each.unknowns_error[2:5].movedim(0, -1)),
        background_error=kappa(lambda each: each.unknowns_error),
        residual=gathered(lambda each: each.residual),
        valid=gathered(lambda each: each.valid),
        pixel_size_m=pixel_size_m,
        distance_m=distance_m,
    )


def _bands(rows: int, height: int, reach: int) -> list[tuple[slice, slice]]:
    """Rows to fit together, and which of them to keep: bands that overlap by all that can touch a result."""
    bands = []
    for start in range(0, rows, height):
        stop, first = min(start + height, rows), max(start - reach, 0)
        bands.append((slice(first, min(stop + reach, rows)), slice(start - first, stop - first)))
    return bands


def _frames(value: Any, argument: str) -> Tensor:
    """Floating tensor (..., step, row, column) of any real array; non-finite entries pass, for weights to judge."""
    if not isinstance(value, Tensor):
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise TypeError(message(argument, "real numbers in a regular array", type(value).__name__)) from error
        if array.dtype.kind not in "uif":
            raise TypeError(message(argument, "real numbers", f"dtype {array.dtype}"))
        value = torch.from_numpy(array.astype(np.float64 if array.dtype == np.float64 else np.float32, order="C"))
    if value.is_complex() or value.dtype == torch.bool:
        raise TypeError(message(argument, "real numbers", f"dtype {value.dtype}"))
    if value.ndim < 3 or 0 in value.shape[-3:]:
        raise ValueError(message(argument, "shape (..., step, row, column) without empty axes", tuple(value.shape)))
    if value.shape[-3] < MINIMUM_STEPS:
        hint = "Fewer leave no scatter to take errors from"
        raise ValueError(message(argument, f"at least {MINIMUM_STEPS} mask steps", value.shape[-3], hint))
    return value if value.dtype == torch.float64 else value.to(torch.float32)


def _check_match(sample: Tensor, reference: Tensor) -> None:
    views = sample.shape[:-3]
    if reference.shape[-3:] != sample.shape[-3:] or reference.shape[:-3] not in ((), views):
        expected = f"{tuple(sample.shape)}, as sample, or {tuple(sample.shape[-3:])}"
        raise ValueError(message("reference", expected, tuple(reference.shape)))
    if sample.device != reference.device:
        raise ValueError(message("reference", f"a tensor on {sample.device}, as sample", str(reference.device)))


def _weights(weights: Any, frames: Tensor) -> Tensor:
    shape = tuple(frames.shape[-2:])
    if weights is None:
        return torch.ones(shape, dtype=frames.dtype, device=frames.device)
    if not isinstance(weights, Tensor):
        weights = torch.from_numpy(real_array(weights, "weights", finite=False))
    check_shape(tuple(dense(weights, "weights").shape), "weights", shape)
    if not torch.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any():
        raise ValueError(message("weights", "finite, non-negative numbers, not all zero", "others"))
    # Only ratios of weights matter: bring the largest to 1, so that no sum over- or underflows.
    return (weights / weights.max()).to(frames)


def _prepared(sample: Tensor, reference: Tensor, weights: Tensor, where: str) -> tuple[Tensor, Tensor]:
    """Both stacks in units of the mean reference, with 1 where the weight is zero."""
    used = weights > 0
    reference = reference.to(sample)
    for frames, argument in ((sample, "sample"), (reference, "reference")):
        bad = int((~torch.isfinite(frames) & used).sum())
        if bad:
            found = f"{bad} NaN or infinite in {where}"
            raise ValueError(message(argument, "finite frames", found, "Exclude dead pixels by zero weights"))
    level = float(reference.detach().double().mean(0)[used].mean())
    dark = int((used & (reference.detach().double().sum(0) <= 0)).sum())
    if dark:
        found = f"{dark} pixels of zero or less in {where}"
        raise ValueError(message("reference", "positive counts on average over the steps", found))
    for frames, argument in ((sample, "sample"), (reference, "reference")):
        if float(frames.detach()[:, used].abs().max()) > BRIGHTEST * level:
            raise ValueError(message(argument, f"counts within {BRIGHTEST:g} times the mean reference", "larger ones"))
    return torch.where(used, sample / level, 1), torch.where(used, reference / level, 1)
