"""Each quantity of the maps becomes the data that its response predicts, with its own variances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ddf_tomo import Geometry, Scan
from ddf_tomo.operators.rank_two import coefficients_from_tensor
from ddf_tomo.operators.responses import DirectionalVisibilityResponse, RankTwoResponse, SecondMomentResponse
from ddf_tomo.retrieval import attenuation, projected_decrement
from tests.scans import some_maps

SHAPE = (4, 6, 5)
GEOMETRY = Geometry.from_angles(np.linspace(0, 2, 4), 0.3, (6, 7, 5), (6, 5))
UNIT = (1e-5 / 2.0) ** 2 / 1e-12


def test_rank_two_data_are_what_a_tensor_of_rank_two_gives():
    """A harmonic function of order 2 and its tensor: second moments of the one are the other's data after the map."""
    tensor = np.array([2.0, 0.3, -0.2, 1.0, 0.4, 0.5])
    matrix = np.array(
        [[tensor[0], tensor[1], tensor[2]], [tensor[1], tensor[3], tensor[4]], [tensor[2], tensor[4], tensor[5]]]
    )
    coefficients = coefficients_from_tensor(tensor[None])[0]  # of f(q) = q M q
    moments = np.einsum("vmc,c->vm", SecondMomentResponse().matrix(GEOMETRY, 2).numpy(), coefficients)
    covariance = np.broadcast_to(moments[:, None, None], (*SHAPE, 3)) / UNIT
    scan = Scan.from_maps(some_maps(covariance=covariance.copy()), GEOMETRY, quantity="rank-two")
    assert scan.response == RankTwoResponse()
    for view in range(4):
        j, k = GEOMETRY.j[view], GEOMETRY.k[view]
        expected = [j @ matrix @ j, j @ matrix @ k, k @ matrix @ k]
        np.testing.assert_allclose(scan.data[view, 2, 2], expected, rtol=1e-10)


def test_rank_two_errors_know_of_correlations():
    """Against samples of the noise: the errors of C_jj and C_kk go together."""
    generator = np.random.default_rng(0)
    root = np.array([[0.5, 0, 0], [0.1, 0.4, 0], [0.3, 0.2, 0.6]])
    covariance = root @ root.T
    full = np.zeros((6, 6))
    full[3:, 3:] = covariance
    errors = np.broadcast_to(np.sqrt(np.diag(covariance)), (*SHAPE, 3)).copy()
    matrix = np.broadcast_to(full[np.triu_indices(6)], (*SHAPE, 21)).copy()
    scan = Scan.from_maps(some_maps(covariance_error=errors, error_matrix=matrix), GEOMETRY, quantity="rank-two")
    noise = generator.normal(size=(200_000, 3)) @ root.T
    drawn = some_maps((1, 400, 500), covariance=noise.reshape(1, 400, 500, 3))
    wide = Geometry.from_angles([0.0], 0.0, (4, 4, 4), (400, 500))
    spread = Scan.from_maps(drawn, wide, quantity="rank-two", weighted=False).data.reshape(-1, 3).std(0)
    np.testing.assert_allclose(scan.weights[0, 0, 0] ** -0.5, spread, rtol=0.01)
    alone = Scan.from_maps(some_maps(covariance_error=errors), GEOMETRY, quantity="rank-two")
    assert alone.weights[0, 0, 0, 0] < scan.weights[0, 0, 0, 0]  # without the matrix they count as independent


@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_visibilities_of_several_lengths_are_joined_by_their_law(library):
    generator = np.random.default_rng(0)
    azimuths, lengths, beta = (0.0, 0.7, 1.4, 2.1), (2e-7, 4e-7, 1e-6), 1.3
    longest = generator.uniform(0.5, 1, (*SHAPE, 4))
    values = np.stack([longest * (length / 1e-6) ** beta for length in lengths], -2)
    errors = generator.uniform(0.01, 0.1, values.shape)
    errors[0, 0, 0, :, 0] = np.inf
    values[0, 0, 0, :, 0] = 0
    flat = (library(each.reshape(*SHAPE, 12)) for each in (values, errors))
    seen_at = {"azimuths_rad": azimuths, "correlation_lengths_m": lengths}
    maps = replace(
        some_maps(library=library), **dict(zip(("visibility", "visibility_error"), flat, strict=True)), **seen_at
    )
    scan = Scan.from_maps(maps, GEOMETRY, quantity="visibility", exponent=beta)
    assert scan.response == DirectionalVisibilityResponse(azimuths, beta)
    assert np.asarray(scan.weights)[0, 0, 0].tolist()[0] == 0
    seen = np.asarray(scan.weights) > 0
    np.testing.assert_allclose(np.asarray(scan.data)[seen], longest[seen], rtol=1e-9)
    growth = (np.array(lengths) / 1e-6) ** beta
    np.testing.assert_allclose(
        np.asarray(scan.weights)[1, 2, 3], (growth[:, None] ** 2 / errors[1, 2, 3] ** 2).sum(0), rtol=1e-9
    )
    one = Scan.from_maps(maps, GEOMETRY, quantity="visibility", exponent=beta, correlation_length_m=4e-7)
    np.testing.assert_allclose(np.asarray(one.data)[1:], values[1:, ..., 1, :], rtol=1e-9)
    np.testing.assert_allclose(np.asarray(one.weights)[1:], errors[1:, ..., 1, :] ** -2.0, rtol=1e-9)
    with pytest.raises(ValueError, match="correlation_length_m: expected one of 2e-07, 4e-07, 1e-06"):
        Scan.from_maps(maps, GEOMETRY, quantity="visibility", exponent=beta, correlation_length_m=5e-7)
    with pytest.raises(TypeError, match=r"exponent: expected a finite number in \(0, 2\]"):
        Scan.from_maps(maps, GEOMETRY, quantity="visibility")


def test_scalars_have_one_channel_and_their_own_weights():
    maps = some_maps(transmission_error=np.full(SHAPE, 0.01), displacement_error=np.full((*SHAPE, 2), 0.002))
    found = Scan.from_maps(maps, GEOMETRY, quantity="attenuation")
    values, errors = attenuation(maps)
    np.testing.assert_array_equal(found.data[..., 0], values)
    np.testing.assert_allclose(found.weights[..., 0], errors**-2.0)
    plain = Scan.from_maps(maps, GEOMETRY, quantity="attenuation", propagation=False)
    np.testing.assert_allclose(plain.data[..., 0], -np.log(maps.transmission))
    delta = Scan.from_maps(maps, GEOMETRY, quantity="phase", air="rows")
    np.testing.assert_allclose(delta.data[..., 0], projected_decrement(maps, air="rows") / 1e-6)
    angle = 0.002 * 1e-5 / 2.0 / 1e-6
    np.testing.assert_allclose(delta.weights, angle**-2.0)
    assert delta.provenance["data_unit"] == "1e-06 voxel edges"


def test_quantities_that_are_not_there():
    with pytest.raises(ValueError, match="quantity: expected one of 'scattering', 'rank-two', 'visibility'"):
        Scan.from_maps(some_maps(), GEOMETRY, quantity="refraction")
    with pytest.raises(ValueError, match=r"maps.visibility: expected maps that hold visibilities, got none"):
        Scan.from_maps(some_maps(), GEOMETRY, quantity="visibility", exponent=1.0)
    exact = some_maps(transmission_error=np.zeros(SHAPE), displacement_error=np.zeros((*SHAPE, 2)))
    with pytest.raises(ValueError, match=r"maps.transmission_error: expected positive"):
        Scan.from_maps(exact, GEOMETRY, quantity="attenuation")
    assert Scan.from_maps(exact, GEOMETRY, quantity="attenuation", weighted=False).weights.all()
