"""Views that were moved on purpose are found again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ddf_tomo import Geometry, IsotropicResponse, RankTwoResponse, Scan, SecondMomentResponse, TensorXRayTransform
from ddf_tomo.alignment import Alignment, absorption_of, align, find_centre
from ddf_tomo.alignment.freedom import Freedom
from ddf_tomo.alignment.joint import Level
from ddf_tomo.operators.geometry_gradient import corrected
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.solvers import Checkpoint

NOMINAL = tilt_series((16, 16, 16), views=[14, 14], tilts_rad=[0.1, 0.6])


def sample(shape):
    """Orders up to 2, which the model has."""
    return helicoidal_fibres(shape, ell_max=2)


def jitter(geometry=NOMINAL, size=1.0, rotation=0.0, seed=0):
    generator = np.random.default_rng(seed)
    corrections = generator.normal(0, size, (len(geometry), 5))
    corrections[:, 2:] *= rotation / size
    return corrections


def measured(corrections, response=None, noise=0.02, nominal=NOMINAL, seed=0):
    moved = corrected(nominal, corrections)
    scan = simulate(sample, moved, response or SecondMomentResponse(), noise=noise, seed=seed, oversampling=1)
    return replace(scan, geometry=nominal)


def apart(found, truth, geometry=NOMINAL):
    """Errors without the translation that no data can tell."""
    return Freedom(geometry).without_gauge(torch.from_numpy(found - truth)).numpy()


@pytest.mark.parametrize("response", [SecondMomentResponse(), IsotropicResponse()], ids=lambda r: type(r).__name__)
def test_offsets_are_found_to_a_tenth_of_a_pixel(response):
    truth = jitter()
    scan = measured(truth, response)
    found = align(scan, progress=False)
    errors = np.linalg.norm(apart(found.offsets, truth[:, :2]), axis=1)
    assert np.median(np.linalg.norm(apart(0 * truth[:, :2], truth[:, :2]), axis=1)) > 1
    assert np.median(errors) < 0.1
    assert errors.max() < 0.3
    assert found.residuals[-1] < 0.3 * found.residuals[0]
    again = found.apply(scan)
    assert again.geometry == found.geometry
    assert again.data is scan.data
    assert "alignment" in again.provenance
    assert "standard error" in found.summary()
    # It is where it should be: nothing is left to find.
    assert np.abs(align(again, search=0, levels=1, iterations=1, progress=False).offsets).max() < 0.1


def test_errors_are_of_the_size_that_is_stated():
    """Noise of different seeds on the same offsets: spread of what is found, beside the errors stated."""
    nominal = tilt_series((12, 12, 12), views=[9, 9], tilts_rad=[0.1, 0.6])
    truth = jitter(nominal, 0.4)
    found = [
        align(measured(truth, IsotropicResponse(), 0.04, nominal, seed), search=0, levels=1, progress=False)
        for seed in range(5)
    ]
    spread = np.std([each.offsets for each in found], axis=0, ddof=1)
    stated = np.mean([each.offset_error for each in found], axis=0)
    ratio = np.sqrt((spread**2).mean() / (stated**2).mean())
    assert 0.6 < ratio < 1.6


def test_rotations():
    """Tensor data tell them by their directions as well; rotations of 3° move the rim by less than half a pixel."""
    truth = jitter(size=0.5, rotation=0.05)
    found = align(measured(truth, noise=0.005), rotations=True, levels=1, search=0, iterations=4, progress=False)
    freedom = Freedom(NOMINAL, rotations=True)
    corrections = np.concatenate([found.offsets, found.rotations], axis=1)
    left, there = (freedom.without_gauge(torch.from_numpy(c)).numpy() for c in (corrections - truth, truth))
    assert (np.sqrt((left**2).mean(0)) < np.array([0.05, 0.05, 0.2, 0.2, 0.2]) * np.sqrt((there**2).mean(0))).all()
    assert (found.rotation_error > 0).all()
    assert "rotations: up to" in found.summary()


def test_a_smooth_drift():
    place = np.linspace(-1, 1, len(NOMINAL))
    truth = np.zeros((len(NOMINAL), 5))
    truth[:, 0], truth[:, 1] = 1.2 * place**2, -0.9 * place
    found = align(measured(truth, noise=0.05), drift=2, progress=False)
    assert np.abs(np.diff(found.offsets, 3, axis=0)).max() < 1e-9
    assert np.abs(apart(found.offsets, truth[:, :2])).max() < 0.08


@pytest.mark.parametrize("offset", [2.3, -1.4])
def test_centre_of_rotation(offset):
    nominal = tilt_series((16, 16, 16), views=[30], tilts_rad=[0.0])
    truth = np.zeros((30, 5))
    truth[:, 0] = offset
    found = find_centre(measured(truth, nominal=nominal), progress=False)
    np.testing.assert_allclose(found.offsets[:, 0], offset, atol=0.06)
    np.testing.assert_allclose(found.offsets[:, 1], 0, atol=1e-9)
    assert np.isinf(found.offset_error[:, 1]).all(), "a shift along the axis is seen by nobody"
    assert (found.offset_error[:, 0] < 0.1).all()
    assert found.geometry == corrected(nominal, np.concatenate([found.offsets, found.rotations], 1))


def test_the_diode_tells_too():
    truth = jitter()
    absorption = measured(truth, IsotropicResponse(), noise=0.0)
    transmission = np.exp(-absorption.data[..., 0] / absorption.data.max())
    ones = np.zeros((*transmission.shape, 3), np.float32)
    scan = Scan(ones, NOMINAL, SecondMomentResponse(), diode=transmission)
    found = align(scan, signal="diode", progress=False)
    assert np.median(np.linalg.norm(apart(found.offsets, truth[:, :2]), axis=1)) < 0.1
    np.testing.assert_allclose(absorption_of(scan).data, absorption.data / absorption.data.max(), atol=1e-6)
    with pytest.raises(ValueError, match="zero everywhere"):
        align(scan)


def test_the_joint_step_is_the_minimum_over_volume_and_offsets():
    """Against dense linear algebra on a tiny problem."""
    nominal = tilt_series((4, 4, 4), views=[6], tilts_rad=[0.3])
    scan = measured(jitter(nominal, 0.2), IsotropicResponse(), 0.05, nominal)
    level, freedom = Level(scan, 0, 1e-2), Freedom(nominal)
    here = torch.zeros(6, 5, dtype=torch.float64)
    x = level.volume(here, 30)
    at = level.linearised(x, here, freedom)
    found, steps = at.step(x, 400)
    voxels = x.numel()
    columns = [at.A(e.reshape(x.shape)).flatten() for e in torch.eye(voxels)]
    unit = torch.eye(12, dtype=torch.float64)
    columns += [at.change(e.reshape(6, 2)).flatten() for e in unit]
    roots = level.weights.flatten().sqrt().double()
    matrix = torch.stack(columns, 1).double() * roots[:, None]
    rough = torch.stack([level.differences(e.reshape(x.shape)).flatten() for e in torch.eye(voxels)], 1).double()
    normal = matrix.T @ matrix
    normal[:voxels, :voxels] += level.penalty_weight * rough.T @ rough
    normal[voxels:, voxels:] += torch.diag(at.damping.flatten())
    solved = torch.linalg.solve(normal, matrix.T @ (roots * level.data.flatten()))
    expected = freedom.without_gauge(solved[voxels:].reshape(6, 2))
    torch.testing.assert_close(steps, expected, rtol=0, atol=0.02 * float(expected.abs().max()))
    torch.testing.assert_close(found.double().flatten(), solved[:voxels], rtol=0, atol=0.02 * float(x.abs().max()))


def test_stopped_and_gone_on_from(tmp_path):
    """What is interrupted goes on to the same end."""
    scan = measured(jitter(), IsotropicResponse())
    path = tmp_path / "state.h5"
    options = {"iterations": 2, "progress": False}
    whole = align(scan, **options)

    class Interrupted(Exception):
        pass

    def interrupt(iteration, corrections, residual):
        assert corrections.shape == (28, 5)
        if iteration == 4:
            raise Interrupted

    with pytest.raises(Interrupted):
        align(scan, callback=interrupt, checkpoint=Checkpoint(path, every_s=0), **options)
    assert path.exists()
    went_on = align(scan, checkpoint=path, **options)
    np.testing.assert_allclose(went_on.offsets, whole.offsets, atol=1e-5)
    with pytest.raises(ValueError, match="checkpoint"):
        align(scan, checkpoint=path, smoothness=0.1, **options)
    stopped = align(scan, callback=lambda *_: True, **options)
    assert (stopped.stopped_by, len(stopped.residuals)) == ("callback", 2)


def test_a_view_without_signal_stays():
    truth = jitter()
    scan = measured(truth)
    weights = np.array(scan.weights)
    weights[5] = 0
    found = align(replace(scan, weights=weights), levels=1, iterations=2, progress=False)
    assert np.isfinite(found.offsets).all()
    assert np.isinf(found.offset_error[5]).all()
    others = np.delete(apart(found.offsets, truth[:, :2]), 5, axis=0)
    assert np.median(np.abs(others)) < 0.2


def test_tensors_of_rank_two():
    truth = jitter(size=0.4)

    def tensors(shape):
        return torch.from_numpy(np.asarray(helicoidal_fibres(shape, ell_max=2).tensors()))

    moved = corrected(NOMINAL, truth)
    x = tensors((16, 16, 16)).float()
    data = TensorXRayTransform(moved, RankTwoResponse(), 2)(x)
    found = align(Scan(data, NOMINAL, RankTwoResponse()), search=0, levels=1, progress=False)
    assert isinstance(found, Alignment)
    assert np.median(np.linalg.norm(apart(found.offsets, truth[:, :2]), axis=1)) < 0.1


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"signal": "nothing"}, ValueError, "signal: expected one of"),
        ({"signal": "diode"}, ValueError, "scan: expected one with a diode"),
        ({"ell_max": 3}, ValueError, "ell_max: expected an even order"),
        ({"drift": 40}, ValueError, "drift"),
        ({"drift": 1, "search": 3.0}, ValueError, "search: expected 0 or None with a drift"),
        ({"levels": 9}, ValueError, "levels: expected an integer"),
        ({"smoothness": 0.0}, ValueError, "smoothness"),
        ({"rotations": 1}, TypeError, "rotations: expected True or False"),
        ({"iterations": 0}, ValueError, "iterations"),
    ],
)
def test_bad_input(options, error, text):
    geometry = Geometry.from_angles([0.0, 0.4], 0.0, (8, 8, 8), (8, 8))
    scan = Scan(np.ones((2, 8, 8, 1)), geometry, IsotropicResponse())
    with pytest.raises(error, match=text):
        align(scan, **options)
    with pytest.raises(TypeError, match="scan: expected a ddf_tomo"):
        align(scan.data)


@pytest.mark.parametrize("unit", [1e-25, 1e25])
def test_units_do_not_matter(unit):
    scan = measured(jitter(), IsotropicResponse())
    data, weights = np.float64(scan.data) * unit, np.full(len(scan), 1 / unit)
    options = {"levels": 1, "iterations": 1, "progress": False}
    expected = align(replace(scan, weights=None), **options).offsets
    np.testing.assert_allclose(align(replace(scan, data=data, weights=weights), **options).offsets, expected, atol=1e-4)
