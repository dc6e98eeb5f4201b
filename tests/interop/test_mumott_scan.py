"""Scans in MUMOTT's hands and back: files read by MUMOTT itself, containers, responses and basis sets."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.responses import SaxsResponse, SecondMomentResponse
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.scan import Scan

mumott = pytest.importorskip("mumott")

from mumott.core.geometry import GeometryTuple  # noqa: E402
from mumott.core.projection_stack import Projection  # noqa: E402
from mumott.data_handling import DataContainer  # noqa: E402
from mumott.methods.basis_sets import (  # noqa: E402
    GaussianKernels,
    NearestNeighbor,
    SphericalHarmonics,
    TrivialBasis,
)

from ddf_tomo.interop.mumott import (  # noqa: E402
    MumottFaultWarning,
    ResponseBasisSet,
    geometry_from,
    mumott_response,
    reconstruction_from,
    response_from,
    scan_from,
    to_data_container,
    to_geometry,
)

SAXS = SaxsResponse(np.arange(5) * np.pi / 5 + 0.1)


def some_scan(response=SAXS, views=3, left_handed=True, dtype=np.float32, weights=True, diode=True):
    generator = np.random.default_rng(3)
    frames = Rotation.random(views, random_state=2).as_matrix()
    p, j, k = frames[:, 2] * (-1 if left_handed else 1), frames[:, 0], frames[:, 1]
    geometry = Geometry(p, j, k, *generator.normal(size=(2, views)), (6, 5, 7), (8, 9))
    shape = (views, 8, 9, response.channels)
    return Scan(
        generator.normal(size=shape).astype(dtype),
        geometry,
        response,
        weights=generator.uniform(size=shape) if weights else None,
        diode=generator.uniform(0.1, 1, shape[:3]) if diode else None,
    )


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left_handed", [True, False])
@pytest.mark.parametrize("optional", [True, False])
def test_mumott_reads_our_files(tmp_path, left_handed, optional):
    scan = some_scan(left_handed=left_handed, weights=optional, diode=optional)
    scan.write(tmp_path / "scan.h5")
    theirs = DataContainer(str(tmp_path / "scan.h5"))
    np.testing.assert_array_equal(theirs.data, scan.data)
    np.testing.assert_array_equal(theirs.weights, scan.full_weights())
    np.testing.assert_array_equal(theirs.diode, 1 if scan.diode is None else scan.diode)
    assert geometry_from(theirs.geometry) == scan.geometry
    assert response_from(theirs.geometry) == scan.response


@pytest.mark.parametrize(
    "response", [SecondMomentResponse(), SaxsResponse([0.0, 0.8, 1.6, 2.4], [0.0, 0.05])], ids=repr
)
def test_mumott_reads_files_of_other_responses(tmp_path, response):
    scan = some_scan(response)
    scan.write(tmp_path / "scan.h5")
    theirs = DataContainer(str(tmp_path / "scan.h5"))
    np.testing.assert_array_equal(theirs.data, scan.data)
    assert geometry_from(theirs.geometry) == scan.geometry
    assert theirs.geometry.probed_coordinates.vector.shape[1] == response.channels
    assert theirs.geometry.two_theta.tolist() == list(getattr(response, "two_theta_rad", [0.0]))


def test_we_read_mumotts_files(tmp_path):
    scan = some_scan(dtype=np.float64)
    container = to_data_container(scan)
    # MUMOTT's writer fails on angles that are not set, and its setter for the outer one changes a copy.
    container.geometry._inner_angles = container.geometry._outer_angles = [0.0] * 3
    container.write(str(tmp_path / "theirs.h5"))
    again = Scan.read(tmp_path / "theirs.h5")
    np.testing.assert_array_equal(again.data, scan.data)
    np.testing.assert_array_equal(again.weights, scan.weights)
    np.testing.assert_array_equal(again.diode, scan.diode)
    assert again.geometry == scan.geometry
    assert again.response == scan.response


def test_axes_angles_and_offsets_are_read_as_mumott_does(tmp_path):
    path = tmp_path / "angles.h5"
    generator = np.random.default_rng(0)
    axis = np.array([0.6, 0.0, 0.8])
    with h5py.File(path, "w") as file:
        file["detector_angles"] = np.arange(4) * np.pi / 4
        file["inner_axis"] = axis
        for view in range(4):
            group = file.create_group(f"projections/{view}")
            group["data"], group["diode"] = np.ones((3, 4, 4)), np.ones((3, 4))
            group["inner_angle" if view else "rotations"] = generator.uniform(-3, 3)
            if view > 1:
                group["tilts"], group["offset_k"] = [generator.uniform(-3, 3)], generator.normal()
            if view == 3:
                group["outer_axis"], group["j_offset"] = axis[::-1], [generator.normal()]
    theirs = geometry_from(DataContainer(str(path)).geometry)
    ours = Scan.read(path).geometry
    for name in ("p", "j", "k", "j_offset", "k_offset"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-14)
    assert (ours.volume_shape, ours.detector_shape) == (theirs.volume_shape, theirs.detector_shape)


def test_padding_is_where_we_part_from_mumott(tmp_path):
    """MUMOTT 2.3 moves padded projections by the whole padding; the first pixel must stay where it was."""
    path = tmp_path / "padded.h5"
    with h5py.File(path, "w") as file:
        file["detector_angles"] = np.arange(4) * np.pi / 4
        for view, shape in enumerate([(6, 6), (4, 6)]):
            group = file.create_group(f"projections/{view}")
            group["data"], group["diode"], group["inner_angle"] = np.ones((*shape, 4)), np.ones(shape), 0.0
    theirs = geometry_from(DataContainer(str(path)).geometry)
    with pytest.warns(UserWarning, match="padding"):
        ours = Scan.read(path).geometry
    first_row_of_four = 0.5 - 4 / 2
    assert ours.pixel_centres()[1, 0, 0] @ ours.j[1] == pytest.approx(first_row_of_four)
    assert theirs.pixel_centres()[1, 0, 0] @ theirs.j[1] == pytest.approx(first_row_of_four - 2)


# -- containers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("response", [SAXS, SecondMomentResponse()], ids=repr)
def test_containers_share_data_and_copy_what_mumott_changes(response):
    scan = some_scan(response)
    container = to_data_container(scan)
    assert all(np.shares_memory(projection.data, scan.data) for projection in container.projections)
    again = scan_from(container, response, voxel_size_m=1e-6)
    assert np.shares_memory(again.data, scan.data)
    assert again.data.strides == scan.data.strides
    np.testing.assert_array_equal(again.data, scan.data)
    np.testing.assert_array_equal(again.weights, scan.weights)
    np.testing.assert_array_equal(again.diode, scan.diode)
    assert again.geometry == scan.geometry
    assert again.voxel_size_m == 1e-6
    before = scan.weights.copy()
    container.projections.weights = np.zeros(scan.data.shape)
    container.projections.diode = np.zeros(scan.data.shape[:3])
    np.testing.assert_array_equal(scan.weights, before)
    assert scan.diode.min() > 0


def test_tensors_and_parts_of_arrays_are_shared_too():
    scan = some_scan()
    tensors = Scan(torch.from_numpy(scan.data), scan.geometry, scan.response)
    container = to_data_container(tensors[1:])
    assert np.shares_memory(container.projections[0].data, scan.data)
    found = scan_from(container)
    assert np.shares_memory(found.data, scan.data)
    assert found.weights is None
    np.testing.assert_array_equal(found.data, scan.data[1:])
    assert np.shares_memory(scan_from(to_data_container(scan[2:])).data, scan.data)


def test_data_that_lie_apart_are_stacked():
    scan = some_scan()
    for order in ([0, 0, 2], [2, 1, 0], [0, 2, 1]):
        container = to_data_container(scan)
        for projection, view in zip(container.projections, order, strict=True):
            projection.data = scan.data[view]
        np.testing.assert_array_equal(scan_from(container).data, scan.data[order])
    for projection in container.projections:
        projection.data = projection.data.copy()
        projection.weights = projection.weights[..., 0]
    found = scan_from(container)
    np.testing.assert_array_equal(found.weights, np.repeat(scan.weights[..., :1], 5, axis=-1))


def test_containers_without_diode_weights_or_data():
    container = DataContainer()
    container.append(Projection(data=np.ones((3, 4, 5)), rotation=np.eye(3)))
    container.geometry.volume_shape = (3, 3, 4)
    container.geometry.detector_angles = SAXS.detector_angles_rad
    scan = scan_from(container)
    assert scan.diode is None
    assert scan.weights is None
    assert scan.geometry.detector_shape == (3, 4)
    with pytest.raises(ValueError, match="at least one projection"):
        scan_from(DataContainer())
    container.projections[0].data = None
    with pytest.raises(ValueError, match="without"):
        scan_from(container)


# -- responses and basis sets -----------------------------------------------------------------------------------------


def random_mumott_geometry(seed):
    """Any set-up, any detector origin of either sense, as many segments as fit half a circle."""
    generator = np.random.default_rng(seed)
    theirs = mumott.Geometry()
    for rotation in Rotation.random(3, random_state=seed).as_matrix():
        theirs.append(GeometryTuple(rotation))
    p_0, j_0, k_0 = Rotation.random(random_state=seed + 1).as_matrix() * generator.choice([-1, 1], (3, 1))
    start, sense, count = generator.uniform(-3, 3), generator.choice([-1, 1]), int(generator.integers(3, 9))
    theirs.p_direction_0, theirs.j_direction_0, theirs.k_direction_0 = p_0, j_0, k_0
    theirs.detector_direction_origin = np.cos(start) * j_0 + np.sin(start) * k_0
    theirs.detector_direction_positive_90 = sense * (np.cos(start) * k_0 - np.sin(start) * j_0)
    theirs.detector_angles = generator.uniform(-1, 1) + np.arange(count) * np.pi / count
    theirs.volume_shape, theirs.projection_shape = (4, 4, 4), (4, 4)
    return theirs


@pytest.mark.parametrize("seed", range(6))
def test_segments_see_what_mumotts_see(seed):
    theirs = random_mumott_geometry(seed)
    expected = SphericalHarmonics(theirs.probed_coordinates, ell_max=4).projection_matrix
    ours = response_from(theirs).matrix(geometry_from(theirs), 4)
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    again = to_geometry(geometry_from(theirs), response_from(theirs))
    np.testing.assert_allclose(
        SphericalHarmonics(again.probed_coordinates, ell_max=4).projection_matrix, expected, atol=1e-4
    )


def test_small_circles_see_what_mumotts_see():
    """At a small angle, where MUMOTT's interpolation off the sphere does not matter yet (0.2 % at 2°)."""
    theirs = random_mumott_geometry(0)
    theirs.two_theta = [0.0, 0.002]
    expected = SphericalHarmonics(theirs.probed_coordinates, ell_max=4).projection_matrix
    np.testing.assert_allclose(response_from(theirs).matrix(geometry_from(theirs), 4), expected, atol=2e-4)


def test_coverage_that_mumott_misjudges_is_reported():
    theirs = to_geometry(geometry_from(random_mumott_geometry(1)), SaxsResponse([0.0, np.pi / 2]))
    theirs.full_circle_covered = True  # what MUMOTT 2.3 says of two segments over half a circle
    with pytest.warns(MumottFaultWarning, match="does not go with 2 detector angles"):
        assert response_from(theirs).full_circle is False
    theirs.detector_angles, theirs.full_circle_covered = [0.0, 0.1, 0.1], False
    with pytest.raises(ValueError, match="distinct angles"):
        response_from(theirs)
    uneven = np.append(np.arange(7) * np.pi / 7, 4.5)  # with more segments MUMOTT's word counts
    theirs.detector_angles, theirs.full_circle_covered = uneven, True
    assert response_from(theirs).full_circle is True


@pytest.mark.parametrize(
    "basis_set",
    [
        GaussianKernels(grid_scale=2),
        NearestNeighbor(Rotation.random(9, random_state=0).as_matrix()[:, 0]),
        SphericalHarmonics(ell_max=2),
    ],
    ids=lambda basis_set: type(basis_set).__name__,
)
def test_any_basis_set_is_a_response(basis_set):
    scan = some_scan()
    response = mumott_response(basis_set, SAXS.detector_angles_rad)
    assert response.channels == 5
    operator = TensorXRayTransform(scan.geometry, response, 2)
    assert operator.domain_shape[-1] == len(basis_set)
    basis_set.probed_coordinates = to_geometry(scan.geometry, SAXS).probed_coordinates
    np.testing.assert_allclose(operator.matrix, basis_set.projection_matrix, atol=1e-12)
    np.testing.assert_allclose(response.matrix(scan.geometry[1:]), basis_set.projection_matrix[1:], atol=1e-5)
    assert Scan(scan.data, scan.geometry, response)[1:].response is response


def test_what_is_no_basis_set_is_refused():
    with pytest.raises(TypeError, match="one of MUMOTT's basis sets, got int"):
        mumott_response(3, [0.0])
    with pytest.raises(ValueError, match="ell_max: expected 2, that of the basis set"):
        mumott_response(SphericalHarmonics(ell_max=2), [0.0, 1.0, 2.0]).matrix(some_scan().geometry, 4)
    assert TrivialBasis(1) is not None


def test_our_responses_are_basis_sets_of_mumotts():
    scan = some_scan(SecondMomentResponse())
    container = to_data_container(scan)
    basis_set = ResponseBasisSet(scan.response, container.geometry, ell_max=2)
    coefficients = np.random.default_rng(0).normal(size=(3, 8, 9, 6))
    matrix = scan.response.matrix(scan.geometry, 2).numpy()
    np.testing.assert_allclose(
        basis_set.forward(coefficients), np.einsum("vmc,vjkc->vjkm", matrix, coefficients), atol=1e-12
    )
    residuals = np.random.default_rng(1).normal(size=(3, 8, 9, 3))
    np.testing.assert_allclose(
        basis_set.gradient(residuals), np.einsum("vmc,vjkm->vjkc", matrix, residuals), atol=1e-12
    )
    container.geometry.rotate_reconstruction(Rotation.from_euler("x", 0.4).as_matrix())
    basis_set.probed_coordinates = container.geometry.probed_coordinates
    moved = scan.response.matrix(geometry_from(container.geometry), 2)
    np.testing.assert_allclose(basis_set.projection_matrix, moved, atol=1e-12)
    basis_set.ell_max = 4
    assert basis_set.projection_matrix.shape == (3, 3, 15)
    assert len(basis_set) == 15


def test_our_coefficients_are_mumotts():
    """A function stretched along one direction: MUMOTT's output must find the direction and the mean."""
    axis = np.array([0.6, 0.64, 0.48])
    tensor = np.eye(3) + 2 * np.outer(axis, axis)  # f(q) = qᵀ(1 + 2aaᵀ)q
    directions = Rotation.random(400, random_state=0).as_matrix()[:, 0]
    from ddf_tomo.operators.spherical_harmonics import evaluate

    values = np.einsum("na,ab,nb->n", directions, tensor, directions)
    coefficients = np.linalg.lstsq(np.asarray(evaluate(directions, 2)), values, rcond=None)[0]
    output = SphericalHarmonics(ell_max=2).get_output(np.tile(coefficients, (1, 1, 1, 1)))
    np.testing.assert_allclose(output.mean_intensity, np.trace(tensor) / 3)
    # MUMOTT sorts eigenvalues ascending; the largest belongs to the axis
    found = np.stack([output.eigenvector_1, output.eigenvector_2, output.eigenvector_3]).reshape(3, 3)
    eigenvalues = np.stack([output.eigenvalue_1, output.eigenvalue_2, output.eigenvalue_3]).ravel()
    assert abs(found[eigenvalues.argmax()] @ axis) == pytest.approx(1)


# -- what pipelines return --------------------------------------------------------------------------------------------


def pipeline_output(basis, count):
    return {"result": {"x": np.random.default_rng(0).normal(size=(6, 5, 7, count))}, "basis_set": basis}


def test_harmonics_pass_as_they_are():
    scan = some_scan()
    output = pipeline_output(SphericalHarmonics(ell_max=4), 15)
    found = reconstruction_from(output, scan)
    np.testing.assert_array_equal(found.coefficients, output["result"]["x"].astype(np.float32))
    assert (found.ell_max, found.geometry, found.response) == (4, scan.geometry, scan.response)
    assert found.provenance["made_by"] == "MUMOTT"


def test_other_basis_sets_become_harmonics_with_the_same_function():
    basis = GaussianKernels(grid_scale=3)
    output = pipeline_output(basis, len(basis))
    found = reconstruction_from(output, some_scan(), ell_max=6)
    expected = basis.get_spherical_harmonic_coefficients(output["result"]["x"], ell_max=6)
    np.testing.assert_allclose(found.coefficients, expected, rtol=1e-5, atol=1e-6)
    assert found.ell_max == 6


def test_foreign_outputs_are_refused():
    scan = some_scan()
    for output in (None, {}, {"result": 3, "basis_set": 4}, [1, 2]):
        with pytest.raises(TypeError, match=r"^output: expected what a MUMOTT pipeline returns"):
            reconstruction_from(output, scan)
    with pytest.raises(ValueError, match=r"^output"):
        reconstruction_from(pipeline_output(SphericalHarmonics(ell_max=2), 15), scan)
