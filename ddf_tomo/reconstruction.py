"""From a scan to a volume of spherical functions, in one call."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo._checks import (
    MOST_ITERATIONS,
    FileFormatError,
    choice,
    even_order,
    flag,
    integer,
    message,
    number,
    real_array,
)
from ddf_tomo._files import read_header, reading_hdf5, replaced_when_complete, write_header
from ddf_tomo.derived import Derived, derive
from ddf_tomo.geometry import ARRAYS, Geometry
from ddf_tomo.operators.base import as_tensor
from ddf_tomo.operators.observability import observability
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.priors import Differences
from ddf_tomo.scan import Scan, response_from_repr
from ddf_tomo.solvers import Solution, cgls
from ddf_tomo.solvers.smoothness import choose_smoothness, penalty_scale

METHODS = ("cg",)
LAYOUT = "ddf_tomo reconstruction 1"
HEADER_NAMES = ("ell_max", "voxel_size_m", "settings", "provenance")


@dataclass(frozen=True, eq=False, repr=False)
class Reconstruction:
    """A reconstructed volume with what is needed to read, judge and repeat it; made by `reconstruct`.

    Attributes
    ----------
    coefficients
        Harmonic coefficients ``(x, y, z, coefficient)`` in the package's (and MUMOTT's) order, or for rank-2 responses
        the tensor's six numbers. Units: those of the data per voxel edge.
    ell_max
        Highest order.
    geometry, response
        Of the scan.
    residuals
        Norm of the weighted residual before the first iteration and after each.
    voxel_size_m
        Edge of a voxel in metres, where known.
    settings
        How it was made: method, weight of the smoothness penalty, iterations; and what share of the (weighted) data
        remained as residual.
    provenance
        Where the data came from, version, time.
    """

    coefficients: NDArray[Any]
    ell_max: int
    geometry: Geometry
    response: Any
    residuals: tuple[float, ...] = ()
    voxel_size_m: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def _derived(self) -> Derived:
        return derive(self.coefficients, of_harmonics=getattr(self.response, "of_harmonics", True))

    def derived(self) -> Derived:
        """Mean, fractional anisotropy, principal directions, and where they can be trusted (computed once)."""
        return self._derived

    def predicted(self) -> NDArray[Any]:
        """The data that this volume would give, shape ``(views, J, K, channels)``."""
        return TensorXRayTransform(self.geometry, self.response, self.ell_max)(self.coefficients)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write HDF5: coefficients, derived quantities, geometry, settings; whole or not at all.

        Raises
        ------
        TypeError
            If the response is not one of the package's own, which alone can be stored.
        """
        import h5py

        try:
            response_from_repr(repr(self.response))
        except FileFormatError as error:
            raise TypeError(
                message("response", "one of the package's own, to be stored", repr(self.response))
            ) from error
        with replaced_when_complete(path) as partial, h5py.File(partial, "w") as file:
            header = {name: getattr(self, name) for name in HEADER_NAMES}
            write_header(file, {"layout": LAYOUT, "response": repr(self.response)} | header)
            file.create_dataset("coefficients", data=self.coefficients, compression="gzip", shuffle=True)
            file["residuals"] = np.asarray(self.residuals, np.float64)
            for name in ARRAYS:
                file[f"geometry/{name}"] = getattr(self.geometry, name)
            for name in ("volume_shape", "detector_shape"):
                file[f"geometry/{name}"] = np.array(getattr(self.geometry, name))
            derived = self.derived()
            for name in ("mean", "fractional_anisotropy", "direction", "eigenvalues"):
                values = getattr(derived, name).astype(np.float32)
                file.create_dataset(f"derived/{name}", data=values, compression="gzip", shuffle=True)
            file.create_dataset("derived/valid", data=derived.valid, compression="gzip")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Reconstruction:
        """Read what `save` wrote.

        Raises
        ------
        FileFormatError
            If the file is truncated or foreign.
        """
        with reading_hdf5(path, "a reconstruction") as file:
            header = read_header(file, LAYOUT)
            parts: Any = (file[f"geometry/{name}"][()] for name in (*ARRAYS, "volume_shape", "detector_shape"))
            geometry = Geometry(*parts)
            values = {name: header[name] for name in HEADER_NAMES}
            stored = file["coefficients"]
            shape = (*geometry.volume_shape, None)
            coefficients = real_array(stored[()], "coefficients", shape, dtype=stored.dtype.type)
            return cls(
                coefficients=coefficients,
                geometry=geometry,
                response=response_from_repr(header["response"]),
                residuals=tuple(float(value) for value in file["residuals"][()]),
                **values,
            )

    def __repr__(self) -> str:
        x, y, z, count = self.coefficients.shape
        return f"<Reconstruction: {x} × {y} × {z} voxels, {count} coefficients (ell_max={self.ell_max})>"

    def summary(self) -> str:
        """A few lines for a person."""
        derived = self.derived()
        share = f"{derived.valid.mean():.1%} of the voxels hold sample"
        anisotropy = f"median fractional anisotropy there {_median(derived.fractional_anisotropy[derived.valid]):.3f}"
        lines = [repr(self), f"{share}, {anisotropy}"]
        return "\n".join([*lines, *(f"{key}: {value}" for key, value in self.settings.items())])


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


def _median(values: NDArray[Any]) -> float:
    return float(np.median(values)) if values.size else 0.0
