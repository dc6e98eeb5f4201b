"""ASTRA and tomosipo as backends: our side of the exchange, with stand-ins for what needs a card.

The stand-ins refuse what ASTRA refuses (other types, layouts, shapes), read the geometry from what they are given, and
compute with the reference. Where ASTRA and tomosipo are installed, all but the last call is theirs. On a machine with a
card, `-m gpu` compares the real projectors with the kernel on the CPU; that has never been run.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

import ddf_tomo as dt
from ddf_tomo.interop.astra import geometry_from
from ddf_tomo.interop.tomosipo import from_parallel_vec
from ddf_tomo.operators.backends import BACKENDS
from tests.strategies import random_geometry

FOREIGN = [name for name, told in BACKENDS.items() if not told.adjoint_is_exact]
GEOMETRY = random_geometry(4, (4, 3, 5), (6, 7), seed=3)
on_both = pytest.mark.parametrize("backend", FOREIGN)


def compute(geometry, volume, sinogram, direction):
    """What ASTRA does: overwrite one of two float32 arrays, ``(x, y, z)`` and ``(j, view, k)``."""
    shapes = geometry.volume_shape, (geometry.detector_shape[0], len(geometry), geometry.detector_shape[1])
    for array, shape in zip((volume, sinogram), shapes, strict=True):
        assert tuple(array.shape) == shape
        assert array.dtype == torch.float32
        assert array.is_contiguous()
        assert not array.requires_grad
    A = dt.XRayTransform(geometry, "reference")
    if direction == "FP":
        sinogram.copy_(A(volume[..., None])[..., 0].swapaxes(0, 1))
    else:
        volume.copy_(A.T(sinogram.swapaxes(0, 1)[..., None])[..., 0])


class Card:
    """A stand-in for ASTRA on a card: what is open, how many calls were made, and in which of them it fails."""

    def __init__(self) -> None:
        self.open: dict[int, tuple] = {}
        self.calls, self.fails, self.silently, self.has_driver, self.count = 0, (), False, True, 0

    def keep(self, *things) -> int:
        self.count += 1
        self.open[self.count] = things
        return self.count

    def delete(self, ids) -> None:
        for one in [ids] if isinstance(ids, int) else ids:
            del self.open[one]

    def run(self, geometry, volume, sinogram, direction) -> None:
        self.calls += 1
        if self.calls in self.fails:
            if self.silently:
                return
            raise SystemError("out of memory on the card")
        compute(geometry, volume, sinogram, direction)

    def composite(self, direction):
        def do(projector, volumes, sinograms):
            kind, sinogram_geometry, volume_geometry = self.open[projector]
            assert kind == "cuda3d"
            ((of_volume, volume),) = [self.open[i][1:] for i in volumes]
            ((of_sinogram, sinogram),) = [self.open[i][1:] for i in sinograms]
            assert (of_volume, of_sinogram) == (volume_geometry, sinogram_geometry)
            self.run(geometry_from(sinogram_geometry, volume_geometry), volume, sinogram, direction)

        return do

    def astra(self) -> ModuleType:
        module = ModuleType("astra")
        module.use_cuda = lambda: self.has_driver
        module.create_projector = self.keep
        module.projector3d = SimpleNamespace(delete=self.delete)
        module.data3d = SimpleNamespace(link=self.keep, delete=self.delete)
        module.experimental = ModuleType("astra.experimental")
        module.experimental.do_composite_FP = self.composite("FP")
        module.experimental.do_composite_BP = self.composite("BP")
        return module

    def tomosipo(self) -> ModuleType:
        module = ModuleType("tomosipo")
        module.volume = lambda shape: SimpleNamespace(shape=shape)
        module.parallel_vec = lambda **arguments: SimpleNamespace(**arguments)

        def operator(volumes, sinograms):
            geometry = from_parallel_vec(sinograms, volumes.shape)

            def forward(volume, out):
                self.run(geometry, volume, out, "FP")

            forward.T = lambda sinogram, out: self.run(geometry, out, sinogram, "BP")
            forward.astra_projector = self.keep()
            return forward

        module.operator = operator
        return module


@pytest.fixture
def card(monkeypatch):
    card = Card()
    astra = card.astra()
    for name, module in {"astra": astra, "astra.experimental": astra.experimental, "tomosipo": card.tomosipo()}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "tomosipo.torch_support", ModuleType("tomosipo.torch_support"))
    return card


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@on_both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_channels_batches_and_types(backend, dtype, card):
    theirs, ours = dt.XRayTransform(GEOMETRY, backend), dt.XRayTransform(GEOMETRY, "numba")
    for channels in (1, 3):
        x = noise(2, 4, 3, 5, channels, dtype=dtype)
        assert theirs(x).dtype == dtype
        close(theirs(x), ours(x))
        close(theirs.T(ours(x)), ours.T(ours(x)))
    assert not theirs.adjoint_is_exact
    assert not card.open


@on_both
def test_it_adds_to_what_is_there_in_some_views(backend, card):
    theirs, ours = dt.XRayTransform(GEOMETRY, backend), dt.XRayTransform(GEOMETRY, "numba")
    x, y = noise(4, 3, 5, 2), noise(2, 6, 7, 2)
    found = y.clone()
    theirs.project_into(found, x, slice(1, 3))
    close(found, y + ours(x)[1:3])
    found = x.clone()
    theirs.backproject_into(found, y, slice(1, 3))
    close(found, x + ours.views([1, 2]).T(y))
    assert theirs.views([]).T(y[:0]).abs().max() == 0


@on_both
def test_tensors_in_chunks(backend, card):
    response = dt.SecondMomentResponse()
    theirs, ours = (
        dt.TensorXRayTransform(GEOMETRY, response, 2, backend=name, chunk_views=3) for name in (backend, "numba")
    )
    x = noise(*ours.domain_shape)
    close(theirs(x), ours(x))
    close(theirs.T(ours(x)), ours.T(ours(x)))


@on_both
def test_gradients_are_its_own_backprojection(backend, card):
    A = dt.XRayTransform(GEOMETRY, backend)
    x, y = noise(4, 3, 5, 2).requires_grad_(), noise(4, 6, 7, 2)
    (A(x) * y).sum().backward()
    close(x.grad, A.T(y))
    y.requires_grad_()
    A.T(y).square().sum().backward()
    close(y.grad, (2 * A(A.T(y))).detach())


@on_both
@pytest.mark.parametrize("direction", ["forward", "back"])
def test_a_silent_failure_leaves_zeros(backend, direction, card):
    """Of the second of three channels; without zeroing it would show the channel before."""
    A = dt.XRayTransform(GEOMETRY, backend)
    ours = dt.XRayTransform(GEOMETRY, "numba")
    x = noise(*((4, 3, 5) if direction == "forward" else (4, 6, 7)), 3)
    card.fails, card.silently = (2,), True
    found, expected = (A(x), ours(x)) if direction == "forward" else (A.T(x), ours.T(x))
    assert found[..., 1].abs().max() == 0
    close(found[..., ::2], expected[..., ::2])


@on_both
def test_a_failure_is_told_and_nothing_stays_open(backend, card):
    card.fails = (2,)
    with pytest.raises(SystemError, match="out of memory"):
        dt.XRayTransform(GEOMETRY, backend)(noise(4, 3, 5, 2))
    assert not card.open


@on_both
def test_without_a_driver_it_refuses(backend, card):
    packed = pickle.dumps(dt.XRayTransform(GEOMETRY, backend))
    card.has_driver = False
    with pytest.raises(RuntimeError, match=r"need an NVIDIA card .* backend='auto'"):
        dt.XRayTransform(GEOMETRY, backend)
    carried_here = pickle.loads(packed)
    for call in (lambda: carried_here(noise(4, 3, 5, 1)), lambda: carried_here.T(noise(4, 6, 7, 1))):
        with pytest.raises(RuntimeError, match="need an NVIDIA card"):
            call()
    assert not card.calls


@on_both
def test_what_is_missing_is_named(backend, card, monkeypatch):
    with pytest.raises(ValueError, match=f"device: expected 'cpu' or 'cuda' with backend='{backend}', got 'meta'"):
        dt.XRayTransform(GEOMETRY, backend, "meta")
    A = dt.XRayTransform(GEOMETRY, backend)
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(ImportError, match=r"pip install"):
        A(noise(4, 3, 5, 1))


# -- what is installed ------------------------------------------------------------------------------------------------


def test_astra_without_a_driver_does_not_end_the_process():
    astra = pytest.importorskip("astra")
    if astra.use_cuda():
        pytest.skip("there is a driver")
    program = "import ddf_tomo as dt; dt.XRayTransform(dt.Geometry.from_angles(0.0, 0.0, (4, 4, 4), (4, 4)), 'astra')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "RuntimeError: ASTRA's 3-D projectors need an NVIDIA card" in done.stderr


@pytest.fixture
def astra_up_to_the_card(monkeypatch):
    """The real ASTRA, whose last function reads and writes the linked memory with our reference."""
    astra = pytest.importorskip("astra")
    experimental = pytest.importorskip("astra.experimental")

    def composite(direction):
        def do(projector, volumes, sinograms):
            (volume,), (sinogram,) = (
                [torch.from_numpy(astra.data3d.get_shared(i)) for i in ids] for ids in (volumes, sinograms)
            )
            geometry = of_projector(projector)
            compute(geometry, volume, sinogram, direction)

        return do

    def of_projector(projector):
        told = astra.projector3d
        return geometry_from(told.projection_geometry(projector), told.volume_geometry(projector))

    def direct(projector, volume, sinogram, mode, direction):
        assert mode == 1  # overwrite
        compute(of_projector(projector), torch.from_numpy(volume), torch.from_numpy(sinogram), direction)

    monkeypatch.setattr(astra, "use_cuda", lambda: True)
    monkeypatch.setattr(experimental, "do_composite_FP", composite("FP"))
    monkeypatch.setattr(experimental, "do_composite_BP", composite("BP"))
    monkeypatch.setattr(experimental, "direct_FPBP3D", direct)


@on_both
def test_the_packages_themselves_up_to_the_card(backend, astra_up_to_the_card):
    """ASTRA links our memory, and tells of its projector the geometry that we meant."""
    pytest.importorskip(backend)
    theirs, ours = dt.XRayTransform(GEOMETRY, backend), dt.XRayTransform(GEOMETRY, "numba")
    x = noise(4, 3, 5, 2)
    close(theirs(x), ours(x))
    close(theirs.T(ours(x)), ours.T(ours(x)))


@pytest.mark.gpu
@on_both
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_on_a_card(backend, device):
    """Projections differ by the 8 bits of texture weights; a voxel-driven backprojection by more on white noise."""
    pytest.importorskip(backend)
    if not pytest.importorskip("astra").use_cuda() or not torch.cuda.is_available():
        pytest.skip("no card")
    geometry = random_geometry(9, (20, 18, 22), (30, 31), seed=4)
    theirs, ours = dt.XRayTransform(geometry, backend, device), dt.XRayTransform(geometry, "numba")
    x = noise(20, 18, 22, 3)
    y = ours(x)
    with torch.cuda.stream(torch.cuda.Stream()):
        found = theirs(x.to(device)).cpu()
        back = theirs.T(y.to(device)).cpu()
    assert (found - y).norm() < 5e-3 * y.norm()
    smooth = ours(torch.ones(20, 18, 22, 3))
    with torch.cuda.stream(torch.cuda.Stream()):
        evenly = theirs.T(smooth.to(device)).cpu()
    assert (evenly - ours.T(smooth)).norm() < 0.02 * evenly.norm()
    assert (back - ours.T(y)).norm() < 0.5 * back.norm()
