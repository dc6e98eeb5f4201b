"""Scans of samples that are known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import LARGEST_SEED, angular_response, choice, integer, message, number
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.base import as_tensor
from ddf_tomo.operators.circle import check_geometry
from ddf_tomo.operators.spherical_harmonics import order_of
from ddf_tomo.operators.tensor import Response, TensorXRayTransform
from ddf_tomo.phantoms.samples import PHANTOMS
from ddf_tomo.phantoms.truth import Truth

if TYPE_CHECKING:
    from ddf_tomo.scan import Scan

NOISE_MODELS = ("gaussian", "poisson")
WEIGHTS, SCALE = "inverse variances that float32 can hold", "scale the sample"
ROUNDING = 1e-5  # of the largest signal: how far below zero float32 sums may leave a signal that is not negative


def simulate(
    sample: Any,
    geometry: Geometry,
    response: Response,
    *,
    oversampling: int = 2,
    noise: float = 0.0,
    noise_model: str = "gaussian",
    counts: float | None = None,
    seed: int = 0,
) -> Scan:
    """A scan of a phantom, projected on a finer grid than ``geometry``'s, with noise.

    Parameters
    ----------
    sample
        A name from `PHANTOMS`; or a function from a volume shape to a `Truth` or to coefficients
        ``(x, y, z, coefficient)``, such as `helicoidal_fibres`. A response to rank-2 tensors takes the
        `Truth.tensors` of the former, and tensors ``(x, y, z, 6)`` from other functions.
    geometry
        Geometry of the scan; the sample is evaluated on ``geometry.refined(oversampling)``.
    response
        Angular response of the measurement.
    oversampling
        Voxels of the simulation per voxel of ``geometry``, along each axis. 1 is the *inverse crime*: the data then
        agree exactly with some volume on the grid that reconstructs them, as no measured data do, and errors come out
        too small. It serves tests of operators and solvers only.
    noise
        Gaussian noise: its standard deviation, relative to the largest signal. The weights of the scan are its inverse
        variances.
    noise_model
        ``"gaussian"``: white noise of one strength, as retrieved moments have. ``"poisson"``: counting statistics of
        ``counts``, for signals that are not negative (SAXS).
    counts
        Counting noise: expected counts at the largest signal ``s_max``. Counts ``n`` are drawn from Poisson's law with
        the mean ``λ = counts · s / s_max`` and scaled back to signals ``n s_max / counts``. The scan's weights are the
        inverse variances ``(counts / s_max)² / (n + 1)``, from the counts alone, as a measurement has no others. The
        one added count gives finite weight to zeros, and makes the weight right on average: the mean of
        ``1 / (n + 1)`` is ``(1 - exp(-λ)) / λ``, which is ``1 / λ`` from some counts on.
    seed
        Of the noise.

    Returns
    -------
    Scan
        With line integrals in voxels of ``geometry``; the options are in its ``provenance``.

    Raises
    ------
    ValueError, TypeError
        If an argument is not of the kind above, or signals of a scan with counting noise are negative.

    Examples
    --------
    >>> from ddf_tomo import SaxsResponse, SecondMomentResponse
    >>> from ddf_tomo.phantoms import helicoidal_fibres, tilt_series
    >>> geometry = tilt_series((8, 8, 8), views=[3], tilts_rad=[0.0])
    >>> simulate(helicoidal_fibres, geometry, SecondMomentResponse(), noise=0.02).data.shape
    (3, 8, 8, 3)
    >>> scan = simulate("shells", geometry, SaxsResponse([0.0, 0.8, 1.6, 2.4]), noise_model="poisson", counts=1e4)
    """
    from ddf_tomo.scan import Scan

    factor = integer(oversampling, "oversampling", low=1, high=32)
    check_geometry(geometry)
    angular_response(response)
    noise = number(noise, "noise", low=0.0)
    choice(noise_model, "noise_model", NOISE_MODELS)
    seed = integer(seed, "seed", low=0, high=LARGEST_SEED)
    if (counts is None) == (noise_model == "poisson"):
        expected = "the counts at the largest signal" if counts is None else "None, as noise_model is 'gaussian'"
        raise ValueError(message("counts", expected, counts))
    if counts is not None:
        counts = number(counts, "counts", low=0.0, high=1e15, low_open=True)
        if noise:
            raise ValueError(message("noise", "0, as noise_model is 'poisson'", noise, "its strength is counts"))
    name = sample if isinstance(sample, str) else getattr(sample, "__name__", "a function")
    data = _signals(_function(sample), geometry, response, factor)
    weights = None
    largest = float(np.abs(data).max(initial=0.0))
    generator = np.random.default_rng(seed)
    if noise * largest > 0:
        sigma = noise * largest
        if not 1e-18 < sigma < 1e18:
            raise ValueError(message("noise", WEIGHTS, f"a noise of {sigma:.3g}", SCALE))
        data = data + sigma * generator.standard_normal(data.shape, dtype=np.float32)
        weights = np.full(data.shape, 1 / sigma**2, np.float32)
    elif counts is not None and largest > 0:
        data, weights = _counted(data, counts / largest, generator)
    provenance = {"sample": name, "oversampling": factor, "noise_model": noise_model, "noise": noise, "seed": seed}
    if counts is not None:
        provenance["counts"] = counts
    return Scan(data=data, geometry=geometry, response=response, weights=weights, provenance=provenance)


def _function(sample: Any) -> Callable[[tuple[int, ...]], Any]:
    if isinstance(sample, str):
        return PHANTOMS[choice(sample, "sample", tuple(PHANTOMS))]
    if not callable(sample) or isinstance(sample, type):
        hint = "coefficients on one grid would be projected with the grid that reconstructs them"
        expected = "a function of the volume shape, or the name of a phantom"
        raise TypeError(message("sample", expected, type(sample).__name__, hint))
    function: Callable[[tuple[int, ...]], Any] = sample
    return function


def _signals(
    sample: Callable[[tuple[int, ...]], Any], geometry: Geometry, response: Response, factor: int
) -> NDArray[Any]:
    """Mean signals of the pixels, from a grid ``factor`` times finer."""
    fine = geometry.refined(factor)
    field = sample(fine.volume_shape)
    if isinstance(field, Truth) and not getattr(response, "of_harmonics", True):
        field = field.tensors()
    field = as_tensor(field[0] if isinstance(field, tuple) and field else field, "sample").detach()
    if tuple(field.shape[:-1]) != fine.volume_shape:
        raise ValueError(message("sample", f"coefficients of shape {fine.volume_shape} + (K,)", tuple(field.shape)))
    signals = TensorXRayTransform(fine, response, order_of(field.shape[-1], "sample"))(field) / factor
    rows, columns = geometry.detector_shape
    blocks = signals.reshape(len(geometry), rows, factor, columns, factor, signals.shape[-1])
    means: NDArray[Any] = blocks.mean((2, 4)).numpy()
    return means


def _counted(
    signals: NDArray[Any], counts_per_signal: float, generator: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Signals with counting noise, and their weights; see `simulate`."""
    if not 1e-18 < counts_per_signal < 1e18:
        raise ValueError(message("counts", WEIGHTS, f"{counts_per_signal:.3g} counts a unit of signal", SCALE))
    expected = signals.astype(np.float64) * counts_per_signal
    lowest = float(expected.min())
    if lowest < -ROUNDING * float(expected.max()):
        hint = "moments and functions cut at a low ell_max can be negative: use 'gaussian'"
        found = f"a lowest signal of {lowest / counts_per_signal:.3g}"
        raise ValueError(message("noise_model", "signals that are not negative for 'poisson'", found, hint))
    counted = generator.poisson(np.maximum(expected, 0)).astype(np.float64)
    weights = counts_per_signal**2 / (counted + 1)
    return (counted / counts_per_signal).astype(signals.dtype), weights.astype(signals.dtype)
