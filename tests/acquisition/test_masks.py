"""Masks: where their edges are, how much they cover, and what their spectra promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import torch

from ddf_tomo.acquisition import cells, grid, hadamard, random_binary, sandpaper, spiral, ura

PIXEL = 1e-6


def finely(height, factor):
    """The mean over blocks of a map drawn on finer pixels."""
    rows, columns = (n // factor for n in height.shape)
    return height.reshape(rows, factor, columns, factor).mean((1, 3))


@pytest.mark.parametrize("feature", [1.0, 1.7, 4.0, 5.3])
def test_cells_lie_where_they_are(feature):
    pattern = torch.randint(0, 2, (3, 5), generator=torch.Generator().manual_seed(1)).double()
    found = cells(pattern, (24, 31), PIXEL, feature * PIXEL, 0.5)
    fine = [((torch.arange(n * 100) + 0.5) / 100 / feature).long() for n in (24, 31)]
    whole = pattern[fine[0][:, None] % 3, fine[1] % 5]
    torch.testing.assert_close(found, 0.5 * finely(whole, 100), rtol=0, atol=0.03)
    if feature == 4:
        assert torch.equal(found, 0.5 * pattern.repeat_interleave(4, 0).repeat_interleave(4, 1).tile(2, 2)[:24, :31])


def test_gradients_reach_the_cells():
    pattern = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: cells(p, (6, 7), PIXEL, 1.6 * PIXEL, 1.0), pattern)


@pytest.mark.parametrize("fill", [0.0, 0.3, 1.0])
def test_random_binary(fill):
    mask = random_binary((60, 64), PIXEL, 4e-6, 20e-6, fill=fill, seed=5)
    assert mask.dtype == torch.float32
    assert float(mask.mean()) == pytest.approx(20e-6 * round(fill * 240) / 240, rel=1e-5)
    assert torch.equal(mask, random_binary((60, 64), PIXEL, 4e-6, 20e-6, fill=fill, seed=5))
    values = (mask[::4, ::4] / 20e-6).round(decimals=4)
    assert torch.equal(values, values.round())
    assert torch.allclose(mask, values.repeat_interleave(4, 0).repeat_interleave(4, 1) * 20e-6)
    assert fill in (0, 1) or not torch.equal(mask, random_binary((60, 64), PIXEL, 4e-6, 20e-6, fill=fill, seed=6))


def test_random_binary_is_periodic():
    mask = random_binary((50, 50), PIXEL, 7e-6, 1.0, seed=2)  # 7 cells of 7.14 pixels
    steps = (mask.roll(-1, 0) - mask).abs()
    edges = set(torch.where(steps.sum(1) > 1e-3)[0].tolist())
    allowed = {(int(n * 50 / 7) - before) % 50 for n in range(7) for before in (0, 1)}
    assert edges <= allowed


def test_sandpaper():
    """Spectrum inside its circle, speckles of the asked width, heights of the asked range."""
    widths = []
    for seed in range(4):
        height = sandpaper((128, 160), PIXEL, 8e-6, 50e-6, seed=seed)
        assert float(height.min()) == 0
        assert float(height.max()) == pytest.approx(50e-6)
        modulation = height.double() - height.double().mean()
        power = torch.fft.fft2(modulation).abs() ** 2
        radius = torch.hypot(torch.fft.fftfreq(128)[:, None], torch.fft.fftfreq(160))
        assert float(power[radius > 0.706 / 8].sum() / power.sum()) < 1e-9
        correlation = torch.fft.ifft2(power).real
        along = correlation[0] / correlation[0, 0]
        fall = int((along < 0.5).nonzero()[0])
        widths.append(2 * (fall - 1 + float((along[fall - 1] - 0.5) / (along[fall - 1] - along[fall]))))
    assert np.mean(widths) == pytest.approx(8, rel=0.05)


@pytest.mark.parametrize("kind", ["pillars", "holes", "checkerboard", "lines_j", "lines_k"])
def test_grids(kind):
    fill = 0.5 if kind == "checkerboard" else 0.3
    found = grid((40, 60), PIXEL, 10e-6, 1.0, kind=kind, fill=fill)
    assert float(found.mean()) == pytest.approx(fill, abs=1e-6)
    assert torch.allclose(found, found.roll(10, 0), atol=1e-6)
    assert torch.allclose(found, found.roll(10, 1), atol=1e-6)
    j, k = ((torch.arange(n * 50) + 0.5) / 50 % 10 / 10 for n in (40, 60))
    j = j[:, None]
    a, b = math.sqrt(0.3), math.sqrt(0.7)
    expected = {
        "pillars": (j < a) & (k < a),
        "holes": ~((j < b) & (k < b)),
        "checkerboard": (j < 0.5) == (k < 0.5),
        "lines_j": (k < 0.3).expand(2000, 3000),
        "lines_k": (j < 0.3).expand(2000, 3000),
    }[kind]
    torch.testing.assert_close(found, finely(expected.float(), 50), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("mask", "order", "shape"),
    [(ura, p, (p + 2, p)) for p in (3, 5, 11, 29)]
    + [(hadamard, n, (2**n - 1, 2**n + 1)) for n in (2, 3, 4, 5, 6, 7, 8)],
)
def test_the_autocorrelation_is_flat(mask, order, shape):
    pattern = mask(shape, PIXEL, PIXEL, 1.0, order=order).double()
    assert set(pattern.unique().tolist()) == {0.0, 1.0}
    correlation = torch.fft.ifft2(torch.fft.fft2(pattern).abs() ** 2).real.round().flatten()
    cells_in_all, open_cells = pattern.numel(), int(pattern.sum())
    assert open_cells == (cells_in_all + 1) // 2
    # A difference set: every shift has the same overlap, n (n − 1) / (N − 1).
    assert correlation[1:].unique().tolist() == [open_cells * (open_cells - 1) / (cells_in_all - 1)]


def test_arrays_repeat():
    mask = ura((40, 40), PIXEL, 2e-6, 0.3, order=5)
    assert torch.allclose(mask[:, :30], mask[:, 10:])  # 5 cells of 2 pixels
    assert torch.allclose(mask[:26], mask[14:])
    direct = ura((7, 5), PIXEL, PIXEL, 0.3, order=5)
    assert torch.equal(mask[:14:2, :10:2], direct)


@pytest.mark.parametrize(("kind", "fill"), [("dots", 0.3), ("holes", 0.5), ("line", 0.4)])
def test_spirals(kind, fill):
    shape = (301, 240)
    found = spiral(shape, PIXEL, 9e-6, 1.0, kind=kind, fill=fill)
    covered = 1 - found if kind == "holes" else found
    assert float(covered.min()) >= 0
    assert float(covered.max()) <= 1
    assert float(covered.mean()) == pytest.approx(fill, abs=0.02)
    if kind != "line":  # as many spots as the area they share says, all of one size
        from scipy.ndimage import label

        inner = (covered[20:-20, 20:-20] > 0.5).numpy()
        spots, count = label(inner)
        sizes = np.bincount(spots.ravel())[1:]
        assert np.median(sizes) == pytest.approx(math.pi * 81 / 4, rel=0.05)
        assert count > 0.8 * fill * inner.size / (math.pi * 81 / 4)


def test_a_spiral_has_no_period():
    """The highest peak of the spectrum holds less of the modulation than that of a grid of as many holes."""

    def highest(mask):
        power = torch.fft.fft2(mask - mask.mean()).abs() ** 2
        return float(power.max() / power.sum())

    even = grid((240, 240), PIXEL, 12e-6, 1.0, kind="pillars", fill=0.3)
    assert highest(spiral((240, 240), PIXEL, 7.5e-6, 1.0, kind="dots", fill=0.3)) < 0.1 * highest(even)


def test_designs_of_arrays_match_scipy():
    """Cyclic Hadamard arrays are maximal sequences: SciPy's has the same flat correlation along the diagonal."""
    array = hadamard((15, 17), PIXEL, PIXEL, 1.0, order=4)
    n = np.arange(255)
    sequence = array.numpy()[n % 15, n % 17]
    known = scipy.signal.max_len_seq(8, taps=[6, 5, 4])[0]
    matches = [np.array_equal(sequence, np.roll(known, shift)) for shift in range(255)]
    mirrored = [np.array_equal(sequence[::-1], np.roll(known, shift)) for shift in range(255)]
    assert any(matches) or any(mirrored)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: random_binary((8, 8), PIXEL, 0.5e-6, 1e-6), "feature_size_m: expected at least 1 pixels, 1e-06 m"),
        (lambda: random_binary((8, 8), PIXEL, 9e-6, 1e-6), "feature_size_m: expected at most the frame's 8e-06 m"),
        (lambda: random_binary((8, 8), PIXEL, 2e-6, 1e-6, fill=1.5), "fill: expected"),
        (lambda: random_binary((8, 8), PIXEL, 2e-6, 0), "thickness_m: expected"),
        (lambda: random_binary((2**15, 2**15), PIXEL, 2e-6, 1e-6), "shape: expected at most"),
        (lambda: sandpaper((8, 8), PIXEL, 1.5e-6, 1e-6), "feature_size_m: expected at least 2 pixels"),
        (lambda: sandpaper((8, 8), PIXEL, 8e-6, 1e-6), "feature_size_m: expected a size well below"),
        (lambda: grid((8, 8), PIXEL, 1e-6, 1e-6), "period_m: expected at least 2 pixels"),
        (lambda: grid((8, 8), PIXEL, 4e-6, 1e-6, kind="hexagons"), "kind: expected one of"),
        (lambda: grid((8, 8), PIXEL, 4e-6, 1e-6, kind="checkerboard", fill=0.4), "fill: expected 0.5"),
        (lambda: ura((8, 8), PIXEL, 1e-6, 1e-6, order=7), "order: expected the smaller one of twin primes, 3, 5, 11"),
        (lambda: hadamard((8, 8), PIXEL, 1e-6, 1e-6, order=9), r"order: expected an integer in \[2, 8\]"),
        (lambda: spiral((8, 8), PIXEL, 4e-6, 1e-6, fill=0.7), "fill: expected"),
        (lambda: cells(torch.ones(3), (8, 8), PIXEL, 4e-6, 1e-6), "pattern: expected a shape"),
        (lambda: cells(torch.ones(3, 3, 3), (8, 8), PIXEL, 4e-6, 1e-6), "pattern: expected shape"),
    ],
)
def test_what_no_mask_can_be_is_refused(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_lines_may_be_longer_than_a_frame_is_wide():
    assert grid((2, 40), PIXEL, 10e-6, 1.0, kind="lines_j").shape == (2, 40)
    with pytest.raises(ValueError, match="period_m: expected at most"):
        grid((2, 40), PIXEL, 10e-6, 1.0, kind="lines_k")
