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
# # Learned priors
#
# A quarter of the views, or second moments that leave some coefficients open: something has to say what a sample may
# look like. Total variation says "piecewise constant". A *learned prior* is a network that takes noise off volumes,
# because it has seen many; the exact physics stays beside it. Here you train a small one, reconstruct with it, see
# which part of the result came from the data and which from the network, and where it must not be believed. It takes
# about a minute and needs `pip install "ddf_tomo[mumott,viz]"`.

# %%
import logging
import os
import warnings

os.environ["TQDM_DISABLE"] = "1"  # keeps progress bars off this page
logging.disable(logging.INFO)

import numpy as np
import torch
from IPython.display import Markdown
from mumott.pipelines import run_sigtt

import ddf_tomo
from ddf_tomo.interop.mumott import LearnedRegularizer, Projector, to_data_container
from ddf_tomo.merits import compare, data_share, null_space_share
from ddf_tomo.solvers import plug_and_play
from ddf_tomo.training import SPLITS, Denoising, Recipe, Schedule, benchmark_scan, random_sample, run_recipe
from ddf_tomo.visualization import show_directions, show_slices
from ddf_tomo.visualization.style import dress, new_figure
from ddf_tomo.weights import load_network, read_card, shipped_weights

torch.set_num_threads(2)
STEPS = 150  # of training: enough to see it work; 2000 take some minutes and are better

# %% [markdown]
# ## What it learns from
#
# Random samples, drawn from seeds: fibres, sheets, porous and smooth matter, grains, in any pose. Networks are judged
# on *families* that they have never seen, not only on other seeds.

# %%
print(", ".join(f"{split}: {' '.join(names)}" for split, names in SPLITS.items()))
samples = {name: random_sample(name, (16, 16, 16), 4, seed=1) for name in ("fibrous", "layered", "grains")}
show_directions({name: ddf_tomo.derived.derive(volume.numpy()) for name, volume in samples.items()})

# %% [markdown]
# ## Training, live
#
# The task: take off noise of any strength, given how strong it is in each order. A recipe holds everything; run twice,
# it gives the same weights. This one is small, and nine in ten of its volumes have white noise; the rest are
# reconstructions, from which the recipes of the package learn ([training](../docs/training.md)), for hours.

# %%
recipe = Recipe(
    architecture="residual-unet",
    options={"widths": [8, 12, 16]},
    task=Denoising(shape=(12, 12, 12), orders=(4,), batch=4, reconstructed=0.1, rounds=1, validation_volumes=2),
    schedule=Schedule(steps=STEPS, learning_rate=4e-3, average=0.98, validate_every=max(50, STEPS // 4)),
    limits="A tutorial's.",
)
trained = run_recipe(recipe, "small.safetensors", progress=False)
figures = trained.figures
rows = ["| error, relative | ℓ = 0 | ℓ = 2 | ℓ = 4 |", "|---|---|---|---|"]
for name, prefix in (("noisy", "input "), ("denoised", "")):
    rows.append(f"| {name} | " + " | ".join(f"{figures[f'{prefix}l{ell}']:.3f}" for ell in (0, 2, 4)) + " |")
Markdown("\n".join(rows))

# %% [markdown]
# One file holds the weights and a card that says what they are, and what the samples were like:

# %%
card = read_card("small.safetensors")
print("limits:", card.limits)
for name, (low, high) in card.data["statistics"].items():
    print(f"{name:10} {low:.3g} to {high:.3g}")

# %% [markdown]
# ## Reconstructing with it
#
# Two scans, of the families that were kept for tests, with few views and 2 % noise, simulated on a finer grid. The
# network goes where any prior goes. The opponent is total variation, coupled over all coefficients, with the weight
# that best predicts views that were left out.

# %%
problems = [benchmark_scan(number, (16, 16, 16), 4, views=30) for number in (0, 1)]
priors = {"total variation": "tv", "small, trained here": "small.safetensors"}
priors |= {f"{name}, shipped": name for name in shipped_weights() if "equivariant" in name or "unet" in name}
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "ell_max=4 asks")  # that is why there is a prior
    made = {
        name: [ddf_tomo.reconstruct(scan, ell_max=4, prior=prior, progress=False) for scan, _ in problems]
        for name, prior in priors.items()
    }
rows = ["| prior, mean of both scans | all | ℓ = 0 | ℓ = 2 | ℓ = 4 | direction | χ² per datum |", "|---" * 7 + "|"]
for name, volumes in made.items():
    found = [compare(volume, truth.numpy()) for volume, (_, truth) in zip(volumes, problems, strict=True)]
    errors = [np.mean([each.nrmse_per_order[ell] for each in found]) for ell in (0, 2, 4)]
    angle = np.degrees(np.mean([each.direction_error_median_rad for each in found]))
    fit = np.mean([volume.fit.per_datum for volume in volumes])
    cells = [f"{np.mean([each.nrmse for each in found]):.3f}", *(f"{error:.2f}" for error in errors)]
    rows.append(f"| {name} | {' | '.join(cells)} | {angle:.1f}° | {fit:.2f} |")
Markdown("\n".join(rows))

# %% [markdown]
# Two scans prove nothing, and a network of a minute need not win; [figures](../docs/learned.md) are means over many.
# What one prior gets wrong, another may not: `prior="tv+learned"` mixes their volumes, in shares that views left out
# tell ([solvers](../docs/solvers.md)). A χ² near 1 says that a volume explains the data. All of them do: the data
# cannot choose, so that the prior did.

# %%
scan, truth = problems[0][0], problems[0][1].numpy()
volumes = {name: each[0] for name, each in made.items()}
show_directions({"truth": ddf_tomo.derived.derive(truth)} | volumes)

# %% [markdown]
# ## Data, or prior?
#
# `data_share` tells, voxel by voxel and order by order, which share of a change of the truth would show in the data,
# against a prior as strong as this one was. The rest is the network's. The report of a reconstruction
# (`ddf_tomo.report.write_report`) shows the same.

# %%
learned = volumes["small, trained here"]
share = data_share(learned, scan)
for ell, value in share.per_order.items():
    print(f"order ℓ = {ell}: {100 * value:.0f} % from the data")
show_slices({f"ℓ = {2 * n}": share.share[..., n] for n in range(3)}, quantity="data_share")

# %% [markdown]
# Where the truth is known, one can look at what the prior was wrong about: the part of the error that these views
# hardly see (less than a hundredth of the best seen), and the rest. Less noise would mend the rest only.

# %%
ORDERS = np.s_[0:1], np.s_[1:6], np.s_[6:15]  # coefficients of ℓ = 0, 2, 4
A = ddf_tomo.TensorXRayTransform(scan.geometry, scan.response, 4)
rows = ["| error, relative | hardly seen: ℓ = 0 | ℓ = 2 | ℓ = 4 | seen: ℓ = 0 | ℓ = 2 | ℓ = 4 |", "|---" * 7 + "|"]
for name, volume in volumes.items():
    parts = null_space_share(volume.coefficients - truth, A, scan.weights)
    sizes = [
        [np.linalg.norm(part[..., o]) / np.linalg.norm(truth[..., o]) for o in ORDERS]
        for part in (parts.open, parts.seen)
    ]
    rows.append(f"| {name} | " + " | ".join(f"{size:.2f}" for size in np.ravel(sizes)) + " |")
Markdown("\n".join(rows))

# %% [markdown]
# ## By hand: plug and play
#
# `reconstruct` finds its noise levels by rehearsing on random samples. `plug_and_play` lets you set everything: each
# iteration denoises, then asks the data. The noise level falls for a while and then rests; from there on the
# *fixed-point residual* has to fall, or it does not converge.

# %%
denoiser = load_network("small.safetensors")
solution = plug_and_play(A, scan.data, denoiser, weights=scan.weights, iterations=20, ramp=10)
figure = new_figure(7, 2.8)
left, right = figure.subplots(1, 2)
left.plot(range(1, 21), solution.sigmas, "o-", ms=3)
left.set_ylim(0)
right.semilogy(range(1, 21), solution.changes, "o-", ms=3)
for axis, title in ((left, "noise level told to the network"), (right, "fixed-point residual")):
    dress(axis, title)
    axis.set(xlabel="iteration", xticks=range(0, 21, 5))
figure

# %% [markdown]
# ## What it may not be trusted with
#
# A network knows what it has seen. Ask it about something else, and it answers as confidently. Here: a block that
# scatters alike in all directions. The network has seen none, and may make directions of noise. How full and rough the
# result is, how strong each order, how noisy the data, and whether they are explained: that is compared with the
# training, and told as a warning with its numbers, in the report too.


# %%
def block(shape):
    """Half as long as the volume."""
    coefficients = np.zeros((*shape, 15), np.float32)
    inner = tuple(slice(n // 4, n - n // 4) for n in shape)
    coefficients[(*inner, 0)] = 1.0
    return coefficients


isotropic = ddf_tomo.phantoms.simulate(block, scan.geometry, scan.response, noise=0.02)
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    found = ddf_tomo.reconstruct(isotropic, ell_max=4, prior="small.safetensors", progress=False)
print(*(str(each.message) for each in told if "learned prior" in str(each.message)), sep="\n")
anisotropy = found.derived().fractional_anisotropy[4:12, 4:12, 4:12]
print(f"anisotropy found where there is none: {np.median(anisotropy):.3f} (median)")

# %% [markdown]
# No warning is no proof. What always helps: reconstruct with total variation too and trust what both show; leave out
# views and look whether they are predicted; and look at the share above before reading an order as measured.

# %% [markdown]
# ## The same network inside MUMOTT
#
# `LearnedRegularizer` is a regulariser of MUMOTT's: pipelines take it by keyword, with the noise level that it is told.

# %%
container = to_data_container(scan)
level = solution.sigmas[-1]
terms = {
    "no prior": [],
    "learned": [{"name": "learned", "regularizer": LearnedRegularizer(denoiser, level), "regularization_weight": 1.0}],
}
in_mumott = {}
for name, regularizers in terms.items():
    options = {"maxiter": 15, "ftol": 1e-4, "Regularizers": regularizers, "basis_set_kwargs": {"ell_max": 4}}
    result = run_sigtt(container, Projector=Projector, **options)["result"]["x"]
    errors = compare(np.asarray(result), truth).nrmse_per_order
    print(f"{name:10}", ", ".join(f"ℓ = {ell}: {errors[ell]:.2f}" for ell in (0, 2, 4)))

# %% [markdown]
# ## The weights of the package
#
# They are made by the recipes in `ddf_tomo/training/recipes` and named instead of a file:
# `reconstruct(scan, prior="learned")`. If this version has some, they are in the tables above.

# %%
print("shipped:", ", ".join(shipped_weights()) or "none in this version; train a recipe: ddf-tomo train residual-unet")

# %% [markdown]
# Where to go on: [what a network may be trusted with](../docs/learned.md), [training and adapting to a
# scan](../docs/training.md), [which solver when](../docs/solvers.md).
