"""Several priors for one scan: a mixture of their volumes, in shares that views tell which none of them saw.

What one prior gets wrong, another may not, and which one suits a sample nobody knows beforehand. Each reconstructs nine
tenths of the views; the shares whose mixture predicts the last tenth best are found [stacked regressions: Breiman 1996,
Mach. Learn. 24, 49], and taken a third of the way to even ones: those views know nothing of what no view has seen.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo._balanced import balanced
from ddf_tomo._data_fit import data_fit
from ddf_tomo._one_scan import Bar, OneScan, inside, state_folder
from ddf_tomo._plan import Plan
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.reconstruction import Reconstruction
from ddf_tomo.scan import Scan
from ddf_tomo.solvers import Checkpoint
from ddf_tomo.solvers.misfit import Misfit, misfit_of
from ddf_tomo.solvers.regularisation_weight import FEWEST_VIEWS, views_left_out

EVEN = 1 / 3  # how far shares are taken from the best for some views to even ones
ALIKE = 1e-9  # of the errors: volumes that are the same share what they have


class Mixture:
    """The work on one scan with several priors, by name; as `ddf_tomo._one_scan.OneScan`."""

    def __init__(self, scan: Scan, order: int, plans: Mapping[str, Plan], folder: Checkpoint | None, bar: Bar) -> None:
        self.scan, self.order, self.plans, self.folder, self.bar = scan, order, plans, folder, bar
        self.name = bar.name

    def reconstruction(self) -> Reconstruction:
        """All stages."""
        shares, told = self.shares()
        work, wholes = self.each(self.scan, "all views")
        misfit, unit = work.misfit, work.unit
        x = mixed(shares, wholes)
        residual = misfit.norm(misfit.residual(x))
        settings: dict[str, Any] = {"prior": "+".join(self.plans), "shares_from": told}
        for name, share, whole in zip(self.plans, shares, wholes, strict=True):
            own = dict(whole.settings)
            settings |= {f"share_of_{name}": float(share)}
            settings |= {f"{key}_of_{name}": own.pop(key) for key in ("weight", "weight_from")}
            settings = own | settings
        settings["stopped_by"] = "mixture"
        settings["residual_share"] = residual / misfit.size() if misfit.size() else 0.0
        return Reconstruction(
            x.numpy(),
            self.order,
            self.scan.geometry,
            self.scan.response,
            (*wholes[-1].residuals, residual * unit**0.5),
            self.scan.voxel_size_m,
            settings,
            work.provenance(),
            fit=data_fit(misfit, x, unit),
        )

    def each(self, scan: Scan, stage: str) -> tuple[OneScan, list[Reconstruction]]:
        """What each prior makes of these views, and the work of the last one."""
        made = []
        for place, (name, plan) in enumerate(self.plans.items()):
            self.bar.name = f"{self.name}{name}, {stage}: "
            folder = None if self.folder is None else state_folder(inside(self.folder, f"prior {place}, {stage}"))
            work = OneScan(scan, self.order, plan, folder, self.bar, None)
            made.append(work.reconstruction())
        return work, made

    def shares(self) -> tuple[NDArray[np.float64], str]:
        """Of each prior, and where they come from."""
        even = np.full(len(self.plans), 1 / len(self.plans))
        if len(self.scan) < FEWEST_VIEWS:
            return even, f"fewer than {FEWEST_VIEWS} views"
        kept, held = views_left_out(len(self.scan))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of the same there will be warnings with all views
            _, parts = self.each(self.scan[kept], "most views")
        test = self.scan[held]
        data, weights, _ = balanced(test)
        misfit = misfit_of(TensorXRayTransform(test.geometry, test.response, self.order), data, weights)
        best = best_shares(products(misfit, [torch.from_numpy(part.coefficients) for part in parts]))
        return EVEN * even + (1 - EVEN) * best, "views left out"


def mixed(shares: NDArray[np.float64], volumes: Sequence[Reconstruction]) -> torch.Tensor:
    """Their coefficients in these shares, as a tensor."""
    parts = [float(share) * torch.from_numpy(each.coefficients) for share, each in zip(shares, volumes, strict=True)]
    return torch.stack(parts).sum(0)


def products(misfit: Misfit, volumes: Sequence[torch.Tensor]) -> NDArray[np.float64]:
    """Of the residuals of each volume with those of each, weighted.

    Examples
    --------
    >>> from ddf_tomo import wrap
    >>> same = wrap((lambda x: x, lambda y: y), (2,), (2,))
    >>> products(Misfit(same, torch.tensor([1.0, 2.0])), [torch.zeros(2), torch.tensor([1.0, 0.0])])
    array([[5., 4.],
           [4., 4.]])
    """
    residuals = [misfit.residual(volume).clone() for volume in volumes]
    square = np.array([[misfit.norm(a - b) ** 2 for b in residuals] for a in residuals])
    own = np.array([misfit.norm(a) ** 2 for a in residuals])
    return (own[:, None] + own - square) / 2


def best_shares(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The shares, none negative and 1 in sum, with the least ``sᵀ E s``: by trying every set of those above zero.

    Examples
    --------
    >>> best_shares(np.diag([1.0, 3.0])), best_shares(np.array([[1.0, 2.0], [2.0, 9.0]]))
    (array([0.75, 0.25]), array([1., 0.]))
    """
    count = len(errors)
    even = ALIKE * np.trace(errors) * np.eye(count) if errors.any() else np.eye(count)
    least, best = np.inf, np.full(count, 1 / count)
    for size in range(1, count + 1):
        for chosen in map(list, combinations(range(count), size)):
            shares = np.zeros(count)
            shares[chosen] = np.linalg.solve((errors + even)[np.ix_(chosen, chosen)], np.ones(size))
            shares /= shares.sum()
            error = float(shares @ (errors + even) @ shares)
            if (shares >= 0).all() and error < least:
                least, best = error, shares
    return best
