"""Scans as MUMOTT's data containers, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import even_order, message, neighbour, of_kind, real_array
from ddf_tomo._scan_arrays import as_numpy
from ddf_tomo.interop.mumott.geometry import geometry_from, response_from, to_geometry
from ddf_tomo.operators.spherical_harmonics import order_of
from ddf_tomo.reconstruction import Reconstruction
from ddf_tomo.scan import Scan


def scan_from(data_container: Any, response: Any = None, **options: Any) -> Scan:
    """The scan in a ``mumott.data_handling.DataContainer``.

    Data are shared, not copied, where MUMOTT holds them one view after the other in one block of memory, as
    `to_data_container` leaves them; weights and diode are copied, because MUMOTT's pipelines write into them.

    Parameters
    ----------
    data_container
        MUMOTT's container (or anything with ``projections`` and ``geometry``).
    response
        What the channels respond to; the default is a `SaxsResponse` of MUMOTT's detector segments.
    **options
        ``voxel_size_m``, ``title``, ``provenance`` of the `Scan`.

    Raises
    ------
    ValueError
        If the container is empty or its data are not loaded.

    Examples
    --------
    >>> from ddf_tomo.geometry import Geometry
    >>> from ddf_tomo.operators.responses import SecondMomentResponse
    >>> geometry = Geometry.from_angles([0.0, 0.5], 0.0, (4, 4, 4), (4, 5))
    >>> scan = Scan(np.ones((2, 4, 5, 3)), geometry, SecondMomentResponse())
    >>> again = scan_from(to_data_container(scan), SecondMomentResponse())
    >>> np.shares_memory(again.data, scan.data), again.geometry == geometry
    (True, True)
    """
    if not (hasattr(data_container, "projections") and hasattr(data_container, "geometry")):
        raise TypeError(message("data_container", "a DataContainer of MUMOTT's", type(data_container).__name__))
    projections = list(data_container.projections)
    if not projections:
        raise ValueError(message("data_container", "at least one projection", "none"))
    if not all(projection.data.ndim == 3 for projection in projections):
        raise ValueError(message("data_container", "projections with data", "one without (skip_data=True?)"))
    data = _stacked([projection.data for projection in projections])
    weights = np.stack([_weights(projection.weights, data) for projection in projections])
    diodes = [projection.diode for projection in projections]
    has_diode = all(diode.shape == data.shape[1:3] for diode in diodes)
    return Scan(
        data,
        geometry_from(data_container.geometry, detector_shape=data.shape[1:3]),
        response_from(data_container.geometry) if response is None else response,
        weights=None if (weights == 1).all() else weights,
        diode=np.stack(diodes) if has_diode else None,
        **options,
    )


def to_data_container(scan: Scan) -> Any:
    """A ``mumott.data_handling.DataContainer`` of a scan, for MUMOTT's pipelines.

    Data are shared with the scan; weights and diode are copies, because MUMOTT's pipelines write into them (ones, where
    the scan has none). For other responses than `SaxsResponse` use `ResponseBasisSet` in the pipeline.

    Parameters
    ----------
    scan
        The scan; its data must be on the CPU.

    Raises
    ------
    ValueError
        If the scan's frames are of both hands.

    Examples
    --------
    >>> from ddf_tomo.geometry import Geometry
    >>> from ddf_tomo.operators.responses import SaxsResponse
    >>> geometry = Geometry.from_angles([0.0, 0.5], 0.0, (4, 4, 4), (4, 5))
    >>> container = to_data_container(Scan(np.ones((2, 4, 5, 3)), geometry, SaxsResponse([0.0, 1.0, 2.0])))
    >>> len(container.projections), container.geometry.detector_angles.tolist()
    (2, [0.0, 1.0, 2.0])
    """
    of_kind(Scan, scan, "scan")
    container = neighbour("mumott.data_handling").DataContainer()
    stack = neighbour("mumott.core.projection_stack")
    geometry = to_geometry(scan.geometry, scan.response)
    data, weights = as_numpy(scan.data), np.array(as_numpy(scan.full_weights()))
    diode = np.ones(data.shape[:3], data.dtype) if scan.diode is None else np.array(as_numpy(scan.diode))
    for view in range(len(scan)):
        container.append(stack.Projection(data[view], diode[view], weights[view], **geometry[view]._asdict()))
    theirs = container.geometry
    for name in ("p_direction_0", "j_direction_0", "k_direction_0"):
        setattr(theirs, name, getattr(geometry, name))
    for name in ("detector_direction_origin", "detector_direction_positive_90", "detector_angles", "two_theta"):
        setattr(theirs, name, getattr(geometry, name))
    theirs.volume_shape, theirs.full_circle_covered = geometry.volume_shape, geometry.full_circle_covered
    return container


def reconstruction_from(output: Mapping[str, Any], scan: Scan, ell_max: int | None = None) -> Reconstruction:
    """What a pipeline of MUMOTT returned, as a `Reconstruction`: to derive, compare, draw, report and save.

    Parameters
    ----------
    output
        Of a pipeline such as ``run_sigtt``, with ``"result"`` and ``"basis_set"``; its coefficients have the shape
        ``(x, y, z, coefficient)`` of the scan's volume. Basis sets other than harmonics are converted by MUMOTT.
    scan
        What was reconstructed.
    ell_max
        Highest order for basis sets that are not harmonics; by default MUMOTT's own choice.

    Raises
    ------
    TypeError, ValueError
        If this is no such output, or not of a volume of this shape.

    Examples
    --------
    >>> from mumott.methods.basis_sets import SphericalHarmonics
    >>> from ddf_tomo.geometry import Geometry
    >>> from ddf_tomo.operators.responses import SaxsResponse
    >>> geometry = Geometry.from_angles([0.0, 0.5], 0.0, (6, 6, 6), (6, 6))
    >>> scan = Scan(np.ones((2, 6, 6, 3)), geometry, SaxsResponse([0.0, 1.0, 2.0]))
    >>> output = {"result": {"x": np.ones((6, 6, 6, 6))}, "basis_set": SphericalHarmonics(ell_max=2)}  # or run_sigtt(…)
    >>> reconstruction_from(output, scan)
    <Reconstruction: 6 × 6 × 6 voxels, 6 coefficients (ell_max=2)>
    """
    of_kind(Scan, scan, "scan")
    try:
        coefficients, basis = output["result"]["x"], output["basis_set"]
        convert = basis.get_spherical_harmonic_coefficients
    except (TypeError, KeyError, AttributeError, IndexError) as error:
        expected = "what a MUMOTT pipeline returns, with 'result' and 'basis_set'"
        raise TypeError(message("output", expected, type(output).__name__)) from error
    values = real_array(coefficients, "output['result']['x']", (*scan.geometry.volume_shape, len(basis)))
    if hasattr(basis, "ell_indices"):
        harmonics = values
    else:
        harmonics = np.asarray(convert(values, ell_max=None if ell_max is None else even_order(ell_max)))
    order = order_of(harmonics.shape[-1], "output")
    provenance = {**scan.provenance, "title": scan.title, "made_by": "MUMOTT"}
    single = harmonics.astype(np.float32)
    return Reconstruction(single, order, scan.geometry, scan.response, (), scan.voxel_size_m, {}, provenance)


def _weights(weights: NDArray[Any], data: NDArray[Any]) -> NDArray[Any]:
    """Weights of one projection, of the data's shape; MUMOTT also holds them without a last axis, or not at all."""
    if not weights.size:
        return np.ones(data.shape[1:], data.dtype)
    return np.broadcast_to(weights[..., None] if weights.ndim == 2 else weights, data.shape[1:])


def _stacked(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The arrays along a new first axis: a view, where they already lie evenly spaced in one block of memory."""
    first, base = arrays[0], arrays[0].base
    alike = all(a.shape == first.shape and a.strides == first.strides and a.dtype == first.dtype for a in arrays)
    if base is None or not alike or any(a.base is not base for a in arrays):
        return np.stack(arrays)
    steps = np.diff([a.__array_interface__["data"][0] for a in arrays])
    if len(arrays) == 1:
        return first[None]
    if not (steps == steps[0]).all() or steps[0] <= 0:
        return np.stack(arrays)
    return np.lib.stride_tricks.as_strided(first, (len(arrays), *first.shape), (int(steps[0]), *first.strides))
