"""A test that can fail: the stated convention agrees with formulas, each slip that people make does not.

The sample is four Gaussian blobs of different size, brightness and scattering, which no symmetry maps onto each other.
Its projections are sums of Gaussians on the detector, and what a detector segment sees is the mean of a polynomial over
an arc: neither formula uses the package's projector, harmonics or responses.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad_vec

from ddf_tomo import Geometry, SaxsResponse, SecondMomentResponse, TensorXRayTransform, XRayTransform
from ddf_tomo.phantoms import zonal

VOLUME, DETECTOR = (22, 21, 20), (24, 23)
INNER, OUTER = np.radians([10.0, 75.0, 140.0, 230.0, 310.0]), np.radians([0.0, 35.0, 15.0, -25.0, 40.0])
J_OFFSET, K_OFFSET = np.array([0.0, 1.3, -0.6, 0.8, -1.1]), np.array([0.7, -0.9, 0.0, 1.6, -0.4])
CENTRES = np.array([[4.0, 1.0, -2.0], [-3.0, 3.5, 1.0], [0.5, -4.0, 3.0], [-1.5, -1.0, -4.0]])
SIGMAS, AMPLITUDES = np.array([1.7, 2.2, 1.9, 2.5]), np.array([1.0, 0.6, 1.3, 0.4])
FIBRES = np.array([[0.36, 0.48, 0.8], [0.8, -0.6, 0.0], [0.0, 0.6, 0.8], [-0.48, 0.6, 0.64]])
ANGLES = np.arange(8) * np.pi / 8
OFFSETS = {"j_offset": J_OFFSET, "k_offset": K_OFFSET}
GEOMETRY = Geometry.from_angles(INNER, OUTER, VOLUME, DETECTOR, **OFFSETS)


def blobs() -> np.ndarray:
    grid = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in VOLUME), indexing="ij"), -1)
    squares = ((grid[..., None, :] - CENTRES) ** 2).sum(-1)
    return AMPLITUDES * np.exp(-squares / (2 * SIGMAS**2))


def stage() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Beam and detector axes in the sample, from turning the sample, step by step, with matrices written out.

    The stage turns the sample about -z (inner), then about x (outer); the beam runs along y, j along x, k along z. What
    the laboratory calls v the sample calls Rᵀv.
    """
    frames = []
    for a, b in zip(INNER, OUTER, strict=True):
        inner = np.array([[np.cos(a), np.sin(a), 0], [-np.sin(a), np.cos(a), 0], [0, 0, 1]])
        outer = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
        frames.append((outer @ inner).T)
    x, y, z = np.moveaxis(np.array(frames), -1, 0)
    return y, x, z


def projections() -> np.ndarray:
    """Line integrals of each blob by formula, shape (views, J, K, blobs)."""
    _, j, k = stage()
    rows = np.arange(DETECTOR[0]) + 0.5 - DETECTOR[0] / 2 + J_OFFSET[:, None]
    columns = np.arange(DETECTOR[1]) + 0.5 - DETECTOR[1] / 2 + K_OFFSET[:, None]
    across = (rows[:, :, None, None] - (j @ CENTRES.T)[:, None, None]) ** 2
    up = (columns[:, None, :, None] - (k @ CENTRES.T)[:, None, None]) ** 2
    return np.sqrt(2 * np.pi) * SIGMAS * AMPLITUDES * np.exp(-(across + up) / (2 * SIGMAS**2))


def scattering(q: np.ndarray, fibre: np.ndarray) -> np.ndarray:
    """Across the fibre, as (1 - (q·n)²)²."""
    return (1 - (q @ fibre) ** 2) ** 2


LEGENDRE = (8 / 15, -16 / 21, 8 / 35)  # of (1 - t²)²


def saxs() -> np.ndarray:
    """Mean over each segment's arc, by adaptive integration; shape (views, J, K, segments)."""
    _, j, k = stage()
    half = np.pi / 16

    def on_circle(phi: float) -> np.ndarray:
        q = np.cos(ANGLES + phi)[:, None] * j[:, None] + np.sin(ANGLES + phi)[:, None] * k[:, None]
        return np.stack([scattering(q, fibre) for fibre in FIBRES], -1)

    means = quad_vec(on_circle, -half, half)[0] / (2 * half)
    return np.einsum("vabn,vmn->vabm", projections(), means)


def second_moments() -> np.ndarray:
    _, j, k = stage()

    def on_circle(phi: float) -> np.ndarray:
        c, s = np.cos(phi), np.sin(phi)
        q = c * j + s * k
        return (
            np.array([c * c, c * s, s * s])[None, :, None] * np.stack([scattering(q, f) for f in FIBRES], -1)[:, None]
        )

    means = quad_vec(on_circle, 0, 2 * np.pi)[0] / np.pi
    return np.einsum("vabn,vmn->vabm", projections(), means)


def off(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


TOLERANCE = 0.025  # what interpolation between voxels blurs is 0.02
SLIPPED = 5 * TOLERANCE  # half a pixel, the smallest slip, is 0.14


def coefficients() -> np.ndarray:
    return np.einsum("xyzn,nc->xyzc", blobs(), zonal(FIBRES, LEGENDRE))


def changed(**values: np.ndarray) -> Geometry:
    names = ("p", "j", "k", "j_offset", "k_offset")
    return Geometry(*(values.get(name, getattr(GEOMETRY, name)) for name in names), VOLUME, DETECTOR)


def test_the_geometry_is_the_stage():
    for found, expected in zip((GEOMETRY.p, GEOMETRY.j, GEOMETRY.k), stage(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


GEOMETRY_SLIPS = {
    "rotation sign": lambda: Geometry.from_angles(-INNER, OUTER, VOLUME, DETECTOR, **OFFSETS),
    "tilt sign": lambda: Geometry.from_angles(INNER, -OUTER, VOLUME, DETECTOR, **OFFSETS),
    "stages in the other order": lambda: Geometry.from_angles(
        OUTER,
        INNER,
        VOLUME,
        DETECTOR,
        j_offset=J_OFFSET,
        k_offset=K_OFFSET,
        inner_axis=(1, 0, 0),
        outer_axis=(0, 0, -1),
    ),
    "degrees for radians": lambda: Geometry.from_angles(
        np.degrees(INNER), np.degrees(OUTER), VOLUME, DETECTOR, **OFFSETS
    ),
    "mirrored view": lambda: changed(j=-GEOMETRY.j),
    "flipped columns": lambda: changed(k=-GEOMETRY.k),
    "detector axes exchanged": lambda: changed(j=GEOMETRY.k, k=GEOMETRY.j),
    "offset sign, j": lambda: changed(j_offset=-J_OFFSET),
    "offset sign, k": lambda: changed(k_offset=-K_OFFSET),
    "half a pixel, j": lambda: changed(j_offset=J_OFFSET + 0.5),
    "half a pixel, k": lambda: changed(k_offset=K_OFFSET - 0.5),
    "views one late": lambda: GEOMETRY[[1, 2, 3, 4, 0]],
}


def test_projections_are_right():
    volume = blobs().sum(-1, keepdims=True)
    assert off(XRayTransform(GEOMETRY)(volume)[..., 0], projections().sum(-1)) < TOLERANCE


@pytest.mark.parametrize("slip", GEOMETRY_SLIPS)
def test_projections_show_a_wrong_geometry(slip):
    volume = blobs().sum(-1, keepdims=True)
    assert off(XRayTransform(GEOMETRY_SLIPS[slip]())(volume)[..., 0], projections().sum(-1)) > SLIPPED


ARRAY_SLIPS = {
    "flipped rows": lambda data: data[:, ::-1],
    "flipped columns": lambda data: data[:, :, ::-1],
    "both flipped": lambda data: data[:, ::-1, ::-1],
    "a row rolled": lambda data: np.roll(data, 1, axis=1),
}
VOLUME_SLIPS = {
    "x and y exchanged": lambda volume: volume[:21].transpose(1, 0, 2, 3),
    "x mirrored": lambda volume: volume[::-1],
    "y mirrored": lambda volume: volume[:, ::-1],
    "z mirrored": lambda volume: volume[:, :, ::-1],
}


@pytest.mark.parametrize("slip", ARRAY_SLIPS)
def test_projections_show_wrong_arrays(slip):
    found = XRayTransform(GEOMETRY)(blobs().sum(-1, keepdims=True))
    assert off(ARRAY_SLIPS[slip](found)[..., 0], projections().sum(-1)) > SLIPPED


@pytest.mark.parametrize("slip", VOLUME_SLIPS)
def test_projections_show_wrong_volumes(slip):
    volume = np.zeros((*VOLUME, 1))
    slipped = VOLUME_SLIPS[slip](blobs().sum(-1, keepdims=True))
    volume[tuple(slice(min(a, b)) for a, b in zip(VOLUME, slipped.shape[:3], strict=True))] = slipped[
        tuple(slice(n) for n in VOLUME)
    ]
    assert off(XRayTransform(GEOMETRY)(volume)[..., 0], projections().sum(-1)) > SLIPPED


DIRECTIONAL = {
    "saxs": (SaxsResponse(ANGLES), saxs),
    "second moment": (SecondMomentResponse(), second_moments),
}


@pytest.mark.parametrize("modality", DIRECTIONAL)
def test_directional_signals_are_right(modality):
    response, expected = DIRECTIONAL[modality]
    assert off(TensorXRayTransform(GEOMETRY, response, 4)(coefficients()), expected()) < TOLERANCE


@pytest.mark.parametrize("modality", DIRECTIONAL)
@pytest.mark.parametrize(
    "slip",
    [
        "rotation sign",
        "tilt sign",
        "mirrored view",
        "flipped columns",
        "detector axes exchanged",
        "half a pixel, j",
        "views one late",
    ],
)
def test_directional_signals_show_a_wrong_geometry(modality, slip):
    response, expected = DIRECTIONAL[modality]
    found = TensorXRayTransform(GEOMETRY_SLIPS[slip](), response, 4)(coefficients())
    assert off(found, expected()) > SLIPPED


CHANNEL_SLIPS = {
    "saxs: reversed segments": ("saxs", lambda data: data[..., ::-1]),
    "saxs: 90° between scattering and structure": ("saxs", lambda data: np.roll(data, 4, axis=-1)),
    "saxs: one segment on": ("saxs", lambda data: np.roll(data, 1, axis=-1)),
    "second moment: jj and kk exchanged": ("second moment", lambda data: data[..., ::-1]),
    "second moment: sign of jk": ("second moment", lambda data: data * [1, -1, 1]),
    "second moment: jk counted twice": ("second moment", lambda data: data * [1, 2, 1]),
}


@pytest.mark.parametrize("slip", CHANNEL_SLIPS)
def test_directional_signals_show_wrong_channels(slip):
    modality, change = CHANNEL_SLIPS[slip]
    response, expected = DIRECTIONAL[modality]
    found = TensorXRayTransform(GEOMETRY, response, 4)(coefficients())
    assert off(change(found), expected()) > SLIPPED


def test_half_a_segment_shows():
    found = TensorXRayTransform(GEOMETRY, SaxsResponse(ANGLES + np.pi / 16), 4)(coefficients())
    assert off(found, saxs()) > SLIPPED


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda n: n * [-1, 1, 1], id="x of the fibre mirrored"),
        pytest.param(lambda n: n[:, [1, 0, 2]], id="x and y of the fibre exchanged"),
        pytest.param(lambda n: n[:, ::-1], id="vectors reversed, as ASTRA's"),
    ],
)
@pytest.mark.parametrize("modality", DIRECTIONAL)
def test_wrong_directions_show(modality, change):
    response, expected = DIRECTIONAL[modality]
    slipped = np.einsum("xyzn,nc->xyzc", blobs(), zonal(change(FIBRES), LEGENDRE))
    assert off(TensorXRayTransform(GEOMETRY, response, 4)(slipped), expected()) > SLIPPED
