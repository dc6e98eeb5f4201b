"""Measured images to tensor volumes: the four rods, each under the *assumption* that it is symmetric about its axis.

One view of each rod was measured. If a rod is the same all around its axis, all views of a turn about it look alike,
and one view is a scan. That is an assumption, not a measurement; it is stated wherever these figures are. Nor can one
turn tell radial from tangential scattering, which replace each other in a symmetric rod's shadow: a smoothness prior of
fixed weight makes them alike. (Views that are left out cannot choose the weight, as all are the same.)

What air reads (0.005 square pixels more along columns than along rows) is the instrument's, and is taken off. Each rod
is deskewed: rows are sheared until their mean is sharpest, which makes its structure stand upright, and the blur tensor
is turned by the same angle. A cylinder's shadow, fitted to the mean absorption, gives axis and radius. Rows are
averaged, columns binned to voxels of a sixteenth of the radius. The first rod leaves the image on the left: its right
half, mirrored, stands for both.

Direction: angle between the axis and the principal direction of the scattering function (for fibres, their own), median
over the voxels within 0.8 radii. Anisotropy of the smooth rod: difference of its second moments along and across the
axis, in each voxel over the voxel's standard error, which comes from eight groups of positions and rows that have no
frame and hardly a window in common.

Halves of the positions: directions from one half against those from the other, in the pixels where the anisotropy is
above two of its standard errors in both; those errors follow from the covariance of the estimates. The bar is for what
nothing was chosen at: the methods' default windows, and priors, whose weight is found in each half alone; wider windows
stand beside it. What the errors expect of the difference is noted: where noise alone turns directions, two errors of
anisotropy are 14° in each half. Halves agree where noise is little; a bias that both share does not show.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from harness import Row
from numpy.typing import NDArray

from ddf_tomo import Reconstruction, Scan, SecondMomentResponse, datasets, reconstruct
from ddf_tomo.derived import angle_between
from ddf_tomo.operators.rank_two import second_moment_tensor
from ddf_tomo.retrieval import METHODS, Maps, retrieve
from ddf_tomo.retrieval.absorption import axial_geometry

RODS = {  # columns that hold the rod, its axis or what is seen of it
    "coarse": (0, 540),
    "smooth": (530, 1085),
    "fibrous": (1070, 1405),
    "strong fibrous": (1585, 2135),
}
AIR = ((1430, 1550), (2145, 2205))  # columns where there is none
FIBROUS = ("fibrous", "strong fibrous")
VIEWS, VOXELS_A_RADIUS, WITHIN = 48, 16, 0.8
HALVES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("matching", {}),
    *(("matching", {"prior": name}) for name in ("smoothness", "total-variation")),
    *(("matching", {"window": width}) for width in (5.0, 9.0, 13.0)),
    ("visibility", {}),
    ("visibility", {"window": 9.0}),
)
SURE = 2.0  # standard errors
NORMAL_MEDIAN = 0.674  # of the magnitude of a normal variable, in standard deviations
WEIGHT = 1.0  # of the smoothness prior
LEANS = np.arange(-0.12, 0.1201, 0.004)  # columns a row
GROUPS = 4  # of rows, times two of positions
STUDENT = 2.365  # 95 % of Student's t for eight groups
Array = NDArray[Any]


class Axis(NamedTuple):
    """Where a rod stands: column of its axis in the middle row, columns a row that it leans, radius in columns."""

    column: float
    lean: float
    radius: float


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """All rods."""
    method = "matching" if "matching" in METHODS else "differential"
    images = datasets.four_rods()
    maps = _maps(images, method)
    voxels = size or (6 if quick else VOXELS_A_RADIUS)
    for name, columns in RODS.items():
        axis = find_axis(np.asarray(maps.transmission), columns)
        volume = axial_volume(maps, axis, voxels)
        angle = angle_to_axis(volume, voxels)
        note = f"axis leans by {np.degrees(np.arctan(axis.lean)):.1f}°, radius {axis.radius:.0f} columns; {method}"
        bar = 10.0 if name in FIBROUS else None
        if name != "smooth":
            yield Row(f"{name}: principal direction from the axis", angle, "°", at_most=bar, note=note)
        along, across = moments(volume, voxels)
        yield Row(f"{name}: second moments along | across", along, "µrad²", note=f"across {across:.3g}, a voxel")
    yield from _smooth(images, maps, method, voxels)
    yield from _halves(images)


def _smooth(images: datasets.FourRods, maps: Maps, method: str, voxels: int) -> Iterator[Row]:
    """Whether the smooth rod is anisotropic beyond its error."""
    axes = {name: find_axis(np.asarray(maps.transmission), RODS[name]) for name in ("smooth", "fibrous")}
    parts = [_maps(images, method, half) for half in (np.s_[0::2], np.s_[1::2])]
    rows = np.array_split(np.arange(maps.transmission.shape[0]), GROUPS)
    volumes = [axial_volume(part, axes["smooth"], voxels, each) for part in parts for each in rows]
    found = np.stack([along - across for along, across in (_moments(volume, voxels) for volume in volumes)])
    error = found.std(0, ddof=1) / np.sqrt(len(found))
    share = float(np.median(np.abs(found.mean(0)) / error))
    yield Row("smooth: anisotropy of a voxel over its error, median", share, at_most=STUDENT, note="standard errors")
    means = found.mean(1)
    strong = np.subtract(*moments(axial_volume(maps, axes["fibrous"], voxels), voxels))
    note = f"± {means.std(ddof=1) / np.sqrt(len(means)):.2g} by noise alone; fibrous rod {strong:.2g}"
    yield Row("smooth: anisotropy, mean over the voxels", float(means.mean()), "µrad² a voxel", note=note)


def _halves(images: datasets.FourRods) -> Iterator[Row]:
    """Directions from one half of the positions against those from the other, where they are sure."""
    for method, options in HALVES:
        yield from _halves_of(images, method, options)


def _halves_of(images: datasets.FourRods, method: str, options: dict[str, Any]) -> Iterator[Row]:
    # Glare is the same in both halves.
    glare = {"background": False} if "background" in METHODS[method].options else {}
    halves = [_maps(images, method, half, **glare, **options) for half in (np.s_[0::2], np.s_[1::2])]
    first, second = (np.asarray(half.direction().angle_rad) for half in halves)
    turned = np.abs((first - second + np.pi / 2) % np.pi - np.pi / 2)
    strengths = [_anisotropy(half) for half in halves]
    sure = np.logical_and.reduce([size > SURE * error for size, error, _ in strengths])
    expected = np.hypot(*(across / (2 * size) for size, _, across in strengths))  # standard deviation of the difference
    for name in FIBROUS:
        part = np.s_[:, slice(RODS[name][0] + 60, RODS[name][1] - 60)]
        good = sure[part]
        angles = [np.degrees(np.median(each[part][good])) if good.any() else np.nan for each in (turned, expected)]
        how = ", ".join(f"{key} {value}" for key, value in options.items()) or "default window"
        note = f"anisotropy above {SURE:g} errors in {good.mean():.0%}; errors say {NORMAL_MEDIAN * angles[1]:.1f}°"
        bar = None if "window" in options else 5.0
        yield Row(
            f"{name}: direction, halves of the positions, {method}, {how}", angles[0], "°", at_most=bar, note=note
        )


def _anisotropy(maps: Maps) -> tuple[Array, Array, Array]:
    """Difference of the eigenvalues of C, its standard error, and that of the same difference turned by 45°."""
    jj, jk, kk = np.moveaxis(np.asarray(maps.covariance, float), -1, 0)
    upper = np.asarray(maps.error_matrix, float)[..., 15:]  # (jj, jj), (jj, jk), (jj, kk), (jk, jk), (jk, kk), (kk, kk)
    one, two = jj - kk, 2 * jk
    size = np.maximum(np.hypot(one, two), 1e-12)
    with np.errstate(invalid="ignore"):
        of_one = upper[..., 0] + upper[..., 5] - 2 * upper[..., 2]
        of_two, both = 4 * upper[..., 3], 2 * (upper[..., 1] - upper[..., 4])
        along = (one**2 * of_one + two**2 * of_two + 2 * one * two * both) / size**2
        across = (two**2 * of_one + one**2 * of_two - 2 * one * two * both) / size**2
    known = np.asarray(maps.valid) & (along > 0) & (across > 0)
    error, turned = (np.where(known, np.sqrt(np.where(known, each, 1)), np.inf) for each in (along, across))
    return size, error, turned


def _maps(images: datasets.FourRods, method: str, steps: slice = np.s_[:], **options: Any) -> Maps:
    # Light without a pattern (glare of the scintillator) is 1.7 % here, and reads as a blur where it is not fitted.
    glare = {"background": True} if "background" in METHODS[method].options else {}
    lengths = {"pixel_size_m": images.pixel_size_m, "distance_m": images.distance_m}
    maps = retrieve(
        images.sample[steps],
        images.reference[steps],
        method,
        progress=False,
        **lengths,
        **(glare | options),
    )
    air = np.concatenate([maps.covariance[:, slice(*columns)] for columns in AIR], 1)
    return replace(maps, covariance=maps.covariance - air.mean((0, 1)))


def find_axis(transmission: Array, columns: tuple[int, int]) -> Axis:
    """The lean that makes the mean of the rows sharpest; axis and radius by ``−ln T = 2μ √(R² − (x − c)²)``."""
    from scipy.ndimage import gaussian_filter1d
    from scipy.optimize import least_squares

    # Smoothed, so that interpolation between columns does not count as loss of sharpness.
    absorbed = gaussian_filter1d(-np.log(np.clip(transmission[:, slice(*columns)], 1e-3, None)), 3.0, axis=1)
    x = np.arange(*columns, dtype=float)
    rows = np.arange(len(absorbed)) - (len(absorbed) - 1) / 2

    def upright(lean: float) -> Array:
        return np.mean([np.interp(x + lean * row, x, line) for row, line in zip(rows, absorbed, strict=True)], 0)

    lean = max(LEANS, key=lambda lean: np.var(np.diff(upright(lean)[8:-8])))
    profile, width = upright(lean), columns[1] - columns[0]

    def misfit(p: Array) -> Array:
        return p[2] * np.sqrt(np.maximum(p[1] ** 2 - (x - p[0]) ** 2, 0)) / width + p[3] - profile

    start = [sum(columns) / 2 - (width / 8 if columns[0] == 0 else 0), width * 0.45, profile.max(), 0.0]
    limits = [columns[0], width / 8, 0, -0.1], [columns[1], width, 5, 0.1]
    found = least_squares(misfit, start, x_scale=[width, width, 1, 0.1], bounds=limits, loss="soft_l1", f_scale=0.03).x
    return Axis(float(found[0]), float(lean), float(found[1]))


def axial_volume(maps: Maps, axis: Axis, voxels: int, rows: Array | None = None) -> Reconstruction:
    """Volume of a rod from its one view, taken for all views of a turn; in µrad² a voxel."""
    theta, error = maps.scattering()
    chosen = np.arange(len(theta)) if rows is None else rows
    turned = turn(np.asarray(theta, float), np.arctan(axis.lean))
    offsets = np.arange(-(axis.radius * 1.125), axis.radius * 1.125 + 0.5)
    profile, weight = np.zeros((len(offsets), 3)), np.zeros((len(offsets), 3))
    valid = np.asarray(maps.valid)
    for row in chosen:
        place = axis.column + axis.lean * (row - (len(theta) - 1) / 2) + offsets
        near = np.clip(np.round(place).astype(int), 0, theta.shape[1] - 1)
        inside = (place >= 0) & (place <= theta.shape[1] - 1) & valid[row, near]
        with np.errstate(divide="ignore"):
            weights = np.where(inside[:, None], 1e-24 / np.asarray(error, float)[row, near] ** 2, 0)
        profile += weights * turned[row, near] * 1e12
        weight += weights
    if axis.column < axis.radius:  # what is cut off is the mirror image of what is not; C_jk is odd
        seen = weight[..., 0] > 0
        odd = np.array([1, -1, 1])
        profile, weight = (
            np.where(seen[:, None], each, each[::-1] * sign) for each, sign in ((profile, odd), (weight, 1))
        )
    pixel = axis.radius / voxels
    bins = np.floor((offsets - offsets[0]) / pixel).astype(int)
    count = bins.max() + 1
    sums, weights = (
        np.stack([np.bincount(bins, each[:, n], count) for n in range(3)], -1) for each in (profile, weight)
    )
    data = sums / np.where(weights > 0, weights, 1)
    # Geometry: j across the rod, k up its axis, against the rows.
    data = np.stack([data[:, 2], -data[:, 1], data[:, 0]], -1)
    weights = np.stack([weights[:, 2], weights[:, 1], weights[:, 0]], -1)
    geometry = axial_geometry(np.arange(VIEWS) * np.pi / VIEWS, (count, 3), axis_bin(offsets, pixel), (count, count, 3))
    shape = (VIEWS, count, 3, 3)
    stack = [np.broadcast_to(each[None, :, None, :], shape).astype(np.float32) for each in (data, weights)]
    scan = Scan(stack[0].copy(), geometry, SecondMomentResponse(), weights=stack[1] / stack[1].max())
    return reconstruct(scan, ell_max=2, prior="smoothness", weight=WEIGHT, progress=False)


def axis_bin(offsets: Array, pixel: float) -> float:
    """Bin, counted from the centre of the first one, in which the axis lies."""
    return float(-offsets[0] / pixel - 0.5)


def turn(theta: Array, angle_rad: float) -> Array:
    """Tensors (jj, jk, kk) of an image turned so that what leaned by the angle from j towards k stands along j."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    jj, jk, kk = np.moveaxis(theta, -1, 0)
    return np.stack(
        [
            c * c * jj + 2 * c * s * jk + s * s * kk,
            c * s * (kk - jj) + (c * c - s * s) * jk,
            s * s * jj - 2 * c * s * jk + c * c * kk,
        ],
        -1,
    )


def _inside(volume: Reconstruction, voxels: int) -> Array:
    """Voxels of the middle slice that are well within the rod."""
    count = volume.coefficients.shape[0]
    place = np.arange(count) - (count - 1) / 2
    inside = np.hypot(place[:, None], place) < WITHIN * voxels
    return np.stack([0 * inside, inside, 0 * inside], -1).astype(bool)


def angle_to_axis(volume: Reconstruction, voxels: int) -> float:
    """Median angle in degrees between principal direction and axis."""
    directions = volume.derived().direction[_inside(volume, voxels)]
    return float(np.degrees(np.median(angle_between(directions, np.array([0.0, 0.0, 1.0])))))


def moments(volume: Reconstruction, voxels: int) -> tuple[float, float]:
    """Mean second moments of the scattering function along the axis and across it."""
    along, across = _moments(volume, voxels)
    return float(along.mean()), float(across.mean())


def _moments(volume: Reconstruction, voxels: int) -> tuple[Array, Array]:
    """The same in each voxel."""
    upper = second_moment_tensor(volume.coefficients[_inside(volume, voxels)])
    return upper[..., 5], (upper[..., 0] + upper[..., 3]) / 2
