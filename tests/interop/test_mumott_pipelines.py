"""MUMOTT's pipelines with our projector: its own numbers, after equal iterations, where the sample is."""

from __future__ import annotations

import logging

import numpy as np
import pytest

mumott = pytest.importorskip("mumott")

from mumott.methods.basis_sets import GaussianKernels, SphericalHarmonics  # noqa: E402
from mumott.methods.projectors import SAXSProjector  # noqa: E402
from mumott.methods.residual_calculators import (  # noqa: E402
    GradientResidualCalculator,
    ZHTTResidualCalculator,
)
from mumott.methods.utilities import get_tensor_sirt_weights  # noqa: E402
from mumott.optimization.loss_functions import SquaredLoss  # noqa: E402
from mumott.pipelines import (  # noqa: E402
    run_discrete_directions,
    run_fbp,
    run_group_lasso,
    run_mitra,
    run_phase_matching_alignment,
    run_sigtt,
    run_sirt,
)
from mumott.pipelines.optical_flow_alignment import run_optical_flow_alignment  # noqa: E402

from ddf_tomo.geometry import Geometry  # noqa: E402
from ddf_tomo.interop.mumott import (  # noqa: E402
    Projector,
    ResponseBasisSet,
    VoxelDrivenProjector,
    geometry_from,
    substituted,
    to_data_container,
)
from ddf_tomo.operators.responses import SaxsResponse, SecondMomentResponse  # noqa: E402
from ddf_tomo.operators.tensor import TensorXRayTransform  # noqa: E402
from ddf_tomo.operators.xray import XRayTransform  # noqa: E402
from ddf_tomo.scan import Scan  # noqa: E402

VOLUME, DETECTOR = 14, 25  # the detector sees the whole volume: at its low edges MUMOTT 2.3 reads wrong pixels

BORDER = np.zeros((*[VOLUME] * 3, 1))
BORDER[2:-2, 2:-2, 2:-2] = 1


def sample():
    """Two blobs, the coefficients of which differ; zero near the faces, where MUMOTT 2.3 reads wrong voxels."""
    axes = np.meshgrid(*[np.arange(VOLUME) + 0.5 - VOLUME / 2] * 3, indexing="ij")

    def blob(centre):
        return BORDER[..., 0] * np.exp(-sum((a - c) ** 2 for a, c in zip(axes, centre, strict=True)) / (2 * 1.5**2))

    first, second = blob((1.0, -1.0, 0.5)), blob((-1.5, 1.0, -1.0))
    coefficients = np.zeros((*[VOLUME] * 3, 6))
    coefficients[..., 0], coefficients[..., 1], coefficients[..., 3] = first + second, 0.3 * second, 0.4 * first
    return coefficients


DENSITY = sample()[..., 0]
SAMPLE = 0.1 * DENSITY.max() < DENSITY


def data_container(views=24, response=None, displaced=0.0, detector=DETECTOR):
    """Two series of rotations, one of them tilted; a transmission image to each view."""
    inner = np.tile(np.arange(views // 2), 2) * np.pi / (views // 2) * np.repeat([1, 2], views // 2)
    geometry = Geometry.from_angles(inner, np.repeat([0, 0.6], views // 2), [VOLUME] * 3, [detector] * 2)
    response = SaxsResponse(np.arange(5) * np.pi / 5) if response is None else response
    data = TensorXRayTransform(geometry, response, 2)(sample())
    diode = np.exp(-0.2 * XRayTransform(geometry)(DENSITY[..., None])[..., 0])
    container = to_data_container(Scan(data, geometry, response, diode=diode))
    shifts = displaced * np.random.default_rng(0).normal(size=(2, views))
    container.geometry.j_offsets, container.geometry.k_offsets = list(shifts[0]), list(shifts[1])
    return container


def sigtt(projector):
    # The faces are left empty: there MUMOTT 2.3 reads wrong voxels, which L-BFGS carries into the sample.
    options = {"loss_function_kwargs": {"preconditioner": BORDER}, "basis_set_kwargs": {"ell_max": 2}}
    return run_sigtt(data_container(), Projector=projector, maxiter=8, ftol=0, **options)


def mitra(projector):
    return run_mitra(data_container(), Projector=projector, maxiter=8, optimizer_kwargs={"no_tqdm": True})


def mitra_of_tensors(projector):
    options = {"use_absorbances": False, "optimizer_kwargs": {"no_tqdm": True}}
    return run_mitra(data_container(), Projector=projector, maxiter=8, **options)


def sirt(projector):
    return run_sirt(data_container(), Projector=projector, maxiter=8, no_tqdm=True)


def filtered_backprojection(projector):
    return run_fbp(data_container(), Projector=projector)


def group_lasso(projector):
    options = {"step_size_parameter": 2e-4, "ell_max": 2, "maxiter": 8, "no_tqdm": True}
    if projector is SAXSProjector:
        return run_group_lasso(data_container(), 1e-3, **options)
    with substituted(projector):
        found = run_group_lasso(data_container(), 1e-3, **options)
    assert type(found["projector"]) is projector
    return found


def discrete_directions(projector):
    options = {"directions": np.eye(3)[:2], "maxiter": 4, "no_tqdm": True}
    if projector is SAXSProjector:
        return run_discrete_directions(data_container(), **options)
    with substituted(projector):
        return run_discrete_directions(data_container(), **options)


PIPELINES = [sigtt, mitra, mitra_of_tensors, sirt, filtered_backprojection, group_lasso, discrete_directions]


@pytest.fixture(autouse=True)
def _quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def relative(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda pipeline: pipeline.__name__)
def test_mumotts_numbers_after_equal_iterations(pipeline):
    expected = pipeline(SAXSProjector)["result"]["x"]
    found = pipeline(VoxelDrivenProjector)["result"]["x"]
    assert found.shape == expected.shape
    assert relative(found[SAMPLE], expected[SAMPLE]) < 0.01


@pytest.mark.parametrize("pipeline", [sigtt, mitra, mitra_of_tensors, sirt], ids=lambda pipeline: pipeline.__name__)
def test_the_exact_adjoint_fits_no_worse(pipeline):
    """With the transpose in its place, the same iterations must bring the loss at least as far down."""
    found, theirs = (pipeline(projector)["result"] for projector in (Projector, VoxelDrivenProjector))
    loss = "fun" if "fun" in found else "loss"
    assert found[loss] <= theirs[loss]
    assert relative(found["x"][SAMPLE], theirs["x"][SAMPLE]) < 0.1


@pytest.mark.slow
def test_backprojections_are_mumotts():
    geometry = data_container().geometry
    projections = np.random.default_rng(0).normal(size=(24, DETECTOR, DETECTOR, 3))
    found = VoxelDrivenProjector(geometry).adjoint(projections[:5], np.arange(0, 24, 5))
    expected = SAXSProjector(geometry).adjoint(np.ascontiguousarray(projections[:5]), np.arange(0, 24, 5))
    np.testing.assert_allclose(found, expected, atol=1e-12 * np.abs(expected).max())


@pytest.mark.slow
def test_zonal_harmonics():
    """The residual calculator of zonal harmonics: residuals and gradients of both parts, from equal coefficients."""
    container = data_container()
    found = {}
    for projector in (SAXSProjector, VoxelDrivenProjector, Projector):
        calculator = ZHTTResidualCalculator(container, SphericalHarmonics(ell_max=2), projector(container.geometry))
        angles = np.stack([0.5 + 0.1 * DENSITY, 1.0 - 0.2 * DENSITY], axis=-1)
        calculator.coefficients = np.concatenate([DENSITY[..., None] * [1.0, 0.5], angles], axis=-1)
        found[projector] = calculator.get_residuals(get_gradient=True, gradient_part="full")
    expected = found[SAXSProjector]
    for projector, tolerance in ((VoxelDrivenProjector, 1e-5), (Projector, 0.05)):
        assert relative(found[projector]["residuals"], expected["residuals"]) < 1e-5
        assert relative(found[projector]["gradient"], expected["gradient"]) < tolerance


@pytest.mark.slow
def test_alignment_by_phase_matching_follows_the_geometry():
    """Each step moves the offsets and projects again: after two, they must be where MUMOTT's projector takes them."""
    found = {}
    for projector in (SAXSProjector, VoxelDrivenProjector):
        container = data_container(views=12, displaced=2.0)
        before = container.geometry.j_offsets_as_array
        result = run_phase_matching_alignment(
            container,
            reconstruction_pipeline=run_sirt,
            reconstruction_pipeline_kwargs={"Projector": projector, "maxiter": 3},
            maxiter=2,
            relative_sample_size=1.0,
        )
        assert result["projections"].shape == (12, DETECTOR, DETECTOR, 1)
        found[projector] = np.stack([container.geometry.j_offsets_as_array, container.geometry.k_offsets_as_array])
        assert np.abs(found[projector][0] - before).max() > 0.3
    np.testing.assert_allclose(found[VoxelDrivenProjector], found[SAXSProjector], atol=0.05)


def test_alignment_by_optical_flow():
    container = data_container(views=12, detector=VOLUME)  # it insists on a detector of the volume's size
    with substituted():
        shifts, _, tomogram = run_optical_flow_alignment(
            container, volume=(VOLUME,) * 3, main_rot_axis=1, stop_max_iteration=2, rec_iteration=3
        )
    assert np.isfinite(shifts).all()
    assert np.abs(shifts).max() < 0.5  # nothing was displaced
    assert np.corrcoef(tomogram[..., 0].ravel(), DENSITY.ravel())[0, 1] > 0.8


def test_weights_and_losses_of_mumott_take_it():
    container = data_container()
    projector = Projector(container.geometry)
    basis_set = GaussianKernels(grid_scale=2, probed_coordinates=container.geometry.probed_coordinates)
    weights = get_tensor_sirt_weights(projector, basis_set)
    assert weights.shape == container.data.shape
    assert weights.max() > 0
    loss = SquaredLoss(GradientResidualCalculator(container, basis_set, projector), use_weights=True)
    assert loss.get_loss(np.zeros((*[VOLUME] * 3, len(basis_set))), get_gradient=True)["gradient"].dtype == np.float32


def test_directional_dark_field_data_in_mumotts_sigtt():
    """Second moments through MUMOTT's optimiser: its gradient is ours, its result finds the sample."""
    response = SecondMomentResponse()
    container = data_container(response=response)
    options = {"response": response, "geometry": container.geometry, "ell_max": 2}
    basis_set = ResponseBasisSet(**options)
    calculator = GradientResidualCalculator(container, basis_set, Projector(container.geometry))
    start = np.random.default_rng(0).normal(size=(*[VOLUME] * 3, 6)).astype(np.float32)
    calculator.coefficients = start
    operator = TensorXRayTransform(geometry_from(container.geometry), response, 2)
    gradient = operator.T(operator(start.astype(float)) - container.data)
    assert relative(calculator.get_residuals(get_gradient=True)["gradient"], gradient) < 1e-5

    kwargs = {"BasisSet": ResponseBasisSet, "basis_set_kwargs": options, "Projector": Projector}
    result = run_sigtt(container, maxiter=15, ftol=0, regularization_weight=1e-3, **kwargs)["result"]["x"]
    assert relative(result[SAMPLE], sample()[SAMPLE]) < 0.15
    output = basis_set.get_output(result)
    np.testing.assert_allclose(output.mean_intensity[SAMPLE], DENSITY[SAMPLE], atol=0.2 * DENSITY.max())
