"""deepinv imports torchvision, and torchvision without its compiled part imports only once these operators are known.

PyPI's torchvision for Linux is compiled for CUDA and does not load beside torch's CPU build. Nothing here calls the
operators; torchvision itself asks for their names while it is imported (``_meta_registrations.py``). Declared for the
tests, the examples and the fuzz runs of this repository, never by the package: users install the two that fit.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch

OPERATORS = ("nms", "qnms")


@lru_cache
def declare() -> torch.library.Library | None:
    """Declare them where torchvision's own library does not; the declaration lives as long as what is returned."""
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        return None
    for library in Path(found.origin).parent.glob("_C*"):
        try:
            torch.ops.load_library(library)
            return None
        except OSError:
            pass
    namespace = torch.library.Library("torchvision", "DEF")
    for name in OPERATORS:
        namespace.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return namespace
