"""Kernel fields by a trained network: the method ``"deconvolution-unrolled"``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from ddf_tomo._checks import integer, message, number
from ddf_tomo.retrieval.deconvolution._fit import begun, halves, mapped
from ddf_tomo.retrieval.deconvolution.field import KernelField
from ddf_tomo.retrieval.deconvolution.unrolled import UnrolledDeconvolution, unrolled_field
from ddf_tomo.retrieval.maps import Maps
from ddf_tomo.retrieval.method import View
from ddf_tomo.weights.network_files import network_for

WHOLE_IMAGE = 1 << 20
FEWEST, SMALLEST = 4, 24  # steps: two halves of two; pixels


class _Unrolled:
    """The method ``"deconvolution-unrolled"`` of `ddf_tomo.retrieval.retrieve`.

    Its options:

    * ``model``: file of weights, or the name of one that is shipped;
    * ``steps``: of the network (3): any number; more than three are smaller, and go as far in all;
    * ``inner``: exact ways to the windows' minima in each of them (1);
    * ``window``: of `matching`, which gives displacement and start (2.2).

    Standard errors are half the difference of two results, of every second step each, averaged over some pixels.
    Gradients do not pass.
    """

    options: dict[str, Any]

    def __init__(self) -> None:
        self.options = {"model": "deconvolution-unrolled", "steps": 3, "inner": 1, "window": 2.2}

    def check(self, options: dict[str, Any], shape: tuple[int, ...]) -> dict[str, Any]:
        """Options checked; raises ``ValueError`` or ``TypeError`` naming the argument."""
        rows, columns = shape[-2:]
        if min(rows, columns) < SMALLEST:
            raise ValueError(message("sample", f"at least {SMALLEST} rows and columns", (rows, columns)))
        if shape[-3] < FEWEST:
            raise ValueError(message("sample", f"at least {FEWEST} steps", shape[-3], "Errors come from two halves"))
        network_for(UnrolledDeconvolution, options["model"])
        return {
            "model": os.fspath(options["model"]),
            "steps": integer(options["steps"], "steps", low=0, high=1000),
            "inner": integer(options["inner"], "inner", low=1, high=1000),
            "window": number(options["window"], "window", low=0.5, high=max(rows, columns)),
        }

    def halo(self, options: dict[str, Any]) -> int:
        """How many pixels away frames can still touch a result: all, as the image shares the scale of its kernels."""
        return WHOLE_IMAGE

    def passes(self, options: dict[str, Any]) -> int:
        """How often ``tick`` is called for each frame."""
        return 1

    def field(self, view: View, options: dict[str, Any]) -> KernelField:
        """Kernels of every pixel."""
        network = network_for(UnrolledDeconvolution, options["model"]).to(view.sample.device)
        return unrolled_field(view, begun(view, options["window"]), network, options["steps"], options["inner"])

    def fit(self, view: View, options: dict[str, Any], tick: Callable[[], object]) -> Maps:
        """Maps of one view; gradients do not pass."""
        with torch.no_grad():
            view = view._replace(sample=view.sample.detach(), reference=view.reference.detach())
            fields = [self.field(each, options) for each in (view, *halves(view))]
            for _ in range(view.sample.shape[0] * view.sample.shape[1]):
                tick()
            return mapped(fields[0], fields[1:], options["window"])


METHOD = UNROLLED = _Unrolled()
