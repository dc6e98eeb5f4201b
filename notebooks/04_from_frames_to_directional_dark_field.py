# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From frames to directional dark field
#
# A mask in the beam, a sample, a detector: what do its images tell of the sample in every pixel? How much light came
# through, by how much it was turned, and into which directions it was spread, too finely to be resolved. Here you see
# how such images come about, how they are turned back into maps, with error bars that can be checked because the truth
# is known, what each method can do, and the same with measured images. It takes about a minute on two cores and needs
# `pip install "ddf_tomo[viz]"`.

# %%
import time

import numpy as np
import torch
from IPython.display import Markdown

from ddf_tomo import datasets
from ddf_tomo.acquisition import Detector
from ddf_tomo.acquisition.speckle import speckle
from ddf_tomo.operators.imaging import ModulatedImaging
from ddf_tomo.retrieval import METHODS, retrieve
from ddf_tomo.visualization import show_maps
from ddf_tomo.visualization.colours import direction_colour
from ddf_tomo.visualization.style import dress, new_figure

torch.set_num_threads(2)

# %% [markdown]
# ## What a frame is
#
# Without the sample the detector sees the mask's pattern, the *reference* R. The sample lets a share T through, shifts
# the pattern by u (refraction), and blurs it with a covariance C (scattering by structures that are too small to be
# resolved). Fibres blur across themselves, so that C has a direction. In each pixel x
#
# $$I(x) = T(x)\,(1 - \nabla\cdot u)\,\bigl(G_{C} * R\bigr)\bigl(x - u\bigr),$$
#
# where $1 - \nabla\cdot u$ keeps the photons that a mere shift would make or lose. Axis j runs down the rows, axis k
# along the columns; u is in pixels, C in square pixels.
#
# `ModulatedImaging` is this formula, differentiable in the maps, the reference and the positions of the mask. We give
# it smooth fields: shifts to 1.2 pixels, blurs of 0.4 to 1.3 pixels (standard deviation), twice as wide along one
# direction as across it, and let a detector count 2000 photons a pixel at each of 12 positions of the mask.

# %%
SHAPE, STEPS, COUNTS = (160, 160), 12, 2000.0
row, column = np.meshgrid(*(np.linspace(0, 2 * np.pi, n) for n in SHAPE), indexing="ij")


def blur_tensor(width, angle):
    """Covariance (jj, jk, kk) of a blur, half as wide across the angle as along it."""
    mean, half = (width**2 + width**2 / 4) / 2, (width**2 - width**2 / 4) / 2
    return np.stack([mean + half * np.cos(2 * angle), half * np.sin(2 * angle), mean - half * np.cos(2 * angle)], -1)


true_u = 1.2 * np.stack([np.sin(column) * np.cos(row), np.cos(column) * np.sin(row)], -1) / np.sqrt(2)
true_C = blur_tensor(0.85 + 0.45 * np.sin(row + 0.5 * column), 0.5 * row - column / 3)
true_T = 0.8 + 0.15 * np.cos(row - column)

mask = speckle(STEPS, SHAPE, seed=1)
model = ModulatedImaging(mask, pixel_size_m=6.5e-6, distance_m=0.7)
expected = model(
    torch.tensor(true_T), displacement=torch.tensor(true_u).float(), covariance=torch.tensor(true_C).float()
)
camera = Detector()
sample = camera.frames(expected, COUNTS, seed=2).numpy()
reference = camera.frames(torch.from_numpy(mask), COUNTS, seed=3).numpy()

figure = new_figure(9, 3.2)
for axis, image, title in zip(
    figure.subplots(1, 3),
    (reference[0], sample[0], sample[0] / (true_T * reference[0])),
    ("reference", "with the sample", "ratio, T divided out"),
    strict=True,
):
    axis.imshow(image[40:110, 40:110], cmap="gray")
    dress(axis, title)
figure

# %% [markdown]
# ## One call
#
# `retrieve` takes both stacks. What comes back is always the same, whatever the method: transmission, displacement,
# covariance, their standard errors, and where nothing could be found.

# %%
lengths = {"pixel_size_m": 6.5e-6, "distance_m": 0.7}
maps = retrieve(sample, reference, "matching", progress=False, **lengths)
show_maps(maps)

# %% [markdown]
# ## All methods, against the truth
#
# **differential** is linear: it takes u and C as small changes of the pattern. That is quick, and right as long as the
# shifts stay well below a grain of the pattern. **matching** fits the full formula, shift and blur inside it.
# **correlation** only looks for the shift, by correlating windows: the baseline, and a start for large shifts.
# **visibility** does not end at second moments: it gives the loss of contrast at several azimuths and lengths. The
# method for gratings, **periodic**, needs a mask that is one.
#
# Angles are those of the strongest blur; errors are over the inner pixels. Correlation sees how much contrast was lost,
# but not in which direction.

# %%
INNER = np.s_[20:-20, 20:-20]


def angle_error(found):
    """Median angle between found and true direction of the strongest blur, in degrees."""
    angles = [0.5 * np.arctan2(2 * C[..., 1], C[..., 0] - C[..., 2]) for C in (found, true_C)]
    turn = (angles[0] - angles[1] + np.pi / 2) % np.pi - np.pi / 2
    return np.degrees(np.median(np.abs(turn[INNER])))


def rms(values):
    return np.sqrt(np.mean(values[INNER] ** 2))


found, rows = {}, ["| | direction | displacement | trace of C | time a pixel |", "|---|---|---|---|---|"]
for name in METHODS:
    if name == "periodic" or "deconvolution" in name or "+" in name:  # for gratings; kernels of free form; two in one
        continue
    retrieve(sample[:, :64, :64], reference[:, :64, :64], name, progress=False)  # compiles, where it must
    start = time.perf_counter()
    found[name] = each = retrieve(sample, reference, name, progress=False, **lengths)
    microseconds = 1e6 * (time.perf_counter() - start) / sample[0].size
    direction = f"{angle_error(each.covariance):.1f}°" if name != "correlation" else "–"
    trace = rms((each.covariance - true_C)[..., [0, 2]].sum(-1)) / rms(true_C[..., [0, 2]].sum(-1))
    rows.append(
        f"| {name} | {direction} | {rms(each.displacement - true_u):.3f} pixels "
        f"| {100 * trace:.0f} % | {microseconds:.1f} µs |"
    )
Markdown("\n".join(rows))

# %% [markdown]
# The same as pictures: direction as colour, strength as brightness.


# %%
def directions(axis, covariance, title):
    """Directions of the strongest blur, brighter where it is more anisotropic."""
    jj, jk, kk = np.moveaxis(np.asarray(covariance, float), -1, 0)
    size = np.hypot(jj - kk, 2 * jk)
    axis.imshow(direction_colour(0.5 * np.arctan2(2 * jk, jj - kk), np.clip(size / 1.2, 0, 1) ** 0.5))
    dress(axis, title)


del found["correlation"]
pictures = {"truth": true_C} | {name: each.covariance for name, each in found.items()}
figure = new_figure(2.6 * len(pictures), 2.8)
for axis, (title, covariance) in zip(figure.subplots(1, len(pictures)), pictures.items(), strict=True):
    directions(axis, covariance, title)
figure

# %% [markdown]
# ## May I believe the error bars?
#
# A standard error is right if the truth lies within it in 68 % of the pixels, and within 1.96 of it in 95 %. Where a
# method's model does not hold (here the differential one, at shifts above half a pixel), its error bars speak of the
# noise alone, and the truth lies outside more often.

# %%
rows = ["| | u_j | u_k | C_jj | C_jk | C_kk |", "|---|---|---|---|---|---|"]
for name, each in found.items():
    off = np.concatenate([each.displacement - true_u, each.covariance - true_C], -1)[INNER]
    errors = np.concatenate([each.displacement_error, each.covariance_error], -1)[INNER]
    usable = np.isfinite(errors).all(-1)
    if not usable.any():
        continue
    share = (np.abs(off) < errors)[usable].mean(0)
    rows.append(f"| {name} | " + " | ".join(f"{100 * value:.0f} %" for value in share) + " |")
Markdown("\n".join(rows))

# %% [markdown]
# ## Fewer photons, fewer positions
#
# The error bars grow as they must, with the square root of the dose. `window` is the standard deviation of the window
# over which u and C are taken to be constant: a wider one lowers the noise and smears what is fine.

# %%
rows = ["| counts | positions | window | direction, matching |", "|---|---|---|---|"]
for counts, steps, window in ((20_000, 12, None), (2000, 12, None), (2000, 5, None), (200, 12, None), (200, 12, 4.0)):
    noisy = [camera.frames(frames[:steps], counts, seed=5).numpy() for frames in (expected, torch.from_numpy(mask))]
    each = retrieve(*noisy, "matching", window=window, progress=False)
    rows.append(f"| {counts} | {steps} | {window or 'default'} | {angle_error(each.covariance):.1f}° |")
Markdown("\n".join(rows))

# %% [markdown]
# ## Measured: four rods
#
# Sandpaper at 13 positions in front of a coarse rod, a smooth plastic rod, and two rods of fibres (25 keV, 6.5 µm
# pixels, 0.7 m). The frames ship with the package. Fibres stand upright in these rods: they should blur sideways, and
# the smooth rod should not blur at all.

# %%
rods = datasets.four_rods()
sizes = {"pixel_size_m": rods.pixel_size_m, "distance_m": rods.distance_m}
PARTS = {
    "smooth rod": np.s_[:, 600:1000],
    "fibrous rod": np.s_[:, 1140:1330],
    "strong fibrous rod": np.s_[:, 1640:2080],
    "air": np.s_[:, 1420:1560],
}
glare = {"background": True}  # light without a pattern, 1.7 % here, reads as a blur where it is not fitted
measured = {
    "differential": retrieve(rods.sample, rods.reference, "differential", progress=False, **glare, **sizes),
    "matching": retrieve(rods.sample, rods.reference, "matching", progress=False, **glare, **sizes),
    "visibility": retrieve(rods.sample, rods.reference, "visibility", progress=False, **sizes),
}
show_maps(measured["matching"])


# %%
def summary(each, part):
    """Median blur in square pixels and the direction of the fibres, degrees from the vertical."""
    seen = each.valid[part]
    mean = np.array([np.median(each.covariance[part][seen][..., n]) for n in range(3)])
    fibre = np.degrees(0.5 * np.arctan2(2 * mean[1], mean[0] - mean[2])) + 90
    return mean[[0, 2]].sum(), (fibre + 90) % 180 - 90


rows = ["| | " + " | ".join(PARTS) + " |", "|---|" + "---|" * len(PARTS)]
for name, each in measured.items():
    cells = []
    for label, part in PARTS.items():
        blur, angle = summary(each, part)
        cells.append(f"{blur:.3f}" + (f", fibres at {angle:.0f}°" if "fibrous" in label else ""))
    rows.append(f"| {name} | " + " | ".join(cells) + " |")
Markdown("Trace of C in square pixels, and the fibres' angle from the vertical.\n\n" + "\n".join(rows))

# %% [markdown]
# Is the direction real? Half of the positions against the other half: two answers that have nothing in common but the
# sample. What differs between them is noise; it counts where the anisotropy is three times its error. With six
# positions each the window has to be wide, 13 pixels, as these fibres allow.

# %%
halves = [retrieve(rods.sample[n::2], rods.reference[n::2], "matching", window=13.0, progress=False) for n in (0, 1)]
for label in ("fibrous rod", "strong fibrous rod"):
    part = PARTS[label]
    angle = [np.asarray(half.direction().angle_rad)[part] for half in halves]
    one = halves[0]
    spread = np.asarray(one.direction().largest - one.direction().smallest)[part]
    sure = spread > 3 * np.linalg.norm(one.covariance_error[part], axis=-1)
    turn = np.abs((angle[0] - angle[1] + np.pi / 2) % np.pi - np.pi / 2)[sure]
    print(f"{label:20} halves differ by {np.degrees(np.median(turn)):.1f}° (median of {100 * sure.mean():.0f} % of it)")

# %% [markdown]
# ## Units, files, and on
#
# Angles do not depend on the pixel or the distance. Θ = C (pixel/distance)² is what a tensor volume is reconstructed
# from.

# %%
each = measured["matching"]
theta, error = each.scattering()
alpha, _ = each.refraction_angle()
part = PARTS["strong fibrous rod"]
print("scattering Θ_kk of the strong rod:", f"{1e12 * np.median(theta[part][..., 2]):.2f} µrad²,")
print("    its standard error in a pixel:", f"{1e12 * np.median(error[part][..., 2]):.2f} µrad²")
print("refraction, largest angle:", f"{1e6 * np.abs(alpha[part]).max():.1f} µrad")
each.save("rods_maps.h5")

# %% [markdown]
# Which method when, in one table: [the guide](../docs/retrieval.md). From many views to a volume: [the next
# tutorial](05_a_complete_ddf_tensor_scan.py).
