"""Entry points of acquisition and wave optics, with right arguments."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from ddf_tomo import acquisition as aq
from ddf_tomo.operators import propagation
from tests.fuzz.table import Made, entry
from tests.fuzz.values import Source


def wave(s: Source, *shape: int) -> Any:
    phase = torch.as_tensor(s.generator().standard_normal(shape))
    return s.one_of(torch.exp(1j * phase), torch.exp(1j * phase).to(torch.complex64), phase, phase.numpy())


def propagator(s: Source, shape: tuple[int, int]) -> propagation.FresnelPropagator:
    return propagation.FresnelPropagator(shape, 1e-6, s.one_of(0.0, 1e-3, 0.01), 5e-11, boundary="periodic")


@entry("FresnelPropagator", 2)
def _(s: Source) -> Made:
    shape = s.sizes(2, 8, 12)

    def call(wave: Any, **given: Any) -> Any:
        P = propagation.FresnelPropagator(**given)
        return repr(P), P(wave), P.adjoint(wave), P.intensity(wave)

    boundary = s.one_of("edge", "zero", "periodic")
    options = {"pad": "auto" if boundary == "periodic" else s.one_of("auto", 4), "boundary": boundary}
    cone = s.one_of({}, {"source_distance_m": 1.0, "source_sigma_m": s.one_of(1e-6, (1e-6, 2e-6))})
    lengths = {"shape": shape, "pixel_size_m": 1e-6, "distance_m": s.one_of(0.0, 0.01), "wavelength_m": 5e-11}
    return call, lengths | options | cone | {"wave": wave(s, *shape)}


@entry("waves of several energies, aliasing")
def _(s: Source) -> Made:
    shape = s.sizes(2, 8, 12)
    several = {"waves": [wave(s, *shape)] * 2, "propagators": [propagator(s, shape)] * 2, "weights": [1.0, 2.0]}
    return s.one_of(
        (propagation.polychromatic_intensity, several),
        (propagation.aliased_share, {"wave": wave(s, *shape)}),
    )


@entry("masks", 2)
def _(s: Source) -> Made:
    common = {"shape": s.sizes(2, 12, 20), "pixel_size_m": 1e-6, "thickness_m": 2e-5}
    feature = {"feature_size_m": s.one_of(2e-6, 3.3e-6)}
    pattern = s.as_good(np.array([[1.0, 0.0], [0.5, 1.0]]))
    function, options = s.one_of(
        (aq.cells, feature | {"pattern": pattern}),
        (aq.random_binary, feature | {"fill": 0.4, "seed": s.one_of(1, torch.Generator().manual_seed(1))}),
        (aq.sandpaper, feature | {"seed": 2}),
        (aq.grid, {"period_m": 4e-6, "kind": s.one_of("holes", "pillars", "lines_j", "lines_k"), "fill": 0.3}),
        (aq.ura, feature | {"order": s.one_of(3, 5, 11)}),
        (aq.hadamard, feature | {"order": s.one_of(2, 3, 8)}),
        (aq.spiral, feature | {"kind": s.one_of("dots", "holes", "line"), "fill": 0.4}),
    )
    return function, common | options


@entry("stepping")
def _(s: Source) -> Made:
    positions = s.noise(3, 2)
    shape = s.one_of(None, s.sizes(2, 2, 4))
    pattern = s.one_of(s.noise(20, 22), wave(s, 20, 22))
    return s.one_of(
        (aq.random_steps, {"steps": s.size(), "extent": s.one_of(3.0, (1.0, 2.0)), "seed": 1}),
        (aq.raster_steps, {"shape": s.sizes(2), "pitch": s.one_of(1.0, (1.0, 2.0))}),
        (aq.spiral_steps, {"steps": s.size(), "pitch": 2.0}),
        (aq.shifted, {"pattern": pattern, "positions_px": positions, "shape": shape}),
    )


@entry("Detector", 2)
def _(s: Source) -> Made:
    shape = s.sizes(2)
    maps = {
        "sensitivity": s.one_of(None, s.noise(*shape, positive=True)),
        "dead": s.one_of(None, np.zeros(shape, bool)),
        "hot": s.one_of(None, torch.zeros(shape, dtype=torch.bool)),
        "dark": s.one_of(0.0, 100.0, s.noise(*shape, positive=True)),
    }

    def call(intensity: Any, counts: Any, seed: Any, noise: Any, count: Any, **given: Any) -> Any:
        detector = aq.Detector(**given)
        stored = detector.frames(intensity, counts, seed=seed, noise=noise)
        return detector.expected(intensity, counts), stored, detector.dark_frames(count, shape, seed=seed)

    numbers = {"psf_sigma_px": s.one_of(0.0, (0.5, 1.0)), "gain": 2.0, "read_noise": 3.0, "saturation": 60_000.0}
    exposure = {"intensity": s.noise(2, *shape, positive=True), "counts": 500.0, "seed": 1, "noise": True, "count": 2}
    return call, numbers | maps | exposure


@entry("correct")
def _(s: Source) -> Made:
    shape = s.sizes(2)
    dark = s.one_of(0.0, 0.1 * s.noise(*shape, positive=True), 0.1 * s.noise(2, *shape, positive=True))
    flat = s.one_of(2.0, s.noise(*shape, positive=True), s.noise(3, *shape, positive=True))
    frames = {
        "frames": s.noise(4, *shape, positive=True),
        "dark": dark,
        "flat": flat,
        "saturation": s.one_of(None, 1.4),
    }
    return aq.correct, frames


@entry("materials")
def _(s: Source) -> Made:
    def thickness(thickness_m: Any, **given: Any) -> Any:
        index = aq.RefractiveIndex(**given)
        found = index.transmission(thickness_m), index.phase(thickness_m), index.wave(thickness_m)
        return found, index.attenuation_per_m, index.phase_per_m, index.wavelength_m

    index = {"delta": 1e-6, "beta": 1e-9, "energy_kev": 20.0, "thickness_m": 1e-5 * s.noise(*s.sizes(2))}
    table = {"material": s.one_of("Si", "water", "SiC"), "energy_kev": s.one_of(10.0, 60), "density_g_cm3": 2.0}
    tables = [(aq.refractive_index, table)] if find_spec("xraydb") else []
    return s.one_of((thickness, index), *tables, (aq.wavelength_m, {"energy_kev": 20.0}))


@entry("random media", 2)
def _(s: Source) -> Made:
    def medium(directions: Any, separation_m: Any, thickness_m: Any, wavelength_m: Any, **given: Any) -> Any:
        fibres = aq.FibrousMedium(**given)
        moment = fibres.second_moment(thickness_m)
        exponent = fibres.visibility_exponent(separation_m, thickness_m, wavelength_m)
        return fibres.scattering(directions), moment, exponent

    def screen(seed: Any, shape: Any, pixel_size_m: Any, thickness_m: Any, wavelength_m: Any) -> Any:
        fibres = aq.FibrousMedium(1e-7, 4e-6, 2e-6)
        return fibres.phase_screen(shape, pixel_size_m, thickness_m, wavelength_m, seed=seed)

    given = {"delta_rms": 1e-7, "length_m": 4e-6, "width_m": 2e-6, "direction": (0.0, 1.0, 0.5)}
    lengths = {"thickness_m": 1e-4, "wavelength_m": 5e-11}
    points = {"directions": s.as_good(np.eye(3)), "separation_m": 1e-6 * s.noise(2, 2)}
    theta = np.broadcast_to([2e-12, 1e-13, 1e-12], (20, 24, 3)).copy()
    of_map = {"second_moment_rad2": s.as_good(theta), "pixel_size_m": 1e-6, "correlation_length_m": 2e-6}
    return s.one_of(
        (medium, given | lengths | points),
        (screen, lengths | {"shape": (20, 24), "pixel_size_m": 1e-6, "seed": 1}),
        (aq.scattering_screen, of_map | {"wavelength_m": 5e-11, "seed": 1} | {"pixel_size_m": 0.5e-6}),
    )


@entry("waves to frames", 2)
def _(s: Source) -> Made:
    shape = s.one_of((12, 12), (8, 12))
    P = propagator(s, shape)
    x = np.arange(shape[0])[:, None] / shape[0], np.arange(shape[1]) / shape[1]
    frames = {
        "masks": s.one_of(wave(s, *shape), wave(s, 2, *shape)),
        "sample": s.one_of(None, wave(s, *shape)),
        "to_sample": s.one_of(None, P),
        "to_detector": s.one_of(P, [P, P]),
        "binning": s.one_of(1, 2, 4),
    }
    known = 2 + np.outer(np.cos(4 * np.pi * x[0].ravel()), np.cos(6 * np.pi * x[1]))
    known = known + np.cos(4 * np.pi * x[0]) + np.cos(6 * np.pi * x[1])
    fringes = {
        "sample": s.as_good(known[None]),
        "reference": s.as_good(known[None]),
        "cycles": [(2, 0), (0, 3), (2, 3)],
    }
    return s.one_of(
        (aq.wave_frames, frames),
        (aq.multislice, {"wave": wave(s, *shape), "slices": [wave(s, *shape)] * 2, "propagator": P}),
        (aq.fringe_blur, fringes),
    )
