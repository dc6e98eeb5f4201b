"""Draws the figures of the page on acquisition: ``python docs/figures_waves.py`` (or ``make figures``).

``blur_over_distance`` is a measurement too: it prints what waves and model have in common.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from ddf_tomo.acquisition import (
    FibrousMedium,
    RefractiveIndex,
    fringe_blur,
    grid,
    hadamard,
    random_binary,
    sandpaper,
    spiral,
    ura,
    wave_frames,
)
from ddf_tomo.operators.propagation import FresnelPropagator
from ddf_tomo.visualization.style import BLUE, GREEN, GREY, ORANGE

FOLDER = Path(__file__).parent / "figures"
PIXEL_M, SIZE, PERIOD = 0.5e-6, 512, 16
WAVELENGTH_M, MASK_TO_SAMPLE_M, THICKNESS_M = 5e-11, 0.3, 2e-4
SCREENS, STEPS = 3, 4
DISTANCES_M = (0.01, 0.015, 0.025, 0.04, 0.06, 0.1, 0.16, 0.24, 0.5, 0.65, 1.2)
FIBRES = FibrousMedium(delta_rms=4e-7, length_m=4.5e-6, width_m=1.5e-6, direction=(0.5, 1.0, 0.3))
SILICON = RefractiveIndex(delta=7.8e-7, beta=2.1e-9, energy_kev=25.0)


def propagator(distance_m: float) -> FresnelPropagator:
    return FresnelPropagator((SIZE, SIZE), PIXEL_M, distance_m, WAVELENGTH_M, boundary="periodic")


def as_covariance(exponent: torch.Tensor) -> torch.Tensor:
    """C along a fringe with the mask's period, in square pixels, of the Gaussian that leaves ``−ln V``."""
    return exponent * PERIOD**2 / (2 * torch.pi**2)


def blurs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Blur from waves, by fringes along j and k (distance, 2), and by all (distance, 3); the model's (distance, 3)."""
    x = torch.arange(SIZE) * (2 * torch.pi / PERIOD)
    mask = torch.exp(-0.6j * (x.cos()[:, None] + x.cos()))
    moves = [n * PERIOD // STEPS for n in range(STEPS)]
    lit = propagator(MASK_TO_SAMPLE_M)(torch.stack([mask.roll((j, k), (0, 1)) for j in moves for k in moves]))
    cycles = SIZE // PERIOD
    fringes = [(cycles, 0), (0, cycles), (cycles, cycles), (cycles, -cycles)]
    screens = [FIBRES.phase_screen((SIZE, SIZE), PIXEL_M, THICKNESS_M, WAVELENGTH_M, seed=n) for n in range(SCREENS)]
    found = []
    for distance in DISTANCES_M:
        P = propagator(distance)
        frames = torch.cat([wave_frames(lit, torch.exp(1j * phase.float()), None, P)[0] for phase in screens])
        reference = wave_frames(lit, None, None, P)[0].tile(SCREENS, 1, 1)
        found.append(fringe_blur(frames, reference, fringes))
    squares = torch.tensor(DISTANCES_M, dtype=torch.float64)[:, None] ** 2
    single = as_covariance(torch.stack([blur.exponent[:2] for blur in found]))
    whole = torch.stack([blur.covariance for blur in found])
    return single, whole, FIBRES.second_moment(THICKNESS_M) * squares / PIXEL_M**2


def saturating(distances_m: np.ndarray) -> torch.Tensor:
    """C_jj and C_kk of the Gaussian with the visibility that the medium has in closed form: (distance, 2)."""
    fringe = torch.eye(2, dtype=torch.float64) / PERIOD  # cycles a pixel
    separation = torch.from_numpy(distances_m)[:, None, None] * fringe * WAVELENGTH_M / PIXEL_M
    exponent = FIBRES.visibility_exponent(separation, THICKNESS_M, WAVELENGTH_M)
    return as_covariance(exponent)


def blur_over_distance() -> Figure:
    """Blur of a fibrous medium from waves, over the distance, beside the model's."""
    single, waves, model = blurs()
    for distance, ratio in zip(DISTANCES_M, (waves / model).tolist(), strict=True):
        print(f"{distance:6.3f} m: waves / model, jj jk kk: " + "  ".join(f"{each:.3f}" for each in ratio))
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    smooth = np.geomspace(0.008, 1.5, 200)
    closed = saturating(smooth)
    theta = FIBRES.second_moment(THICKNESS_M).numpy()
    for n, (channel, colour, name) in enumerate(((0, BLUE, "jj"), (2, ORANGE, "kk"))):
        left.loglog(smooth, theta[channel] * (smooth / PIXEL_M) ** 2, "--", color=colour, linewidth=1)
        left.loglog(smooth, closed[:, n], color=colour, linewidth=1.2)
        left.loglog(DISTANCES_M, single[:, n], "o", color=colour, markersize=5, label=f"$C_{{{name}}}$ from waves")
    left.plot([], [], "--", color=GREY, label=r"model, $C = (d/s)^2\,\Theta$")
    left.plot([], [], color=GREY, label="visibility of the medium, closed form")
    left.set(xlabel="distance $d$ (m)", ylabel="blur (px²)", title="a pattern of 8 µm behind fibres of 1.5 µm")
    left.legend(fontsize=8, frameon=False)
    right.axhspan(0.95, 1.05, color="0.92")
    for channel, colour, name in ((0, BLUE, "jj"), (1, GREEN, "jk"), (2, ORANGE, "kk")):
        ratio = waves[:, channel] / model[:, channel]
        right.semilogx(DISTANCES_M, ratio, "o-", color=colour, markersize=4, linewidth=1, label=name)
    right.set(
        xlabel="distance $d$ (m)",
        ylabel="waves / model",
        ylim=(0, 1.2),
        title="by four fringes; grey: within 5 %",
    )
    right.legend(fontsize=8, frameon=False)
    return figure


def setup() -> Figure:
    """Source, mask, sample and detector from the side, with the lengths that the functions ask for."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots()
    source, mask, sample, detector = 0.0, 4.0, 5.0, 10.0
    spread = 0.16  # of the beam, height over length
    axes.fill([source, detector, detector], [0, -spread * detector, spread * detector], color="0.95", zorder=0)
    axes.plot([source], [0], "o", color=ORANGE, markersize=7)
    axes.text(source, 0.28, "source, σ", ha="center", color=ORANGE)
    for place in np.linspace(-0.55, 0.55, 8):
        axes.plot([mask, mask], [place - 0.04, place + 0.04], color="0.2", linewidth=5, solid_capstyle="butt")
    axes.text(mask, 0.85, "mask, steps", ha="center")
    axes.fill(*_ellipse(sample, 0.0, 0.16, 0.6), color=GREEN, alpha=0.35)
    axes.text(sample + 0.25, -0.62, "sample: T, α, Θ", color=GREEN)
    axes.plot([detector, detector], [-1.7, 1.7], color=BLUE, linewidth=5)
    axes.text(detector + 0.12, -1.2, "detector,\npixels of M s", color=BLUE, va="top")
    ray, bent = 0.17, 0.12  # heights over length: of a ray, and what the sample adds
    start, straight = ray * 0.4 * sample, ray * 0.4 * detector
    axes.plot([source, sample], [0, start], color="0.3", linewidth=1)
    axes.plot([sample, detector], [start, straight], "--", color="0.6", linewidth=1)
    arrived = straight + bent * (detector - sample)
    axes.plot([sample, detector], [start, arrived], color="0.3", linewidth=1)
    fan = 0.05 * (detector - sample)
    axes.fill([sample, detector, detector], [start, arrived - fan, arrived + fan], color=GREEN, alpha=0.2)
    axes.annotate("", (detector - 0.12, arrived), (detector - 0.12, straight), arrowprops={"arrowstyle": "<->"})
    axes.text(detector + 0.12, straight + 0.1, "refraction:\nu = d α / (M s) pixels", va="center", fontsize=8)
    axes.text(6.75, start + 0.22, "α", fontsize=11, va="center")
    axes.text(detector + 0.12, arrived - 0.05, "fan Θ:\nblur C = d² Θ / (M s)²", color=GREEN, fontsize=8, va="center")
    for low, high, height, text in (
        (source, sample, -1.15, "source_distance_m = R"),
        (sample, detector, -1.15, "distance_m = d"),
        (mask, sample, -0.8, ""),
    ):
        axes.annotate("", (high, height), (low, height), arrowprops={"arrowstyle": "<->", "linewidth": 0.8})
        axes.text((low + high) / 2, height - 0.1, text, ha="center", va="top", fontsize=9)
    axes.text(mask - 0.1, -0.8, "to_sample", ha="right", va="center", fontsize=9)
    axes.text(5.0, -1.72, "M = (R + d) / R; a parallel beam is M = 1", ha="center", fontsize=9, color="0.3")
    axes.set(xlim=(-0.6, 12), ylim=(-1.85, 1.85))
    axes.set_axis_off()
    return figure


def _ellipse(x: float, y: float, width: float, height: float) -> tuple[np.ndarray, np.ndarray]:
    angle = np.linspace(0, 2 * np.pi, 100)
    return x + width * np.cos(angle), y + height * np.sin(angle)


def masks() -> Figure:
    """The masks, and what a detector half a metre behind them sees."""
    size = 192
    frame = {"shape": (size, size), "pixel_size_m": PIXEL_M}
    options = {"feature_size_m": 5e-6, "thickness_m": 15e-6}
    drawn = {
        "random_binary": random_binary(**frame, **options, seed=1),
        "sandpaper": sandpaper(**frame, feature_size_m=5e-6, thickness_m=60e-6, seed=1),
        "grid": grid(**frame, period_m=10e-6, thickness_m=15e-6),
        "ura": ura(**frame, **options, order=17),
        "hadamard": hadamard(**frame, **options, order=4),
        "spiral, holes": spiral(**frame, **options),
        "spiral, line": spiral(**frame, **options, kind="line"),
    }
    P = FresnelPropagator((size, size), PIXEL_M, 0.5, SILICON.wavelength_m)
    figure = Figure(figsize=(13, 4), layout="constrained")
    for column, (name, height) in enumerate(drawn.items()):
        above, below = (figure.add_subplot(2, len(drawn), column + 1 + row * len(drawn)) for row in (0, 1))
        above.imshow(1e6 * height, cmap="bone_r")
        above.set_title(name, fontsize=9)
        image = wave_frames(SILICON.wave(height), None, None, P, binning=2)[0]
        below.imshow(image, cmap="gray", vmin=0.3, vmax=1.8)
        below.set_title(f"visibility {float(image.std() / image.mean()):.2f}", fontsize=9)
        for axes in (above, below):
            axes.set_xticks([])
            axes.set_yticks([])
    return figure


def drawings() -> dict[str, Figure]:
    """All figures by the names of their files."""
    wanted = [
        drawing for drawing in (setup, masks, blur_over_distance) if not sys.argv[1:] or drawing.__name__ in sys.argv
    ]
    return {drawing.__name__: drawing() for drawing in wanted}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, figure in drawings().items():
        figure.savefig(FOLDER / f"{name}.png", dpi=110)
        print(FOLDER.name + f"/{name}.png")
