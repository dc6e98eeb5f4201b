"""Samples to train and to test on: drawn from a seed, in continuous space, never negative.

A family says how matter lies in space. Every voxel's function is a sum of zonal polynomials that are nowhere negative,
across fibres ``(1 - (q·n)²)^p`` or along their normals ``(q·n)^(2p)``, and of isotropic ground, so that ``f ≥ 0`` at
the order that was asked for. A seed is the same sample on every grid: what tests project is drawn on a finer one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddf_tomo._checks import LARGEST_SEED, choice, even_order, integer, message, size_tuple
from ddf_tomo.operators.base import known_device
from ddf_tomo.operators.spherical_harmonics import coefficient_count, evaluate, orders

__all__ = ["FAMILIES", "SPLITS", "random_sample"]
EDGE = 0.12  # width of soft edges, where 1 is half the edge of the volume
HIGHEST = 8


@dataclass(frozen=True)
class Draw:
    """Random numbers of one sample."""

    generator: np.random.Generator
    points: Tensor  # (N, 3)

    def between(self, low: float, high: float) -> float:
        """A number."""
        return float(self.generator.uniform(low, high))

    def log_between(self, low: float, high: float) -> float:
        """A number of uniform logarithm."""
        return math.exp(self.between(math.log(low), math.log(high)))

    def count(self, low: int, high: int) -> int:
        """An integer, both ends included."""
        return int(self.generator.integers(low, high + 1))

    def frame(self) -> Tensor:
        """A random rotation, uniform over all; rows are its axes."""
        matrix, upper = np.linalg.qr(self.generator.normal(size=(3, 3)))
        matrix = matrix * np.sign(np.diagonal(upper))
        return self.tensor(matrix * np.linalg.det(matrix))

    def tensor(self, values: Any) -> Tensor:
        """Numbers as the points have them."""
        return torch.as_tensor(np.asarray(values), dtype=self.points.dtype, device=self.points.device)

    def waves(self, fields: int, cycles: float, modes: int = 10) -> Tensor:
        """Random smooth fields of mean 0 and variance 1, shape ``(N, fields)``."""
        vectors = self.tensor(self.generator.normal(size=(3, modes)) * (math.pi * cycles / math.sqrt(3)))
        phases = self.tensor(self.generator.uniform(0, 2 * math.pi, modes))
        angles = self.points @ vectors + phases
        amplitudes = self.tensor(self.generator.normal(size=(2, modes, fields)) / math.sqrt(modes))
        return angles.cos() @ amplitudes[0] + angles.sin() @ amplitudes[1]


Parts = list[tuple[Tensor, Tensor]]  # of interpenetrating phases: weight (N,), direction (N, 3), of any length
Family = Callable[[Draw], Parts]


def random_sample(
    family: str, shape: Sequence[int], ell_max: int = 4, *, seed: int = 0, device: torch.device | str = "cpu"
) -> Tensor:
    """Coefficients of one random sample of a family.

    Everything about it is drawn: its place, pose and outline, which may leave the corners empty, sizes and numbers of
    its parts, how sharply it scatters, its isotropic share, and its brightness: the mean is about 0.2 to 2 where there
    is something.

    Parameters
    ----------
    family
        A name of `FAMILIES`.
    shape
        Voxels along ``(x, y, z)``; the sample does not depend on it.
    ell_max
        Order of the coefficients, 2, 4, 6 or 8. The sharpest functions are of that degree: a seed looks similar at
        another order, and is not a truncation of it.
    seed
        Of all that is drawn. The same seed of another family is another sample.
    device
        Where it is computed; random numbers are drawn on the CPU, so that all devices have the same sample to rounding.

    Returns
    -------
    torch.Tensor
        Shape ``(x, y, z, K)``, float32.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> random_sample("layered", (8, 8, 8), 4, seed=3).shape
    torch.Size([8, 8, 8, 15])
    """
    name = choice(family, "family", tuple(FAMILIES))
    order = even_order(ell_max, high=HIGHEST)
    if not order:
        raise ValueError(message("ell_max", "2, 4, 6 or 8", order))
    sizes = size_tuple(shape, "shape", 3)
    seeds = [integer(seed, "seed", high=LARGEST_SEED), *name.encode()]
    on = known_device(device)
    axes = [(torch.arange(n, device=on) + 0.5) * (2 / n) - 1 for n in sizes]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    draw = Draw(np.random.default_rng(seeds), points)
    pose, place = draw.frame(), draw.tensor(draw.generator.uniform(-0.1, 0.1, 3))
    # The family sees points in the sample's own frame; directions are turned back.
    draw = Draw(draw.generator, (points - place) @ pose.T)
    outline, brightness = _outline(draw), draw.log_between(0.5, 2.0)
    coefficients = points.new_zeros((len(points), coefficient_count(order)))
    for weight, direction in FAMILIES[name](draw):
        length = direction.norm(dim=-1, keepdim=True)
        share = draw.between(0.5, 1.0)  # of the directional part; less where directions vanish, as they are undefined
        along = share * (length[:, 0].square() / (length[:, 0].square() + 0.1)) * 1.1
        legendre = draw.tensor(_profile(draw, order))
        ell = draw.tensor(orders(order)[0]).long()
        factors = legendre[ell // 2] / (2 * ell + 1)
        mixed = torch.where(ell > 0, along.clamp(max=1.0)[:, None], 1.0)
        # The pose is a rotation: rows n @ pose are the directions outside.
        coefficients += weight[:, None] * mixed * factors * evaluate((direction / length.clamp_min(1e-6)) @ pose, order)
    coefficients *= (brightness * outline)[:, None]
    return coefficients.reshape(*sizes, -1).to(torch.float32)


def _profile(draw: Draw, order: int) -> np.ndarray[Any, Any]:
    """Legendre coefficients of a function of mean 1 that is nowhere negative, between two powers."""
    power, kind = draw.between(1, order / 2), draw.generator.random() < 0.75
    low, share = int(power), power - int(power)
    if share == 0:
        return legendre_of(kind, low, order)
    return (1 - share) * legendre_of(kind, low, order) + share * legendre_of(kind, low + 1, order)


@lru_cache
def legendre_of(across: bool, power: int, order: int) -> np.ndarray[Any, Any]:
    """Coefficients ``a_l`` of ``Σ a_l P_l(t)``, l = 0, 2, …, order: ``(1 - t²)^power`` or ``t^(2 power)`` of mean 1."""
    t, weights = np.polynomial.legendre.leggauss(power + order + 1)
    values = (1 - t**2) ** power if across else t ** (2 * power)
    values = values / (weights @ values / 2)
    table = np.polynomial.legendre.legvander(t, order)[:, ::2]
    return np.asarray((2 * np.arange(0, order + 1, 2) + 1) / 2 * ((weights * values) @ table))


def soft(t: Tensor) -> Tensor:
    """0 below 0, 1 above 1, without kinks between."""
    t = t.clamp(0, 1)
    return t * t * (3 - 2 * t)


def _outline(draw: Draw) -> Tensor:
    """1 inside a body with random half axes (superellipsoid), 0 outside, with a soft edge."""
    axes, power = draw.tensor(draw.generator.uniform(0.55, 0.85, 3)), draw.between(2.0, 5.0)
    radius = (draw.points / axes).abs().pow(power).sum(-1).pow(1 / power)
    return soft((1 - radius) * (0.7 / EDGE) + 0.5)


# -- families ---------------------------------------------------------------------------------------------------------


def _fibrous(draw: Draw) -> Parts:
    """Curved bundles in random directions; those of one of two phases give way, the phases interpenetrate."""
    parts = []
    for _ in range(draw.count(1, 2)):
        free, directions = torch.ones_like(draw.points[:, 0]), torch.zeros_like(draw.points)
        for _ in range(draw.count(3, 8)):
            along, u, v = draw.frame()
            place, phase = (draw.tensor(draw.generator.uniform(-a, a, 2)) for a in (0.6, math.pi))
            bend, wave = draw.between(0.0, 0.25), draw.between(1.0, 4.0)
            angle = (wave * (draw.points @ along))[:, None] + phase
            offset = torch.stack([draw.points @ u, draw.points @ v], -1) - place - bend * angle.sin()
            slope = wave * bend * angle.cos()
            tube = free * soft((draw.between(0.15, 0.4) - offset.norm(dim=-1)) / EDGE + 0.5)
            tangent = along + slope[:, :1] * u + slope[:, 1:] * v
            directions = directions + tube[:, None] * tangent / tangent.norm(dim=-1, keepdim=True)
            free = free * (1 - tube)
        parts.append(((1 - free), directions))
    return parts


def _layered(draw: Draw) -> Parts:
    """Sheets about a bent axis, each with a direction of its own in its plane and a gap to the next."""
    normal, u, v = draw.frame()
    depth = draw.points @ normal + draw.between(0, 0.15) * draw.waves(1, 0.6)[:, 0]
    layer = depth * draw.between(1.5, 5.0) + draw.between(0, 1)
    index, phase = layer.floor().long(), layer - layer.floor()
    table = draw.tensor(draw.generator.uniform(0, math.pi, 64))
    heights = draw.tensor(draw.generator.uniform(0.3, 1.0, 64))
    angle, height = table[index % 64][:, None], heights[index % 64]
    gap = 1 - draw.between(0, 0.9) * (1 - soft((0.5 - (phase - 0.5).abs()) / 0.2))
    return [(height * gap, angle.cos() * u + angle.sin() * v)]


def _porous(draw: Draw) -> Parts:
    """Matter with holes between two levels of a random field, its directions along another."""
    field = draw.waves(4, draw.between(1.5, 4.0), 16)
    filled = soft((field[:, 0] + draw.between(-0.3, 0.8)) * draw.between(1.5, 5.0))
    mean = draw.frame()[0]
    return [(filled, mean * draw.between(0, 1.5) + draw.waves(3, draw.between(0.5, 1.5)))]


def _smooth(draw: Draw) -> Parts:
    """Densities and directions without edges, one or two phases."""
    parts = []
    for _ in range(draw.count(1, 2)):
        cycles = draw.between(0.5, 2.5)
        parts.append((torch.sigmoid(2 * draw.waves(1, cycles)[:, 0]), draw.waves(3, cycles)))
    return parts


def _grains(draw: Draw) -> Parts:
    """Cells about random points, a few or many, each of one direction and density, or of two that share it."""
    count = round(draw.log_between(1, 80))
    centres = draw.tensor(draw.generator.uniform(-1, 1, (count, 3)))
    cell = (draw.points @ centres.T - 0.5 * centres.square().sum(-1)).argmax(-1)
    parts = []
    for _ in range(draw.count(1, 2)):
        directions = draw.tensor(draw.generator.normal(size=(count, 3)))
        directions = directions / directions.norm(dim=-1, keepdim=True)
        parts.append((draw.tensor(draw.generator.uniform(0.2, 1.0, count))[cell], directions[cell]))
    return parts


def _crossing(draw: Draw) -> Parts:
    """Two or three systems of straight or slowly bending fibres that share all voxels, in changing shares."""
    count = draw.count(2, 3)
    shares = torch.softmax(draw.between(0.3, 1.5) * draw.waves(count, 0.8), -1)
    bend = draw.between(0, 0.4)
    return [(shares[:, n], draw.frame()[0] + bend * draw.waves(3, 0.5)) for n in range(count)]


def _helicoidal(draw: Draw) -> Parts:
    """Fibres that turn steadily along a bent axis, as in cuticle and bone."""
    axis, u, v = draw.frame()
    depth = draw.points @ axis + draw.between(0, 0.15) * draw.waves(1, 0.6)[:, 0]
    angle = (depth * draw.between(1.0, 6.0) + draw.between(0, math.pi))[:, None]
    rise = draw.between(-0.4, 0.4)
    return [(0.85 + 0.15 * torch.sin(2 * angle[:, 0]), angle.cos() * u + angle.sin() * v + rise * axis)]


def _osteonal(draw: Draw) -> Parts:
    """Concentric lamellae of alternating tilt about several parallel canals, in a ground of their common direction."""
    axis, u, v = draw.frame()
    across = torch.stack([draw.points @ u, draw.points @ v], -1)
    weight, directions = torch.full_like(across[:, 0], draw.between(0.2, 0.6)), axis.expand_as(draw.points)
    for _ in range(draw.count(2, 5)):
        offset = across - draw.tensor(draw.generator.uniform(-0.6, 0.6, 2))
        radius = offset.norm(dim=-1)
        outer = draw.between(0.25, 0.45)
        inside = soft((outer - radius) / EDGE + 0.5)
        hollow = soft((radius - draw.between(0.05, 0.12)) / EDGE + 0.5)
        tilt = (draw.between(0.3, 1.0) * torch.sin(2 * math.pi * radius / draw.between(0.12, 0.3)))[:, None]
        around = (offset[:, :1] * v - offset[:, 1:] * u) / radius.clamp_min(1e-6)[:, None]
        weight = weight * (1 - inside) + inside * hollow
        directions = torch.lerp(directions, tilt.cos() * axis + tilt.sin() * around, inside[:, None])
    return [(weight, directions)]


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "fibrous": _fibrous,
        "layered": _layered,
        "porous": _porous,
        "smooth": _smooth,
        "grains": _grains,
        "crossing": _crossing,
        "helicoidal": _helicoidal,
        "osteonal": _osteonal,
    }
)
"""How matter lies in space, by name."""

SPLITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("fibrous", "layered", "porous", "smooth", "grains"),
        "validation": ("crossing",),
        "test": ("helicoidal", "osteonal"),
    }
)
"""Which families train networks, which decide when training ends, and which no network has ever seen.

The phantoms of `ddf_tomo.phantoms` belong to the tests too.
"""
