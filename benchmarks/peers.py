"""Other programs for the same frames, where they are installed: UMPA's directional extension, popcorn, mbipy.

Nothing here fetches or builds one. Each adapter imports its peer when it is called (``ImportError`` where there is
none), hands over the frames, and brings the answer to our conventions: u and C in pixels, axis j down the rows, axis k
along the columns, ``I(x) = T (G_C * I_ref)(x − u)``.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Found(NamedTuple):
    """What a peer gave; NaN in pixels that it left out.

    Attributes
    ----------
    displacement, covariance
        ``(row, column, 2)`` and ``(row, column, 3)``, or None where it gives none.
    pixels
        How many it worked on.
    """

    displacement: NDArray[Any] | None
    covariance: NDArray[Any] | None
    pixels: int


def umpa_ddf(sample: NDArray[Any], reference: NDArray[Any], window: int = 5, step: int = 8) -> Found:
    """UMPA with its directional extension (Smith et al. 2022), every ``step``-th pixel: it takes 50 ms for one."""
    import h5py
    import UMPA_directional_dark_field as umpa

    level = reference.mean()
    frames = [[np.ascontiguousarray(frame / level, float) for frame in stack] for stack in (sample, reference)]
    with tempfile.TemporaryDirectory() as folder:
        options = {"final_nw": window, "final_step": step, "sigma_max": 3, "blur_extra": 0.05, "savepng": False}
        umpa.do_it_all_for_me(*frames, f"{folder}/found", **options)
        (path,) = Path(folder).glob("*.h5")
        with h5py.File(path) as file:
            stage = max(name.rpartition("_")[2] for name in file if name.startswith("final_vals"))
            first, second, width = np.moveaxis(file[f"final_vals_stage_{stage}"][()], -1, 0)
            moved = -np.stack([file[f"dpc{axis}_stage_{stage}"][()] for axis in "yx"], -1)
    # Its parameters: σ² = s²/(1 ± ε) along and across the angle θ, with (first, second) = √ε (cos θ, sin θ).
    share, angle = np.minimum(first**2 + second**2, 0.999), np.arctan2(second, first)
    along, across = width**2 / (1 + share), width**2 / (1 - share)
    mean, half = (along + across) / 2, (along - across) / 2
    blur = np.stack([mean + half * np.cos(2 * angle), half * np.sin(2 * angle), mean - half * np.cos(2 * angle)], -1)
    border = window + 5 + 8  # its own: window, largest shift, kernel
    return Found(_placed(moved, border, step, sample), _placed(blur, border, step, sample), width.size)


def _placed(values: NDArray[Any], border: int, step: int, sample: NDArray[Any]) -> NDArray[Any]:
    whole = np.full((*sample.shape[1:], values.shape[-1]), np.nan)
    rows, columns = (border + step * np.arange(n) for n in values.shape[:2])
    whole[np.ix_(rows, columns)] = values
    return whole


def mbipy_lcs_ddf(sample: NDArray[Any], reference: NDArray[Any]) -> Found:
    """mbipy's ``lcs_ddf``: six unknowns a pixel, linear, no window."""
    from mbipy.src.phase_retrieval.implicit.lcs import lcs_ddf

    frames = [np.ascontiguousarray(np.moveaxis(stack, 0, -1), float) for stack in (sample, reference)]
    _, *moved, down, across, mixed = np.moveaxis(np.asarray(lcs_ddf(*frames, weak_absorption=False)), -1, 0)
    blur = np.stack([2 * down, mixed, 2 * across], -1)
    return Found(np.stack(moved, -1), blur, mixed.size)


def popcorn_lcs(sample: NDArray[Any], reference: NDArray[Any]) -> Found:
    """popcorn's LCS: transmission and displacement."""
    across, down, _ = _popcorn("LCS").LCS(_experiment(sample, reference))
    return Found(np.stack([down, across], -1), None, down.size)


def popcorn_mistii(sample: NDArray[Any], reference: NDArray[Any]) -> Found:
    """popcorn's MISTII_2: the blur tensor; its direction is taken from the tensor's eigenvectors, not its ellipse."""
    _, down, across, mixed = _popcorn("MISTII_2").MISTII_2(_experiment(sample, reference))
    return Found(None, np.stack([2 * down, mixed, 2 * across], -1), down.size)


def _popcorn(module: str) -> Any:
    """A module of popcorn's phase retrieval, whose parts import each other by their bare names."""
    import importlib

    import popcorn.phase_retrieval as room

    folder = str(Path(next(iter(room.__path__))))
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(module)


def _experiment(sample: NDArray[Any], reference: NDArray[Any]) -> SimpleNamespace:
    """Lengths of 1 bring coefficients in pixels; no phase (δ = 0), no filter afterwards."""
    return SimpleNamespace(
        sample_images=np.asarray(sample, float),
        reference_images=np.asarray(reference, float),
        nb_of_point=len(sample),
        pixel=1.0,
        dist_object_detector=1.0,
        energy=1.0,
        delta=0.0,
        beta=1.0,
        max_shift=5.0,
        LCS_median_filter=0,
        MIST_median_filter=0,
        sigma_regularization=0,
    )


PEERS: dict[str, Callable[[NDArray[Any], NDArray[Any]], Found]] = {
    "UMPA, directional": umpa_ddf,
    "mbipy lcs_ddf": mbipy_lcs_ddf,
    "popcorn LCS": popcorn_lcs,
    "popcorn MISTII_2": popcorn_mistii,
}
