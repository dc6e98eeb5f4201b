"""The door of the room: frames are checked here once, whatever the method that retrieves maps from them."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ddf_tomo._checks import choice, flag, message, number
from ddf_tomo._progress import progress_bar
from ddf_tomo.retrieval._input import Checked, Stack, Weights, check_match, lengths
from ddf_tomo.retrieval._tiles import Mosaic, tiles
from ddf_tomo.retrieval._unfinished import Unfinished, mark_of
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import Method


class _Methods(Mapping[str, Method]):
    """Methods by name; a method's module is imported when it is asked for."""

    modules = ("differential", "matching", "visibility", "correlation", "periodic", "deconvolution")
    others: Mapping[str, tuple[str, str]] = {
        "deconvolution-unrolled": ("deconvolution._learned", "METHOD"),
        "network": ("network.method", "METHOD"),
        "network+matching": ("network.method", "REFINED"),
    }

    def __getitem__(self, name: str) -> Method:
        if name not in (*self.modules, *self.others):
            raise KeyError(name)
        module, attribute = self.others.get(name, (name, "METHOD"))
        method: Method = getattr(importlib.import_module(f"ddf_tomo.retrieval.{module}"), attribute)
        return method

    def __iter__(self) -> Iterator[str]:
        modules = {name: self.others.get(name, (name, ""))[0] for name in (*self.modules, *self.others)}
        return (name for name, module in modules.items() if importlib.util.find_spec(f"ddf_tomo.retrieval.{module}"))

    def __len__(self) -> int:
        return len(list(iter(self)))


METHODS: Mapping[str, Method] = _Methods()


def retrieve(
    sample: ArrayLike | Tensor,
    reference: ArrayLike | Tensor,
    method: str = "differential",
    *,
    window: float | None = None,
    smoothing: float | None = None,
    weights: ArrayLike | Tensor | None = None,
    pixel_size_m: float | None = None,
    distance_m: float | Sequence[float] | None = None,
    gain: float | None = None,
    saturation: float | None = None,
    device: str | torch.device | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
    **options: Any,
) -> Maps:
    """Maps of transmission, displacement and blur from frames taken through a mask, with standard errors.

    Parameters
    ----------
    sample : (..., [distance,] step, row, column)
        Frames with the sample in the beam, any real dtype, dark-subtracted; views in front. Arrays, tensors, or
        anything with ``shape``, ``dtype`` and ``[...]``, such as datasets of an open HDF5 file: views are then read
        one by one. There is an axis of distances if ``distance_m`` is a sequence.
    reference : (..., [distance,] step, row, column)
        Frames without it at the same mask positions, equally exposed: of each view, or one set for all.
    method : {"differential", "matching", "visibility", "correlation", "periodic", "deconvolution", \
"deconvolution-unrolled", "network", "network+matching"}
        ``"differential"``: linear and quick, for displacements below about half a grain of the mask's pattern and
        blurs below its size. See the modules of these names.
    window : float, optional
        Standard deviation in pixels of the Gaussian window over which u and C are taken to be constant; each method
        has its own default. T belongs to a pixel.
    smoothing : float, optional
        Standard deviation in pixels of the Gaussian that smooths both frames, in methods that take derivatives.
    weights : (row, column) or with axes in front, optional
        Non-negative confidence, which broadcasts against ``sample``: of each pixel, frame, or view. Zero excludes,
        whatever the frames hold there: dead pixels, gaps of the detector, frames that are missing.
    pixel_size_m : float, optional
        Pixel in the plane of the sample.
    distance_m : float or sequence of float, optional
        Distance over which angles become displacements (divided by the magnification in a cone beam); several in any
        order. Displacement and covariance are those at the longest.
    gain : float, optional
        Counts per detected quantum, for what needs to know the noise beforehand, such as chi².
    saturation : float, optional
        Counts at or above it are excluded, in the frame and pixel where they are.
    device : str or torch.device, optional
        Where to compute, for example ``"cuda"``: frames go there tile by tile, maps come back.
    checkpoint : path, optional
        HDF5 file that keeps the views that are done; called again with the same frames and settings, the retrieval goes
        on from it. Views whose input has changed are done again. An interruption leaves it whole.
    progress : bool, optional
        Show a progress bar; by default only when it takes long.
    **options
        Of the method: those in ``METHODS[method].options``, for example ``background`` of ``"differential"``.

    Returns
    -------
    Maps
        Of the kind (numpy or torch) and floating dtype of ``sample``; integers become float32. Differentiable.

    Raises
    ------
    ValueError, TypeError
        For frames of unequal shape, too few steps or pixels, non-finite or dark reference frames, options that the
        method does not have, and where the frames of a view carry no information (all steps equal, no contrast).

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> reference = 1000 * (1 + 0.3 * torch.rand(8, 40, 40, generator=generator))
    >>> maps = retrieve(0.5 * reference.roll(1, dims=2), reference)
    >>> maps.transmission.shape, maps.displacement.shape, maps.covariance.shape
    (torch.Size([40, 40]), torch.Size([40, 40, 2]), torch.Size([40, 40, 3]))
    """
    chosen = METHODS[choice(method, "method", tuple(METHODS))]
    distances, several = lengths(distance_m)
    frames, beam = Stack(sample, "sample", several), Stack(reference, "reference", several)
    check_match(frames, beam)
    order = _order(distances, frames.frame[0])
    longest = max(distances, default=None)
    reach = [distances[n] / longest for n in order] if longest else [1.0]
    given = {"window": window, "smoothing": smoothing} | options
    settings = chosen.check(_options(method, chosen, given), frames.frame)
    gain = None if gain is None else number(gain, "gain", low=0, low_open=True)
    saturation = None if saturation is None else number(saturation, "saturation", low=0, low_open=True)
    progress = None if progress is None else flag(progress, "progress")
    confidence = Weights(weights, frames)
    home = frames.value.device if isinstance(frames.value, Tensor) else torch.device("cpu")
    where = _device(device, home)

    parts = tiles(frames.image, frames.frame[0] * frames.frame[1], chosen.halo(settings))
    mosaic = Mosaic(len(frames), frames.image)
    unfinished = Unfinished(checkpoint, mosaic, home)
    identity = settings | {"method": method, "reach": reach, "gain": gain, "saturation": saturation}
    total = chosen.passes(settings) * frames.frame[0] * frames.frame[1] * len(parts) * len(frames)
    inputs = [each.value for each in (frames, beam, confidence)]
    needs_gradient = torch.is_grad_enabled() and any(getattr(each, "requires_grad", False) for each in inputs)
    shared = beam.views == () or len(beam) == 1
    reference_of_view = beam.read(0, order) if shared else None
    if needs_gradient and checkpoint is not None:
        raise ValueError(message("checkpoint", "None where gradients are asked for", repr(checkpoint)))
    finish = getattr(chosen, "after_tiles", lambda options: None)(settings)
    if needs_gradient and finish is not None:
        hint = "What is solved over whole views passes none"
        raise ValueError(message("prior", "None where gradients are asked for", repr(settings.get("prior")), hint))
    with torch.set_grad_enabled(needs_gradient), progress_bar(total, "retrieving", progress, unit="frame") as bar:
        for view in range(len(frames)):
            name = f"view {view}" if frames.views else "the view"
            if not shared:
                reference_of_view = beam.read(view, order)
            weight = confidence.read(view, order, home)
            sample_of_view = frames.read(view, order)
            mark = b""
            if unfinished.path is not None:
                mark = mark_of(identity, sample_of_view, reference_of_view, weight)
                if unfinished.restore(view, mark):
                    bar.update(total // len(frames))
                    continue
            checked = Checked(sample_of_view, reference_of_view, weight, saturation, frames.dtype, name)
            for tile in parts:
                found = chosen.fit(checked.tile(tile.used, reach, gain, where), settings, bar.update)
                mosaic.put(view, tile, found, home)
            if finish is not None and mosaic.values["valid"][view].any():
                view_of = partial(checked.tile, reach=reach, counts_per_quantum=gain, device=where)
                changed = finish({name: each[view] for name, each in mosaic.values.items()}, parts, view_of)
                for changed_name, each in changed.items():
                    mosaic.values[changed_name][view] = each
            if not checked.empty and not mosaic.values["valid"][view].any():
                expected = "mask patterns that differ from step to step, above the noise"
                found_in = name if frames.views else "any pixel"
                raise ValueError(message("sample, reference", expected, f"no information in {found_in}"))
            unfinished.keep(view, mark)

    shaped: dict[str, Any] = {
        name: each.reshape(*frames.views, *each.shape[1:]) for name, each in mosaic.values.items()
    }
    if not isinstance(sample, Tensor):
        shaped = {name: each.detach().numpy() for name, each in shaped.items()}
    return Maps(**(shaped | mosaic.axes), pixel_size_m=pixel_size_m, distance_m=longest)


def _order(distances: tuple[float, ...], given: int) -> list[int]:
    """Places of the frames from the shortest distance to the longest."""
    if len(distances) not in (0, given) and (len(distances), given) != (1, 1):
        raise ValueError(message("distance_m", f"{given} distances, as sample has", len(distances)))
    return sorted(range(given), key=lambda n: distances[n] if distances else n)


def _options(name: str, method: Method, given: dict[str, Any]) -> dict[str, Any]:
    """Options of the method, those that were given in place of its defaults."""
    for option, value in given.items():
        if option not in method.options and (value is not None or option not in ("window", "smoothing")):
            there = ", ".join(map(repr, method.options)) or "none"
            raise TypeError(message(option, f"an option of {name!r}, which are {there}", "another name"))
    chosen = {option: value for option, value in given.items() if option in method.options and value is not None}
    return method.options | chosen


def _device(device: Any, home: torch.device) -> torch.device:
    if device is None:
        return home
    try:
        wanted = torch.device(device)
        torch.empty(0, device=wanted)
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise ValueError(message("device", "a device that torch can use here", repr(device))) from error
    return wanted
