"""Frames from waves, beside the model of displacement and blur that the rest of the package stands on."""

from __future__ import annotations

import math

import pytest
import torch

from ddf_tomo.acquisition import FibrousMedium, fringe_blur, multislice, scattering_screen, wave_frames
from ddf_tomo.operators.propagation import FresnelPropagator

WAVELENGTH, PIXEL, SIZE, PERIOD = 5e-11, 0.5e-6, 256, 16
MASK_TO_SAMPLE, THICKNESS = 0.3, 2e-4
CYCLES = SIZE // PERIOD
FRINGES = [(CYCLES, 0), (0, CYCLES), (CYCLES, CYCLES), (CYCLES, -CYCLES)]
FIBRES = FibrousMedium(4e-7, 4.5e-6, 1.5e-6, (0.5, 1.0, 0.3))


def propagator(distance, size=SIZE):
    return FresnelPropagator((size, size), PIXEL, distance, WAVELENGTH, boundary="periodic")


def masks(steps=4):
    """A smooth phase grating in both directions, at steps of a quarter period in both."""
    x = torch.arange(SIZE) * (2 * math.pi / PERIOD)
    mask = torch.exp(-0.6j * (x.cos()[:, None] + x.cos()))
    moves = [n * PERIOD // steps for n in range(steps)]
    return torch.stack([mask.roll((j, k), (0, 1)) for j in moves for k in moves])


@pytest.fixture(scope="module")
def blurs():
    """Distance to exponents and covariance, coherently over four samples of the medium."""
    distances = (0.01, 0.03, 0.05, 0.2, 0.6)
    screens = [FIBRES.phase_screen((SIZE, SIZE), PIXEL, THICKNESS, WAVELENGTH, seed=n) for n in range(4)]
    at = [propagator(d) for d in distances]
    lit = propagator(MASK_TO_SAMPLE)(masks())
    reference = wave_frames(lit, None, None, at)
    frames = torch.cat([wave_frames(lit, torch.exp(1j * phase.float()), None, at) for phase in screens], 1)
    return dict(
        zip(distances, zip(*fringe_blur(frames, reference.tile(1, 4, 1, 1), FRINGES), strict=True), strict=True)
    )


@pytest.mark.parametrize("distance", [0.01, 0.03, 0.05])
def test_blur_grows_with_the_square_of_the_distance(blurs, distance):
    """The covariance that waves have is ``(d/s)² Θ`` with Θ from ``f(q̂) = (1/4π) ∫ Φ q³ dq``, within 5 %."""
    found = blurs[distance][1]
    model = FIBRES.second_moment(THICKNESS) * (distance / PIXEL) ** 2
    assert (found / model - 1).abs().max() < 0.05


@pytest.mark.parametrize("distance", [0.01, 0.03, 0.05, 0.2, 0.6])
def test_visibility_is_that_of_the_medium_at_all_distances(blurs, distance):
    separation = torch.tensor(FRINGES) * (WAVELENGTH * distance / (SIZE * PIXEL))
    expected = FIBRES.visibility_exponent(separation, THICKNESS, WAVELENGTH)
    assert (blurs[distance][0] / expected - 1).abs().max() < 0.05


def test_blur_saturates(blurs):
    """Beyond the grains' size the visibility stays at exp(−σ²): the law of small distances is far off."""
    model = FIBRES.second_moment(THICKNESS) * (0.6 / PIXEL) ** 2
    assert (blurs[0.6][1] / model).max() < 0.45
    variance = float(FIBRES.visibility_exponent(torch.ones(2), THICKNESS, WAVELENGTH))
    assert float(blurs[0.6][0].max()) == pytest.approx(variance, rel=0.05)


def test_slices_add_up():
    """Four slices of a thick medium blur as their total thickness does, each from where it stands."""
    distance, thickness, count = 0.03, 4e-4, 4
    step = propagator(thickness / count)
    lit = propagator(MASK_TO_SAMPLE)(masks())
    reference = propagator(distance + thickness).intensity(lit)
    frames = []
    for sample in range(3):
        slices = [
            torch.exp(1j * FIBRES.phase_screen((SIZE, SIZE), PIXEL, thickness / count, WAVELENGTH, seed=n).float())
            for n in range(count * sample, count * (sample + 1))
        ]
        frames.append(propagator(distance).intensity(multislice(lit, slices, step)))
    found = fringe_blur(torch.cat(frames), reference.tile(3, 1, 1), FRINGES).covariance
    squares = sum((distance + thickness * (n + 1) / count) ** 2 for n in range(count)) / count
    model = FIBRES.second_moment(thickness) * squares / PIXEL**2
    assert (found / model - 1).abs().max() < 0.05


def test_a_map_becomes_waves():
    theta = torch.tensor([4e-11, -1.2e-11, 2e-11], dtype=torch.float64)
    lit = propagator(MASK_TO_SAMPLE)(masks())
    reference = wave_frames(lit, None, None, propagator(0.02))[0]
    frames = []
    for seed in range(6):
        phase = scattering_screen(theta.expand(SIZE, SIZE, 3), PIXEL, WAVELENGTH, 1e-6, seed=seed)
        frames.append(wave_frames(lit, torch.exp(1j * phase.float()), None, propagator(0.02))[0])
    found = fringe_blur(torch.cat(frames), reference.tile(6, 1, 1), FRINGES).covariance
    model = theta * (0.02 / PIXEL) ** 2
    assert ((found - model).abs() / math.sqrt(model[0] * model[2])).max() < 0.05


def test_a_mask_behind_the_sample():
    lit, phase = masks()[:3], FIBRES.phase_screen((SIZE, SIZE), PIXEL, THICKNESS, WAVELENGTH)
    sample = torch.exp(1j * phase.float())
    found = wave_frames(sample, lit, propagator(0.1), propagator(0.2), binning=2)
    expected = propagator(0.2)(propagator(0.1)(sample) * lit).abs() ** 2
    assert found.shape == (1, 3, SIZE // 2, SIZE // 2)
    torch.testing.assert_close(found[0], torch.nn.functional.avg_pool2d(expected, 2), rtol=1e-4, atol=1e-5)


# -- refraction by a smooth object --------------------------------------------------------------------------------


def smooth_sample(j, k, distance):
    """Transmission, phase, displacement in pixels and ∂(x + u)/∂x at places (j, k) in pixels, all from formulas."""
    w, strength = 2 * math.pi / SIZE, 8.0
    a, b = w * (2 * j + k), w * (j - 2 * k)
    phase = strength * (a.sin() + b.cos())
    bend = strength * w * distance * WAVELENGTH / (2 * math.pi) / PIXEL**2
    displacement = torch.stack([bend * (2 * a.cos() - b.sin()), bend * (a.cos() + 2 * b.sin())], -1)
    jj, jk, kk = (bend * w * (m * a.sin() + n * b.cos()) for m, n in ((-4, -1), (-2, 2), (-1, -4)))
    determinant = (1 + jj) * (1 + kk) - jk**2
    return 0.8 + 0.1 * (w * (j + k)).cos(), phase, displacement, determinant


@pytest.fixture(scope="module")
def refracted():
    """Reference and sample from waves; transmission, displacement and flux on the detector from rays."""
    distance = 0.05
    rows = torch.arange(SIZE, dtype=torch.float64)
    here = torch.stack(torch.meshgrid(rows, rows, indexing="ij"), -1)
    transmission, phase, _, _ = smooth_sample(*here.unbind(-1), distance)
    lit = propagator(MASK_TO_SAMPLE)(masks().to(torch.complex128)[1:3])
    reference = propagator(distance).intensity(lit)
    sample = propagator(distance).intensity(lit * transmission.sqrt() * torch.exp(1j * phase))
    start = here  # of the ray that arrives here
    for _ in range(20):
        start = here - smooth_sample(*start.unbind(-1), distance)[2]
    transmission, _, displacement, determinant = smooth_sample(*start.unbind(-1), distance)
    assert 0.5 < float(displacement.abs().max()) < 1.5
    assert 0.04 < float((determinant - 1).abs().max()) < 0.1
    return reference, sample, transmission, displacement, 1 / determinant


def test_refraction_is_a_warp_with_its_jacobian(refracted):
    """Waves through a smooth object, beside rays: the pattern is moved, and squeezed where rays converge."""
    reference, sample, transmission, displacement, flux = refracted
    rows = torch.arange(SIZE, dtype=torch.float64)
    j, k = rows[:, None] - displacement[..., 0], rows - displacement[..., 1]
    spectrum = torch.fft.fft2(reference) / SIZE**2
    f = torch.fft.fftfreq(SIZE, dtype=torch.float64)
    warped = torch.zeros_like(reference)
    for a, b in (spectrum.abs().amax(0) > 1e-4).nonzero().tolist():
        fringe = torch.exp(2j * math.pi * (f[a] * j + f[b] * k))
        warped += (spectrum[:, a, b][:, None, None] * fringe).real
    modulation = float(reference.std())
    assert float((sample - transmission * flux * warped).std()) < 0.01 * modulation
    assert float((sample - transmission * warped).std()) > 0.02 * modulation  # photons would not be conserved


def test_the_imaging_model_is_what_waves_do(refracted):
    from ddf_tomo.operators.imaging import ModulatedImaging

    reference, sample, transmission, displacement, _ = refracted
    found = {
        flux: ModulatedImaging(reference, PIXEL, 0.05, flux=flux)(transmission, displacement=displacement)
        for flux in (True, False)
    }
    inner = (..., slice(8, -8), slice(8, -8))  # beyond the edge the model does not know that the pattern goes on
    wrong = {flux: float((sample - frames)[inner].std() / reference.std()) for flux, frames in found.items()}
    assert wrong[True] < 0.01
    assert wrong[False] > 0.02


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: multislice(torch.ones(8, 8), [torch.ones(8, 7)], propagator(0.1, 8)), ValueError, "slices: expected"),
        (lambda: multislice(torch.ones(8, 8), 3, propagator(0.1, 8)), TypeError, "slices: expected complex tensors"),
        (lambda: multislice(torch.ones(8, 8), [], None), TypeError, "propagator: expected"),
        (lambda: wave_frames(torch.ones(8, 8), None, None, []), TypeError, "to_detector: expected one"),
        (lambda: wave_frames(torch.ones(8, 8), None, None, ["far"]), TypeError, "to_detector: expected a Fresnel"),
        (lambda: wave_frames(torch.ones(8, 8), None, 0.1, propagator(0.1, 8)), TypeError, "to_sample: expected"),
        (
            lambda: wave_frames(torch.ones(8, 8), torch.ones(7, 8), None, propagator(0.1, 8)),
            ValueError,
            "sample: expec",
        ),
        (lambda: wave_frames(torch.ones(8, 8), None, None, propagator(0.1, 8), binning=3), ValueError, "binning: expe"),
        (lambda: fringe_blur(torch.ones(1, 8, 8), torch.ones(1, 8, 7), FRINGES), ValueError, "sample: expected shape"),
        (
            lambda: fringe_blur(*[torch.ones(1, 8, 8)] * 2, [(1, 0), (0, 1), (1, 1)]),
            ValueError,
            "reference: expected fri",
        ),
        (lambda: fringe_blur(*[torch.ones(1, 8, 8)] * 2, [(1, 0), (2, 0), (3, 0)]), ValueError, "three different dire"),
        (lambda: fringe_blur(*[torch.ones(1, 8, 8)] * 2, [(1, 0), (0, 4), (1, 1)]), ValueError, "below Nyquist"),
    ],
)
def test_what_makes_no_frames_is_refused(call, error, text):
    with pytest.raises(error, match=text):
        call()
