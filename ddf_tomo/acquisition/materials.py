"""Refractive indices ``n = 1 − δ + iβ`` of materials, and what a thickness of them does to a wave."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import message, neighbour, number
from ddf_tomo.acquisition._inputs import real_map

PLANCK_TIMES_LIGHT_KEV_M = 1.239841984e-9  # h c, CODATA 2018 (exact in the SI since 2019)
LOWEST_KEV, HIGHEST_KEV = 0.3, 500.0  # of the tables


def wavelength_m(energy_kev: float) -> float:
    """Wavelength ``h c / E`` of photons, in metres.

    Parameters
    ----------
    energy_kev
        Photon energy.

    Examples
    --------
    >>> round(wavelength_m(12.39841984) * 1e10, 9)
    1.0
    """
    return PLANCK_TIMES_LIGHT_KEV_M / number(energy_kev, "energy_kev", low=LOWEST_KEV, high=HIGHEST_KEV)


@dataclass(frozen=True)
class RefractiveIndex:
    """``n = 1 − δ + iβ`` at one energy.

    Attributes
    ----------
    delta, beta
        Decrement and absorption index. β may be 0, as a pure phase object has it.
    energy_kev
        Photon energy.

    Examples
    --------
    >>> silicon = RefractiveIndex(delta=4.888e-6, beta=7.4e-8, energy_kev=10.0)
    >>> bool(abs(silicon.attenuation_per_m * 133e-6 - 1) < 0.01)  # 133 µm leave 1/e
    True
    """

    delta: float
    beta: float
    energy_kev: float

    def __post_init__(self) -> None:
        for name in ("delta", "beta"):
            object.__setattr__(self, name, number(getattr(self, name), name, low=-0.1, high=0.1))
        if self.beta < 0:
            raise ValueError(message("beta", "a number ≥ 0", self.beta, "matter does not amplify"))
        energy = number(self.energy_kev, "energy_kev", low=LOWEST_KEV, high=HIGHEST_KEV)
        object.__setattr__(self, "energy_kev", energy)

    @property
    def wavelength_m(self) -> float:
        """Wavelength in metres."""
        return wavelength_m(self.energy_kev)

    @property
    def attenuation_per_m(self) -> float:
        """Linear attenuation coefficient ``μ = 2 k β``, of intensities."""
        return 4 * math.pi * self.beta / self.wavelength_m

    @property
    def phase_per_m(self) -> float:
        """Phase of a wave behind a metre of it, ``−k δ`` in rad: matter lets the phase run ahead."""
        return -2 * math.pi * self.delta / self.wavelength_m

    def transmission(self, thickness_m: Tensor) -> Tensor:
        """Share of the intensity behind a thickness, ``exp(−μ t)``, for a map ``thickness_m`` of any shape."""
        return torch.exp(-self.attenuation_per_m * _thickness(thickness_m))

    def phase(self, thickness_m: Tensor) -> Tensor:
        """Phase in rad behind a thickness, ``−k δ t``, for a map ``thickness_m`` of any shape."""
        return self.phase_per_m * _thickness(thickness_m)

    def wave(self, thickness_m: Tensor) -> Tensor:
        """Complex transmission ``exp(−ikδt − kβt)`` for a map ``thickness_m`` of any shape."""
        thickness = _thickness(thickness_m)
        return torch.polar(torch.exp(-0.5 * self.attenuation_per_m * thickness), self.phase_per_m * thickness)


def refractive_index(material: str, energy_kev: float, density_g_cm3: float | None = None) -> RefractiveIndex:
    """Refractive index from the tables of the package `xraydb`.

    δ comes from the scattering factors of Chantler, β from the total attenuation of Elam, Ravel and Sieber: what is
    scattered out of the beam is lost as well as what is absorbed, and for light matter above 20 keV it is the larger
    part (`xraydb.xray_delta_beta` has absorption only: a third too little for water at 20 keV).

    Parameters
    ----------
    material
        A chemical formula, such as ``"SiC"``, or a name that `xraydb` knows, such as ``"water"`` or ``"kapton"``.
    energy_kev
        Photon energy, 0.3 to 500.
    density_g_cm3
        Density in g/cm³; None takes that of a named material.

    Returns
    -------
    RefractiveIndex
        With δ, β, and what follows from them.

    Raises
    ------
    ImportError
        If `xraydb` is missing; the message says how to install it.
    ValueError, TypeError
        If the material or its density is not known.

    Notes
    -----
    δ falls as 1/E² away from the edges. Tables differ by some per cent near edges and below 1 keV.

    Examples
    --------
    >>> silicon = refractive_index("Si", 10.0, 2.33)  # doctest: +SKIP
    >>> f"{silicon.delta:.3g}, {silicon.attenuation_per_m:.4g} per m"  # doctest: +SKIP
    '4.89e-06, 7894 per m'
    """
    energy = number(energy_kev, "energy_kev", low=LOWEST_KEV, high=HIGHEST_KEV)
    if not isinstance(material, str) or not material.strip():
        raise TypeError(message("material", "a chemical formula or a name such as 'water'", repr(material)))
    density = density_g_cm3
    if density is not None:
        density = number(density, "density_g_cm3", low=1e-6, high=25.0, low_open=True)
    xraydb: Any = neighbour("xraydb")
    known = xraydb.get_material(material)
    formula, tabulated = known if known is not None else (material, None)
    if density is None and tabulated is None:
        raise ValueError(message("density_g_cm3", f"the density of {material!r}, which is no tabulated name", None))
    if not xraydb.validate_formula(formula):
        hint = "write formulas as 'SiO2' and 'Ca5(PO4)3OH'; names are those of xraydb.get_materials()"
        raise ValueError(message("material", "a chemical formula or the name of a material", repr(material), hint))
    density = tabulated if density is None else density
    delta, _, _ = xraydb.xray_delta_beta(formula, density, 1000 * energy)
    attenuation_per_m = 100 * xraydb.material_mu(formula, 1000 * energy, density=density, kind="total")
    return RefractiveIndex(float(delta), float(attenuation_per_m) * wavelength_m(energy) / (4 * math.pi), energy)


def _thickness(thickness_m: Any) -> Tensor:
    thickness = real_map(thickness_m, "thickness_m", 0)
    if thickness.numel() and float(thickness.detach().abs().max()) > 10:
        raise ValueError(message("thickness_m", "metres, up to 10", float(thickness.detach().abs().max())))
    return thickness
