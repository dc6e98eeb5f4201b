"""Projection and back-projection on a CUDA device, beside MUMOTT's CUDA projector, ASTRA, diffct and LEAP.

Volumes of 256³ voxels × 1, 6, 15, 45 channels in float32, 60 views of a tensor scan, all arrays on the card. What knows
one number a voxel is called once a channel. MUMOTT interpolates as we do; ASTRA's weights have 8 bits, diffct traces
lines through boxes (in three dimensions by torch operations, so that it gets two views), LEAP has strips of a voxel's
width, and views about z of its own: of a smooth blob all see the same to half a per cent. MUMOTT's and ASTRA's
back-projections are not transposes; they are timed as they are.

Of arithmetic, a voxel-channel in a view counts as 4 multiply-adds, held against a float32 matrix product; of memory,
each view reads the volume and writes its projections once, held against a copy. The larger share has the bar. Peers
that are missing or fail are named with the reason. Without a CUDA device there is one row that says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from harness import Row, difference, in_turn, quiet, require
from projector import identity, spread_views

from ddf_tomo import Geometry, SaxsResponse, XRayTransform
from ddf_tomo.operators.backends.vectors import detector_centres

CHANNELS = (1, 6, 15, 45)
OURS = "ours"
Pair = tuple[Callable[[torch.Tensor], Any], Callable[[torch.Tensor], Any]]


@dataclass(frozen=True)
class Peer:
    """Forward and back-projection of ``(x, y, z, channel)`` and ``(view, j, k, channel)`` by ``make(geometry)``."""

    name: str
    make: Callable[[Geometry], Pair]
    tolerance: float
    is_axial: bool = False
    most_views: int = 1000


def run(quick: bool = False, size: int | None = None) -> Iterator[Row]:
    """Peaks of the card, then per number of channels: equality, times, ratios, shares of the peaks."""
    if not torch.cuda.is_available():
        yield Row("CUDA devices", 0, note="nothing was measured: torch finds no card")
        return
    size, views, rounds = size or (64 if quick else 256), 10 if quick else 60, 3 if quick else 5
    copied, multiplied = peaks(quick)
    name = torch.cuda.get_device_name()
    yield Row("copy bandwidth", copied / 1e9, "GB/s", note=f"{name}, read and written")
    yield Row("float32 matrix product", multiplied / 1e12, "TFLOP/s", note="without tensor cores")
    tilted = spread_views(size, views)
    axial = Geometry.from_angles(np.arange(views) * np.pi / views, 0.0, (size, size, size), (size, size))
    yield from _agreement()
    for channels in CHANNELS:
        yield from _channels(channels, tilted, axial, rounds, (copied, multiplied))


def peaks(quick: bool = False) -> tuple[float, float]:
    """Bytes a second of a copy (read and written), operations a second of a float32 matrix product; best of ten."""
    source = torch.empty(2**26 if quick else 2**29, device="cuda")  # far beyond the caches
    target, matrix = torch.empty_like(source), torch.randn(4096 if quick else 8192, 4096 if quick else 8192).cuda()
    torch.backends.cuda.matmul.allow_tf32 = False
    calls = {"copy": lambda: target.copy_(source), "product": lambda: matrix @ matrix}
    seconds = in_turn({name: _waited(call) for name, call in calls.items()}, 10).seconds
    return 2 * 4 * source.numel() / min(seconds["copy"]), 2 * len(matrix) ** 3 / min(seconds["product"])


def _agreement() -> Iterator[Row]:
    """The card's numbers are the CPU's, of noise, in both precisions; the adjoint is one."""
    geometry = spread_views(48, 60)
    A, B = XRayTransform(geometry, "triton", "cuda"), XRayTransform(geometry, "numba")
    noise = torch.randn(48, 48, 48, 15, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = B(noise)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        x = noise.to("cuda", dtype)
        y, back = A(x), A.T(A(x))
        word = str(dtype).removeprefix("torch.")
        yield require(f"forward, {word}: difference from the CPU", difference(y.cpu(), expected), tolerance)
        yield require(f"adjoint, {word}: difference from the CPU", difference(back.cpu(), B.T(expected)), tolerance)
        defect = identity(*(array.cpu().numpy() for array in (y, x, back)))
        yield require(f"adjoint, {word}: defect", defect, tolerance)


def _channels(
    channels: int, tilted: Geometry, axial: Geometry, rounds: int, speeds: tuple[float, float]
) -> Iterator[Row]:
    best = {"forward": np.inf, "adjoint": np.inf}
    for peer in PEERS:
        geometry = (axial if peer.is_axial else tilted)[: peer.most_views]
        try:
            for row, way in _beside(peer, geometry, channels, rounds):
                best[way] = min(best[way], row.value) if row.unit == "×" else best[way]
                yield row
        except Exception as problem:  # not installed, no memory, an error on the card: the others are still measured
            reason = f"{type(problem).__name__}: {problem}".splitlines()[0]
            yield Row(f"{channels} channels, {peer.name}: comparisons", 0, note=reason)
    for way, ratio in best.items():
        bar = 1.0 if channels == 1 else 3.0
        yield Row(f"{channels} channels, {way}, best peer / ours", ratio, "×", at_least=bar)
    yield from _shares(channels, tilted, rounds, speeds)


def _beside(peer: Peer, geometry: Geometry, channels: int, rounds: int) -> Iterator[tuple[Row, str]]:
    with quiet():
        forward, backward = peer.make(geometry)
    A, x = XRayTransform(geometry, "triton", "cuda"), blob(geometry, channels)
    y = A(x)
    what = f"{channels} channels, {peer.name}"
    defect = difference(torch.as_tensor(forward(x)).cpu(), y.cpu())
    yield require(f"{what}: difference of the projections of a blob", defect, peer.tolerance), ""
    for way, ours, theirs, array in (("forward", A, forward, x), ("adjoint", A.T, backward, y)):
        calls = {OURS: lambda f=ours, a=array: f(a), peer.name: lambda f=theirs, a=array: f(a)}
        times = in_turn({name: _waited(call) for name, call in calls.items()}, rounds)
        yield times.row(peer.name, f"{way}, {channels} channels, {len(geometry)} views"), way
        yield times.ratio_row(f"{what}: {way}, peer / ours", peer.name, OURS), way


def _shares(channels: int, geometry: Geometry, rounds: int, speeds: tuple[float, float]) -> Iterator[Row]:
    A, x = XRayTransform(geometry, "triton", "cuda"), blob(geometry, channels)
    y = A(x)
    copied, multiplied = speeds
    for way, call in (("forward", lambda: A(x)), ("adjoint", lambda: A.T(y))):
        seconds = min(in_turn({OURS: _waited(call)}, rounds).seconds[OURS])
        updates = x.numel() * len(geometry)
        arithmetic = 8 * updates / seconds / multiplied
        memory = 4 * (updates + y.numel()) / seconds / copied
        note = f"{seconds:.3g} s; {arithmetic:.0%} of the arithmetic, {memory:.0%} of the copy bandwidth"
        yield Row(f"{channels} channels, {way}: updates", updates / seconds / 1e9, "10⁹/s")
        yield Row(f"{channels} channels, {way}: larger share", max(arithmetic, memory), at_least=0.5, note=note)


def blob(geometry: Geometry, channels: int) -> torch.Tensor:
    """A centred Gaussian, which looks the same along every axis that a peer may have elsewhere; channels differ."""
    axes = [torch.arange(n, device="cuda") - (n - 1) / 2 for n in geometry.volume_shape]
    x, y, z = torch.meshgrid(*axes, indexing="ij")
    width = min(geometry.volume_shape) / 8
    shape = torch.exp(-(x**2 + y**2 + z**2) / (2 * width**2))
    return shape[..., None] * (1 + torch.arange(channels, device="cuda"))


def _waited(call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        result = call()
        torch.cuda.synchronize()
        return result

    return run


# -- Peers, which are looked for when their turn comes ----------------------------------------------------------------


def _mumott(geometry: Geometry) -> Pair:
    from mumott.methods.projectors import SAXSProjectorCUDA
    from numba import cuda

    from ddf_tomo.interop.mumott import to_geometry

    projector = SAXSProjectorCUDA(to_geometry(geometry, SaxsResponse([0.0, 1.0])))

    def on_the_card(method: Callable[[Any], Any]) -> Callable[[torch.Tensor], Any]:
        return lambda array: torch.as_tensor(method(cuda.as_cuda_array(array)), device="cuda")

    return on_the_card(projector.forward), on_the_card(projector.adjoint)


def _astra(geometry: Geometry) -> Pair:
    A = XRayTransform(geometry, "astra", "cuda")
    return A, A.T


def _diffct(geometry: Geometry) -> Pair:
    from diffct import Projector

    # Its volumes are (z, y, x), its vectors (x, y, z): reversed, ours are what it wants.
    vectors = (geometry.p, detector_centres(geometry), geometry.j, geometry.k)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    frames = tuple(torch.tensor(vector[:, ::-1].copy(), dtype=torch.float32, device=device) for vector in vectors)
    projector = Projector(frames, geometry.volume_shape, geometry.detector_shape, beam="parallel3d")
    return (
        lambda x: projector.project(x.movedim(-1, 0)).movedim(0, -1),
        lambda y: projector.backproject(y.movedim(-1, 0)).movedim(0, -1),
    )


def _leap(geometry: Geometry) -> Pair:
    from leapctype import tomographicModels

    (x, y, z), (rows, columns), views = geometry.volume_shape, geometry.detector_shape, len(geometry)
    angles = np.linspace(0, 180, views, endpoint=False, dtype=np.float32)
    leap = tomographicModels()
    # Its rows are along z, as our columns are.
    leap.set_parallelbeam(views, columns, rows, 1.0, 1.0, (columns - 1) / 2, (rows - 1) / 2, angles)
    leap.set_volume(x, y, z, 1.0, 1.0)

    def forward(volume: torch.Tensor) -> torch.Tensor:
        channels = [torch.zeros(views, columns, rows, device="cuda") for _ in range(volume.shape[-1])]
        for channel, target in enumerate(channels):
            leap.project(target, volume[..., channel].permute(2, 1, 0).contiguous())
        return torch.stack(channels, -1).swapaxes(1, 2)

    def backward(projections: torch.Tensor) -> torch.Tensor:
        channels = [torch.zeros(z, y, x, device="cuda") for _ in range(projections.shape[-1])]
        for channel, target in enumerate(channels):
            leap.backproject(projections[..., channel].swapaxes(1, 2).contiguous(), target)
        return torch.stack(channels, -1).permute(2, 1, 0, 3)

    return forward, backward


PEERS = (
    Peer("MUMOTT", _mumott, 1e-4),
    Peer("ASTRA", _astra, 5e-3),
    Peer("diffct", _diffct, 5e-3, most_views=2),
    Peer("LEAP", _leap, 5e-3, is_axial=True),
)
