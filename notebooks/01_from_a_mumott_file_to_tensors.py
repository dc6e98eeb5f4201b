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
# # From a MUMOTT file to tensors
#
# You have a scan in MUMOTT's HDF5 layout, and you know MUMOTT. Here the same file goes three ways: through MUMOTT,
# through MUMOTT with our projector inside, and through `ddf_tomo.reconstruct`. Then you see what differs, why, and
# what you can do with the result. It takes about a minute on two cores, most of it MUMOTT's compilation, and needs no
# download.
#
# You need `pip install "ddf_tomo[mumott,viz]"`.

# %%
import logging
import os

os.environ["TQDM_DISABLE"] = "1"  # keeps MUMOTT's progress bars off this page
logging.disable(logging.INFO)  # and what it tells about every file

import time
from dataclasses import replace

import numpy as np
import torch
from IPython.display import Markdown
from mumott.data_handling import DataContainer
from mumott.methods.projectors import SAXSProjector
from mumott.pipelines import run_sigtt

import ddf_tomo
from ddf_tomo.interop.mumott import Projector, geometry_from, reconstruction_from
from ddf_tomo.merits import compare, data_misfit
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.report import write_report
from ddf_tomo.visualization import (
    show_beams,
    show_convergence,
    show_directions,
    show_glyphs,
    show_projections,
    show_slices,
)

torch.set_num_threads(1)  # MUMOTT's import raises it to all cores, which so small a volume has no work for

# %% [markdown]
# ## A file
#
# So that there is something to read, we simulate a SAXS tensor scan: fibres that turn from layer to layer as in bone,
# eight azimuthal segments, 96 views with tilts up to 45°, 2 % noise. The data are projected on a grid twice as fine as
# the one that reconstructs them. (With the same grid every method would look better than it is.)
#
# **Put your own file here**, and leave this cell out. There is no truth then: take it out of the pictures and of the
# report, and leave out the figures of merit. The rest works as it stands.

# %%
VOXELS = (16, 16, 16)
geometry = tilt_series(VOXELS, views=(12, 16, 16, 14, 14, 12, 12))
segments = ddf_tomo.SaxsResponse(np.arange(8) * np.pi / 8)  # azimuths, from j towards k
simulated = simulate(helicoidal_fibres, geometry, segments, noise=0.02)
replace(simulated, voxel_size_m=50e-6, title="helicoidal fibres, simulated SAXS").write("scan.h5")
truth = helicoidal_fibres(VOXELS)

FILE = "scan.h5"  # your own file

# %% [markdown]
# ## Read twice
#
# MUMOTT reads the file into a `DataContainer`, we into a `Scan`. Reading and writing this layout with us needs no
# MUMOTT.

# %%
container = DataContainer(FILE)
scan = ddf_tomo.Scan.read(FILE)
scan

# %% [markdown]
# It is the same data, and the same geometry: ours has for every view the unit vectors of the beam and of the
# detector's axes in the sample's frame, which MUMOTT spreads over rotations and direction vectors.

# %%
of_mumott = geometry_from(container.geometry)
print("largest difference in the data:   ", np.abs(container.data - scan.data).max())
print(
    "largest difference in the vectors:",
    max(np.abs(getattr(of_mumott, a) - getattr(scan.geometry, a)).max() for a in "pjk"),
)
scan.geometry

# %% [markdown]
# Which directions did the beam come from? Empty areas are the missing wedge.

# %%
show_beams(scan.geometry)

# %% [markdown]
# And what can these views tell? A structure in the sample is seen only by beams perpendicular to its wave vector ξ, so
# that it is not enough to have more data than unknowns. For every ξ the report counts which harmonics are determined.
# `reconstruct` asks it too, and chooses `ell_max` accordingly.

# %%
print(ddf_tomo.observability(scan.geometry, scan.response, ell_max=8).summary())

# %% [markdown]
# ## Three reconstructions
#
# First MUMOTT by itself: `run_sigtt` minimises the squared residual plus a Laplacian, whose weight you choose. We take
# the best of a few, which one can only know because the truth is known here; it was found with our projector, as that
# is quicker.

# %%
ELL_MAX = 4
OPTIONS = {"regularization_weight": 10, "maxiter": 30, "ftol": 1e-5, "basis_set_kwargs": {"ell_max": ELL_MAX}}
seconds, found = {}, {}


start = time.perf_counter()
found["MUMOTT"] = reconstruction_from(run_sigtt(container, **OPTIONS), scan)
seconds["MUMOTT"] = time.perf_counter() - start

# %% [markdown]
# Then the same pipeline with our projector inside. Only `Projector=` is new. It compiles nothing for a geometry, so
# that it starts at once, and its back-projection is the exact transpose of its projection.

# %%
start = time.perf_counter()
found["MUMOTT, our projector"] = reconstruction_from(run_sigtt(container, Projector=Projector, **OPTIONS), scan)
seconds["MUMOTT, our projector"] = time.perf_counter() - start

# %% [markdown]
# And ours. Nothing is chosen by hand: `ell_max` comes from the geometry, the prior is total variation, and its weight
# is the one that best predicts views which were left out. That search is part of the time.

# %%
start = time.perf_counter()
found["ddf_tomo"] = ddf_tomo.reconstruct(scan, progress=False)
seconds["ddf_tomo"] = time.perf_counter() - start
found["ddf_tomo"]

# %% [markdown]
# ## Side by side
#
# The mean over the sphere, on one scale:


# %%
def volumes(quantity):
    return {"truth": getattr(truth.derived(), quantity)} | {
        name: getattr(volume.derived(), quantity) for name, volume in found.items()
    }


show_slices(volumes("mean"), quantity="mean", voxel_size_m=scan.voxel_size_m)

# %% [markdown]
# The principal direction: red along x, green along y, blue along z, brighter where more of the scattering is directed.

# %%
show_directions({"truth": truth.derived(), **found}, voxel_size_m=scan.voxel_size_m)

# %% [markdown]
# Figures of merit over the voxels of the sample. The direction error is the median over voxels, each counted by its
# true anisotropy; χ² per datum is about 1 where a volume explains the data to within their noise.

# %%
rows = [
    "| | coefficients (NRMSE) | direction, median | 90th percentile | χ² per datum | time |",
    "|---|---|---|---|---|---|",
]
for name, volume in found.items():
    merits = compare(volume, truth)
    angles = np.degrees([merits.direction_error_median_rad, merits.direction_error_p90_rad])
    rows.append(
        f"| {name} | {merits.nrmse:.3f} | {angles[0]:.1f}° | {angles[1]:.1f}° "
        f"| {data_misfit(volume, scan):.2f} | {seconds[name]:.1f} s |"
    )
Markdown("\n".join(rows))

# %% [markdown]
# MUMOTT's weight was the best one for the coefficients. With a hundred times that weight its directions are as good as
# ours, 1.5°, and its coefficients twice as far off.
#
# All figures, for one volume:

# %%
compare(found["ddf_tomo"], truth)

# %% [markdown]
# ## What differs, and why
#
# **The prior.** MUMOTT's Laplacian punishes the squares of second differences, so that the edges of the sample are the
# first to go. Total variation punishes the size of a change and keeps edges. Ours is coupled over all coefficients of
# a voxel: it treats a sample and the same sample turned alike, which a penalty on single coefficients, such as L1,
# does not.
#
# **Its weight.** One view in ten is left out, and the weight is taken whose reconstruction best predicts it. The truth
# is not used, so that it works on your data as it does here.
#
# **The transpose.** Gradients are made with the back-projection, which ought to be the exact transpose of the
# projection. MUMOTT's projection interpolates in the volume and its back-projection on the detector, which is close to
# the transpose but not the same: a descent then follows a direction that is not the gradient, and near the solution
# its line search ends early. Positive data hide the difference, zero-mean ones show it:

# %%
theirs = SAXSProjector(container.geometry)
shapes = {"domain_shape": (*scan.geometry.volume_shape, 1), "range_shape": (*scan.data.shape[:3], 1)}
wrapped = ddf_tomo.wrap((theirs.forward, theirs.adjoint), **shapes, numpy=True)
ours = ddf_tomo.XRayTransform(scan.geometry)
for name, projector in (("MUMOTT", wrapped), ("ours", ours)):
    defect = ddf_tomo.check_adjoint(projector, torch.float64, tolerance=1.0)
    print(f"{name}: <A x, A x> and <x, Aᵀ A x> differ by {defect:.1g} of the former")

# %% [markdown]
# ## Look closer
#
# What is in a voxel? Glyphs show the scattering function itself. Fibres scatter across themselves, so that each glyph
# is a disc that stands upright on its fibre; the colour is that of the fibre.

# %%
show_glyphs(found["ddf_tomo"])

# %% [markdown]
# Is anything left in the data? Residuals over σ should look like noise, in the worst views as well.

# %%
show_projections(found["ddf_tomo"], scan, channels=[0, 4])

# %% [markdown]
# And was it iterated long enough? The line is the norm that noise alone would have; far below it a volume repeats the
# noise. The curve starts low, as the search for the weight ended near the solution.

# %%
show_convergence(found["ddf_tomo"], noise_level=scan.data.size**0.5)

# %% [markdown]
# ## Quantities, files, report
#
# `derived()` has what one writes about in a paper, with units. `valid` says where there is sample: elsewhere
# directions and ratios describe noise.

# %%
volume = found["ddf_tomo"]
derived = volume.derived()
for name in ("mean", "fractional_anisotropy", "order_parameter"):
    middle = np.median(getattr(derived, name)[derived.valid])
    print(f"{name:22} median {middle:6.3f}  {derived.units[name]}")
print("principal directions  ", derived.direction.shape)

# %% [markdown]
# The suffix chooses the format: `.h5` for everything (and for `Reconstruction.load`), `.vti` for ParaView with tensors
# for its tensor glyphs, and MUMOTT's layout of results.

# %%
volume.save("volume.h5")
volume.save("volume.vti")
volume.save("volume_for_mumott.h5", format="mumott")
again = ddf_tomo.Reconstruction.load("volume.h5")
assert np.array_equal(again.coefficients, volume.coefficients)
for name in ("volume.h5", "volume.vti", "volume_for_mumott.h5"):
    print(f"{name:22} {os.path.getsize(name) / 1e3:6.0f} kB")

# %% [markdown]
# One HTML file holds it all, with a volume that turns under the mouse, and opens offline. It begins with what you
# should know before you believe the pictures; the call gives back these warnings.

# %%
write_report(volume, "report.html", scan=scan, truth=truth.coefficients)

# %% [markdown]
# ## The same with directional dark field
#
# A full-field image through a mask is blurred by the sample, and retrieval measures the covariance of that blur in
# every pixel: three numbers a pixel, its second moments Θ along the detector's axes, where SAXS has eight segments.
# The beam, the sample and the projector are the same. Only the *response* differs, the matrix between harmonics and
# channels.

# %%
dark_field = simulate(helicoidal_fibres, geometry, ddf_tomo.SecondMomentResponse(), noise=0.02)
moments = ddf_tomo.reconstruct(dark_field, progress=False)
print(f"ell_max = {moments.ell_max} was chosen")
compare(moments, truth)

# %% [markdown]
# Three second moments hold only azimuthal orders 0 and 2 about the beam. Each beam's orders differ in the sample's
# frame, so that many beams tell more than one, but for a structure at ξ only those perpendicular to it count: 12 of
# the 15 numbers up to ℓ = 4 can be had, however many views there are. So only ℓ ≤ 2 is determined. The principal
# direction is there; the finer shape of the function, by which one tells crossing fibres from a broad distribution, is
# not. SAXS segments hold all of it.
#
# MUMOTT can reconstruct such a scan as well, with our responses as its basis set: see [working with
# MUMOTT](../docs/mumott.md). Your own loss, solver or projector: [the next
# tutorial](02_projectors_in_your_own_code.py).
