"""Algorithms that know operators only by ``A(x)``, ``A.T(y)`` and ``A.views(…)``; one file each."""

from ddf_tomo.solvers.cgls import cgls
from ddf_tomo.solvers.checkpoint import Checkpoint
from ddf_tomo.solvers.fbp import fbp
from ddf_tomo.solvers.fista import fista
from ddf_tomo.solvers.irtt import irtt
from ddf_tomo.solvers.iteration import Solution
from ddf_tomo.solvers.lbfgs import lbfgs
from ddf_tomo.solvers.misfit import Misfit
from ddf_tomo.solvers.multiresolution import multiresolution
from ddf_tomo.solvers.nonlinear_cg import nonlinear_cg
from ddf_tomo.solvers.pdhg import pdhg
from ddf_tomo.solvers.plug_and_play import PlugAndPlaySolution, plug_and_play
from ddf_tomo.solvers.preconditioner import pcg, preconditioner
from ddf_tomo.solvers.rehearsal import RehearsedSolution, rehearsed
from ddf_tomo.solvers.sirt import sirt
from ddf_tomo.solvers.unrolled import Unrolled

__all__ = [
    "Checkpoint",
    "Misfit",
    "PlugAndPlaySolution",
    "RehearsedSolution",
    "Solution",
    "Unrolled",
    "cgls",
    "fbp",
    "fista",
    "irtt",
    "lbfgs",
    "multiresolution",
    "nonlinear_cg",
    "pcg",
    "pdhg",
    "plug_and_play",
    "preconditioner",
    "rehearsed",
    "sirt",
]
