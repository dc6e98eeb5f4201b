"""The Triton kernels: on a card where there is one, otherwise in Triton's interpreter (`tests/conftest.py`)."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ddf_tomo import Geometry, SecondMomentResponse, TensorXRayTransform, XRayTransform
from ddf_tomo.operators.backends.triton_gpu import block_of, view_numbers
from tests.strategies import FRAME, geometries, random_geometry

CARD = torch.cuda.is_available()
DEVICE = "cuda" if CARD else "cpu"
TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12}
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(autouse=True, scope="module")
def kernel():
    pytest.importorskip("triton")
    from ddf_tomo.operators.backends import triton_gpu

    if not CARD and not triton_gpu.is_interpreted():
        pytest.skip("triton was imported before its interpreter was asked for")


def noise(shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)


def ours(geometry):
    return XRayTransform(geometry, "triton", DEVICE)


def assert_close(found, expected, tolerance):
    """Relative to the largest value; NaN fails."""
    assert found.shape == expected.shape
    if expected.numel():
        error = float((found.cpu().double() - expected.cpu().double()).abs().max())
        assert error <= tolerance * max(float(expected.abs().max()), 1e-30)


def assert_same_sums(geometry, channels, dtypes=tuple(TOLERANCES), seed=0, peer="reference"):
    """The forward sums, the adjoint's of noise and of a projection, and the identity of both."""
    A, B = ours(geometry), XRayTransform(geometry, peer)
    for dtype in dtypes:
        x = noise((*geometry.volume_shape, channels), seed, dtype)
        y = A(x)
        back = A.T(y)
        assert_close(y, B(x.cpu().double()), TOLERANCES[dtype])
        assert_close(back, B.T(y.cpu().double()), TOLERANCES[dtype])
        squared = float(y.double().square().sum())
        assert abs(squared - float((x.double() * back.double()).sum())) <= TOLERANCES[dtype] * squared


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 9, 20])
def test_kernels_are_the_reference(channels):
    """One block, a padded one, and several, of which the last one is padded."""
    assert_same_sums(random_geometry(2, (4, 3, 5), (5, 4), seed=channels), channels)


@pytest.mark.parametrize("main", range(3))
def test_views_along_an_axis(main):
    """Rays that meet voxels in their centres, and half-way; both senses, both hands, detectors in both orders."""
    axes = np.roll(np.eye(3), -main, axis=0)
    p, j, k = np.stack([axes, -axes[[0, 2, 1]]], axis=1)
    assert_same_sums(Geometry(p, j, k, [0.0, 0.5], [1.0, -0.5], (3, 4, 2), (5, 3)), 3)


def test_views_at_45_degrees_reach_three_rows_and_columns():
    s = 0.5**0.5
    geometry = Geometry([[0, 0, 1.0]], [[s, s, 0]], [[s, -s, 0]], 0.2, 0.1, (4, 3, 2), (5, 6))
    assert view_numbers(geometry)[2].tolist() == [[3, 3]]
    assert_same_sums(geometry, 2)


@given(geometries(max_views=2, max_size=4), st.integers(1, 20), st.sampled_from(list(TOLERANCES)))
@settings(max_examples=12)
def test_any_geometry(geometry, channels, dtype):
    assert_same_sums(geometry, channels, [dtype])


def test_several_tiles_and_bricks():
    assert_same_sums(random_geometry(1, (2, 6, 5), (10, 17), seed=4), 16, [torch.float32])


def test_coordinates_stay_exact_far_from_the_origin():
    """In float32 they would be off by 3e-5 of a voxel there, which noise shows."""
    p, j, k = (FRAME @ Rotation.from_euler("xyz", [7e-4, 3e-4, 1e-3]).as_matrix())[:, None]
    geometry = Geometry(p, j, k, 480.3, -0.1, (1000, 40, 2), (16, 2))
    x = noise((1000, 40, 2, 1), dtype=torch.float32)
    expected = XRayTransform(geometry, "reference")(x.cpu().double())
    assert expected.all()
    assert_close(ours(geometry)(x), expected, 2e-6)


@given(geometries(max_views=3, max_size=5))
@settings(max_examples=50)
def test_no_pixel_that_a_voxel_touches_is_out_of_reach(geometry):
    """Brute force in numpy, on the numbers that the adjoint uses and on those that the forward uses."""
    numbers, sizes, reach = view_numbers(geometry)
    rows, columns = np.indices(geometry.detector_shape)
    for view, voxel in itertools.product(range(len(geometry)), np.ndindex(geometry.volume_shape)):
        n = numbers[view]
        u, w = (n[at] + rows * n[at + 1] + columns * n[at + 2] + n[of : of + 3] @ voxel for at, of in ((0, 8), (4, 11)))
        main = int(abs(geometry.p[view]).argmax())
        across = [axis for axis in range(3) if axis != main]
        slice_ = voxel[main]
        assert sizes[view, :3].tolist() == [geometry.volume_shape[axis] for axis in (main, *across)]
        if abs(n[[0, 4]]).max() < 1e6:
            for distance, at, axis in ((u, 0, across[0]), (w, 4, across[1])):
                direct = n[at] + rows * n[at + 1] + columns * n[at + 2] + slice_ * n[at + 3] - voxel[axis]
                np.testing.assert_allclose(distance, direct, atol=1e-9)
        first = [int(np.floor(n[at] + n[at + 1 : at + 4] @ voxel)) + 1 for at in (14, 18)]
        touched = (abs(u) < 1 - 1e-9) & (abs(w) < 1 - 1e-9)
        for found, start, width in zip((rows[touched], columns[touched]), first, reach[view], strict=True):
            assert ((start <= found) & (found < start + width)).all()
            assert width in (2, 3)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_what_is_not_a_number_spoils_the_rays_that_meet_it(dtype):
    geometry = random_geometry(1, (4, 4, 4), (5, 5), seed=2)
    x = torch.ones(4, 4, 4, 3, dtype=dtype, device=DEVICE)
    x[1, 2, 3, 1] = torch.nan
    y = ours(geometry)(x)
    expected = XRayTransform(geometry, "reference")(x.cpu())
    assert torch.equal(torch.isnan(y).cpu(), torch.isnan(expected))
    assert torch.isnan(y[..., 1]).any()
    assert not torch.isnan(y[..., [0, 2]]).any()
    y = torch.zeros(1, 5, 5, 1, dtype=dtype, device=DEVICE)
    y[0, 2, 2] = torch.inf
    back = ours(geometry).T(y)
    assert torch.isinf(back).any()
    assert not torch.isnan(back).any()


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_is_for_storage_only(dtype):
    geometry = random_geometry(2, (4, 3, 5), (5, 4), seed=1)
    A = ours(geometry)
    x = noise((4, 3, 5, 5), dtype=dtype)
    y = A(x)
    assert y.dtype == dtype
    # The interpreter cuts bfloat16 off where cards round.
    tolerance = 0.0 if CARD or dtype == torch.float16 else 2.0**-7
    torch.testing.assert_close(y, A(x.float()).to(dtype), rtol=tolerance, atol=0)
    torch.testing.assert_close(A.T(y), A.T(y.float()).to(dtype), rtol=tolerance, atol=0)
    with pytest.raises(TypeError, match=r"^x: expected float32 or float64, got torch"):
        XRayTransform(geometry, "reference")(x.cpu())


def test_parts_add_to_what_is_there():
    A = ours(random_geometry(3, (4, 3, 5), (5, 4), seed=3))
    x = noise((4, 3, 5, 2))
    projections = torch.ones(2, 5, 4, 2, dtype=torch.float64, device=DEVICE)
    A.project_into(projections, x, slice(1, 3))
    torch.testing.assert_close(projections, 1 + A(x)[1:3])
    volume = torch.ones_like(x)
    A.backproject_into(volume, projections, slice(1, 3))
    torch.testing.assert_close(volume, 1 + A.views([1, 2]).T(projections))


def test_tensors_in_chunks_of_views():
    geometry = random_geometry(3, (3, 2, 3), (2, 3), seed=6)
    make = lambda *args, **options: TensorXRayTransform(geometry, SecondMomentResponse(), 2, **options)  # noqa: E731
    A, B = make(backend="triton", device=DEVICE, chunk_views=2), make(backend="reference")
    x = noise(A.domain_shape)
    y = A(x)
    assert_close(y, B(x.cpu()), 1e-12)
    assert_close(A.T(y), B.T(y.cpu()), 1e-12)


def test_blocks_waste_little():
    for channels in range(1, 100):
        block = block_of(channels)
        assert block in (1, 2, 4, 8, 16)
        assert -channels % block <= max(7, channels - 1)
    assert [block_of(channels) for channels in (1, 2, 3, 6, 15, 20, 28, 45)] == [1, 2, 4, 8, 16, 8, 16, 16]


def test_without_triton_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(ImportError, match=r'this needs triton.*\n.*pip install "triton>=3"'):
        ours(random_geometry(1))


# What no interpreter can tell: whether a compiler for cards takes the kernels. It needs no card.
COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from ddf_tomo import Geometry, XRayTransform
from ddf_tomo.operators.backends import _triton_kernel as kernels

try:
    XRayTransform(Geometry.from_angles(0.0, 0.0, (4, 4, 4), (4, 4)), "triton")
except ValueError as error:
    print(error)
POINTERS = {"projections": "*fp32", "volume": "*fp32", "numbers": "*i64", "sizes": "*i32"}
for kernel, constants in (
    (kernels.project, {"TILE_ROWS": 8, "TILE_COLUMNS": 8}),
    (kernels.backproject, {"REACH_ROWS": 3, "REACH_COLUMNS": 3, "BRICK_X": 4, "BRICK_Y": 4, "BRICK_Z": 4}),
):
    constants |= {"BLOCK": 16, "WIDE": True}
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else POINTERS.get(n, "i32") for n in names}
    values = {(names.index(n),): value for n, value in constants.items()}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n in POINTERS}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=aligned)
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    print(kernel.__name__, ptx.count("ld.global.v4.b32"), ".local" in ptx)
"""


@pytest.mark.skipif(CARD, reason="on a card all tests compile")
def test_a_compiler_takes_the_kernels_and_loads_16_bytes_at_once(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path)}
    run = [sys.executable, "-c", COMPILE]
    result = subprocess.run(run, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    refusal, project, backproject = result.stdout.splitlines()
    assert refusal.startswith("device: expected 'cuda' with backend='triton', got 'cpu'. TRITON_INTERPRET=1")
    for line, name, loads in ((project, "project", 8), (backproject, "backproject", 18)):
        assert line.split() == [name, str(loads), "False"]  # two vectors a thread for each of 4 corners, 9 pixels


# -- On a card --------------------------------------------------------------------------------------------------------

on_a_card = pytest.mark.gpu


@pytest.fixture
def larger():
    if not CARD:
        pytest.skip("needs a CUDA device")
    return random_geometry(20, (50, 41, 37), (45, 52), seed=8)


@on_a_card
@pytest.mark.parametrize("channels", [1, 3, 6, 15, 20, 45])
def test_the_card_is_the_cpu(larger, channels):
    assert_same_sums(larger, channels, peer="numba")


@on_a_card
def test_results_repeat_to_the_bit(larger):
    A, x = ours(larger), noise((*larger.volume_shape, 15), dtype=torch.float32)
    first = A(x)
    back = A.T(first)
    for _ in range(5):
        assert torch.equal(A(x), first)
        assert torch.equal(A.T(first), back)


@on_a_card
def test_work_stays_on_the_stream_it_was_asked_for_on(larger):
    """The other stream is busy until long after the call; reading before it has run would give zeros."""
    A, x = ours(larger), noise((*larger.volume_shape, 6), dtype=torch.float32)
    expected = A.T(A(x))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    late = torch.zeros_like(x)
    with torch.cuda.stream(stream):
        A.T(A(late))  # its memory is there before
        torch.cuda._sleep(200_000_000)
        late.copy_(x)
        found = A.T(A(late))
        assert not stream.query()  # nothing has waited for the device
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(found, expected)


@on_a_card
def test_a_cuda_graph_replays_it(larger):
    A, x = ours(larger), noise((*larger.volume_shape, 5), dtype=torch.float32)
    static = x.clone()
    A.T(A(static))  # kernels are compiled before
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = A(static)
        back = A.T(y)
    for factor in (1.0, -2.0):
        static.copy_(factor * x)
        graph.replay()
        assert torch.equal(y, A(static))
        assert torch.equal(back, A.T(A(static)))


@on_a_card
def test_it_is_compiled_with_what_surrounds_it(larger):
    A, x = ours(larger), noise((*larger.volume_shape, 6), dtype=torch.float32)
    loss = lambda x: (A(2 * x) + 1).square().mean()  # noqa: E731
    (expected,) = torch.autograd.grad(loss(x.requires_grad_()), x)
    (found,) = torch.autograd.grad(torch.compile(loss, fullgraph=True)(x), x)
    assert_close(found, expected, 1e-5)


@on_a_card
@pytest.mark.parametrize("dtype", HALVES)
def test_half_storage_on_the_card(larger, dtype):
    A, x = ours(larger), noise((*larger.volume_shape, 15), dtype=dtype)
    y = A(x)
    assert y.dtype == dtype
    for found, sums in ((y, A(x.float())), (A.T(y), A.T(y.float()))):
        # Rounded once; another variant of the kernel may join other products and sums into one instruction.
        allowed = {"rtol": 2 * torch.finfo(dtype).eps, "atol": 1e-6 * float(sums.abs().max())}
        torch.testing.assert_close(found.float(), sums, **allowed)


@on_a_card
def test_tensors_on_the_card(larger):
    A = TensorXRayTransform(larger, SecondMomentResponse(), 2, device="cuda")
    B = TensorXRayTransform(larger, SecondMomentResponse(), 2)
    assert A.projector.backend == "triton"
    x = noise(A.domain_shape, dtype=torch.float32)
    y = A(x)
    assert_close(y, B(x.cpu()), 1e-5)
    assert_close(A.T(y), B.T(y.cpu()), 1e-5)
