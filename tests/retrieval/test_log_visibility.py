"""Blurs that differ from pixel to pixel, from a sample of them: wherever the sampled pixels happen to lie."""

import pytest
import torch

from ddf_tomo.retrieval._log_visibility import LogVisibility, blurred
from ddf_tomo.retrieval._warped import frequencies


@pytest.mark.parametrize("columns", [150, 160, 320])
def test_frames_as_wide_as_the_samples_are_apart(columns):
    """160 × 160 pixels over 160 samples: one a row, always in the first column, where a border has no blur."""
    law = LogVisibility((8.0,), 2, 2.0)
    amplitudes = torch.zeros(3, 160, columns, dtype=torch.float64)
    amplitudes[:, :, 12:-12] = torch.tensor([0.3, 0.1, -0.05], dtype=torch.float64)[:, None, None]
    frame = torch.randn(1, 160, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrum = torch.fft.rfft2(frame)
    f_j, f_k = frequencies(160, columns, frame)
    exponent = (law.at(f_j, f_k) * amplitudes[:, 80, 80][:, None, None]).sum(0)
    smooth = torch.exp(-20 * (f_j**2 + f_k**2))  # what a mask's pattern has
    found = blurred(spectrum * smooth, law, amplitudes)
    expected = torch.fft.irfft2(spectrum * smooth * torch.exp(-exponent), s=(160, columns))
    error = (found - expected)[0, 20:-20, 32:-32].square().mean().sqrt()
    assert error < 0.01 * expected.std()
