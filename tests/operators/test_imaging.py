"""The frames of the model against ray tracing, closed forms and SciPy; exact derivatives in all that it takes."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import scipy.ndimage
import torch

from ddf_tomo.operators import ModulatedImaging, TwoComponentKernel, warp

SIZE = 64


def speckle(steps, size=SIZE, width=1.8, contrast=0.15, seed=0):
    """Grains of 4 pixels' full width: the sum of waves with random phases that a Gaussian spectrum weighs."""
    noise = np.random.default_rng(seed).standard_normal((steps, size, size))
    grains = scipy.ndimage.gaussian_filter(noise, (0, width, width), mode="wrap")
    return torch.from_numpy(1 + contrast * grains / grains.std())


def smooth(*shape, width=8, seed=1):
    noise = np.random.default_rng(seed).standard_normal(shape)
    field = scipy.ndimage.gaussian_filter(noise, (width, width, 0), mode="wrap")
    return torch.from_numpy(field / np.abs(field).max((0, 1)))


def covariances(size=SIZE, largest=1.5, seed=2):
    a, b, c = (0.5 + 0.5 * smooth(size, size, 3, width=size / 8, seed=seed)).unbind(-1)
    return torch.stack([largest * a, (2 * b - 1) * 0.6 * largest * (a * c).sqrt(), 0.6 * largest * c], -1)


def model(reference, distance_m=1.0, **options):
    """One in which a radian is a pixel, times the distance."""
    return ModulatedImaging(reference, 1.0, distance_m, **options)


# -- what it must be in special cases ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_in_the_beam(dtype):
    reference = speckle(3).to(dtype)
    found = model(reference)(1.0, torch.zeros(SIZE, SIZE, 2), torch.zeros(SIZE, SIZE, 3))
    assert found.dtype == dtype
    torch.testing.assert_close(found, reference, rtol=0, atol=1e-10 if dtype == torch.float64 else 5e-6)
    torch.testing.assert_close(model(reference)(), found)
    torch.testing.assert_close(model(reference)(0.25), 0.25 * found)


def test_one_blur_is_scipys():
    reference = speckle(2)
    covariance = torch.tensor([2.25, 0.0, 4.0], dtype=torch.float64).expand(SIZE, SIZE, 3)
    expected = scipy.ndimage.gaussian_filter(reference.numpy(), (0, 1.5, 2.0), mode="mirror", truncate=8)
    np.testing.assert_allclose(model(reference)(covariance=covariance), expected, atol=1e-5)


def test_one_displacement_is_scipys():
    reference = torch.from_numpy(scipy.ndimage.gaussian_filter(speckle(2).numpy(), (0, 2, 2)))
    u = 2 * smooth(SIZE, SIZE, 2)
    points = np.mgrid[:SIZE, :SIZE] - np.moveaxis(u.numpy(), -1, 0)
    expected = [scipy.ndimage.map_coordinates(each, points, order=5, mode="mirror") for each in reference.numpy()]
    found = model(reference, flux=False)(displacement=u)
    inner = np.s_[:, 12:-12, 12:-12]  # what mirrors make of its edges is no smooth image
    np.testing.assert_allclose(found[inner], np.array(expected)[inner], atol=3e-5)
    np.testing.assert_allclose(found, warp(reference, u), atol=1e-12)


def test_plain_operations_give_the_same():
    reference, maps = speckle(2, 12), (torch.rand(12, 12), smooth(12, 12, 2, width=2), covariances(12))
    for kernel in ("gaussian", TwoComponentKernel(0.2, 3.0)):
        found = [model(reference, kernel=kernel, method=method)(*maps) for method in ("auto", "plain")]
        torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)


# -- ray tracing ------------------------------------------------------------------------------------------------------


def traced(pattern, displacement, size, fine):
    """Counts in pixels of rays that start on a fine grid with the pattern's intensity and are displaced.

    A ray that ends at x began at ``x − u(x)``: x is found by iteration. Rays are divided among fine cells by quadratic
    splines, so that their grid does not beat with that of the cells.
    """
    places = (np.arange(size * fine) + 0.5) / fine - 0.5
    start = np.stack(np.meshgrid(places, places, indexing="ij"))
    end = start.copy()
    for _ in range(30):
        end = start + displacement(end)
    weight = pattern(start) / fine**2
    cell = (end + 0.5) * fine - 0.5
    nearest = np.round(cell).astype(int)
    far = cell - nearest
    shares = 0.5 * (0.5 - far) ** 2, 0.75 - far**2, 0.5 * (0.5 + far) ** 2
    counts = np.zeros((size * fine + 64,) * 2)  # with a border for what leaves the frame
    for a, of_j in enumerate(shares):
        for b, of_k in enumerate(shares):
            np.add.at(counts, (nearest[0] + a + 31, nearest[1] + b + 31), of_j[0] * of_k[1] * weight)
    return counts[32:-32, 32:-32].reshape(size, fine, size, fine).sum((1, 3))


RAYS = 72, 8  # pixels a side, rays a pixel and axis


def waves(x):
    """A random pattern at any places."""
    generator = np.random.default_rng(3)
    xi = 2 * np.pi * generator.normal(0, 0.07, (150, 2))
    phase = generator.uniform(0, 2 * np.pi, 150)
    total = sum(np.cos(a * x[0] + b * x[1] + p) for (a, b), p in zip(xi, phase, strict=True))
    return 1 + 0.12 * total / np.sqrt(75)


@cache
def undisturbed():
    return traced(waves, lambda x: 0 * x, *RAYS)


@pytest.mark.parametrize("strain", [0.03, 0.1])
def test_rays_of_a_smooth_refraction(strain):
    """Residual over the modulation: below 0.5 % with the flux factor, at least 10 % without it."""
    size, fine = RAYS
    q = 2 * np.pi / 40

    def displacement(x):
        s = strain / (2 * q)  # a lens array: ∇·u = strain (cos q j + cos q k) / 2, at most the strain
        return np.stack([s * np.sin(q * x[0] + 0.4), s * np.sin(q * x[1] + 1.1)])

    pixels = np.stack(np.mgrid[:size, :size]).astype(float)
    reference, sample = undisturbed(), traced(waves, displacement, size, fine)
    u = np.moveaxis(displacement(pixels), 0, -1)
    inner = np.s_[12:-12, 12:-12]
    residuals = {}
    for flux in (True, False):
        found = model(reference[None], flux=flux)(displacement=u)[0].numpy()
        residuals[flux] = (found - sample)[inner].std() / reference[inner].std()
    assert residuals[True] < 5e-3
    assert residuals[False] > 0.1


def test_photons_are_kept_where_rays_do_not_leave():
    reference = speckle(2)
    edge = np.hanning(SIZE)[:, None] * np.hanning(SIZE)
    u = torch.from_numpy(edge[..., None]) * 1.5 * smooth(SIZE, SIZE, 2)
    kept, made = (model(reference, flux=flux)(displacement=u) for flux in (True, False))
    sums = reference.sum((1, 2))
    assert (kept.sum((1, 2)) / sums - 1).abs().max() < 1e-4
    assert (made.sum((1, 2)) / sums - 1).abs().max() > 3e-4


# -- distances, views, steps ------------------------------------------------------------------------------------------


def test_distances_scale_the_maps():
    references = torch.stack([speckle(2, 24, seed=n) for n in range(2)])
    transmission, angle, scattering = torch.rand(24, 24), 1e-6 * smooth(24, 24, 2), 1e-12 * covariances(24)
    transmission = transmission.double()
    both = ModulatedImaging(references, 1e-6, [0.5, 2.0])(transmission, angle, scattering)
    assert both.shape == (2, 2, 24, 24)
    for index, distance in enumerate((0.5, 2.0)):
        alone = ModulatedImaging(references[index], 1e-6, distance)(transmission, angle, scattering)
        torch.testing.assert_close(both[index], alone)
        of_pixels = ModulatedImaging(references[index], 1e-6, distance)(
            transmission, displacement=distance * angle / 1e-6, covariance=(distance / 1e-6) ** 2 * scattering
        )
        torch.testing.assert_close(alone, of_pixels)
    longest = ModulatedImaging(references, 1e-6, [0.5, 2.0])(
        transmission, displacement=2.0 * angle / 1e-6, covariance=(2.0 / 1e-6) ** 2 * scattering
    )
    torch.testing.assert_close(both, longest)
    shared = ModulatedImaging(references[0], 1e-6, [0.5, 2.0])(transmission, angle, scattering)
    torch.testing.assert_close(shared[0], both[0])
    assert model(references[:1], 1.0)().shape == (1, 2, 24, 24)
    assert model(references[0], [1.0])().shape == (1, 2, 24, 24)


def test_propagation_contrast():
    """A weak lens brightens by ``−d ∇·α/s``, whatever the mask."""
    flat = torch.ones(1, 40, 40, dtype=torch.float64)
    places = torch.arange(40, dtype=torch.float64) - 19.5
    angle = torch.stack(torch.meshgrid(-1e-3 * places, -2e-3 * places, indexing="ij"), -1)
    found = model(flat, [1.0, 2.0])(1.0, angle)
    torch.testing.assert_close(found[0], torch.full_like(found[0], 1.001 * 1.002))
    torch.testing.assert_close(found[1], torch.full_like(found[1], 1.002 * 1.004))


def test_views_in_front():
    reference, u, covariance = speckle(3, 16), smooth(16, 16, 2, width=3), covariances(16)
    transmissions = torch.rand(2, 1, 16, 16, dtype=torch.float64)
    displacements = torch.stack([u, -u, 2 * u])
    found = model(reference)(transmissions, displacement=displacements, covariance=covariance)
    assert found.shape == (2, 3, 3, 16, 16)
    alone = model(reference)(transmissions[1, 0], displacement=-u, covariance=covariance)
    torch.testing.assert_close(found[1, 1], alone)


def test_steps_move_the_mask():
    """A mask given once, and stepped by its own image: as the frames taken at those places."""
    x = np.arange(61)

    def mask(j, k):
        return 1 + 0.3 * np.outer(np.cos(2 * np.pi * (x - j) / 10), np.cos(2 * np.pi * (x - k) / 12))

    steps = torch.tensor([[0.0, 0.0], [1.3, -0.4], [-2.0, 2.5]], dtype=torch.float64)
    taken = torch.tensor(np.stack([mask(j, k) for j, k in steps.tolist()]))
    stepped = model(taken[:1], steps_px=steps)
    torch.testing.assert_close(stepped(), taken, rtol=0, atol=1e-4)
    u, covariance = 1.5 * smooth(61, 61, 2), covariances(61)
    inner = np.s_[:, 12:-12, 12:-12]
    found, expected = (each(displacement=u, covariance=covariance)[inner] for each in (stepped, model(taken)))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)


# -- derivatives ------------------------------------------------------------------------------------------------------


def given(size=5, distances=2, steps=2):
    reference = speckle(distances * steps, size, width=1).reshape(distances, steps, size, size)
    offsets = 0.4 * smooth(1, steps, 2, width=0.5)[0]
    maps = 0.5 + torch.rand(size, size, dtype=torch.float64), smooth(size, size, 2, width=1), covariances(size)
    return [each.clone().requires_grad_() for each in (*maps, reference, offsets)]


@pytest.mark.parametrize("kernel", ["gaussian", TwoComponentKernel(0.3, 2.0)])
def test_gradients_in_everything(kernel):
    def frames(transmission, angle, scattering, reference, steps):
        options = {"kernel": kernel, "steps_px": steps}
        return ModulatedImaging(reference, 1.0, [0.6, 1.0], **options)(transmission, angle, scattering)

    assert torch.autograd.gradcheck(frames, given(), fast_mode=True, check_forward_ad=True)


def test_tangents_and_gradients_agree():
    """``⟨g, J v⟩ = ⟨Jᵀ g, v⟩`` through torch.func, reference and steps by `functional_call`."""
    *maps, reference, steps = (each.detach() for each in given(12))
    imaging = ModulatedImaging(reference, 1.0, [0.6, 1.0], steps_px=steps)

    def frames(maps, state):
        return torch.func.functional_call(imaging, state, maps)

    at = (tuple(maps), {"reference": reference, "steps_px": steps})
    generator = torch.Generator().manual_seed(4)
    along = torch.utils._pytree.tree_map(lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype), at)
    value, tangent = torch.func.jvp(frames, at, along)
    against = torch.randn(value.shape, generator=generator, dtype=value.dtype)
    gradients = torch.func.vjp(frames, *at)[1](against)
    leaves = zip(*(torch.utils._pytree.tree_leaves(each) for each in (gradients, along)), strict=True)
    assert float((tangent * against).sum()) == pytest.approx(float(sum((a * b).sum() for a, b in leaves)), rel=1e-10)


def test_parameters_are_the_modules_and_changes_are_seen():
    reference = torch.nn.Parameter(speckle(2, 12))
    imaging = model(reference, steps_px=torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.float64)))
    assert {name for name, _ in imaging.named_parameters()} == {"reference", "steps_px"}
    imaging(0.5).sum().backward()
    torch.testing.assert_close(reference.grad, torch.full_like(reference, 0.5))
    fixed = model(speckle(2, 12))
    before = fixed(0.5)
    fixed.reference *= 2
    torch.testing.assert_close(fixed(0.5), 2 * before)
    assert "flux=True" in repr(fixed)


def test_a_sample_is_found_by_gradients():
    """What the derivatives are for: maps from frames, by L-BFGS from nothing."""
    size, reference = 16, speckle(12, 16, width=1.5, contrast=0.3)
    imaging = model(reference, flux=False)
    truth = 0.7, 0.4 * smooth(size, size, 2, width=6), covariances(size, 0.8)
    frames = imaging(truth[0], displacement=truth[1], covariance=truth[2])
    u = torch.zeros(size, size, 2, dtype=torch.float64, requires_grad=True)
    factors = torch.full((3, size, size), 0.3, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([u, factors], max_iter=50, history_size=20, line_search_fn="strong_wolfe")

    def misfit():
        solver.zero_grad()
        a, b, c = factors
        covariance = torch.stack([a**2, a * b, b**2 + c**2], -1)
        loss = (imaging(0.7, displacement=u, covariance=covariance) - frames).square().sum()
        loss.backward()
        return loss

    start = float(misfit().detach())
    solver.step(misfit)
    assert float(misfit().detach()) < 1e-3 * start
    assert (u.detach() - truth[1]).abs().median() < 0.02


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": np.ones((4, 5))}, "reference: expected shape"),
        ({"reference": np.full((2, 4, 5), np.nan)}, "reference: expected finite"),
        ({"reference": np.ones((3, 2, 4, 5))}, "reference: expected shape"),
        ({"pixel_size_m": 0.0}, "pixel_size_m: expected"),
        ({"distance_m": [1.0, -1.0]}, "distance_m: expected"),
        ({"distance_m": []}, "distance_m: expected"),
        ({"steps_px": np.zeros((3, 2))}, "steps_px: expected shape"),
        ({"steps_px": np.full((2, 2), 1e9)}, "steps_px: expected"),
        ({"kernel": 3}, "kernel: expected one of"),
        ({"flux": "yes"}, "flux: expected True or False"),
        ({"method": "low-rank"}, "method: expected one of"),
    ],
)
def test_mistakes_of_the_model(change, message):
    right = {"reference": np.ones((2, 4, 5)), "pixel_size_m": 1e-6, "distance_m": 1.0}
    with pytest.raises((ValueError, TypeError), match=message):
        ModulatedImaging(**right | change)


@pytest.mark.parametrize(
    ("maps", "message"),
    [
        ({"transmission": np.ones((5, 4))}, "last axes of transmission: expected shape"),
        ({"transmission": "half"}, "transmission: expected"),
        ({"refraction_rad": np.zeros((4, 5, 3))}, "last axes of refraction_rad: expected shape"),
        ({"refraction_rad": np.zeros((4, 5, 2)), "displacement": np.zeros((4, 5, 2))}, "displacement: expected none"),
        ({"scattering_rad2": np.zeros((4, 5, 3)), "covariance": np.zeros((4, 5, 3))}, "covariance: expected none"),
        ({"refraction_rad": np.ones((4, 5, 2))}, "displacement: expected at most .* pixels"),
        ({"covariance": np.full((4, 5, 3), -1.0)}, "covariance: expected a positive"),
        ({"transmission": np.ones((2, 4, 5)), "displacement": np.zeros((3, 4, 5, 2))}, "maps: expected axes of views"),
        ({"transmission": np.ones((0, 4, 5))}, "transmission: expected at least one view"),
        ({"displacement": np.full((4, 5, 2), np.nan)}, "displacement: expected finite"),
    ],
)
def test_mistakes_of_the_maps(maps, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ModulatedImaging(np.ones((2, 4, 5)), 1e-7, 1.0)(**maps)
