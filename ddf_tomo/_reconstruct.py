"""From a scan to a volume of spherical functions, in one call."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime

import torch

from ddf_tomo._checks import (
    MOST_ITERATIONS,
    choice,
    even_order,
    flag,
    integer,
    message,
    number,
)
from ddf_tomo.operators.base import as_tensor
from ddf_tomo.operators.observability import observability
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.priors import Differences
from ddf_tomo.reconstruction import Reconstruction
from ddf_tomo.scan import Scan
from ddf_tomo.solvers import Solution, cgls
from ddf_tomo.solvers.smoothness import choose_smoothness, penalty_scale

METHODS = ("cg",)


def reconstruct(
    scan: Scan,
    method: str = "cg",
    *,
    ell_max: int | str = "auto",
    smoothness: float | str = "auto",
    iterations: int = 15,
    noise_level: float | None = None,
    progress: bool | None = None,
) -> Reconstruction:
    """Reconstruct the spherical function of every voxel.

    Minimises ``|W^(1/2) (A c - data)|² + λ |D c|²``: agreement with the data, and smoothness from voxel to voxel (``D``
    takes differences between neighbours, all coefficients alike, so that the result turns with the sample).

    Parameters
    ----------
    scan
        Data, weights, geometry and response.
    method
        ``"cg"``: conjugate gradients.
    ell_max
        Highest order of the harmonics; ``"auto"`` takes the highest that the acquisition fully determines
        (`observability`), and warns where that is none beyond the mean. Asking for more than is determined warns.
    smoothness
        ``λ`` relative to the response to a constant volume, typically 1e-3 … 1e-1; 0 for none. ``"auto"`` leaves one
        view in ten out, and takes the smoothest solution that predicts them within 1 % of the best; scans of fewer than
        ten views get 0.01.
    iterations
        Number of conjugate-gradient iterations of the final solution.
    noise_level
        Norm of the weighted residual at which to stop earlier (see `cgls`); of use with ``smoothness=0``.
    progress
        Whether to show a progress bar; by default when it takes longer than two seconds.

    Returns
    -------
    Reconstruction

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> from ddf_tomo import SecondMomentResponse
    >>> from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
    >>> scan = simulate(helicoidal_fibres, tilt_series((12, 12, 12)), SecondMomentResponse(), noise=0.01)
    >>> reconstruct(scan)
    <Reconstruction: 12 × 12 × 12 voxels, 6 coefficients (ell_max=2)>
    """
    if not isinstance(scan, Scan):
        raise TypeError(message("scan", "a ddf_tomo.Scan", type(scan).__name__))
    choice(method, "method", METHODS)
    iterations = integer(iterations, "iterations", low=1, high=MOST_ITERATIONS)
    if isinstance(smoothness, str):
        choice(smoothness, "smoothness", ("auto",))
    else:
        smoothness = number(smoothness, "smoothness", low=0.0)
    progress = None if progress is None else flag(progress, "progress")
    noise_level = None if noise_level is None else number(noise_level, "noise_level", low=0.0)
    order = _chosen_order(scan, ell_max, smoothness != 0)
    data = as_tensor(scan.data).detach().cpu()
    weights = None if scan.weights is None else as_tensor(scan.weights).detach().cpu()
    # Weights of mean 1 keep float32 sums in range whatever the units; the minimiser does not change.
    unit = 1.0 if weights is None else float(weights[weights > 0].double().mean())
    relative = None if weights is None else weights / unit
    A = TensorXRayTransform(scan.geometry, scan.response, order)
    scale = penalty_scale(A, relative)
    weighted = data if relative is None else relative.sqrt() * data
    norm = float(torch.linalg.vector_norm(weighted, dtype=torch.float64))
    start = None
    if smoothness == "auto":
        smoothness, start = choose_smoothness(A, data, relative, scale, progress=progress)
    solution: Solution = cgls(
        A,
        data,
        weights=relative,
        tikhonov=float(smoothness) * scale,
        penalty=Differences(scan.geometry.volume_shape),
        iterations=iterations,
        noise_level=None if noise_level is None else noise_level / unit**0.5,
        x0=start,
        progress=progress,
    )
    from ddf_tomo import __version__

    return Reconstruction(
        solution.x.numpy(),
        order,
        scan.geometry,
        scan.response,
        tuple(residual * unit**0.5 for residual in solution.residuals),
        scan.voxel_size_m,
        {
            "method": method,
            "smoothness": float(smoothness),
            "iterations": solution.iterations,
            "stopped_by": solution.stopped_by,
            "residual_share": solution.residuals[-1] / norm if norm else 0.0,
        },
        {
            **scan.provenance,
            "title": scan.title,
            "ddf_tomo": __version__,
            "torch": torch.__version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def _chosen_order(scan: Scan, ell_max: int | str, regularised: bool) -> int:
    if not getattr(scan.response, "of_harmonics", True):
        if ell_max not in ("auto", 2):
            raise ValueError(message("ell_max", "2 or 'auto' for a rank-2 tensor", repr(ell_max)))
        return 2
    if isinstance(ell_max, str):
        choice(ell_max, "ell_max", ("auto",))
        report = observability(scan.geometry, scan.response, 8)
        order = report.highest_determined_order
        if order == 0 and getattr(scan.response, "highest_order", None) != 0:
            # Few views, or one axis: with a prior a start can be made at directions, but nobody should be left unaware.
            order = report.automatic_ell_max(regularised=True) if regularised else 0
            warnings.warn(
                f"these {len(scan)} views alone do not determine directions everywhere; ell_max={order} was chosen"
                + (", and the smoothness prior carries part of it" if order else ": more views or tilts are needed"),
                UserWarning,
                stacklevel=3,
            )
        return order
    order = even_order(ell_max)
    observability(scan.geometry, scan.response, order).warn_if_undetermined(order, regularised=regularised)
    return order
