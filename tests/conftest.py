"""What every test run shares: examples that can be repeated, and figures without a window system."""

from __future__ import annotations

import os

import torch
from hypothesis import settings

# No deadline: on a busy machine, and under coverage, the first call of a compiled kernel takes as long as it takes.
settings.register_profile("ddf_tomo", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("ddf_tomo")
os.environ.setdefault("MPLBACKEND", "Agg")
# Before anything imports triton: its kernels are tested on a card where there is one, else in its interpreter.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
