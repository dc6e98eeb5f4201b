"""What was measured: data with weights, where each pixel was, and what a pixel's channels respond to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ddf_tomo._checks import (
    angular_response,
    check_shape,
    flag,
    integer,
    message,
    number,
    sequence_of,
)
from ddf_tomo._scan_arrays import (
    block_sums,
    checked_weights,
    finite_where_it_counts,
    floats,
    join,
    of_views,
    pixels_seen,
    plain,
)
from ddf_tomo._scan_files import read_scan, write_scan
from ddf_tomo._scan_maps import Wishes, of_maps
from ddf_tomo._scan_text import scan_text
from ddf_tomo._streamed import Streamed
from ddf_tomo.geometry import Geometry, view_indices
from ddf_tomo.operators import responses


@dataclass(frozen=True, eq=False, repr=False)
class Scan:
    """Data of a tensor tomography scan, with everything needed to reconstruct it; immutable.

    Arrays of float32 or float64 are kept as they are (numpy or torch), not copied; do not change them afterwards.

    Parameters
    ----------
    data
        Signals, shape ``(views, J, K, channels)``. Line integrals along the beam are in units of the voxel's edge.
    geometry
        Where each beam and pixel was.
    response
        What the channels respond to: `SaxsResponse`, `SecondMomentResponse`, …
    weights
        Non-negative weights of the squared residuals, 1/σ² where noise is known; zero masks. Shape of the data, or
        ``(views, J, K)``, ``(views,)``, or any four axes that broadcast. ``None`` stands for 1.
    diode
        Transmission, shape ``(views, J, K)``, where known.
    voxel_size_m
        Edge of a voxel (and of a pixel) in metres, where known.
    title
        A line for people.
    provenance
        Where the data come from and what was done to them; texts and numbers.

    Raises
    ------
    ValueError
        If a shape does not fit, data are not finite where their weight is not zero, weights are negative or all zero,
        there are no views, or a unit cannot be right.
    TypeError
        If an argument is of the wrong kind.

    Examples
    --------
    >>> import numpy as np
    >>> from ddf_tomo.geometry import Geometry
    >>> from ddf_tomo.operators.responses import SecondMomentResponse
    >>> geometry = Geometry.from_angles(np.linspace(0, 3, 5), 0.1, (8, 8, 8), (8, 6))
    >>> scan = Scan(np.ones((5, 8, 6, 3), np.float32), geometry, SecondMomentResponse(), voxel_size_m=10e-6)
    >>> scan
    <Scan: 5 views of 8 × 6 pixels, 3 channels, SecondMomentResponse, volume 8 × 8 × 8>
    >>> scan[1:3].data.shape, scan.binned(2).data.shape
    ((2, 8, 6, 3), (5, 4, 3, 3))
    """

    data: Any
    geometry: Geometry
    response: Any
    weights: Any = None
    diode: Any = None
    voxel_size_m: float | None = None
    title: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.geometry, Geometry):
            raise TypeError(message("geometry", "a ddf_tomo.Geometry", type(self.geometry).__name__))
        if not len(self.geometry):
            raise ValueError(message("geometry", "at least one view", "an empty scan"))
        if not hasattr(angular_response(self.response), "channels"):
            raise TypeError(message("response", "an angular response such as SaxsResponse(...)", repr(self.response)))
        per_view = _angles_of_views(self.response)
        if per_view is not None:
            check_shape(per_view.shape, "response.sensitivity_angles_rad", (len(self.geometry), None))
        data = floats(self.data, "data")
        check_shape(data.shape, "data", (len(self.geometry), *self.geometry.detector_shape, self.response.channels))
        weights = None if self.weights is None else checked_weights(self.weights, data)
        diode = None if self.diode is None else floats(self.diode, "diode", data)
        if diode is not None:
            check_shape(diode.shape, "diode", tuple(data.shape[:3]))
            diode = finite_where_it_counts(diode, None if weights is None else pixels_seen(weights), "diode")
        if self.voxel_size_m is not None:
            hint = "the unit is metres: 25 µm are 25e-6"
            try:
                size = number(self.voxel_size_m, "voxel_size_m", low=0, high=1, low_open=True)
            except ValueError as error:
                raise ValueError(f"{error}. {hint}") from error
            object.__setattr__(self, "voxel_size_m", size)
        if not isinstance(self.title, str):
            raise TypeError(message("title", "a text", repr(self.title)))
        object.__setattr__(self, "data", finite_where_it_counts(data, weights, "data"))
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "diode", diode)
        object.__setattr__(self, "provenance", plain(self.provenance))

    # -- ways to make one ---------------------------------------------------------------------------------------------

    @classmethod
    def concatenate(cls, scans: Iterable[Scan]) -> Scan:
        """One scan from several series of views with one response, volume and detector; title and provenance of the
        first.

        Parameters
        ----------
        scans
            At least one.

        Raises
        ------
        ValueError
            If they differ in response, shapes, voxel size, or in whether they have a diode.
        """
        parts = sequence_of(Scan, scans, "scans")
        first, per_view = parts[0], [_angles_of_views(part.response) for part in parts]
        joined = all(angles is not None for angles in per_view)
        for part in parts[1:]:
            for name in ("voxel_size_m",) if joined else ("response", "voxel_size_m"):
                if getattr(part, name) != getattr(first, name):
                    raise ValueError(
                        message(name, f"{getattr(first, name)!r} in every scan", repr(getattr(part, name)))
                    )
        if len({part.diode is None for part in parts}) > 1:
            raise ValueError(message("diode", "a diode in every scan or in none", "some of each"))
        geometry = Geometry.concatenate(part.geometry for part in parts)
        some_weights = any(part.weights is not None for part in parts)
        return replace(
            first,
            data=join([part.data for part in parts]),
            geometry=geometry,
            response=responses.VisibilityResponse(np.concatenate(per_view)) if joined else first.response,
            weights=join([part.full_weights() for part in parts]) if some_weights else None,
            diode=None if first.diode is None else join([part.diode for part in parts]),
        )

    @classmethod
    def from_maps(
        cls,
        maps: Any,
        geometry: Geometry,
        *,
        quantity: str = "scattering",
        unit_rad2: float = 1e-12,
        weighted: bool = True,
        exponent: float | None = None,
        correlation_length_m: float | None = None,
        propagation: bool = True,
        air: Any = "columns",
        voxel_size_m: float | None = None,
        title: str = "",
        provenance: Mapping[str, Any] | None = None,
    ) -> Scan:
        """A scan from the maps of all views, as `ddf_tomo.retrieval.retrieve` gives them.

        Scattering covariances ``Θ = C (pixel_size/distance)²`` are in units of ``unit_rad2``: the default of 1 µrad²
        brings them near 1, where float32 is at ease. Reconstructed coefficients are then in µrad² per voxel edge:
        multiply by ``unit_rad2 / voxel_size_m`` for rad²/m. Attenuation is then per voxel edge, and phase (as ``∫ δ
        dl`` in a millionth of the edge) a reconstruction of δ in millionths. The unit is noted in the provenance.
        Weights are 1/σ² in the same unit, and zero where a map is not valid; transmission becomes the diode.

        Parameters
        ----------
        maps
            `Maps` of shape ``(views, J, K)``, or a sequence of them, each of one view ``(J, K)`` or of several.
        geometry
            Where each beam and pixel was; maps' rows run along j, columns along k.
        quantity
            ``"scattering"``: second moments, for harmonics; ``"rank-two"``: the same after ``2Θ − ½ tr(Θ) 1``, for
            tensors of rank 2; ``"visibility"``: ``−ln V`` at the azimuths of the maps; ``"attenuation"`` and
            ``"phase"``: one channel without direction.
        unit_rad2
            Unit of second moments in rad².
        weighted
            ``False`` ignores the standard errors and only masks.
        exponent
            β of `DirectionalVisibilityResponse`, for ``"visibility"``.
        correlation_length_m
            Visibilities of this length only; by default those of all lengths are joined by ``−ln V ∝ ξ^β``.
        propagation
            Take ``1 − ∇·u`` out of the transmission: right for maps of one distance. See
            `ddf_tomo.retrieval.attenuation`.
        air
            Where the phase is zero, shape ``(J, K)`` if it is a mask. See `ddf_tomo.retrieval.projected_decrement`.
        voxel_size_m
            Edge of a voxel; the default is the maps' pixel size, which holds in a parallel beam.
        title, provenance
            As in `Scan`.

        Raises
        ------
        ValueError
            If shapes do not fit, pixel size or distance are missing, pixel sizes differ, a standard error of a valid
            pixel is not positive, nothing is valid, or the maps hold no such quantity.

        Examples
        --------
        >>> from ddf_tomo.retrieval.maps import Maps
        >>> one, three = np.ones((2, 4, 5)), np.ones((2, 4, 5, 3))
        >>> maps = Maps(one, three[..., :2], three, 0 * one, one, three[..., :2], three, one, one, one > 0, 1e-5, 1.0)
        >>> geometry = Geometry.from_angles([0.0, 0.5], 0.0, (4, 4, 5), (4, 5))
        >>> scan = Scan.from_maps(maps, geometry)
        >>> float(scan.data[0, 0, 0, 0].round(6)), scan.voxel_size_m  # (10 µrad)² where C is one square pixel
        (100.0, 1e-05)
        >>> Scan.from_maps(maps, geometry, quantity="attenuation").response
        IsotropicResponse()
        """
        unit = number(unit_rad2, "unit_rad2", low=0, low_open=True)
        weighted, propagation = flag(weighted, "weighted"), flag(propagation, "propagation")
        wishes = Wishes(unit, weighted, exponent, correlation_length_m, propagation, air)
        data, weights, transmission, response, data_unit, pixel_size_m = of_maps(maps, quantity, wishes)
        return cls(
            data,
            geometry,
            response,
            weights=weights,
            diode=transmission,
            voxel_size_m=pixel_size_m if voxel_size_m is None else voxel_size_m,
            title=title,
            provenance={"data_unit": data_unit, **plain({} if provenance is None else provenance)},
        )

    @classmethod
    def read(
        cls,
        path: str | os.PathLike[str],
        *,
        angles: str = "auto",
        nonfinite: str = "raise",
        in_memory: bool | None = None,
    ) -> Scan:
        """Read a file in MUMOTT's HDF5 layout, or one that `write` made; MUMOTT is not needed.

        What is too large stays in the file: ``data``, ``weights`` and ``diode`` are then `Streamed`, of which
        `reconstruct` reads some views at a time, again in each iteration. The file must stay where and as it is.

        Parameters
        ----------
        path
            The file.
        angles
            Unit of the angles in the file: ``"radians"`` (MUMOTT's), ``"degrees"``, or ``"auto"``, which takes angles
            beyond ±4π for degrees and warns.
        nonfinite
            ``"raise"``, or ``"mask"``: NaN and infinities in data, weights and diode become zeros of zero weight.
        in_memory
            Whether to read all numbers now (``False``: only to check them). By default they are read if data and
            weights take less than a sixth of the memory that is free.

        Raises
        ------
        FileFormatError
            If the file is truncated, foreign, or lacks what the layout requires; the message names what.
        """
        return read_scan(cls, path, angles, nonfinite, in_memory)

    # -- values derived from one --------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.geometry)

    def __getitem__(self, views: Any) -> Scan:
        """The scan of some views: an index, a slice, an index array or a boolean mask."""
        chosen = np.ascontiguousarray(view_indices(views, len(self)))
        # Slices stay views of the same memory, index arrays cannot.
        index: Any = views if isinstance(views, slice) and (views.step or 1) > 0 else chosen
        weights = self.weights
        if weights is not None and len(weights) > 1:
            weights = of_views(weights, index)
        return replace(
            self,
            data=of_views(self.data, index),
            geometry=self.geometry[chosen],
            response=self.response.views(chosen) if hasattr(self.response, "views") else self.response,
            weights=weights,
            diode=None if self.diode is None else of_views(self.diode, index),
        )

    @property
    def streams(self) -> bool:
        """Whether the data are on the disk, and read when they are needed (see `read`)."""
        return isinstance(self.data, Streamed)

    def in_memory(self) -> Scan:
        """The scan with all of its numbers in memory; itself, if they are there."""
        arrays = {name: getattr(self, name) for name in ("data", "weights", "diode")}
        there: dict[str, Any] = {n: np.asarray(array) for n, array in arrays.items() if isinstance(array, Streamed)}
        return replace(self, **there) if there else self

    def full_weights(self) -> Any:
        """Weights of the data's shape and kind; a copy, or a read-only expansion."""
        if isinstance(self.weights, Streamed):
            return self.weights
        if isinstance(self.data, torch.Tensor):
            ones = torch.ones(1, dtype=self.data.dtype, device=self.data.device)
            return (ones if self.weights is None else self.weights).expand(self.data.shape)
        return np.broadcast_to(np.ones(1, self.data.dtype) if self.weights is None else self.weights, self.data.shape)

    def binned(self, factor: int) -> Scan:
        """The scan with ``factor × factor`` pixels averaged, with voxels ``factor`` times as large.

        Data are averaged with their weights and weights add up, as inverse variances do; a bin without weight is
        masked. Line integrals count larger voxels: reconstructed coefficients are per *new* voxel edge.
        """
        factor = integer(factor, "factor", low=1, high=min(self.geometry.detector_shape))
        if factor == 1:
            return self
        if isinstance(self.data, Streamed):
            return Scan.concatenate(self[views].in_memory().binned(factor) for views in self.data.slices())
        if self.weights is None:
            data, weights = block_sums(self.data, factor) / factor**2, None
        else:
            full = self.full_weights()
            weights = block_sums(full, factor)
            # A mean of plain data where nothing has weight: any finite number will do.
            data = block_sums(self.data * full, factor) / (weights + (weights == 0))
        return replace(
            self,
            data=data,
            geometry=self.geometry.binned(factor),
            weights=weights,
            diode=None if self.diode is None else (block_sums(self.diode[..., None], factor) / factor**2)[..., 0],
            voxel_size_m=None if self.voxel_size_m is None else self.voxel_size_m * factor,
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write MUMOTT's HDF5 layout, which MUMOTT 2.3 reads to the same data and geometry.

        Response, voxel size, title and provenance go to an entry that MUMOTT does not look at. For other responses than
        `SaxsResponse` MUMOTT sees placeholder detector angles, evenly spaced over half a circle.

        Parameters
        ----------
        path
            The file; it appears when it is complete, and replaces another of that name.

        Raises
        ------
        ValueError
            If frames are of both hands, which MUMOTT's layout cannot hold.
        TypeError
            If the response is not one of the package's own.
        """
        write_scan(self, path)

    # -- for people ---------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        rows, columns = self.geometry.detector_shape
        volume = " × ".join(map(str, self.geometry.volume_shape))
        return (
            f"<Scan: {len(self)} views of {rows} × {columns} pixels, {self.data.shape[-1]} channels, "
            f"{type(self.response).__name__}, volume {volume}>"
        )

    def _repr_html_(self) -> str:
        from ddf_tomo._html import scan_html

        return scan_html(self)

    def summary(self) -> str:
        """A few lines for a person: data, weights, units, geometry, where it comes from."""
        return scan_text(self)


def _angles_of_views(response: Any) -> Any:
    """Sensitivity angles ``(views, channels)`` of a grating that turns with the views, else ``None``."""
    angles = np.array(getattr(response, "sensitivity_angles_rad", ()))
    return angles if angles.ndim == 2 else None
