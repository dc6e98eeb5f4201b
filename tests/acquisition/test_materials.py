"""Refractive indices against published values, free electrons, and what follows from a thickness."""

from __future__ import annotations

import math
import sys

import pytest
import torch

from ddf_tomo.acquisition import RefractiveIndex, refractive_index, wavelength_m

ELECTRON_RADIUS_M, AVOGADRO = 2.8179403e-15, 6.02214076e23


def test_wavelength():
    import scipy.constants as known

    assert wavelength_m(25.0) == pytest.approx(known.h * known.c / (25e3 * known.e), rel=1e-9)


@pytest.mark.parametrize(
    ("material", "density", "energy", "attenuation_cm2_g"),
    [("Si", 2.33, 10.0, 33.89), ("H2O", 1.0, 20.0, 0.8096), ("Au", 19.3, 20.0, 78.83), ("Al", 2.7, 30.0, 1.128)],
)
def test_attenuation_is_that_of_nist(material, density, energy, attenuation_cm2_g):
    """μ/ρ with coherent scattering; absorption alone would be 36 % too little for water."""
    pytest.importorskip("xraydb", exc_type=ImportError)
    index = refractive_index(material, energy, density)
    assert index.attenuation_per_m == pytest.approx(100 * attenuation_cm2_g * density, rel=2e-3)


def free_electrons(per_formula, mass, density, energy):
    """δ of as many electrons as there are, ``r_e λ² n / 2π``."""
    per_m3 = per_formula / mass * density * 1e6 * AVOGADRO
    return ELECTRON_RADIUS_M * wavelength_m(energy) ** 2 * per_m3 / (2 * math.pi)


def test_far_from_edges_electrons_are_free():
    pytest.importorskip("xraydb", exc_type=ImportError)
    for energy in (20.0, 40.0, 60.0):
        expected = free_electrons(10, 18.015, 1.0, energy)
        assert refractive_index("water", energy).delta == pytest.approx(expected, rel=2e-3)
        expected = free_electrons(13, 26.982, 2.7, energy)
        assert refractive_index("Al", energy, 2.7).delta == pytest.approx(expected, rel=4e-3)
    ratio = refractive_index("SiC", 60.0, 3.21).delta / refractive_index("SiC", 30.0, 3.21).delta
    assert ratio == pytest.approx(0.25, rel=5e-3)


def test_near_edges_they_are_not():
    pytest.importorskip("xraydb", exc_type=ImportError)
    assert refractive_index("Si", 10.0, 2.33).delta == pytest.approx(4.89e-6, rel=5e-3)  # published, to three digits
    copper = refractive_index("Cu", 8.98, 8.96).delta / free_electrons(29, 63.546, 8.96, 8.98)  # at its K edge
    assert copper < 0.85


def test_densities():
    pytest.importorskip("xraydb", exc_type=ImportError)
    assert refractive_index("kapton", 25.0).delta == pytest.approx(
        refractive_index("kapton", 25.0, 1.42).delta, rel=0.02
    )
    assert refractive_index("Si", 25.0, 4.66).delta == pytest.approx(2 * refractive_index("Si", 25.0, 2.33).delta)
    with pytest.raises(ValueError, match="density_g_cm3: expected the density of 'SiC'"):
        refractive_index("SiC", 25.0)
    with pytest.raises(ValueError, match=r"density_g_cm3: expected a finite number in \(1e-06, 25.0\], got 2330"):
        refractive_index("Si", 25.0, 2330)
    for unknown in ("Unobtainium", "Si2Q", "(", "12"):
        with pytest.raises(ValueError, match="material: expected a chemical formula or the name of a material"):
            refractive_index(unknown, 25.0, 1.0)
    with pytest.raises(TypeError, match="material: expected a chemical formula"):
        refractive_index(14, 25.0)
    with pytest.raises(ValueError, match="energy_kev: expected"):
        refractive_index("Si", 25_000)


def test_without_the_tables(monkeypatch):
    monkeypatch.setitem(sys.modules, "xraydb", None)
    with pytest.raises(ImportError, match="pip install xraydb"):
        refractive_index("Si", 25.0)


def test_thickness():
    index = RefractiveIndex(1e-6, 2e-9, 20.0)
    thickness = torch.tensor([0.0, 50e-6, 1e-3], dtype=torch.float64, requires_grad=True)
    k = 2 * math.pi / index.wavelength_m
    expected = torch.exp(1j * k * (-1e-6 + 2e-9j) * thickness)
    torch.testing.assert_close(index.wave(thickness), expected)
    torch.testing.assert_close(index.transmission(thickness), expected.abs() ** 2)
    torch.testing.assert_close(torch.polar(expected.abs(), index.phase(thickness)), expected)
    microns = (1e6 * thickness).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda t: torch.view_as_real(index.wave(1e-6 * t)), microns)


def test_wrong_indices():
    with pytest.raises(ValueError, match="beta: expected a number ≥ 0"):
        RefractiveIndex(1e-6, -1e-9, 20.0)
    with pytest.raises(ValueError, match="delta: expected"):
        RefractiveIndex(1.5, 0, 20.0)
    with pytest.raises(ValueError, match="thickness_m: expected metres, up to 10"):
        RefractiveIndex(1e-6, 0, 20.0).phase(torch.tensor([20.0]))
