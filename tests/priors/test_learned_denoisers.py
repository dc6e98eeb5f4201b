"""Denoisers of coefficients: what they commute with, what they take, and that they learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ddf_tomo.operators.cube_rotations import CUBE_ROTATIONS
from ddf_tomo.operators.rotation import rotate, wigner_blocks
from ddf_tomo.operators.spherical_harmonics import coefficient_count, power
from ddf_tomo.phantoms import helicoidal_fibres
from ddf_tomo.priors.learned import EquivariantDenoiser, GradientStep, ResidualUNet
from ddf_tomo.priors.learned.denoiser import NOISE_NUMBERS, heights, smoothed
from ddf_tomo.priors.learned.steerable import FEATURE_ORDERS, STENCIL, SteerableConvolution, kernel_basis
from ddf_tomo.weights import ModelCard, load_network, save_network

FEW = ((4, 2, 2, 1, 1, 1), (5, 2, 2, 2, 1, 1), (6, 2, 2, 2, 1, 1))
NETWORKS = {"plain": lambda: ResidualUNet((6, 8, 10)), "equivariant": lambda: EquivariantDenoiser(FEW)}
every_network = pytest.mark.parametrize("name", NETWORKS)


def network(name, seed=0):
    torch.manual_seed(seed)
    return NETWORKS[name]().eval()


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


# -- rotations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ell_max", [2, 4, 8])
@torch.no_grad()
def test_the_24_rotations_of_the_cube(ell_max):
    """Of the correction alone, which is what the network makes; of sides of three lengths, odd ones too."""
    denoiser = network("equivariant")
    phantom = torch.as_tensor(helicoidal_fibres((7, 8, 10), ell_max).coefficients, dtype=torch.float32)
    x = phantom + 0.2 * noise(*phantom.shape)
    correction = denoiser(x, 0.2) - x
    for rotation in CUBE_ROTATIONS:
        turned = rotation.volume(x)
        assert relative(denoiser(turned, 0.2) - turned, rotation.volume(correction)) < 1e-5


@torch.no_grad()
def test_mirror_images():
    denoiser, mirror = network("equivariant"), np.diag([1.0, -1.0, 1.0])
    x = noise(6, 7, 5, 15)

    def mirrored(volume):
        return rotate(volume.flip(1), mirror)

    assert relative(denoiser(mirrored(x), 0.3) - mirrored(x), mirrored(denoiser(x, 0.3) - x)) < 1e-5


@torch.no_grad()
def test_the_plain_network_does_not_know_of_rotations():
    """The test above can fail: by what the network adds to means over neighbours, which know."""
    denoiser, x, rotation = network("plain"), noise(6, 6, 6, 6), CUBE_ROTATIONS[5]

    def added(volume):
        return denoiser.correction(volume.movedim(-1, 0)[None], torch.zeros(1, NOISE_NUMBERS), 2)[0][0].movedim(0, -1)

    assert relative(added(rotation.volume(x)), rotation.volume(added(x))) > 0.1


@pytest.mark.parametrize("features", FEATURE_ORDERS)
@pytest.mark.parametrize("results", FEATURE_ORDERS)
def test_kernels_turn_with_the_cube(features, results):
    """``K(Q r) = D_o K(r) D_iᵀ`` with Wigner's matrices, which know nothing of the kernels."""
    basis = kernel_basis(features, results)
    for rotation in (CUBE_ROTATIONS[7], CUBE_ROTATIONS[14]):
        Q = rotation.matrix
        places = [int(np.flatnonzero((r == STENCIL).all(1))[0]) for r in STENCIL @ Q.T]
        left, right = (turning(Q, ell) for ell in (results, features))
        expected = torch.einsum("ab,nbck,dc->nadk", left, basis, right)
        torch.testing.assert_close(basis[..., places], expected, atol=1e-12, rtol=0)


def turning(Q, ell):
    if ell == 1:  # harmonics of order 1 are (y, z, x)
        order = [1, 2, 0]
        return torch.from_numpy(Q[np.ix_(order, order)].copy())
    return wigner_blocks(Q, ell)[-1]


@torch.no_grad()
def test_other_rotations_up_to_the_grid():
    """A smooth blob off the axis, turned in continuous space: what the convolutions make of it keeps its power."""
    torch.manual_seed(0)
    layer = SteerableConvolution((1, 0, 1, 1, 0, 0), (2, 0, 2, 2, 0, 0)).double()
    axes = torch.stack(torch.meshgrid(*[torch.arange(21.0, dtype=torch.float64) - 10] * 3, indexing="ij"), -1)
    values = noise(15, dtype=torch.float64)

    def powers(Q):
        centre = torch.from_numpy(Q @ [1.0, 2.0, -0.5])
        blob = torch.exp(-(axes - centre).square().sum(-1) / (2 * 2.5**2))
        made = layer((blob[..., None] * rotate(values, Q)).movedim(-1, 0)[None], 4)[0].flatten(1).square().sum(1)
        return torch.stack([part.sum() for part in made.split([2, 10, 18])])

    straight = powers(np.eye(3))
    for seed in range(3):
        # Measured: 0.07 % at most; 1 % where the blob is as narrow as a voxel.
        assert relative(powers(Rotation.random(random_state=seed).as_matrix()), straight) < 0.005


# -- means over neighbours --------------------------------------------------------------------------------------------


def test_means_over_neighbours_that_are_alike():
    """Against the sum, neighbour by neighbour, voxel by voxel."""
    x, embedding = noise(1, 2, 4, 3, 5, dtype=torch.float64), noise(1, 3, 4, 3, 5, seed=1, dtype=torch.float64)
    for step in (1, 2, 4):
        found = smoothed(x, embedding, step)
        for place in np.ndindex(4, 3, 5):
            neighbours = [place]
            for axis, sign in itertools.product(range(3), (-step, step)):
                other = tuple(n + sign * (axis == number) for number, n in enumerate(place))
                neighbours += [other] if all(0 <= n < size for n, size in zip(other, (4, 3, 5), strict=True)) else []
            e = np.stack([embedding[(0, slice(None), *other)] for other in neighbours])
            weights = np.exp(-((e - e[0]) ** 2).sum(1))
            expected = weights @ np.stack([x[(0, slice(None), *other)] for other in neighbours]) / weights.sum()
            np.testing.assert_allclose(found[(0, slice(None), *place)], expected, rtol=1e-12)


# -- amplitudes and noise levels --------------------------------------------------------------------------------------


@every_network
@torch.no_grad()
def test_amplitudes(name):
    denoiser, x = network(name).double(), noise(5, 6, 7, 6, dtype=torch.float64)
    expected = denoiser(x, 0.3)
    for factor in (1e-6, 7.0, 1e6):
        assert relative(denoiser(factor * x, factor * 0.3), factor * expected) < 1e-9


@every_network
@torch.no_grad()
def test_nothing_but_noise_however_much_of_it(name):
    denoiser, x = network(name), noise(3, 4, 5, 6)
    expected = denoiser(x, 1e9)
    for sigma in (1e20, torch.finfo(torch.float32).max):
        torch.testing.assert_close(denoiser(x, sigma), expected)
    torch.testing.assert_close(denoiser(x.double(), 1e300), expected.double())
    with pytest.raises(ValueError, match="x: expected numbers up to 1e\\+18"):
        denoiser(1e20 * x, 0.1)


def test_empty_space_does_not_change_the_height():
    x = noise(1, 4, 4, 4, 6)
    larger = torch.nn.functional.pad(x, (0, 0, *[9] * 6))
    torch.testing.assert_close(heights(larger), heights(x))
    assert heights(1e-25 * x).item() == pytest.approx(1e-25 * heights(x).item())


@every_network
@torch.no_grad()
def test_without_noise_nothing_is_removed(name):
    x = noise(4, 5, 6, 15)
    assert torch.equal(network(name)(x, 0.0), x)
    assert torch.equal(network(name)(0 * x, 0.1).isfinite(), torch.ones_like(x, dtype=torch.bool))


@every_network
@torch.no_grad()
def test_the_noise_level_is_heard(name):
    denoiser, x = network(name), noise(6, 6, 6, 6)
    low, high = ((denoiser(x, sigma) - x) / sigma for sigma in (0.05, 0.5))
    assert relative(low, high) > 1e-4  # 0 if it is not


@every_network
@torch.no_grad()
def test_levels_of_batches_and_orders(name):
    denoiser, x = network(name).double(), noise(2, 3, 4, 5, 6, 15, dtype=torch.float64)
    levels = torch.linspace(0.1, 0.9, 6, dtype=torch.float64).reshape(2, 3, 1)
    found = denoiser(x, levels)
    for place in np.ndindex(2, 3):
        torch.testing.assert_close(found[place], denoiser(x[place], float(levels[place])))
    by_order = denoiser(x, torch.tensor([0.1, 0.0, 0.3]))
    assert torch.equal(by_order[..., 1:6], x[..., 1:6])
    assert not torch.equal(by_order[..., 6:], x[..., 6:])


# -- what they take ---------------------------------------------------------------------------------------------------


@every_network
@pytest.mark.parametrize("shape", [(1, 1, 1, 6), (1, 7, 2, 15), (9, 5, 3, 28), (4, 4, 4, 45), (2, 5, 6, 7, 1)])
@torch.no_grad()
def test_any_shape_and_order(name, shape):
    x = noise(*shape)
    found = network(name)(x, 0.3)
    assert found.shape == x.shape
    assert torch.isfinite(found).all()


@every_network
def test_what_they_refuse(name):
    denoiser = network(name)
    for x, sigma, kind, text in (
        (torch.zeros(4, 4, 4, 7), 0.1, ValueError, r"^x: expected 1, 6, 15"),
        (torch.zeros(4, 4, 4, 66), 0.1, ValueError, r"^x: expected harmonics up to ℓ = 8 at most, got up to 10"),
        (torch.zeros(4, 4, 6), 0.1, ValueError, r"^x: expected shape"),
        (torch.zeros(0, 4, 4, 6), 0.1, ValueError, r"^x: expected shape"),
        (torch.zeros(4, 4, 4, 6, dtype=torch.int64), 0.1, TypeError, r"^x: expected a float32 or float64"),
        (np.zeros((4, 4, 4, 6)), 0.1, TypeError, r"^x: expected a float32 or float64"),
        (torch.zeros(4, 4, 4, 6), -0.1, ValueError, r"^sigma: expected finite numbers ≥ 0"),
        (torch.zeros(4, 4, 4, 6), float("nan"), ValueError, r"^sigma: expected finite numbers ≥ 0"),
        (torch.zeros(4, 4, 4, 6), torch.ones(3), ValueError, r"^sigma: expected a number, or a shape"),
        (torch.zeros(4, 4, 4, 6), "little", TypeError, r"^sigma: expected"),
    ):
        with pytest.raises(kind, match=text):
            denoiser(x, sigma)
    with pytest.raises(ValueError, match="multiplicities"):
        EquivariantDenoiser([[0, 1, 1, 1, 1, 1]] * 3)
    with pytest.raises(ValueError, match="widths"):
        ResidualUNet((4, 0, 4))


# -- learning ---------------------------------------------------------------------------------------------------------


def loss_of(denoiser, x, truth):
    return power(denoiser(x, 0.3) - truth).mean()


@every_network
def test_one_step_helps_and_is_the_same_every_time(name):
    truth = torch.as_tensor(helicoidal_fibres((6, 6, 6), 2).coefficients, dtype=torch.float32)
    x = truth + 0.3 * noise(*truth.shape)

    def trained():
        denoiser = network(name).train()
        optimizer = torch.optim.Adam(denoiser.parameters(), 1e-3)
        first = loss_of(denoiser, x, truth)
        first.backward()
        without = [key for key, weight in denoiser.named_parameters() if weight.grad is None]
        optimizer.step()
        return denoiser, float(first.detach()), float(loss_of(denoiser, x, truth).detach()), without

    denoiser, before, after, without = trained()
    again = trained()
    assert after < before
    assert after == again[2]
    assert all(torch.equal(a, b) for a, b in zip(denoiser.parameters(), again[0].parameters(), strict=True))
    # At ℓ ≤ 2 the tensors of higher order have nothing to learn.
    assert all(any(f"{ell}_to" in key or f"to_{ell}" in key for ell in (4, 6, 8)) for key in without)


@every_network
def test_a_sample_can_be_learned_by_heart(name):
    truth = torch.as_tensor(helicoidal_fibres((5, 5, 5), 2).coefficients, dtype=torch.float32)
    x, denoiser = truth + 0.3 * noise(*truth.shape), network(name).train()
    optimizer, before = torch.optim.Adam(denoiser.parameters(), 1e-2), float(loss_of(denoiser, x, truth).detach())
    for _ in range(25):
        optimizer.zero_grad()
        loss = loss_of(denoiser, x, truth)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.7 * before


@every_network
def test_gradients(name):
    denoiser = network(name).double()
    x = noise(2, 3, 2, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: denoiser(x, 0.3), (x,), atol=1e-6, nondet_tol=1e-12, fast_mode=True)


def test_the_kept_kernel_follows_the_weights():
    layer, x = SteerableConvolution((1, 0, 1, 0, 0, 0), (2, 1, 1, 0, 0, 0)).eval(), noise(1, 6, 3, 3, 3)

    def both():
        with torch.no_grad():
            kept = layer(x, 2)
        return kept, layer(x, 2).detach()

    torch.testing.assert_close(*both(), atol=0, rtol=0)
    with torch.no_grad():
        for weight in layer.parameters():
            weight += 1
    torch.testing.assert_close(*both(), atol=0, rtol=0)
    layer.load_state_dict({name: 2 * value for name, value in layer.state_dict().items()})
    torch.testing.assert_close(*both(), atol=0, rtol=0)
    layer.double()
    x = x.double()
    torch.testing.assert_close(*both(), atol=0, rtol=0)


# -- files ------------------------------------------------------------------------------------------------------------


@every_network
@torch.no_grad()
def test_saved_and_loaded_it_gives_the_same(name, tmp_path):
    pytest.importorskip("safetensors")
    denoiser, x, path = network(name, seed=3), noise(5, 5, 5, 15), tmp_path / "network.safetensors"
    save_network(denoiser, path, ModelCard(intended_use="tests"))
    loaded = load_network(path)
    assert type(loaded) is type(denoiser)
    assert torch.equal(loaded(x, 0.2), denoiser(x, 0.2))


# -- gradient steps ---------------------------------------------------------------------------------------------------


@every_network
def test_the_gradient_step_is_one(name):
    step = GradientStep(network(name).double())
    x, direction = (noise(3, 4, 3, 6, seed=seed, dtype=torch.float64) for seed in (1, 2))
    value, gradient = step.potential_and_gradient(x, 0.3)
    h = 1e-5
    slope = (step.potential(x + h * direction, 0.3) - step.potential(x - h * direction, 0.3)) / (2 * h)
    assert float((gradient * direction).sum().detach()) == pytest.approx(float(slope.detach()), rel=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(step(x, 0.3), x - gradient.detach())
        assert float(step.potential(x, 0.3)) == pytest.approx(float(value.detach()))


def test_a_gradient_step_can_be_trained():
    step, x = GradientStep(network("plain")).train(), noise(3, 3, 3, 6)
    step(x, 0.3).square().sum().backward()
    assert all(float(weight.grad.abs().max()) > 0 for weight in step.network.network.last.parameters())
    with pytest.raises(TypeError, match=r"^network: expected a Denoiser"):
        GradientStep(torch.nn.Identity())


def test_all_orders_are_in_the_networks():
    assert coefficient_count(8) == sum(2 * ell + 1 for ell in FEATURE_ORDERS if ell != 1)
