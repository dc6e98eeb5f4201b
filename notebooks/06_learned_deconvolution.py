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
# # Learned deconvolution
#
# A sample blurs the mask's pattern. Most methods take the blur for a Gaussian: three numbers in each pixel. Where two
# families of fibres lie behind one another, it is a cross, and no Gaussian is one. *Blind deconvolution* assumes no
# shape: it looks for the kernels themselves. Here you see what they tell, what that costs, where `matching` is better,
# and what networks add. It takes about a minute and needs `pip install "ddf_tomo[viz]"`.

# %%
import time

import numpy as np
import torch
from IPython.display import Markdown

from ddf_tomo.acquisition import Detector
from ddf_tomo.acquisition.speckle import speckle
from ddf_tomo.operators.imaging import ModulatedImaging
from ddf_tomo.retrieval import METHODS, retrieve
from ddf_tomo.retrieval.deconvolution import deconvolve
from ddf_tomo.visualization.style import dress, new_figure

torch.set_num_threads(2)

# %% [markdown]
# ## Fibres that cross in every pixel
#
# Each family blurs along a line, two pixels long and a third of a pixel wide (standard deviations). Both together blur
# by the mean of the two kernels, and frames are linear in the kernel: so the frame of a crossing is the mean of the
# frames of its families. They cross at 75° everywhere, and turn together by 40° from corner to corner.

# %%
SHAPE, STEPS, APART = (64, 64), 20, np.radians(75.0)  # more pixels: the same, longer
row, column = np.meshgrid(*(np.linspace(0, 1, n) for n in SHAPE), indexing="ij")
turn = np.radians(40.0) * (row + column) / 2


def blur_tensor(along, across, angle):
    """Covariance (jj, jk, kk) of a Gaussian; the angle runs from j towards k."""
    mean, half = (along**2 + across**2) / 2, (along**2 - across**2) / 2
    return np.stack([mean + half * np.cos(2 * angle), half * np.sin(2 * angle), mean - half * np.cos(2 * angle)], -1)


mask = speckle(STEPS, SHAPE, seed=1)
model = ModulatedImaging(mask, pixel_size_m=6.5e-6, distance_m=0.7)
camera = Detector()


def frames_of(covariance, displacement=None, transmission=0.8):
    """Frames without noise."""
    u = np.zeros((*SHAPE, 2)) if displacement is None else displacement
    maps = {"displacement": torch.tensor(u).float(), "covariance": torch.tensor(covariance).float()}
    return model(torch.full(SHAPE, transmission), **maps)


def counted(expected, counts, seed):
    """Sample and reference as a detector counts them."""
    return [camera.frames(each, counts, seed=seed + n).numpy() for n, each in enumerate((expected, torch.tensor(mask)))]


families = [blur_tensor(2.0, 0.3, turn), blur_tensor(2.0, 0.3, turn + APART)]
crossed = (frames_of(families[0]) + frames_of(families[1])) / 2
sample, reference = counted(crossed, 20_000, seed=2)

figure = new_figure(6, 3)
for axis, image, title in zip(figure.subplots(1, 2), (reference[0], sample[0]), ("reference", "sample"), strict=True):
    axis.imshow(image, cmap="gray")
    dress(axis, title)
figure

# %% [markdown]
# ## What a Gaussian makes of it
#
# `matching` fits the best Gaussian. It is nearly as wide one way as the other, and its direction is that of neither
# family: it lies between them.

# %%
INNER = np.s_[10:-10, 10:-10]


def off(found, true):
    """Angle between two directions, in degrees."""
    return np.degrees(np.abs((found - true + np.pi / 2) % np.pi - np.pi / 2))


gaussian = retrieve(sample, reference, "matching", progress=False)
direction = gaussian.direction()
angle = np.asarray(direction.angle_rad)
ratio = np.sqrt(np.asarray(direction.largest)[INNER] / np.asarray(direction.smallest)[INNER])
nearest = np.minimum(off(angle, turn), off(angle, turn + APART))[INNER]
print(f"blur along the found direction: {np.median(ratio):.2f} times that across it")
print(f"from the nearer family it is off by {np.median(nearest):.0f}° (median)")

# %% [markdown]
# ## What the kernels tell
#
# The model: every pixel has a kernel of its own, a mixture of a few that the image shares,
#
# $$I_m(x) = \sum_r w_r(x)\,{\bigl[k_r * (T R_m)\bigr]}(x - u), \qquad w_r \ge 0,\ \sum_r w_r = 1,\quad k_r \ge 0,\
# \textstyle\sum k_r = 1.$$
#
# Kernels, weights and the object's transmission are improved in turn, and no step makes the misfit larger.
# `kernels="directions"` starts from lines in all directions, of which the weights choose first.

# %%
field = deconvolve(sample, reference, kernels="directions", rank=9, support=15, iterations=12, gain=1.0)
first, *_, last = field.objective
print(f"misfit: {first:.3g} at the start, {last:.3g} after {len(field.objective) - 1} steps")
taps = np.asarray(field.positions)


def true_kernel(place):
    """The mean of two Gaussians at the taps."""
    j, k = np.meshgrid(taps, taps, indexing="ij")
    total = np.zeros_like(j)
    for covariance in families:
        jj, jk, kk = covariance[place] + [0.05, 0, 0.05]  # taps are half a pixel apart
        total += np.exp(-(kk * j**2 - 2 * jk * j * k + jj * k**2) / (2 * (jj * kk - jk**2))) / np.sqrt(jj * kk - jk**2)
    return total / total.sum()


places = [(16, 16), (32, 32), (48, 48)]
figure = new_figure(9, 6.2)
figure.supxlabel("pixels")
for top, bottom, place in zip(*figure.subplots(2, 3), places, strict=True):
    extent = [taps[0], taps[-1], taps[-1], taps[0]]  # pixels
    top.imshow(true_kernel(place) ** 0.5, cmap="magma", extent=extent)
    dress(top, f"true kernel at pixel {place}, square root")
    bottom.imshow(np.asarray(field.kernel_field(*place)).clip(0) ** 0.5, cmap="magma", extent=extent)
    dress(bottom, "found")
figure

# %% [markdown]
# Two directions in each kernel, and how often both are within 10° of the truth:

# %%
found = np.asarray(field.directions().angle_rad)
straight = np.maximum(off(found[..., 0], turn), off(found[..., 1], turn + APART))
swapped = np.maximum(off(found[..., 1], turn), off(found[..., 0], turn + APART))
both = np.minimum(straight, swapped)[np.asarray(field.valid)]
print(f"both directions within 10° in {100 * np.mean(both < 10):.0f} % of the pixels, median {np.median(both):.1f}°")

# %% [markdown]
# ## Where it does not pay
#
# A free kernel is a hundred numbers where a Gaussian is three. Where the blur *is* Gaussian, those three say it all,
# sooner, and from fewer positions. Fewer photons, one direction in a pixel, and a displacement that varies, as
# refraction does:

# %%
smooth_C = blur_tensor(1.0 + 0.3 * np.sin(2 * np.pi * row), 0.6, np.pi * (row + column) / 2)
smooth_u = 0.8 * np.stack([np.sin(2 * np.pi * column), np.cos(2 * np.pi * row)], -1)
gaussian_pair = counted(frames_of(smooth_C, smooth_u), 2000, seed=5)
true_angle = 0.5 * np.arctan2(2 * smooth_C[..., 1], smooth_C[..., 0] - smooth_C[..., 2])


def judged(maps):
    """Median error of the direction, and that of the displacement."""
    C, u = np.asarray(maps.covariance), np.asarray(maps.displacement)
    angle = 0.5 * np.arctan2(2 * C[..., 1], C[..., 0] - C[..., 2])
    error = np.sqrt(np.mean((u - smooth_u)[INNER] ** 2))
    return f"{np.median(off(angle, true_angle)[INNER]):.1f}° | {error:.3f} pixels"


LEARNED = [name for name in ("network", "deconvolution-unrolled") if name in METHODS]
rows = ["| positions | method | direction, median | displacement | χ² | time |", "|---" * 6 + "|"]
untold = {}
for steps, names in ((STEPS, ["matching", "deconvolution", *LEARNED]), (1, ["matching", *LEARNED])):
    for name in names:
        start = time.perf_counter()
        try:
            maps = retrieve(*(each[:steps] for each in gaussian_pair), name, gain=1.0, progress=False)
        except (ValueError, FileNotFoundError) as error:  # no weights in this version, or too few positions
            untold[f"{name}, {steps} positions"] = str(error)
        else:
            fit = f"{np.nanmedian(np.asarray(maps.chi2)[INNER]):.2f}" if steps > 1 else "–"  # one image fits anything
            rows.append(f"| {steps} | {name} | {judged(maps)} | {fit} | {time.perf_counter() - start:.1f} s |")
Markdown("\n".join(rows))

# %% [markdown]
# A single position of the mask is the hard case: one image with the sample and one without. In a window the pattern
# itself tells of shift and blur, and how well depends on the pattern there.

# %% [markdown]
# ## What networks add, and what they may not be trusted with
#
# Two of them know this problem. `"network"` goes from frames to maps in one pass; `"deconvolution-unrolled"` takes a
# few of the steps above, with learned step sizes and learned clean-up between them. In both the model of the image is
# exact; what is learned comes from simulated frames. If one of them is not in the table above, this is why:

# %%
for name, text in untold.items():
    print(f"{name}: {text}")

# %% [markdown]
# Whatever made the maps, the frames can contradict them. χ² compares what the maps predict with what was counted: well
# above 1, something is not in the model. In the table above it was near 1. For fibres that cross, what knows one
# Gaussian in a pixel does not explain the frames, however sure it seems; free kernels nearly do.

# %%
chi2 = {"deconvolution": field.chi2}
for name in ("matching", *LEARNED):
    if f"{name}, {STEPS} positions" not in untold:
        chi2[name] = retrieve(sample, reference, name, gain=1.0, progress=False).chi2
for name, each in chi2.items():
    print(f"crossing fibres, {name:14} χ² = {float(np.nanmedian(np.asarray(each)[INNER])):.2f}")

# %% [markdown]
# What each network has seen, and how to check it: [what a network may be trusted with](../docs/learned.md). Which
# method when: [the guide](../docs/retrieval.md). Learning on whole volumes: [the next tutorial](07_learned_priors.py).
