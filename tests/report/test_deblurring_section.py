"""The section on a restored transmission says what was gained and what it cost."""

from __future__ import annotations

import pytest
import torch

from ddf_tomo.retrieval import restore_transmission


def test_figures_and_picture_are_in_the_section() -> None:
    pytest.importorskip("matplotlib")
    from ddf_tomo.report._deblurring import sharpened

    restored = restore_transmission(0.5 + torch.eye(24, dtype=torch.float64) / 3, 1.0, error=0.001)
    section = sharpened(restored)
    assert "data:image/png" in section.body
    assert f"<dd>{restored.limit_before:.3g}</dd>" in section.body
    assert "noise, times" in section.body
