"""Algorithms that know operators only by ``A(x)``, ``A.T(y)`` and ``A.normal()``; one file each."""

from ddf_tomo.solvers.cgls import cgls
from ddf_tomo.solvers.result import Solution

__all__ = ["Solution", "cgls"]
