"""The X-ray transform against its slow form, against formulas, and against MUMOTT."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ddf_tomo import Geometry, XRayTransform, check_adjoint
from ddf_tomo._threads import in_parallel
from tests.mumotts_kernels import _compiled_once  # noqa: F401
from tests.strategies import axial_geometries, geometries, random_geometry


def noise(shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def assert_same_sums(geometry, channels, seed):
    fast, slow = (XRayTransform(geometry, backend) for backend in ("numba", "reference"))
    x = noise((*geometry.volume_shape, channels), seed)
    y = noise((len(geometry), *geometry.detector_shape, channels), seed + 1)
    for ours, theirs, at in ((fast, slow, x), (fast.T, slow.T, y)):
        torch.testing.assert_close(ours(at), theirs(at), rtol=1e-11, atol=1e-11)
        single = ours(at.float())
        torch.testing.assert_close(single.double(), theirs(at), rtol=1e-5, atol=1e-4)


@given(geometries(), st.integers(1, 50), st.integers(0, 1000))
@settings(max_examples=75)
def test_kernel_is_the_reference(geometry, channels, seed):
    assert_same_sums(geometry, channels, seed)


@given(axial_geometries(), st.integers(1, 20), st.integers(0, 1000))
@settings(max_examples=30)
def test_kernel_is_the_reference_where_planes_do_not_mix(geometry, channels, seed):
    assert_same_sums(geometry, channels, seed)


@given(geometries(), st.sampled_from([torch.float32, torch.float64]), st.booleans(), st.integers(0, 1000))
@settings(max_examples=100)
def test_adjoint_is_the_transpose(geometry, dtype, slow, seed):
    check_adjoint(XRayTransform(geometry, "reference" if slow else "auto"), dtype, seed=seed)


@pytest.mark.parametrize("channels", range(1, 51))
def test_any_number_of_channels(channels):
    """Blocks of 16, 8, 4, 2, 1 channels, the last one shared: no channel leaks into another."""
    A = XRayTransform(random_geometry(3, seed=2))
    x = noise((7, 6, 5, channels))
    together = A(x)
    back = A.T(together)
    for c in {0, channels // 2, channels - 1}:
        torch.testing.assert_close(together[..., c : c + 1], A(x[..., c : c + 1]), rtol=0, atol=1e-12)
        torch.testing.assert_close(back[..., c : c + 1], A.T(together[..., c : c + 1]), rtol=0, atol=1e-12)


def test_a_ray_along_an_axis_sums_voxels():
    """By hand: beam along y, j along x, k along z; pixel (a, b) is the sum over y of voxels (a, :, b)."""
    x = noise((4, 3, 5, 2))
    A = XRayTransform(Geometry.from_angles(0.0, 0.0, (4, 3, 5), (4, 5)))
    torch.testing.assert_close(A(x)[0], x.sum(1))
    shifted = XRayTransform(Geometry.from_angles(0.0, 0.0, (4, 3, 5), (4, 5), j_offset=1.0, k_offset=-2.0))(x)[0]
    torch.testing.assert_close(shifted[:3, 2:], x.sum(1)[1:, :3])
    assert not shifted[3].any()
    assert not shifted[:, :2].any()
    half = XRayTransform(Geometry.from_angles(0.0, 0.0, (4, 3, 5), (4, 5), j_offset=0.5))(x)[0]
    torch.testing.assert_close(half[:3], (x.sum(1)[1:] + x.sum(1)[:-1]) / 2)
    torch.testing.assert_close(half[3], x.sum(1)[3] / 2)  # outside is zero


def test_a_ray_across_a_cube_has_its_length():
    """The central ray through a plate of ones, at 45°: √2 per slice, as many slices as it meets."""
    A = XRayTransform(Geometry.from_angles(np.pi / 4, 0.0, (9, 9, 1), (1, 1)))
    assert A(torch.ones(9, 9, 1, 1)).item() == pytest.approx(9 * np.sqrt(2), rel=1e-6)


BLOBS = np.array([[2.0, -3.0, 1.0], [-4.0, 2.5, -2.0], [0.5, 0.7, 4.0]])
AMPLITUDES, SIGMA = np.array([1.0, 0.6, 1.4]), 2.2


def gaussian_blobs(shape, voxel=1.0):
    grid = voxel * np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in shape), indexing="ij"), -1)
    squares = ((grid[..., None, :] - BLOBS) ** 2).sum(-1)
    return (AMPLITUDES * np.exp(-squares / (2 * SIGMA**2))).sum(-1)


def blob_projections(geometry, voxel=1.0):
    """Line integrals in closed form: a Gaussian of the distance from the ray, times √(2π) σ."""
    rays = voxel * geometry.pixel_centres()[..., None, :]
    towards = BLOBS - rays
    along = np.einsum("vjkbi,vi->vjkb", towards, geometry.p)
    squares = (towards**2).sum(-1) - along**2
    return np.sqrt(2 * np.pi) * SIGMA * (AMPLITUDES * np.exp(-squares / (2 * SIGMA**2))).sum(-1)


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_gaussian_blobs_by_formula(backend):
    """The Joseph sum of a smooth function differs from its integral by linear interpolation: σ⁻²/8 per axis at most."""
    geometry = random_geometry(8 if backend == "numba" else 2, (29, 28, 27), (32, 33), seed=3)
    found = XRayTransform(geometry, backend)(gaussian_blobs(geometry.volume_shape)[..., None])[..., 0]
    expected = blob_projections(geometry)
    assert np.abs(found - expected).max() < 0.05 * expected.max()
    # Interpolation blurs, and does nothing else: the integral over the detector stays.
    np.testing.assert_allclose(found.sum((1, 2)), expected.sum((1, 2)), rtol=2e-3)


def test_it_converges_to_the_integral_in_second_order():
    errors = []
    for refinement in (1, 2):
        coarse = random_geometry(3, (29, 28, 27), (12, 12), seed=4)
        fine = coarse.refined(refinement)
        volume = gaussian_blobs(fine.volume_shape, 1 / refinement)
        found = XRayTransform(fine)(volume[..., None])[..., 0] / refinement
        exact = blob_projections(fine, 1 / refinement)
        errors.append(np.abs(found - exact).max())
    assert errors[1] < 0.3 * errors[0]


def test_threads_share_a_larger_volume_without_a_trace():
    A = XRayTransform(random_geometry(40, (19, 18, 17), (23, 21), seed=7))
    x = noise((19, 18, 17, 5), dtype=torch.float32)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append((A(x), A.T(A(x))))
    finally:
        torch.set_num_threads(threads)
    for forward, back in results[1:]:
        assert torch.equal(forward, results[0][0])
        assert torch.equal(back, results[0][1])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(("count", "grain"), [(0, 8), (1, 8), (8, 8), (100, 8), (1000, 4)])
def test_pieces_cover_the_work_once(threads, count, grain):
    before, seen = torch.get_num_threads(), []
    try:
        torch.set_num_threads(threads)
        in_parallel(count, grain, lambda start, stop: seen.extend(range(start, stop)))
    finally:
        torch.set_num_threads(before)
    assert sorted(seen) == list(range(count))


def test_what_goes_wrong_in_a_thread_is_told():
    before = torch.get_num_threads()

    def fail(start, stop):
        raise ZeroDivisionError(start)

    try:
        torch.set_num_threads(2)
        with pytest.raises(ZeroDivisionError):
            in_parallel(100, 1, fail)
    finally:
        torch.set_num_threads(before)


def test_a_forked_process_starts_its_own_threads():
    code = """
import os, torch
from ddf_tomo import Geometry, XRayTransform
torch.set_num_threads(2)
A = XRayTransform(Geometry.from_angles([0.0, 0.3, 0.7], 0.1, (20, 20, 20), (20, 20)))
x = torch.ones(20, 20, 20, 1)
expected = A(x)
child = os.fork()
if not child:
    os._exit(0 if torch.equal(A(x), expected) else 3)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


def test_a_new_geometry_compiles_nothing():
    from ddf_tomo.operators.backends import _numba_kernel as kernel

    for dtype in (torch.float32, torch.float64):
        A = XRayTransform(random_geometry(2))
        A.T(A(noise((7, 6, 5, 2), dtype=dtype)))
    before = [len(function.signatures) for function in (kernel.forward_tiles, kernel.adjoint_bricks)]
    for geometry, channels in ((random_geometry(5, (3, 9, 4), (2, 11), seed=1), 23), (random_geometry(1), 1)):
        A = XRayTransform(geometry).views([0])
        A.T(A(noise((*geometry.volume_shape, channels), dtype=torch.float32)))
        A.T(A(noise((*geometry.volume_shape, channels))))
    assert [len(function.signatures) for function in (kernel.forward_tiles, kernel.adjoint_bricks)] == before


def test_parts_add_to_what_is_there():
    A = XRayTransform(random_geometry(5, seed=3))
    x = noise((7, 6, 5, 2))
    projections = torch.ones(2, 8, 9, 2, dtype=torch.float64)
    A.project_into(projections, x, slice(1, 3))
    torch.testing.assert_close(projections, 1 + A(x)[1:3])
    volume = torch.ones(7, 6, 5, 2, dtype=torch.float64)
    A.backproject_into(volume, projections, slice(1, 3))
    torch.testing.assert_close(volume, 1 + A.views([1, 2]).T(projections))
    with pytest.raises(ValueError, match=r"^projections: expected shape \(5, 8, 9, 2\), got \(2, 8, 9, 2\)"):
        A.project_into(projections, x)


def test_zero_sizes():
    A = XRayTransform(random_geometry(2))
    assert A(torch.zeros(7, 6, 5, 0)).shape == (2, 8, 9, 0)
    assert A.T(torch.zeros(2, 8, 9, 0)).shape == (7, 6, 5, 0)
    assert A(torch.zeros(0, 7, 6, 5, 3)).shape == (0, 2, 8, 9, 3)
    empty = A.views([])
    assert empty(torch.ones(7, 6, 5, 2)).shape == (0, 8, 9, 2)
    assert not empty.T(torch.ones(0, 8, 9, 2)).any()
    assert empty.norm() == 0.0


@pytest.mark.parametrize("backend", ["numba", "reference"])
def test_data_beyond_float32_stay_infinite_or_zero(backend):
    """Non-finite voxels spoil the rays that meet them, and no others."""
    A = XRayTransform(Geometry.from_angles(0.0, 0.0, (4, 4, 4), (4, 4)), backend)
    x = torch.zeros(4, 4, 4, 1)
    x[1, 2, 3] = torch.nan
    spoilt = torch.isnan(A(x)[0, ..., 0])
    assert spoilt[1, 3]
    assert not spoilt[3, 0]
    assert not spoilt[0, 1]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"geometry": 3}, TypeError, "^geometry: expected a ddf_tomo.Geometry, got int"),
        ({"backend": "cuda!"}, ValueError, "^backend: expected one of 'auto', 'numba', 'reference', .* got 'cuda!'"),
        ({"device": []}, TypeError, "^device: expected a torch device"),
        ({"channels": 0}, ValueError, "^channels: expected an integer in"),
        ({"channels": 1.5}, ValueError, "^channels: expected an integer in"),
        (
            {"backend": "numba", "device": "meta"},
            ValueError,
            "^device: expected 'cpu' with backend='numba'",
        ),
    ],
)
def test_bad_arguments(arguments, error, text):
    with pytest.raises(error, match=text):
        XRayTransform(**{"geometry": random_geometry(1), **arguments})


def test_other_devices_get_the_reference():
    assert XRayTransform(random_geometry(1), device="meta").backend == "reference"
    assert XRayTransform(random_geometry(1)).backend == "numba"
    assert XRayTransform(random_geometry(2), "reference").views([1]).backend == "reference"


# -- MUMOTT -----------------------------------------------------------------------------------------------------------

SHAPES = [((11, 12, 13), (14, 15)), ((16, 9, 8), (9, 17)), ((9, 9, 15), (7, 8))]
FRAMES = [None, ((0, 0, 1), (1, 0, 0), (0, 1, 0)), ((1, 0, 0), (0, 0.6, 0.8), (0, -0.8, 0.6))]


@pytest.mark.slow
@pytest.mark.parametrize("case", range(3), ids=["default axes", "axes permuted", "axes tilted"])
def test_mumotts_projector(case):
    """20 random rotations and offsets in each of three shapes, with two empty border voxels."""
    mumott = pytest.importorskip("mumott")
    from mumott.core.geometry import GeometryTuple
    from mumott.methods.projectors import SAXSProjector

    (volume_shape, detector_shape), frame, views = SHAPES[case], FRAMES[case], 20
    theirs, generator = mumott.Geometry(), np.random.default_rng(0)
    options = {}
    if frame is not None:
        theirs.p_direction_0, theirs.j_direction_0, theirs.k_direction_0 = (np.array(axis, float) for axis in frame)
        options = dict(zip(("p_0", "j_0", "k_0"), frame, strict=True))
    rotations = Rotation.random(views, random_state=1).as_matrix()
    offsets = generator.normal(0, 2, (2, views))
    for rotation, j, k in zip(rotations, *offsets, strict=True):
        theirs.append(GeometryTuple(rotation, j, k))
    theirs.volume_shape, theirs.projection_shape = np.array(volume_shape), np.array(detector_shape)
    field = np.zeros((*volume_shape, 3))
    inner = field[2:-2, 2:-2, 2:-2]
    inner[...] = generator.normal(size=inner.shape)
    expected = SAXSProjector(theirs).forward(field)
    geometry = Geometry.from_rotations(
        rotations, volume_shape, detector_shape, j_offset=offsets[0], k_offset=offsets[1], **options
    )
    A = XRayTransform(geometry)
    np.testing.assert_allclose(A(field), expected, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(A(field.astype(np.float32)), expected, atol=1e-5 * np.abs(expected).max())
