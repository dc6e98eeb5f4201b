"""Where every beam and every detector pixel is, in the frame of the sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import NOT_NUMBERS, check_shape, integer, message, neighbour, real_array, sequence_of, size_tuple

__all__ = ["Geometry"]
ORTHONORMAL_TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class Geometry:
    """Beam and detector vectors of every view of a parallel-beam scan; immutable.

    Lengths are in voxels (cubes of edge 1), the origin is the centre of the volume. Pixel ``(a, b)`` of view ``v`` is
    centred at ``(a + 1/2 - J/2 + j_offset[v]) j[v] + (b + 1/2 - K/2 + k_offset[v]) k[v]``. The frame ``(j, k, p)`` may
    be left-handed (MUMOTT's default is), but it must be orthonormal.

    Parameters
    ----------
    p, j, k
        Unit vectors of the beam and of the two detector axes, in the sample frame; shape ``(views, 3)``.
    j_offset, k_offset
        Detector offsets in voxels; a number, or shape ``(views,)``.
    volume_shape
        Voxels along ``(x, y, z)``.
    detector_shape
        Pixels along ``(j, k)``.

    Raises
    ------
    ValueError
        If a shape does not fit, a value is not finite, or a frame is not orthonormal to 1e-6.
    TypeError
        If an argument does not consist of real numbers.

    Examples
    --------
    >>> geometry = Geometry.from_angles([0.0, 0.5], [0.0, 0.1], volume_shape=(8, 8, 6), detector_shape=(8, 6))
    >>> len(geometry), geometry[0].p.tolist()
    (2, [[0.0, 1.0, 0.0]])
    >>> eval(repr(geometry)) == geometry
    True
    """

    p: NDArray[np.float64]
    j: NDArray[np.float64]
    k: NDArray[np.float64]
    j_offset: NDArray[np.float64]
    k_offset: NDArray[np.float64]
    volume_shape: tuple[int, int, int]
    detector_shape: tuple[int, int]

    def __post_init__(self) -> None:
        values: dict[str, Any] = {"p": real_array(self.p, "p", (None, 3))}
        views = len(values["p"])
        values |= {name: real_array(getattr(self, name), name, (views, 3)) for name in ("j", "k")}
        for name in ("j_offset", "k_offset"):
            offset = real_array(getattr(self, name), name)
            values[name] = np.full(views, offset) if offset.ndim == 0 else offset
            check_shape(values[name].shape, name, (views,))
        _check_orthonormal(values["p"], values["j"], values["k"])
        values["volume_shape"] = size_tuple(self.volume_shape, "volume_shape", 3)
        values["detector_shape"] = size_tuple(self.detector_shape, "detector_shape", 2)
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                value.setflags(write=False)
            object.__setattr__(self, name, value)

    # -- ways to make one ---------------------------------------------------------------------------------------------

    @classmethod
    def from_rotations(
        cls,
        rotations: ArrayLike,
        volume_shape: Sequence[int],
        detector_shape: Sequence[int],
        *,
        j_offset: ArrayLike = 0.0,
        k_offset: ArrayLike = 0.0,
        p_0: ArrayLike = (0.0, 1.0, 0.0),
        j_0: ArrayLike = (1.0, 0.0, 0.0),
        k_0: ArrayLike = (0.0, 0.0, 1.0),
    ) -> Geometry:
        """From rotation matrices of the *sample*: ``p = Rᵀ p_0`` and likewise ``j``, ``k``.

        Parameters
        ----------
        rotations
            Shape ``(views, 3, 3)``.
        volume_shape, detector_shape, j_offset, k_offset
            As in `Geometry`.
        p_0, j_0, k_0
            Beam and detector axes before any rotation, shape ``(3,)``; the defaults are MUMOTT's.

        Examples
        --------
        >>> import numpy as np
        >>> Geometry.from_rotations(np.eye(3)[None], (4, 4, 4), (4, 4)).k.tolist()
        [[0.0, 0.0, 1.0]]
        """
        matrices = real_array(rotations, "rotations", (None, 3, 3))
        with np.errstate(over="ignore", invalid="ignore"):
            defect = np.abs(matrices @ matrices.swapaxes(1, 2) - np.eye(3)).max(initial=0.0)
        departs = not defect <= ORTHONORMAL_TOLERANCE
        if departs or (np.linalg.det(matrices) < 0).any():
            found = f"a matrix that departs from one by {defect:.2g}" if departs else "a reflection"
            raise ValueError(message("rotations", "rotation matrices", found))
        frame = [real_array(axis, name, (3,)) for axis, name in ((p_0, "p_0"), (j_0, "j_0"), (k_0, "k_0"))]
        p, j, k = (np.einsum("vab,a->vb", matrices, axis) for axis in frame)
        contents: Any = (p, j, k, j_offset, k_offset, volume_shape, detector_shape)
        return cls(*contents)

    @classmethod
    def from_angles(
        cls,
        inner_rad: ArrayLike,
        outer_rad: ArrayLike,
        volume_shape: Sequence[int],
        detector_shape: Sequence[int],
        *,
        inner_axis: ArrayLike = (0.0, 0.0, -1.0),
        outer_axis: ArrayLike = (1.0, 0.0, 0.0),
        **options: Any,
    ) -> Geometry:
        """From a rotation stage (inner) on a tilt stage (outer): ``R = R_outer R_inner``, angles in radians.

        Parameters
        ----------
        inner_rad, outer_rad
            Angles in radians, broadcast against each other to shape ``(views,)``.
        volume_shape, detector_shape
            As in `Geometry`.
        inner_axis, outer_axis
            Rotation axes (normalised here); the defaults are MUMOTT's.
        **options
            Passed to `from_rotations`: offsets and the unrotated directions.

        Examples
        --------
        >>> import numpy as np
        >>> Geometry.from_angles(np.linspace(0, np.pi, 5), 0.0, (4, 4, 4), (4, 4)).p.shape
        (5, 3)
        """
        inner, outer = real_array(inner_rad, "inner_rad"), real_array(outer_rad, "outer_rad")
        try:
            inner, outer = np.broadcast_arrays(np.atleast_1d(inner), np.atleast_1d(outer))
        except ValueError as error:
            raise ValueError(message("outer_rad", f"the shape of inner_rad {inner.shape}", outer.shape)) from error
        check_shape(inner.shape, "inner_rad", (None,))
        rotations = rotation_about(outer_axis, outer, "outer_axis") @ rotation_about(inner_axis, inner, "inner_axis")
        return cls.from_rotations(rotations, volume_shape, detector_shape, **options)

    @classmethod
    def from_euler(
        cls,
        sequence: str,
        angles_rad: ArrayLike,
        volume_shape: Sequence[int],
        detector_shape: Sequence[int],
        **options: Any,
    ) -> Geometry:
        """From Euler angles, in the notation of `scipy.spatial.transform.Rotation.from_euler`.

        Parameters
        ----------
        sequence
            Axis letters: lower-case ones (``"zxz"``) turn about fixed axes, upper-case ones about those of the sample.
        angles_rad
            Radians, shape ``(views, len(sequence))``.
        volume_shape, detector_shape
            As in `Geometry`.
        **options
            Passed to `from_rotations`: offsets and the unrotated directions.

        Examples
        --------
        >>> Geometry.from_euler("z", [[0.0], [0.3]], (4, 4, 4), (4, 4)).p.shape
        (2, 3)
        """
        from scipy.spatial.transform import Rotation

        if not isinstance(sequence, str) or not sequence:
            raise TypeError(message("sequence", "axis letters such as 'zxz'", repr(sequence)))
        angles = real_array(angles_rad, "angles_rad", (None, len(sequence)))
        try:
            rotations = Rotation.from_euler(sequence, angles).as_matrix() if len(angles) else np.empty((0, 3, 3))
        except ValueError as error:
            raise ValueError(message("sequence", "axis letters such as 'zxz'", f"{sequence!r} ({error})")) from error
        return cls.from_rotations(rotations, volume_shape, detector_shape, **options)

    @classmethod
    def concatenate(cls, geometries: Iterable[Geometry]) -> Geometry:
        """One geometry from several series of views of the same volume on the same detector.

        Parameters
        ----------
        geometries
            At least one; equal in volume and detector shape.

        Examples
        --------
        >>> series = [Geometry.from_angles([0.0, 0.4], tilt, (4, 4, 4), (4, 4)) for tilt in (0.0, 0.3)]
        >>> len(Geometry.concatenate(series))
        4
        """
        parts = sequence_of(Geometry, geometries, "geometries")
        for part in parts:
            for name in ("volume_shape", "detector_shape"):
                if getattr(part, name) != getattr(parts[0], name):
                    raise ValueError(message(name, f"{getattr(parts[0], name)} in every part", getattr(part, name)))
        arrays = (np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS)
        contents: Any = (*arrays, parts[0].volume_shape, parts[0].detector_shape)
        return cls(*contents)

    # -- values derived from one --------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.p)

    def __getitem__(self, views: Any) -> Geometry:
        """The geometry of some views: an index, a slice, an index array or a boolean mask."""
        index = view_indices(views, len(self))
        arrays = (getattr(self, name)[index] for name in ARRAYS)
        contents: Any = (*arrays, self.volume_shape, self.detector_shape)
        return Geometry(*contents)

    def binned(self, factor: int) -> Geometry:
        """The geometry after binning ``factor × factor`` detector pixels, with voxels ``factor`` times as large.

        Rows and columns that do not fill a bin at the far end of the detector are dropped; the volume is rounded up, so
        that it still holds the sample. Bin data as ``data[:, :J // f * f, :K // f * f]`` averaged over blocks.

        Examples
        --------
        >>> geometry = Geometry.from_angles(0.0, 0.0, (9, 9, 8), (9, 8)).binned(2)
        >>> geometry.detector_shape, geometry.volume_shape, geometry.j_offset.tolist()
        ((4, 4), (5, 5, 4), [-0.25])
        """
        factor = integer(factor, "factor", low=1, high=min(self.detector_shape))
        shape = tuple(pixels // factor for pixels in self.detector_shape)
        offsets = (
            (offset - full / 2) / factor + binned / 2
            for offset, full, binned in zip((self.j_offset, self.k_offset), self.detector_shape, shape, strict=True)
        )
        volume = tuple(-(-voxels // factor) for voxels in self.volume_shape)
        contents: Any = (*offsets, volume, shape)
        return Geometry(self.p, self.j, self.k, *contents)

    def refined(self, factor: int) -> Geometry:
        """The same set-up with pixels and voxels ``factor`` times smaller; ``geometry.refined(n).binned(n)`` is it.

        Simulations use it: data that come from a finer grid than the one that reconstructs show its errors.

        Examples
        --------
        >>> Geometry.from_angles(0.0, 0.0, (4, 4, 4), (4, 4), j_offset=0.5).refined(2).j_offset.tolist()
        [1.0]
        """
        factor = integer(factor, "factor", low=1)
        offsets = (self.j_offset * factor, self.k_offset * factor)
        shapes = (tuple(n * factor for n in shape) for shape in (self.volume_shape, self.detector_shape))
        contents: Any = (*offsets, *shapes)
        return Geometry(self.p, self.j, self.k, *contents)

    def pixel_centres(self) -> NDArray[np.float64]:
        """Centres of all detector pixels in the sample frame, in voxels; shape ``(views, J, K, 3)``."""
        rows, columns = (np.arange(n) + 0.5 - n / 2 for n in self.detector_shape)
        along_j = (rows + self.j_offset[:, None])[..., None] * self.j[:, None]
        along_k = (columns + self.k_offset[:, None])[..., None] * self.k[:, None]
        return along_j[:, :, None] + along_k[:, None]

    @property
    def is_left_handed(self) -> NDArray[np.bool_]:
        """For each view, whether ``(j, k, p)`` is a left-handed frame; shape ``(views,)``."""
        return np.einsum("vi,vi->v", np.cross(self.j, self.k), self.p) < 0

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Geometry):
            return NotImplemented
        return all(np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    def __hash__(self) -> int:
        # Adding 0.0 turns -0.0 into 0.0: values that compare equal must hash equal.
        contents = tuple((getattr(self, name) + 0.0).tobytes() for name in ARRAYS)
        return hash((contents, self.volume_shape, self.detector_shape))

    def __repr__(self) -> str:
        lists = (
            f"{name}=np.empty((0, 3))" if not len(self) and name in "pjk" else f"{name}={getattr(self, name).tolist()}"
            for name in ARRAYS
        )
        return f"Geometry({', '.join(lists)}, volume_shape={self.volume_shape}, detector_shape={self.detector_shape})"

    def _repr_html_(self) -> str:
        from ddf_tomo._html import geometry_html

        return geometry_html(self)

    def summary(self) -> str:
        """A few lines for a person: views, shapes, how the beams are spread, offsets, handedness."""
        lines = [f"{len(self)} views of {self.volume_shape} voxels on {self.detector_shape} pixels"]
        if len(self):
            strengths, axes = np.linalg.eigh(np.einsum("va,vb->ab", self.p, self.p) / len(self))
            tilts = np.degrees(np.arcsin(np.clip(np.abs(self.p @ axes[:, 0]), 0, 1)))
            pole = ", ".join(f"{c:.2f}" for c in axes[:, 0])
            lines += [
                f"beams: least seen direction ({pole}), largest tilt towards it {tilts.max():.1f}°,"
                f" spread (1/3 each if even) {', '.join(f'{s:.3f}' for s in strengths)}",
                f"offsets (voxels): j {self.j_offset.min():.3g} … {self.j_offset.max():.3g},"
                f" k {self.k_offset.min():.3g} … {self.k_offset.max():.3g}",
                f"frames (j, k, p): {np.count_nonzero(self.is_left_handed)} left-handed of {len(self)}",
            ]
        return "\n".join(lines)

    def plot(self, axes: Any = None) -> Any:
        """Draw the beam directions on the unit sphere; returns the matplotlib 3-D axes.

        Each beam is drawn with its opposite, which measures the same line integrals.
        """
        if axes is None:
            axes = neighbour("matplotlib.pyplot").figure(figsize=(5, 5)).add_subplot(projection="3d")
        polar, azimuth = np.mgrid[0 : np.pi : 19j, 0 : 2 * np.pi : 37j]
        sphere = np.sin(polar) * np.cos(azimuth), np.sin(polar) * np.sin(azimuth), np.cos(polar)
        axes.plot_wireframe(*sphere, color="0.85", linewidth=0.4)
        axes.scatter(*self.p.T, s=14, color="#0072b2", depthshade=False, label="beam p")
        axes.scatter(*-self.p.T, s=6, color="#d55e00", depthshade=False, label="−p")
        axes.set(xlabel="x", ylabel="y", zlabel="z", title=f"{len(self)} beam directions")
        axes.set_box_aspect((1, 1, 1))
        axes.legend(loc="upper right")
        return axes


ARRAYS = ("p", "j", "k", "j_offset", "k_offset")


def rotation_about(axis: ArrayLike, angles_rad: NDArray[np.float64], argument: str = "axis") -> NDArray[np.float64]:
    """Rotation matrices about one axis (Rodrigues); ``angles_rad`` of shape ``(n,)`` gives ``(n, 3, 3)``.

    Examples
    --------
    >>> import numpy as np
    >>> rotation_about((0, 0, 1), np.array([np.pi / 2])).round(6)[0, :, 0].tolist()
    [0.0, 1.0, 0.0]
    """
    direction = real_array(axis, argument, (3,))
    with np.errstate(over="ignore"):
        length = np.linalg.norm(direction)
    if not 0 < length < np.inf:
        raise ValueError(message(argument, "a direction", direction.tolist()))
    x, y, z = direction / length
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angles = real_array(angles_rad, "angles_rad", (None,))
    sine, cosine = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None]
    return np.eye(3) + sine * cross + (1 - cosine) * (cross @ cross)


def view_indices(views: Any, count: int) -> NDArray[np.int64]:
    """Indices of the chosen views, from an integer, a slice, integers, or a boolean mask of length ``count``.

    Raises
    ------
    TypeError
        If ``views`` are not integers or booleans.
    IndexError
        If an index lies outside ``[-count, count)``.
    """
    if isinstance(views, slice):
        return np.arange(count)[views]
    expected = "an integer, a slice, a list of integers or a boolean mask"
    try:
        array = np.asarray(views.detach().cpu() if hasattr(views, "detach") else views)
    except NOT_NUMBERS as error:
        raise TypeError(message("views", expected, repr(views))) from error
    if array.size == 0 and array.dtype != np.bool_:
        return np.zeros(0, np.int64)
    if array.dtype == np.bool_:
        check_shape(array.shape, "views", (count,))
        return np.flatnonzero(array)
    if not np.issubdtype(array.dtype, np.integer) or array.ndim > 1:
        raise TypeError(message("views", expected, repr(views)))
    indices = np.atleast_1d(array).astype(np.int64)
    if ((indices < -count) | (indices >= count)).any():
        raise IndexError(message("views", f"indices in [{-count}, {count})", repr(views)))
    return indices % max(count, 1)


def _check_orthonormal(p: NDArray[Any], j: NDArray[Any], k: NDArray[Any]) -> None:
    frame = np.stack([p, j, k], axis=1)
    with np.errstate(over="ignore", invalid="ignore"):  # huge numbers are as wrong as any others
        defects = np.abs(frame @ frame.swapaxes(1, 2) - np.eye(3)).max(axis=(1, 2), initial=0.0)
    if not (defects <= ORTHONORMAL_TOLERANCE).all():
        worst = int(defects.argmax())
        found = f"view {worst} with p={p[worst].tolist()}, j={j[worst].tolist()}, k={k[worst].tolist()}"
        raise ValueError(
            message("p, j, k", "orthonormal vectors in every view", found, "normalise them, or check units")
        )
