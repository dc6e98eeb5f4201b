"""The files that MUMOTT writes of its results."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import integer, of_kind, real_array
from ddf_tomo._files import replaced_when_complete, write_header
from ddf_tomo.derived import derive
from ddf_tomo.export.arrays import planes
from ddf_tomo.operators.rank_two import POSITIONS

LAYOUT = "ddf_tomo mumott result 1"


def write_mumott_result(
    path: str | os.PathLike[str],
    coefficients: ArrayLike,
    *,
    iterations: int | None = None,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write HDF5 in which scripts made for MUMOTT's results find what they look for.

    - ``result/x`` (and ``result/nit``): coefficients ``(x, y, z, K)``, as ``dict_to_h5`` stores what a pipeline such as
      ``run_sigtt`` returns. ``basis_set.get_output(file["result/x"][()])`` goes on from there.
    - ``mean_intensity``, ``fractional_anisotropy``, ``eigenvector_1`` … ``3`` and their ``_rgb``, ``eigenvalue_1`` …
      ``3``, ``second_moment_tensor``: as ``ReconstructionDerivedQuantities.write`` stores them, axes (z, y, x).

    Parameters
    ----------
    path
        File to write, whole or not at all.
    coefficients : (x, y, z, K)
        Of harmonics.
    iterations : optional
        How many were made.
    notes : optional
        Texts and numbers to go along, in a place where MUMOTT does not look.

    Raises
    ------
    TypeError, ValueError
        If these are no coefficients, or no notes that JSON can hold.

    Examples
    --------
    >>> import tempfile
    >>> import h5py
    >>> path = tempfile.mkdtemp() + "/result.h5"
    >>> write_mumott_result(path, np.ones((4, 3, 2, 6)))
    >>> with h5py.File(path) as file:
    ...     file["result/x"].shape, file["mean_intensity"].shape
    ((4, 3, 2, 6), (2, 3, 4))
    """
    import h5py

    nit = None if iterations is None else np.array([integer(iterations, "iterations", high=2**31)])
    if notes is not None:
        of_kind(Mapping, notes, "notes", "a mapping of names to texts and numbers")
    derived = derive(coefficients)
    arrays = {
        "mean_intensity": derived.mean,
        "fractional_anisotropy": derived.fractional_anisotropy,
        "second_moment_tensor": derived.tensor[..., POSITIONS],
    }
    for n in range(3):
        vector = derived.eigenvectors[..., n]
        vector = np.where(vector[..., 2:] < 0, -vector, vector)
        arrays[f"eigenvector_{n + 1}"] = vector
        arrays[f"eigenvector_{n + 1}_rgb"] = half_sphere_colour(vector)
        arrays[f"eigenvalue_{n + 1}"] = derived.eigenvalues[..., n]
    with replaced_when_complete(path) as partial, h5py.File(partial, "w") as file:
        write_header(file, {"layout": LAYOUT} | dict(notes or {}))
        file["result/x"] = real_array(coefficients, "coefficients", dtype=derived.mean.dtype.type)
        if nit is not None:
            file["result/nit"] = nit
        for name, array in arrays.items():
            (turned,) = planes(array, max(1, array.shape[2]))
            file[name] = turned.reshape(*turned.shape[:3], 3, 3) if name == "second_moment_tensor" else turned


def half_sphere_colour(vectors: NDArray[Any]) -> NDArray[Any]:
    """MUMOTT's colours of unit vectors ``(..., 3)``: grey along y, around it the circle of hues; RGB in [0, 1].

    Examples
    --------
    >>> half_sphere_colour(np.array([1.0, 0.0, 0.0])).round(3).tolist()
    [0.7, 0.0, 0.0]
    """
    x, y, z = np.moveaxis(np.where(vectors[..., 1:2] < 0, -vectors, vectors), -1, 0)
    polar, azimuth = np.arccos(np.clip(y, -1, 1)), np.arctan2(z, x)
    hue = np.mod(azimuth, np.pi) / np.pi
    saturation = (np.arctan(polar / 2) / np.arctan(np.pi / 4)) ** 2
    value = 0.7 - 0.2 * np.sin(azimuth) * np.sin(2 * polar) ** 2
    # From hue, saturation, value: each primary is full within 60° of its own hue and gone beyond 120°.
    distance = np.abs(np.mod(6 * hue[..., None] - np.array([0, 2, 4]) + 3, 6) - 3)
    pure = np.clip(2 - distance, 0, 1)
    return value[..., None] * (1 - saturation[..., None] * (1 - pure))
