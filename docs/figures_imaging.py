"""Draws the figure of the page on image formation: ``python docs/figures_imaging.py`` (or ``make figures``).

Every image is what the model gives, term by term.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse

from ddf_tomo.acquisition.speckle import speckle
from ddf_tomo.operators import ModulatedImaging, flux_factor
from ddf_tomo.visualization.style import BLUE, ORANGE

FOLDER = Path(__file__).parent / "figures"
SIZE, EVERY = 96, 12


def sample() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """T, u and C of a sheet of fibres (left, blurs across the fibres) and a weak lens that absorbs (right)."""
    j, k = torch.meshgrid(torch.arange(float(SIZE)), torch.arange(float(SIZE)), indexing="ij")
    sheet = torch.sigmoid((k - 8) / 1.5) * torch.sigmoid((46 - k) / 1.5)
    angle = torch.pi * (0.15 + 0.5 * j / SIZE)  # of the strongest blur, turning from top to bottom
    across, along = 4.0, 0.3
    direction = torch.stack([angle.cos() ** 2, angle.cos() * angle.sin(), angle.sin() ** 2], -1)
    isotropic = torch.tensor([1.0, 0.0, 1.0])
    covariance = sheet[..., None] * ((across - along) * direction + along * isotropic)
    y, x = (j - 47.5) / 20, (k - 70.5) / 20
    lens = torch.exp(-0.5 * (y**2 + x**2) / 0.35)
    displacement = 3.2 * lens[..., None] * torch.stack([y, x], -1)
    return 1 - 0.35 * lens, displacement, covariance


def image_formation() -> Figure:
    """Reference, blurred, moved, with the flux of the refraction, attenuated."""
    transmission, displacement, covariance = sample()
    reference = speckle(1, (SIZE, SIZE))
    keeping, moving = (ModulatedImaging(reference, 1.0, 1.0, flux=flux) for flux in (True, False))
    images = {
        "reference R": reference[0],
        "blurred: G_C * R": moving(covariance=covariance)[0],
        "at x − u": moving(displacement=displacement, covariance=covariance)[0],
        "times J ≈ 1 − ∇·u": keeping(displacement=displacement, covariance=covariance)[0],
        "times T: the frame": keeping(transmission, displacement=displacement, covariance=covariance)[0],
    }
    figure = Figure(figsize=(15, 6.3), layout="constrained")
    rows = figure.subplots(2, 5)
    limits = {"cmap": "gray", "vmin": 0.2, "vmax": 1.8}
    for axes, (title, image) in zip(rows[0], images.items(), strict=True):
        axes.imshow(np.asarray(image), **limits)
        axes.set_title(title, fontsize=12)
    rows[1, 0].set_axis_off()
    rows[1, 0].text(0.5, 0.5, "what the sample is:", transform=rows[1, 0].transAxes, ha="center", fontsize=12)
    blank = np.full((SIZE, SIZE), np.nan)
    for axes in rows[1, 1:3]:
        axes.imshow(blank, **limits)
    ellipses(rows[1, 1], covariance.numpy())
    rows[1, 1].set_title("C: ellipses of ±2 standard deviations", fontsize=10)
    places = np.arange(EVERY // 4, SIZE, EVERY // 2)
    u = displacement.numpy()[places][:, places]
    rows[1, 2].quiver(places, places, u[..., 1], u[..., 0], color=BLUE, angles="xy", scale_units="xy", scale=0.35)
    rows[1, 2].set_title("u: arrows, three times as long", fontsize=10)
    rows[1, 3].imshow(flux_factor(displacement).numpy(), cmap="gray", vmin=0.7, vmax=1.3)
    rows[1, 3].set_title("J", fontsize=10)
    rows[1, 4].imshow(transmission.numpy(), cmap="gray", vmin=0, vmax=1.2)
    rows[1, 4].set_title("T", fontsize=10)
    for axes in rows.flat:
        axes.set(xticks=[], yticks=[])
    return figure


def ellipses(axes, covariance: np.ndarray) -> None:
    """Covariances (row, column, 3) as ellipses on the image's axes: j down, k right."""
    for j in range(EVERY // 2, SIZE, EVERY):
        for k in range(EVERY // 2, SIZE, EVERY):
            jj, jk, kk = covariance[j, k]
            values, vectors = np.linalg.eigh([[kk, jk], [jk, jj]])  # in (k, j), as axes are in (x, y)
            width, height = 4 * np.sqrt(np.maximum(values, 0.002))
            angle = np.degrees(np.arctan2(vectors[1, 0], vectors[0, 0]))
            axes.add_patch(Ellipse((k, j), width, height, angle=angle, facecolor=ORANGE, edgecolor="none"))


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    image_formation().savefig(FOLDER / "image_formation.png", dpi=90)
    print("figures/image_formation.png")
