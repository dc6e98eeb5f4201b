"""Scans to judge priors by: the same every time, of families that never train, shifted as they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ddf_tomo import SaxsResponse, SecondMomentResponse, TensorXRayTransform
from ddf_tomo.phantoms import PHANTOMS
from ddf_tomo.training import SHIFTS, SPLITS, benchmark_scan, random_sample

SIZE = {"shape": (8, 8, 8), "ell_max": 4, "views": 14}


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_same_every_time(shift):
    first, truth = benchmark_scan(5, shift=shift, **SIZE)
    again, same = benchmark_scan(5, shift=shift, **SIZE)
    assert torch.equal(truth, same)
    assert np.array_equal(first.data, again.data)
    assert len(first) == 14
    other, _ = benchmark_scan(6, shift=shift, **SIZE)
    assert not np.allclose(first.data, other.data)


def test_families_never_train():
    for index in range(4):
        _, truth = benchmark_scan(index, **SIZE)
        candidates = [random_sample(name, (8, 8, 8), 4, seed=7_000_000 + index) for name in SPLITS["test"]]
        assert any(torch.equal(truth, each) for each in candidates)


def test_shifts_are_what_they_say():
    plain, truth = benchmark_scan(2, noise=0.02, **SIZE)
    noisier, same = benchmark_scan(2, noise=0.02, shift="noise", **SIZE)
    assert torch.equal(truth, same)
    strengths = [float(1 / np.sqrt(np.ravel(scan.weights)[0])) for scan in (plain, noisier)]
    assert strengths[1] == pytest.approx(4 * strengths[0], rel=1e-5)
    assert isinstance(plain.response, SaxsResponse)
    assert isinstance(benchmark_scan(2, shift="response", **SIZE)[0].response, SecondMomentResponse)
    wedge = benchmark_scan(2, shift="geometry", **SIZE)[0].geometry
    beams = wedge.p[::2]  # those of tilt 0, in one plane
    across = beams[1] - (beams[1] @ beams[0]) * beams[0]
    angles = np.sort(np.arctan2(beams @ across / np.linalg.norm(across), beams @ beams[0]) % np.pi)
    gaps = np.diff(np.append(angles, angles[0] + np.pi))
    assert gaps.max() >= np.pi / 3
    assert np.sort(gaps)[-2] < 0.4
    phantoms = [PHANTOMS[name]((8, 8, 8), 4).coefficients for name in PHANTOMS]
    found = [benchmark_scan(index, shift="family", **SIZE)[1].numpy() for index in range(len(phantoms))]
    known = [any(np.array_equal(each, phantom) for phantom in phantoms) for each in found]
    assert sum(known) >= len(PHANTOMS) - 2  # two of them are drawn from the number


def test_data_are_of_a_finer_grid():
    scan, truth = benchmark_scan(1, noise=1e-6, **SIZE)
    A = TensorXRayTransform(scan.geometry, scan.response, 4)
    expected = A(truth)
    misfit = float((torch.as_tensor(scan.data) - expected).norm() / expected.norm())
    assert 1e-3 < misfit < 0.3


def test_bad_wishes():
    with pytest.raises(ValueError, match="shift: expected one of 'none', 'family'"):
        benchmark_scan(0, shift="mask", **SIZE)
    with pytest.raises(ValueError, match="views: expected an integer in"):
        benchmark_scan(0, (8, 8, 8), views=3)
