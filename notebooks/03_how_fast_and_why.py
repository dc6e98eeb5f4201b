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
# # How fast, and why
#
# How fast is your machine at this, what limits it, which algorithm arrives first, and what will your own scan cost?
# Everything here is measured where you run it. It takes less than a minute and needs `pip install "ddf_tomo[viz]"`.
# The explanations are in [the manual](../docs/speed.md).

# %%
import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait leave their core to others

import time

import numba
import numpy as np
import torch
from IPython.display import Markdown

import ddf_tomo
from ddf_tomo.memory import Size
from ddf_tomo.merits import compare
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.solvers import cgls, pcg, sirt
from ddf_tomo.speed import measure, predict, show
from ddf_tomo.visualization.style import new_figure

# %% [markdown]
# ## What this machine does
#
# `measure` copies a large array, multiplies two matrices, and projects forth and back with every backend that runs
# here. It is what `ddf-tomo doctor --benchmark` prints. All of it uses as many threads as torch does.

# %%
speed = measure(seconds=3, edge=32)
show(speed)

# %% [markdown]
# Do channels cost what they should? Where a ray crosses a slice of the volume, its four voxels and their weights are
# found once, and then used for all channels. So fifteen channels take less than fifteen times as long as one.

# %%
rates = {rate.channels: rate for rate in speed.rates if rate.backend == "numba"}
for channels, rate in rates.items():
    cost = channels * rates[1].forward / rate.forward
    print(f"{channels:2} channels take {cost:4.1f} times as long as one to project")

# %% [markdown]
# ## What limits it
#
# Count. Each crossing of a ray and a slice takes a multiply-add for each of four voxels and each channel: eight
# operations. How many crossings are there? The projection of a volume of ones tells: divided by the length of ray in a
# slice it is the number of slices that a ray meets.

# %%
EDGE, VIEWS = 48, 12
every = tilt_series((EDGE,) * 3)
geometry = every[np.linspace(0, len(every) - 1, VIEWS).round().astype(int)]
length = 1 / np.abs(geometry.p).max(axis=1)
A = ddf_tomo.XRayTransform(geometry)
crossings = (A(np.ones((EDGE, EDGE, EDGE, 1))).sum(axis=(1, 2, 3)) / length).sum()
print(f"{crossings:.3g} crossings, {crossings / (EDGE**3 * VIEWS):.2f} for each voxel and view")


def timed(call, *arguments):
    """Seconds, and the result."""
    start = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - start, result


def shortest(call, *arguments, times=5):
    """Of a few, in seconds: other programs can only make it longer."""
    return min(timed(call, *arguments)[0] for _ in range(times))


operations = {}
for channels in (1, 6, 15, 45):
    x = torch.rand(*geometry.volume_shape, channels)
    y = A(x)
    count = 8 * crossings * channels
    operations[channels] = count / shortest(A, x), count / shortest(A.T, y)

# %% [markdown]
# What could bind? The arithmetic, measured by the product of matrices. The memory: volume and projections have to be
# read or written once, at the speed of copying. Or the loads: each voxel that comes out of the cache, four bytes,
# serves one multiply-add, two operations. How many bytes the first cache gives in a second, a sum over a small array
# tells.


# %%
@numba.njit(fastmath=True, nogil=True)
def sums(array, times):
    total = np.float32(0)
    for _ in range(times):
        for n in range(array.size):
            total += array[n]
    return total


small, repeats = np.ones(2048, np.float32), 20_000  # 8 KiB
sums(small, 1)
cache_bytes = speed.threads * small.nbytes * repeats / shortest(sums, small, repeats)  # each core has its own

intensity = np.geomspace(0.05, 200, 100)
figure = new_figure(7.5, 4.2)
axes = figure.subplots()
for name, bytes_a_second, style in (("first cache", cache_bytes, "-"), ("memory, copying", speed.copy_bytes, "--")):
    roof = np.minimum(bytes_a_second * intensity, speed.flops) / 1e9
    axes.loglog(intensity, roof, style, color="0.3", label=f"{name}: {bytes_a_second / 1e9:.0f} GB/s")
per_byte = 8 * crossings / (4 * (EDGE**3 + VIEWS * EDGE**2))  # volume and projections, both once
for (channels, (forward, adjoint)), colour in zip(operations.items(), ("C0", "C1", "C2", "C3"), strict=True):
    axes.loglog([0.5, per_byte], [forward / 1e9] * 2, "o", color=colour, label=f"forward, channels: {channels}")
    axes.loglog([0.25, per_byte], [adjoint / 1e9] * 2, "s", color=colour, label=f"adjoint, channels: {channels}")
axes.set(xlabel="operations per byte", ylabel="GFLOP/s")
axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
figure

# %% [markdown]
# On the right, per byte of volume and projections, the points are far below both roofs: neither memory nor arithmetic
# limits. On the left it is per byte that is loaded (and stored, in the back-projection). Cores can load about as fast
# as they can multiply, and weights have to be loaded, too. What is between is that, then to find the voxels, which is
# why few channels are further below, and what comes from slower caches. The benchmark `roofline` does it exactly, with
# loops of the same loads and weights: [figures and numbers](../docs/speed.md#what-limits-it).
#
# ## Which algorithm arrives first
#
# A small sample whose truth is known, scanned with eight segments, 96 views and 2 % noise. First `reconstruct`, which
# chooses order, prior and weight from the data. Its time is that of everything, the search for the weight included.

# %%
VOXELS = (16, 16, 16)
segments = ddf_tomo.SaxsResponse(np.arange(8) * np.pi / 8)
scan = simulate(helicoidal_fibres, tilt_series(VOXELS, views=(12, 16, 16, 14, 14, 12, 12)), segments, noise=0.02)
truth = helicoidal_fibres(VOXELS)
A = ddf_tomo.TensorXRayTransform(scan.geometry, scan.response, ell_max=4)


def angle(volume):
    """Median angle between found and true directions."""
    return np.degrees(compare(volume, truth).direction_error_median_rad)


seconds, default = timed(lambda: ddf_tomo.reconstruct(scan, ell_max=4, progress=False))
points = {"reconstruct(scan)": (seconds, angle(default))}
weight = default.settings["weight"]
print(f"{seconds:.1f} s, directions off by {angle(default):.1f}°, weight {weight:.2g}")

# %% [markdown]
# Once the weight is known, for example from a scan of the same kind, only the iterations are left; how many does it
# take? Filtered backprojection needs none, and can be where they start.

# %%
for _ in range(2):  # the first call of anything prepares something
    seconds, filtered = timed(lambda: ddf_tomo.reconstruct(scan, "fbp", ell_max=4, progress=False))
points["filtered backprojection"] = seconds, angle(filtered)

curves = {}
for name, start in {"known weight, from zero": "zero", "known weight, from filtered backprojection": "fbp"}.items():
    how = {"ell_max": 4, "weight": weight, "start": start, "progress": False}
    runs = [timed(lambda n=n, how=how: ddf_tomo.reconstruct(scan, iterations=n, **how)) for n in (2, 4, 8, 15, 30)]
    curves[name] = [(seconds, angle(run)) for seconds, run in runs]

# %% [markdown]
# And algorithms without a prior: conjugate gradients; the same with a preconditioner, which saves iterations and takes
# time to be made; and SIRT. They keep their iterates with the time; errors are computed afterwards.

# %%
for solver in (cgls, pcg, sirt):
    solver(A, scan.data, iterations=1, progress=False)
    found, start = [], time.perf_counter()

    def keep(iteration, x, residual, found=found, start=start):
        found.append((time.perf_counter() - start, x.clone()))

    solver(A, scan.data, iterations=20, callback=keep, progress=False)
    curves[f"{solver.__name__}, no prior"] = [(seconds, angle(x.numpy())) for seconds, x in found[::2]]

figure = new_figure(7.5, 4.2)
axes = figure.subplots()
for name, curve in curves.items():
    axes.plot(*zip(*curve, strict=True), marker=".", label=name)
for (name, point), marker in zip(points.items(), "*D", strict=True):
    axes.plot(*point, marker, color="0.2", markersize=9, label=name)
axes.set(xscale="log", yscale="log", xlabel="seconds", ylabel="error of the median direction, degrees")
axes.legend(fontsize=8)
figure

# %% [markdown]
# Without a prior, the directions get better and then worse, as the noise comes in, and who does not know the truth
# cannot tell when to stop. With a prior they arrive and stay. More algorithms, on larger samples and other kinds of
# data: the benchmark `fbp`, and [which one to take](../docs/solvers.md#which-one).
#
# ## What will your scan cost?
#
# Put in the size of yours. `predict` makes two short runs with few views on this machine, scales what is large, and
# predicts time and memory for each configuration.

# %%
VOLUME = (32, 32, 32)
VIEWS, DETECTOR, CHANNELS = 200, (32, 32), 8

configurations = {
    "order 4 (15 coefficients), total variation": (15, {}, 1),
    "the same, weight known": (15, {"weight": 0.01}, 1),
    "order 2 (6 coefficients)": (6, {}, 1),
    "order 4, pixels binned 2 × 2": (15, {}, 2),
}
rows = ["| | an iteration | iterations | in all | memory |", "|---|---|---|---|---|"]
for name, (coefficients, how, binning) in configurations.items():
    data_shape = (VIEWS, *(n // binning for n in DETECTOR), CHANNELS)
    cost = predict(Size(tuple(n // binning for n in VOLUME), data_shape, coefficients), **how)
    rows.append(
        f"| {name} | {cost.seconds_per_iteration:.2g} s | {cost.iterations} "
        f"| {cost.seconds:.2g} s | {cost.memory.total / 1e9:.2g} GB |"
    )
Markdown("\n".join(rows))

# %% [markdown]
# Is that true? For the small scan above we know. What is done only once, such as looking which orders the views
# determine, is not predicted, and shows where there is little else.

# %%
cost = predict(Size.of(scan, ell_max=4), weight=weight, iterations=30)
took = curves["known weight, from filtered backprojection"][-1][0]
print(f"known weight, 30 iterations: predicted {cost.seconds:.2g} s, took {took:.2g} s")

# %% [markdown]
# On the command line: `ddf-tomo doctor --benchmark --size 64 --coefficients 15 --views 238`. What does not fit into
# memory can stay on the disk: [large scans](../docs/large.md). What can be divided among machines: [several
# processes](../docs/distributed.md).
