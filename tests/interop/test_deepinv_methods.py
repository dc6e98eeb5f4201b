"""deepinv's optimisers, losses, samplers and networks on our physics: each beside what it should give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import ddf_tomo as dt
from ddf_tomo.interop import deepinv as ours
from ddf_tomo.operators.cube_rotations import CUBE_ROTATIONS
from ddf_tomo.priors import NonNegativeMean, Smoothness, TotalVariation
from ddf_tomo.priors.learned import EquivariantDenoiser, GradientStep, ResidualUNet
from ddf_tomo.solvers import fista
from tests.strategies import random_geometry

deepinv = pytest.importorskip("deepinv", exc_type=ImportError)
SHAPE = (8, 8, 8)
pytestmark = pytest.mark.filterwarnings("ignore")  # deepinv tells of what it will rename


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def normalised(operator):
    return operator * (1 / operator.norm(100))


def tensor_operator(views=8, shape=SHAPE, seed=1):
    geometry = random_geometry(views, shape, (10, 10), seed=seed, offset=0.2)
    return normalised(dt.TensorXRayTransform(geometry, dt.SecondMomentResponse(), 2))


def sample(count=1, shape=SHAPE):
    """Two blocks of different anisotropy."""
    volume = torch.zeros(count, *shape, 6)
    volume[:, 1:5, 2:6, 2:7] = torch.tensor([1.0, 0.2, 0.0, 0.3, 0.0, -0.2])
    volume[:, 5:7, 2:6, 2:7] = torch.tensor([0.7, 0.0, -0.3, 0.0, 0.2, 0.1])
    return ours.to_deepinv(volume)


def small():
    """An operator small enough to be a matrix, with it; rays miss nothing."""
    operator = normalised(dt.XRayTransform(random_geometry(5, (3, 3, 3), (5, 5), seed=3, offset=0.1)))
    basis = torch.eye(27).reshape(27, 1, 3, 3, 3)
    model = ours.physics(operator)
    return model, model.A(basis).reshape(27, -1).T


# -- priors and optimisers --------------------------------------------------------------------------------------------


def test_proximal_gradients_with_a_coupled_prior_find_what_our_solver_finds():
    A = tensor_operator()
    data = ours.physics(A, noise=0.02)(sample())
    terms = [0.02 * TotalVariation(SHAPE), NonNegativeMean()]
    expected = fista(A, ours.from_deepinv(data)[0], regularisers=terms, iterations=150, progress=False).x
    method = deepinv.optim.FISTA(
        data_fidelity=deepinv.optim.L2(), prior=ours.prior(terms, iterations=20), max_iter=80, thres_conv=1e-7
    )
    found = ours.from_deepinv(method(data, ours.physics(A)))[0]
    assert (found - expected).norm() < 5e-3 * expected.norm()


def test_a_prior_has_value_gradient_and_proximal_map():
    x = noise(2, 6, *SHAPE)
    items = ours.from_deepinv(x)
    smooth = 0.3 * Smoothness(SHAPE)
    there = ours.prior(smooth)
    torch.testing.assert_close(there.fn(x), torch.tensor([smooth(item) for item in items]))
    u = x.double().requires_grad_()
    value = sum(0.3 * smooth.value(smooth.apply(item)) for item in ours.from_deepinv(u))
    (gradient,) = torch.autograd.grad(value, u)
    torch.testing.assert_close(there.grad(x.double()), gradient)
    # The proximal map of a quadratic solves (1 + γ ∇g) u = x.
    u = ours.prior(smooth, iterations=200).prox(x.double(), gamma=2.0)
    torch.testing.assert_close(u + 2.0 * there.grad(u), x.double(), atol=1e-4, rtol=1e-4)
    with pytest.raises(TypeError, match="prior: expected one under quadratics"):
        ours.prior(NonNegativeMean()).grad(x)


def test_deepinv_knows_each_coefficient_by_itself_and_our_prior_couples_them():
    """A step in all coefficients at one place costs less, coupled, than steps at different places."""
    together, apart = torch.zeros(1, 6, *SHAPE), torch.zeros(1, 6, *SHAPE)
    together[:, :, 4:] = 1.0
    for n in range(6):
        apart[:, n, n + 1 :] = 1.0
    theirs, coupled = deepinv.optim.TVPrior(), ours.prior(TotalVariation(SHAPE))
    assert float(theirs.fn(together)) == pytest.approx(float(theirs.fn(apart)), rel=1e-3)
    assert float(coupled.fn(together)) == pytest.approx(float(coupled.fn(apart)) / 6**0.5, rel=1e-3)


def test_plug_and_play_with_our_denoiser_ends_where_the_equations_say():
    """The denoiser ``v / (1 + s)`` is the proximal map of ``s/2 |x|²``: the fixed point solves (AᵀA + s) x = Aᵀy."""
    model, matrix = small()
    y = model.A(noise(1, 1, 3, 3, 3))
    expected = torch.linalg.solve(matrix.T @ matrix + 0.2 * torch.eye(27), matrix.T @ y.flatten())

    def shrink(volumes, levels):
        assert volumes.shape == (1, 3, 3, 3, 1)
        return volumes / (1 + levels.reshape(-1, 1, 1, 1, 1))

    options = {"data_fidelity": deepinv.optim.L2(), "prior": deepinv.optim.PnP(ours.denoiser(shrink))}
    for method in (deepinv.optim.PGD, deepinv.optim.HQS, deepinv.optim.ADMM):
        found = method(**options, stepsize=1.0, sigma_denoiser=0.2, max_iter=60, thres_conv=1e-8)(y, model)
        if method is deepinv.optim.HQS:  # splits, so that the matrix is (1 + AᵀA)⁻¹ first
            step = torch.linalg.inv(torch.eye(27) + matrix.T @ matrix)
            limit = torch.linalg.solve(1.2 * torch.eye(27) - step, step @ matrix.T @ y.flatten())
            torch.testing.assert_close(found.flatten(), limit, atol=2e-3, rtol=2e-2)
        else:
            torch.testing.assert_close(found.flatten(), expected, atol=1e-4, rtol=1e-3)


class Contracting(torch.nn.Module):
    """One of our denoisers, of slope below 1, so that there is an equilibrium."""

    def __init__(self):
        super().__init__()
        self.gain, self.mix = torch.nn.Parameter(torch.zeros(())), torch.nn.Linear(6, 6)

    def forward(self, volume, level):
        return self.gain.sigmoid() * volume + 0.1 * torch.tanh(self.mix(volume))


@pytest.mark.parametrize("kind", ["unfolded", "equilibrium"])
def test_unfolded_and_equilibrium_networks_learn(kind):
    model = ours.physics(tensor_operator(), noise=0.02)
    torch.manual_seed(0)
    x = sample()
    y = model(x)
    method = deepinv.optim.PGD(
        data_fidelity=deepinv.optim.L2(),
        prior=deepinv.optim.PnP(ours.denoiser(Contracting())),
        stepsize=0.9,
        sigma_denoiser=0.05,
        max_iter=6,
        trainable_params=["stepsize"],
        unfold=kind == "unfolded",
        DEQ=kind == "equilibrium",
    )
    optimiser = torch.optim.Adam(method.parameters(), 0.05)
    losses = []
    for _ in range(10):
        optimiser.zero_grad()
        loss = torch.nn.functional.mse_loss(method(y, model), x)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in method.parameters())
    assert losses[-1] < 0.8 * losses[0]


def test_the_gradient_through_an_equilibrium_is_the_implicit_one():
    """x* = (A_TA + s)⁻¹ Aᵀy: derivative by y in closed form, against the backward fixed point."""
    model, matrix = small()
    y = model.A(noise(1, 1, 3, 3, 3)).requires_grad_()
    shrink = ours.denoiser(lambda v, level: v / (1 + level.reshape(-1, 1, 1, 1, 1)))
    method = deepinv.optim.PGD(
        data_fidelity=deepinv.optim.L2(),
        prior=deepinv.optim.PnP(shrink),
        stepsize=1.0,
        sigma_denoiser=0.2,
        max_iter=200,
        thres_conv=1e-8,
        DEQ=deepinv.optim.optimizers.DEQConfig(max_iter_backward=200),
    )
    weights = noise(27, seed=5)
    (found,) = torch.autograd.grad((method(y, model).flatten() * weights).sum(), y)
    expected = matrix @ torch.linalg.solve(matrix.T @ matrix + 0.2 * torch.eye(27), weights)
    torch.testing.assert_close(found.flatten(), expected, atol=1e-4, rtol=1e-3)


# -- rotations --------------------------------------------------------------------------------------------------------


def test_the_transform_is_the_group_with_its_inverses():
    x = noise(2, 15, 4, 4, 4)
    for index, g in enumerate(CUBE_ROTATIONS):
        turned = ours.cube_rotations()(x, rotation=[index])
        torch.testing.assert_close(turned, ours.to_deepinv(g.volume(ours.from_deepinv(x))))
    turn = ours.cube_rotations(n_trans=24, rng=torch.Generator().manual_seed(0))
    parameters = turn.get_params(x)
    assert sorted(parameters["rotation"].tolist()) == list(range(24))
    back = turn.inverse(turn(x, **parameters), batchwise=False, **parameters)
    torch.testing.assert_close(back, x.repeat(24, 1, 1, 1, 1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(turn.identity(x, average=True), x, atol=1e-5, rtol=1e-5)
    tensors = ours.cube_rotations("tensors")(x[:, :6], rotation=[7])
    torch.testing.assert_close(tensors, ours.to_deepinv(CUBE_ROTATIONS[7].tensors(ours.from_deepinv(x[:, :6]))))


def test_rotations_of_a_volume_that_is_no_cube_keep_its_shape():
    x = noise(1, 6, 4, 4, 5)
    turn = ours.cube_rotations(n_trans=24)
    assert len(turn.get_params(x)["rotation"]) == 8
    assert turn(x).shape == (8, 6, 4, 4, 5)


def test_the_physics_of_turned_views_sees_of_turned_volumes_what_it_saw():
    geometry = random_geometry(4, SHAPE, (9, 10), seed=2)
    x, turn = noise(1, 15, *SHAPE), ours.cube_rotations(rng=torch.Generator().manual_seed(3))
    response = dt.SaxsResponse(np.arange(4) * np.pi / 4)
    expected = ours.physics(dt.TensorXRayTransform(geometry, response, 4)).A(x)
    for _ in range(4):
        parameters = turn.get_params(x)
        g = CUBE_ROTATIONS[int(parameters["rotation"])]
        found = ours.physics(dt.TensorXRayTransform(g.geometry(geometry), response, 4)).A(turn(x, **parameters))
        assert (found - expected).norm() < 1e-5 * expected.norm()


def test_a_denoiser_averaged_over_the_group_is_equivariant():
    torch.manual_seed(0)
    network = deepinv.models.DnCNN(in_channels=6, out_channels=6, depth=2, nf=4, dim=3, pretrained=None).double()
    averaged = deepinv.models.EquivariantDenoiser(network, ours.cube_rotations(n_trans=24))
    x = noise(1, 6, 4, 4, 4, dtype=torch.float64)
    turn = ours.cube_rotations()
    with torch.no_grad():
        for index in (5, 16):
            turned = turn(averaged(x, 0.1), rotation=[index])
            torch.testing.assert_close(averaged(turn(x, rotation=[index]), 0.1), turned, atol=1e-10, rtol=0)
            assert (network(turn(x, rotation=[index])) - turn(network(x), rotation=[index])).norm() > 0.01 * x.norm()


# -- losses -----------------------------------------------------------------------------------------------------------


def test_equivariant_imaging_is_zero_for_what_sees_everything_and_tells_of_what_does_not():
    loss = deepinv.loss.EILoss(ours.cube_rotations(rng=torch.Generator().manual_seed(1)))

    def inverse(y, model):
        return model.A_dagger(y, solver="CG", tol=1e-6, max_iter=100)

    x = sample(shape=(8, 8, 8))
    found = {}
    for views in (24, 3):
        model = ours.physics(tensor_operator(views))
        model.implicit_backward_solver = False
        found[views] = float(loss(x, model, inverse))
    assert found[24] < 0.02 * found[3]
    assert found[3] > 0.001


def test_equivariant_imaging_trains():
    model = ours.physics(tensor_operator(4))
    torch.manual_seed(0)
    network = deepinv.models.DnCNN(in_channels=6, out_channels=6, depth=2, nf=8, dim=3, pretrained=None)
    method = deepinv.models.ArtifactRemoval(network, mode="adjoint")
    losses = [deepinv.loss.MCLoss(), deepinv.loss.EILoss(ours.cube_rotations())]
    y = model(sample())
    optimiser = torch.optim.Adam(method.parameters(), 3e-3)
    values = []
    for _ in range(15):
        optimiser.zero_grad()
        x_net = method(y, model)
        total = sum(loss(x_net=x_net, y=y, physics=model, model=method).mean() for loss in losses)
        total.backward()
        optimiser.step()
        values.append(float(total.detach()))
    assert values[-1] < 0.8 * values[0]


def test_splitting_by_view_gives_the_network_whole_views_and_no_more():
    operator = tensor_operator(6)
    model = ours.physics(operator)
    y = model.A(sample(2))
    split = ours.view_splitting(operator, kept=0.5, rng=torch.Generator().manual_seed(4))
    loss = deepinv.loss.SplittingLoss(mask_generator=split, eval_n_samples=2)
    seen = []

    def reconstruct(y1, physics1):
        seen.append((y1, physics1))
        return physics1.A_adjoint(y1)

    class Model(deepinv.models.Reconstructor):
        def forward(self, y1, physics1):
            return reconstruct(y1, physics1)

    method = loss.adapt_model(Model())
    method.train()
    x_net = method(y, model, update_parameters=True)
    (mask,) = method.get_masks()
    kept = mask[:, 0, :, 0, 0].bool()
    assert kept.sum(1).tolist() == [3, 3]
    for item in range(2):
        views = operator.views(kept[item].tolist())
        adjoint = views.T(y[item].movedim(0, -1)[kept[item]])
        torch.testing.assert_close(ours.from_deepinv(x_net)[item], adjoint, atol=1e-5, rtol=1e-4)
        assert seen[0][0][item][:, ~kept[item]].abs().max() == 0
    rest = torch.where(mask.bool(), 0.0, model.A(x_net) - y)
    torch.testing.assert_close(loss(x_net, y, model, method), (rest**2).mean() / (1 - mask).mean())
    method.eval()
    assert method(y, model).shape == x_net.shape
    masks = [split.step(2, seed=7)["mask"] for _ in range(2)]
    torch.testing.assert_close(*masks)


def test_the_unbiased_risk_is_the_risk_on_average():
    """Stein's estimate for a linear reconstruction, over many noises, against the error that it cannot see."""
    model, _ = small()
    model = ours.physics(model.operator, noise=0.1)
    x = torch.ones(1, 1, 3, 3, 3).expand(400, -1, -1, -1, -1)
    torch.manual_seed(0)
    y = model(x)

    def shrunk(y, model):
        return 0.7 * model.A_adjoint(y)

    estimate = deepinv.loss.SureGaussianLoss(sigma=0.1, rng=torch.Generator().manual_seed(0))
    risk = ((model.A(shrunk(y, model)) - model.A(x)) ** 2).flatten(1).mean(1)
    found = estimate(y, shrunk(y, model), model, shrunk)
    assert float(found.mean()) == pytest.approx(float(risk.mean()), rel=0.05)


# -- sampling ---------------------------------------------------------------------------------------------------------


def test_langevin_samples_the_posterior_of_a_gaussian_problem():
    """Mean and spread in closed form: precision P = AᵀA/σ² + 1/τ², with τ² the prior's variance after smoothing.

    A chain of steps s has the variance ``(P (1 - s P / 2))⁻¹`` exactly.
    """
    model, matrix = small()
    sigma, tau2, smoothing = 0.3, 1.0, 0.05
    y = ours.physics(model.operator, noise=sigma)(torch.ones(1, 1, 3, 3, 3))
    chains, step = 150, 0.08
    best = ours.denoiser(lambda v, level: v * tau2 / (tau2 + level.reshape(-1, 1, 1, 1, 1) ** 2))
    sampler = deepinv.sampling.sampling_builder(
        "ULA",
        prior=deepinv.optim.ScorePrior(best),
        data_fidelity=deepinv.optim.L2(sigma=sigma),
        params_algo={"step_size": step, "alpha": 1.0, "sigma": smoothing},
        max_iter=250,
        burnin_ratio=0.5,
        thinning=2,
        clip=None,
    )
    mean, variance = sampler.sample(y.expand(-1, chains, -1, -1, -1), model, seed=0)  # channels are chains
    precision = matrix.T @ matrix / sigma**2 + torch.eye(27) / (tau2 + smoothing**2)
    expected = torch.linalg.solve(precision, matrix.T @ y.flatten()) / sigma**2
    covariance = torch.linalg.inv(precision @ (torch.eye(27) - step / 2 * precision))
    found = mean[0].flatten(1)
    spread = found.var(0) + variance[0].flatten(1).mean(0)  # between the chains and within them
    assert (found.mean(0) - expected).norm() < 0.05 * expected.norm()
    torch.testing.assert_close(spread, covariance.diagonal(), atol=0, rtol=0.15)


# -- networks ---------------------------------------------------------------------------------------------------------


def test_a_network_of_deepinv_denoises_our_volumes_and_comes_back_as_itself():
    torch.manual_seed(0)
    options = {"in_channels": 6, "out_channels": 6, "pretrained": None, "dim": 3}
    network = deepinv.models.DRUNet(nc=(4, 4, 8, 8), nb=1, **options).eval()
    mine = ours.volume_denoiser(network)
    assert len(list(mine.parameters())) == len(list(network.parameters()))
    volume = noise(2, *SHAPE, 6)
    with torch.no_grad():
        x = ours.to_deepinv(volume)
        torch.testing.assert_close(ours.to_deepinv(mine(volume, 0.1)), network(x, 0.1))
        torch.testing.assert_close(mine(volume[None], 0.1)[0], mine(volume, 0.1))
        torch.testing.assert_close(mine(volume[1], 0.1), mine(volume, 0.1)[1], atol=1e-5, rtol=1e-4)
        levels = torch.tensor([0.1, 0.4])
        torch.testing.assert_close(mine(volume, levels)[1], mine(volume[1], 0.4), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(ours.denoiser(mine)(x, levels), network(x, levels))
        y = ours.physics(tensor_operator()).A(sample())
        method = deepinv.optim.PGD(
            data_fidelity=deepinv.optim.L2(), prior=deepinv.optim.PnP(network), sigma_denoiser=0.05, max_iter=3
        )
        assert method(y, ours.physics(tensor_operator())).shape == (1, 6, *SHAPE)


def test_our_denoisers_get_volumes_and_levels():
    calls = []

    def mine(volume, level):
        calls.append((tuple(volume.shape), torch.as_tensor(level).shape, float(torch.as_tensor(level).max())))
        return volume / 2

    x = noise(2, 6, 3, 4, 5)
    torch.testing.assert_close(ours.denoiser(mine)(x, 0.25), x / 2)
    torch.testing.assert_close(ours.denoiser(mine, batched=False)(x, torch.tensor([0.25, 0.5])), x / 2)
    batch, one = (2, 3, 4, 5, 6), (3, 4, 5, 6)
    assert calls == [(batch, (2,), 0.25), (one, (), 0.25), (one, (), 0.5)]
    network = torch.nn.Identity()
    network.weight = torch.nn.Parameter(torch.ones(()))
    assert [*ours.denoiser(network).parameters()] == [network.weight]


def test_our_networks_run_in_deepinv_and_turn_with_the_sample_as_they_should():
    x, turn = noise(1, 6, *SHAPE), ours.cube_rotations()
    difference = {}
    for network in (EquivariantDenoiser, ResidualUNet):
        torch.manual_seed(0)
        inside = ours.denoiser(network())
        with torch.no_grad():
            found = turn(inside(x, 0.3), rotation=[5])
            difference[network] = float((inside(turn(x, rotation=[5]), 0.3) - found).norm() / found.norm())
    assert difference[EquivariantDenoiser] < 1e-5
    assert difference[ResidualUNet] > 1e-4
    model = ours.physics(tensor_operator(), noise=0.02)
    fidelity, plugged = deepinv.optim.L2(), deepinv.optim.PnP(ours.denoiser(GradientStep(ResidualUNet())))
    method = deepinv.optim.PGD(data_fidelity=fidelity, prior=plugged, sigma_denoiser=0.05, max_iter=3)
    assert bool(torch.isfinite(method(model(sample()), model)).all())


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="kind: expected one of"):
        ours.cube_rotations("vectors")
    with pytest.raises(ValueError, match="n_trans: expected"):
        ours.cube_rotations(n_trans=25)
    with pytest.raises(TypeError, match="rng: expected"):
        ours.cube_rotations(rng=3)
    with pytest.raises(ValueError, match="two views at least"):
        ours.view_splitting(tensor_operator(1))
    with pytest.raises(ValueError, match="kept: expected"):
        ours.view_splitting(tensor_operator(2), kept=1.5)
    with pytest.raises(TypeError, match="regularisers: expected"):
        ours.prior([TotalVariation(SHAPE), 3])
    with pytest.raises(TypeError, match="ours: expected a function"):
        ours.denoiser(3)
    with pytest.raises(TypeError, match="theirs: expected a denoiser"):
        ours.volume_denoiser(3)
    with pytest.raises(ValueError, match=r"volume: expected shape \(\.\.\., x, y, z, C\)"):
        ours.volume_denoiser(lambda x, sigma: x)(torch.zeros(4, 4, 4), 0.1)


def test_a_missing_deepinv_is_told(monkeypatch):
    import sys

    monkeypatch.delitem(sys.modules, "ddf_tomo.interop._deepinv", raising=False)
    monkeypatch.setitem(sys.modules, "deepinv", None)
    with pytest.raises(ImportError, match="pip install"):
        ours.cube_rotations()
