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
# # A complete DDF tensor scan
#
# From photons behind a mask to a volume that holds, in every voxel, how the sample scatters in which direction, and on
# into MUMOTT. The frames are simulated, so that every stage can be compared with the truth; from the frames on,
# everything is what you would do with your own. It takes about a minute on two cores and needs
# `pip install "ddf_tomo[mumott,viz]"`.

# %%
import logging
import os

os.environ["TQDM_DISABLE"] = "1"  # keeps progress bars off this page
logging.disable(logging.INFO)

import numpy as np
import torch
from IPython.display import Markdown
from mumott.data_handling import DataContainer
from mumott.pipelines import run_sigtt

import ddf_tomo
from ddf_tomo.acquisition.frame_file import FrameFile
from ddf_tomo.acquisition.frames import simulate_frames
from ddf_tomo.acquisition.specimen import phantom_specimen
from ddf_tomo.derived import derive
from ddf_tomo.interop.mumott import Projector, ResponseBasisSet
from ddf_tomo.merits import compare
from ddf_tomo.phantoms import tilt_series
from ddf_tomo.retrieval import retrieve
from ddf_tomo.visualization import show_beams, show_directions, show_glyphs, show_maps, show_slices

torch.set_num_threads(2)

# %% [markdown]
# ## The plan of the scan
#
# Tilts of the rotation axis up to 45°, because a structure is seen only by beams perpendicular to its wave vector.
# What can these views tell? Second moments of a directional blur determine ℓ ≤ 2: a direction and how pronounced it
# is, but not the finer shape of the scattering function.

# %%
VOXELS, VOXEL_M, PIXELS, DISTANCE_M = (20, 20, 20), 40e-6, 4, 1.0
geometry = tilt_series(VOXELS, tilts_rad=np.radians([0.0, 15.0, 30.0, 45.0]), views=(12, 18, 16, 14))
print(ddf_tomo.observability(geometry, ddf_tomo.SecondMomentResponse(), ell_max=4).summary())
show_beams(geometry)

# %% [markdown]
# ## The sample, in physical units
#
# Fibres that turn from layer to layer. They scatter (f in rad² per metre), refract (δ) and absorb (μ per metre). A
# phantom comes as strong as you say: here a blur of one square pixel at most, shifts up to half a pixel, 80 %
# transmission. A sample of your own is a `Specimen`: three functions of a grid.

# %%
lengths = {"voxel_size_m": VOXEL_M, "pixel_size_m": VOXEL_M / PIXELS, "distance_m": DISTANCE_M}
specimen = phantom_specimen("helicoidal", geometry, **lengths, blur=1.0, shift=0.5, transmission=0.8)
values = specimen.values(VOXELS)
for name, value, unit in zip(("f", "δ", "μ"), values, ("rad²/m", "", "1/m"), strict=True):
    print(f"{name} up to {value.max():.2g} {unit}")

# %% [markdown]
# ## Frames
#
# Each pixel counts 2000 photons at each of 12 positions of the mask. The sample is projected on a grid four times finer
# than the voxels that will be reconstructed, which are four pixels wide. Views are written one by one; an interrupted
# call goes on where it stopped. On the command line: `ddf-tomo simulate helicoidal --frames`.

# %%
options = {"voxel_size_m": VOXEL_M, "steps": 12, "counts": 2000.0, "truth": True, "progress": False}
simulate_frames(specimen, geometry, "frames.h5", **options)
frames = FrameFile.load("frames.h5")
frames

# %% [markdown]
# ## Frames to maps
#
# One call for all views. Frames are read view by view, so that they need not fit into memory.

# %%
lengths = {"pixel_size_m": frames.pixel_size_m, "distance_m": frames.distance_m}
maps = retrieve(frames.sample, frames.reference, "matching", window=1.5, progress=False, **lengths)
show_maps(maps, view=30)

# %% [markdown]
# How far is that from what went into the frames? The window of 1.5 pixels is well below a voxel of four.

# %%
truth, inner = frames.truth(), np.s_[:, 8:-8, 8:-8]
for name, unit in (("displacement", "pixels"), ("covariance", "square pixels")):
    found, true = getattr(maps, name)[inner], truth[name][inner]
    correlation = np.corrcoef(found.ravel(), true.ravel())[0, 1]
    print(f"{name:12} error {np.sqrt(np.mean((found - true) ** 2)):.3f} {unit}, correlation {correlation:.3f}")

# %% [markdown]
# ## Maps to a scan
#
# `Scan.from_maps` turns C into Θ in µrad², takes weights from the standard errors, and drops pixels that told nothing.
# Binning brings the pixels to the voxels: means by weight. Lengths and units stay known.

# %%
scan = ddf_tomo.Scan.from_maps(maps, frames.geometry, title="helicoidal fibres, dark field").binned(PIXELS)
scan.write("scan.h5")
scan

# %% [markdown]
# ## Scan to volume
#
# Nothing is chosen by hand: the order of the harmonics comes from the geometry, the prior is total variation, its
# weight the one that best predicts views that were left out.

# %%
volume = ddf_tomo.reconstruct(scan, progress=False)
true = specimen.scattering(VOXELS) * (VOXEL_M / 1e-12)  # µrad² per voxel, the volume's unit
show_slices({"truth": true[..., 0], "found": volume.coefficients[..., 0]}, voxel_size_m=VOXEL_M)

# %%
show_directions({"truth": derive(true), "found": volume}, voxel_size_m=VOXEL_M)

# %% [markdown]
# Direction errors count each voxel by its true anisotropy.

# %%
compare(volume, true)

# %% [markdown]
# And in units of the sample: rad² per metre.

# %%
density = derive(volume.coefficients).mean * 1e-12 / VOXEL_M
print(f"mean scattering, found {density.max():.2e}, true {values[0][..., 0].max():.2e} rad²/m")
show_glyphs(volume, axis="y")

# %% [markdown]
# ## The same scan in MUMOTT
#
# MUMOTT reads the file. It has no dark field of its own, but takes our response as a basis set: what its optimisation
# sees of a coefficient is then what the detector saw.

# %%
container = DataContainer("scan.h5")
basis = {"response": ddf_tomo.SecondMomentResponse(), "geometry": container.geometry, "ell_max": 2}
output = run_sigtt(
    container,
    Projector=Projector,
    BasisSet=ResponseBasisSet,
    basis_set_kwargs=basis,
    maxiter=30,
    ftol=1e-5,
    regularization_weight=100.0,
)
in_mumott = ddf_tomo.Reconstruction(np.asarray(output["result"]["x"]), 2, scan.geometry, scan.response)
rows = ["| | direction, median | 90th percentile | correlation of the mean |", "|---|---|---|---|"]
for name, each in {"ddf_tomo": volume, "MUMOTT": in_mumott}.items():
    merits = compare(each, true)
    angles = np.degrees([merits.direction_error_median_rad, merits.direction_error_p90_rad])
    rows.append(f"| {name} | {angles[0]:.1f}° | {angles[1]:.1f}° | {merits.mean_correlation:.3f} |")
Markdown("\n".join(rows))

# %% [markdown]
# ## What else is in the frames
#
# Transmission and refraction came out of the same call. They belong to line integrals too: of the attenuation
# coefficient and, after integration, of the refractive decrement δ. On the same grid they give ordinary CT beside the
# tensors. What refraction gathers or thins out is taken off the transmission before.

# %%
core = values[2] > 0.5 * values[2].max()
units = {"attenuation": (1 / VOXEL_M, values[2], "per metre"), "phase": (1e-6 / PIXELS, values[1], "(δ)")}
for quantity, (unit, exact, name) in units.items():
    single = ddf_tomo.Scan.from_maps(maps, frames.geometry, quantity=quantity).binned(PIXELS)
    ct = unit * ddf_tomo.reconstruct(single, progress=False).coefficients[..., 0]
    correlation = np.corrcoef(ct.ravel(), exact.ravel())[0, 1]
    print(f"{quantity}: {ct[core].mean():.3g}, true {exact[core].mean():.3g} {name}; correlation {correlation:.3f}")
volume.save("volume.h5")

# %% [markdown]
# Where to go on: [which retrieval when](../docs/retrieval.md), [the physics](../docs/physics.md), [working with
# MUMOTT](../docs/mumott.md).
