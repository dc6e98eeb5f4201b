"""Blind deconvolution: each pixel has a kernel of its own, free in form, mixed from a few that the image shares.

``I_m,d(x) = Σ_r w_r(x) [k_r,d * (T R_m,d)](x)`` with kernels k ≥ 0 of sum one that grow with the distance, weights
w ≥ 0 that sum to one in each pixel, and one transmission for all steps and distances: a non-negative factorisation of
the kernel field. Second moments of a pixel's kernel are the blur; a Gaussian is nowhere assumed. `deconvolve` gives the
kernels themselves, with the directions of fibres that cross in a pixel.

What the frames leave open is fixed so: kernels and weights sum to one, so that all brightness is the transmission's;
all kernels have the mean zero, so that all that moves is the displacement's; kernels come in the order of their weight.
T of the maps is what arrives; `KernelField` has that of the object, before the kernels, as well.

It starts from the maps of `matching`, and takes out the displacement that they have: the frames of the sample are
pulled back by it (``_motion``). Every update lowers the weighted squares of what is left, or leaves them
(``_updates``).

Examples
--------
>>> generator = torch.Generator().manual_seed(0)
>>> frames = torch.nn.functional.avg_pool2d(torch.rand(6, 42, 42, generator=generator), 3, 1)
>>> field = deconvolve(0.5 * frames.roll(1, 1), frames, rank=1, support=9, iterations=4)
>>> field.displacement[20, 20].round(decimals=1).abs(), f"{field.transmission[20, 20]:.2f}"
(tensor([1., 0.]), '0.50')
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from ddf_tomo._checks import choice, integer, message, number
from ddf_tomo.retrieval._input import Checked, Stack, Weights, check_match, lengths
from ddf_tomo.retrieval.deconvolution._fit import KERNELS, fitted, halves, mapped, rank_of
from ddf_tomo.retrieval.deconvolution._learned import UNROLLED
from ddf_tomo.retrieval.deconvolution.field import Directions, KernelField, directions_of
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import View

__all__ = ["METHOD", "Directions", "KernelField", "deconvolve", "directions_of"]

WHOLE_IMAGE = 1 << 20
FEWEST = 4  # steps: two halves of two


class _Deconvolution:
    """The method ``"deconvolution"`` of `ddf_tomo.retrieval.retrieve`.

    Its options:

    * ``window``: standard deviation in pixels of the splines that weights are made of (2.2);
    * ``rank``: number of kernels (6), or ``"auto"``: that with which three quarters of the steps predict the last best;
    * ``kernels``: those of the start. ``"clusters"``: Gaussians of groups of alike blur, from `matching`;
      ``"directions"``: lines in all directions, at rest for the first half, a convex fit;
    * ``support``: width of a kernel in pixels, odd (13);
    * ``oversampling``: taps a pixel along each axis (2): kernels on whole pixels blur what moves by half of one;
    * ``iterations``: of all updates (6).

    Standard errors are half the difference of two fits, to every second step each, averaged over some pixels. Pixels
    nearer to the edge than a kernel reaches are not valid. Gradients do not pass.
    """

    options: dict[str, Any]

    def __init__(self) -> None:
        self.options = {
            "window": 2.2,
            "rank": 6,
            "kernels": "clusters",
            "support": 13,
            "oversampling": 2,
            "iterations": 6,
        }

    def check(self, options: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        """Options checked; raises ``ValueError`` or ``TypeError`` naming the argument."""
        rows, columns = shape[-2:]
        support = integer(options["support"], "support", low=3, high=65)
        if support % 2 == 0:
            raise ValueError(message("support", "an odd number of pixels", support))
        if min(rows, columns) < 2 * support:
            raise ValueError(message("sample", f"at least {2 * support} rows and columns", (rows, columns)))
        if shape[-3] < FEWEST:
            raise ValueError(message("sample", f"at least {FEWEST} steps", shape[-3], "Errors come from two halves"))
        rank = options["rank"]
        return {
            "window": number(options["window"], "window", low=0.5, high=max(rows, columns)),
            "rank": rank if isinstance(rank, str) and rank == "auto" else integer(rank, "rank", low=1, high=64),
            "kernels": choice(options["kernels"], "kernels", KERNELS),
            "support": support,
            "oversampling": integer(options["oversampling"], "oversampling", low=1, high=4),
            "iterations": integer(options["iterations"], "iterations", low=1, high=10_000),
            "record": False,
        }

    def halo(self, options: dict[str, Any]) -> int:
        """How many pixels away frames can still touch a result: all, as the image shares its kernels."""
        return WHOLE_IMAGE

    def passes(self, options: dict[str, Any]) -> int:
        """How often ``tick`` is called for each frame."""
        iterations: int = options["iterations"]
        return iterations

    def fit(self, view: View, options: dict[str, Any], tick: Callable[[], object]) -> Maps:
        """Maps of one view; gradients do not pass."""
        with torch.no_grad():
            view = view._replace(sample=view.sample.detach(), reference=view.reference.detach())
            options = _ranked(view, options)
            field = fitted(view, options, tick)
            return mapped(field, [fitted(half, options) for half in halves(view)], options["window"])


METHOD = _Deconvolution()


def _ranked(view: View, options: dict[str, Any]) -> dict[str, Any]:
    return options | {"rank": rank_of(view, options)} if options["rank"] == "auto" else options


def deconvolve(
    sample: ArrayLike | Tensor,
    reference: ArrayLike | Tensor,
    *,
    distance_m: float | Sequence[float] | None = None,
    weights: ArrayLike | Tensor | None = None,
    gain: float | None = None,
    **options: Any,
) -> KernelField:
    """Kernels of every pixel, free in form, from the frames of one view.

    Parameters
    ----------
    sample, reference : shape ([distance,] step, row, column)
        Frames with and without the sample, as for `ddf_tomo.retrieval.retrieve`.
    distance_m : float or sequence of float, optional
        Distances from the shortest to the longest, if there is an axis of them.
    weights : (row, column) or with axes in front, optional
        Non-negative confidence; zero excludes.
    gain : float, optional
        Counts per detected quantum, for chi².
    **options
        Those of the method ``"deconvolution"``, or, with a ``model``, those of ``"deconvolution-unrolled"``.

    Returns
    -------
    KernelField
        With what is left after every update in ``objective``; torch tensors.

    Raises
    ------
    ValueError, TypeError
        For frames or options that do not fit, as `ddf_tomo.retrieval.retrieve` does.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> frames = torch.nn.functional.avg_pool2d(torch.rand(6, 30, 34, generator=generator), 3, 1)
    >>> field = deconvolve(frames.roll(1, 1), frames, rank=2, support=7, iterations=2)
    >>> field.kernels.shape[1:], field.objective[-1] < field.objective[0]
    (torch.Size([13, 13]), True)
    """
    distances, several = lengths(distance_m)
    frames, beam = Stack(sample, "sample", several), Stack(reference, "reference", several)
    check_match(frames, beam)
    if frames.views:
        raise ValueError(message("sample", "frames of one view", tuple(frames.views), "Call it for each view"))
    if len(distances) > 1 and (list(distances) != sorted(distances) or len(distances) != frames.frame[0]):
        raise ValueError(message("distance_m", f"{frames.frame[0]} distances, rising", distances))
    method = UNROLLED if "model" in options else METHOD
    if unknown := sorted(set(options) - set(method.options)):
        raise TypeError(message(unknown[0], f"one of {', '.join(method.options)}", "another option"))
    settings = method.check(method.options | options, frames.frame) | {"record": True}
    gain = None if gain is None else number(gain, "gain", low=0, low_open=True)
    home = frames.value.device if isinstance(frames.value, Tensor) else torch.device("cpu")
    order = list(range(frames.frame[0]))
    confidence = Weights(weights, frames).read(0, order, home)
    checked = Checked(frames.read(0, order), beam.read(0, order), confidence, None, frames.dtype, "the view")
    if checked.empty:
        raise ValueError(message("weights", "some that are not zero", "none"))
    reach = [each / distances[-1] for each in distances] if len(distances) > 1 else [1.0]
    everything = slice(None), slice(None)
    with torch.no_grad():
        view = checked.tile(everything, reach, gain, home)
        return UNROLLED.field(view, settings) if method is UNROLLED else fitted(view, _ranked(view, settings))
