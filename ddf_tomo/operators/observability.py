"""What an acquisition can tell: ranks and conditions for constant fields and for structure in every direction.

A *constant* field (spatial frequency 0) is seen by all views. A *structure* at frequency ξ ≠ 0 is, by the Fourier slice
theorem, seen only by beams perpendicular to ξ, whatever the tilts: what decides is the rank of
``G(ξ̂) = Σ_{p ⟂ ξ} R_pᵀ R_p``. With all such beams second moments have rank 3 ℓ_max there (6, 12, 18, 24 of 6, 15, 28,
45 coefficients): they determine orders ℓ ≤ 2 and of the higher ones only a part.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ddf_tomo._checks import angular_response, check_shape, even_order, flag, integer, message, neighbour, number
from ddf_tomo._files import replaced_when_complete
from ddf_tomo.geometry import Geometry
from ddf_tomo.operators.base import as_tensor
from ddf_tomo.operators.beams_across import beams_across_z, largest_gap, seeing_views, view_spacing
from ddf_tomo.operators.circle import check_geometry
from ddf_tomo.operators.spherical_harmonics import coefficient_count, half_sphere_grid

RELATIVE_RANK_TOLERANCE = 1e-6  # of a singular value to the largest; eigenvalues of Gram matrices resolve 1e-8
DETERMINED_SHARE = 0.9  # of the directions ξ̂, for an order to count as determined


@dataclass(frozen=True, eq=False, repr=False)
class Observability:
    """Ranks and conditions of an acquisition; made by `observability`.

    The arrays have one entry for each order in ``orders``; entry ``i`` concerns the problem with all coefficients up to
    ``orders[i]``, of which there are ``coefficients[i]``. Conditions are ratios of singular values of the (stacked)
    response: the factor between the largest and the smallest noise amplification.

    Attributes
    ----------
    response, views
        What was asked about: the angular response, and the number of views.
    orders, coefficients
        Orders ℓ and number of coefficients up to each, shape ``(orders,)``.
    constant_rank, constant_condition
        Of a constant field, seen by all views; shape ``(orders,)``. The condition is infinite where
        coefficients are not seen at all.
    ideal_rank, ideal_condition
        Of a structure in any direction, were it seen by *all* beams perpendicular to it; shape ``(orders,)``. The
        condition within what such beams see. (Detector axis ``j`` along ξ; a few grating angles or
        coarse segments depend on that.)
    directions
        The directions ξ̂ looked at, shape ``(directions, 3)``; each stands for its opposite too.
    tolerance_rad
        Views within this angle of perpendicular to ξ̂ count as seeing it.
    seeing
        How many views see each direction; 0 is the missing wedge of scalar tomography. Shape ``(directions,)``.
    gap_rad
        Largest gap between them on the circle of beams across ξ̂, π where there is one beam or none: the missing wedge
        of tensor tomography. Shape ``(directions,)``.
    rank
        Singular values of the seeing views' response above ``1/condition_limit`` of the largest; shape
        ``(directions, orders)``.
    condition
        Largest singular value over the one at ``ideal_rank`` (infinite if that is zero), shape
        ``(directions, orders)``.
    condition_limit
        Singular values below ``1/condition_limit`` of the largest count as not seen.
    """

    response: Any
    views: int
    orders: NDArray[np.int64]
    coefficients: NDArray[np.int64]
    constant_rank: NDArray[np.int64]
    constant_condition: NDArray[np.float64]
    ideal_rank: NDArray[np.int64]
    ideal_condition: NDArray[np.float64]
    directions: NDArray[np.float64]
    tolerance_rad: float
    seeing: NDArray[np.int64]
    gap_rad: NDArray[np.float64]
    rank: NDArray[np.int64]
    condition: NDArray[np.float64]
    condition_limit: float

    @property
    def ell_max(self) -> int:
        """Highest order looked at."""
        return int(self.orders[-1])

    @property
    def determined_share(self) -> NDArray[np.float64]:
        """Share of the directions in which all coefficients up to each order are seen; shape ``(orders,)``."""
        return (self.rank == self.coefficients).mean(axis=0)

    @property
    def determined(self) -> NDArray[np.bool_]:
        """Whether constant fields, and structures in 90 % of the directions, are fully seen up to each order."""
        constant = (self.constant_rank == self.coefficients) & (self.constant_condition <= self.condition_limit)
        return constant & (self.determined_share >= DETERMINED_SHARE)

    @property
    def highest_determined_order(self) -> int:
        """Highest order up to which all orders are determined; 0 if none is."""
        count = len(self.orders) if self.determined.all() else int(np.argmin(self.determined))
        return int(self.orders[count - 1]) if count else 0

    def automatic_ell_max(self, *, regularised: bool = False) -> int:
        """The order that ``ell_max="auto"`` means: `highest_determined_order`, or with a prior the next one up.

        A smoothness or learned prior may carry what the data leave open of structures, as long as constant fields are
        fully seen. A tensor always has order 2.

        Parameters
        ----------
        regularised
            Whether the solver has a smoothness or learned prior.
        """
        regularised = flag(regularised, "regularised")
        highest = max(self.highest_determined_order, int(self.orders[0]))
        following = self.orders == highest + 2
        return highest + 2 if regularised and (following & (self.constant_rank == self.coefficients)).any() else highest

    def warn_if_undetermined(self, ell_max: int | None = None, *, regularised: bool = False) -> bool:
        """Warn if orders up to ``ell_max`` are asked for that the acquisition cannot tell; returns whether it did.

        Parameters
        ----------
        ell_max
            Order of the reconstruction, the highest order looked at by default.
        regularised
            Whether a smoothness or learned prior carries one order more.
        """
        order = self.ell_max if ell_max is None else even_order(ell_max)
        regularised = flag(regularised, "regularised")
        index = np.flatnonzero(self.orders == order)
        if not index.size:
            raise ValueError(message("ell_max", f"one of the orders looked at {self.orders.tolist()}", order))
        i = int(index[0])
        if self.determined[: i + 1].all() or (regularised and order <= self.automatic_ell_max(regularised=True)):
            return False
        warnings.warn(
            f"ell_max={order} asks for {self.coefficients[i]} coefficients; with these {self.views} views"
            f" {type(self.response).__name__} sees {int(np.median(self.rank[:, i]))} of them in structures of a typical"
            f" direction (at most {self.ideal_rank[i]} with all beams, {self.constant_rank[i]} in constant fields). The"
            f" rest comes from the prior and from where the iteration stops; {self._verdict}",
            UserWarning,
            stacklevel=2,
        )
        return True

    @property
    def _verdict(self) -> str:
        if not self.determined[0]:
            return "the data alone determine no order"
        return f"the data alone determine orders up to ell_max={self.highest_determined_order}"

    def __repr__(self) -> str:
        name = type(self.response).__name__
        return f"<Observability: {name}, {self.views} views, determined up to ell_max={self.highest_determined_order}>"

    def summary(self) -> str:
        """A table for a person: per order, what constant fields and structures tell."""
        lines = [
            f"{type(self.response).__name__}, {self.views} views, {len(self.directions)} directions, views within"
            f" {np.degrees(self.tolerance_rad):.1f}° of perpendicular",
            "up to ℓ  coefficients  constant: rank  condition  structures: all beams  median  worst  condition"
            "  determined",
        ]
        for i, order in enumerate(self.orders):
            lines.append(
                f"{order:7d}  {self.coefficients[i]:12d}"
                f"  {self.constant_rank[i]:14d}  {self.constant_condition[i]:9.3g}"
                f"  {self.ideal_rank[i]:21d}  {np.median(self.rank[:, i]):6.0f}  {self.rank[:, i].min():5d}"
                f"  {np.median(self.condition[:, i]):9.3g}  {self.determined_share[i]:9.0%}"
            )
        lines += [
            f"unseen directions: {np.mean(self.seeing == 0):.1%}, gaps between the beams across a direction: median"
            f" {np.degrees(np.median(self.gap_rad)):.0f}°, largest {np.degrees(self.gap_rad.max()):.0f}°",
            self._verdict,
        ]
        return "\n".join(lines)

    def plot(self, path: Any = None) -> Any:
        """Maps over the half sphere of ξ̂ (seen from +z, equal areas): views, gap, rank and condition.

        Parameters
        ----------
        path
            Where to save the figure too, if given.

        Returns
        -------
        matplotlib.figure.Figure
        """
        figure = neighbour("matplotlib.figure").Figure(figsize=(13, 3.7), layout="constrained")
        # Lambert's equal-area disc, each pixel with the value of the nearest direction.
        x, y = np.meshgrid(*[np.linspace(-1, 1, 240)] * 2)
        square = x**2 + y**2
        height, stretch = np.maximum(1 - square, 0), np.sqrt(np.maximum(2 - square, 0))
        nearest = np.abs(np.stack([x * stretch, y * stretch, height], axis=-1) @ self.directions.T).argmax(axis=-1)
        condition = np.where(np.isfinite(self.condition[:, -1]), self.condition[:, -1], np.nan)
        rank_title = f"rank up to ℓ = {self.ell_max} (of {self.coefficients[-1]}; all beams: {self.ideal_rank[-1]})"
        panels = (
            ("views that see structure along ξ", self.seeing, "viridis", None),
            ("largest gap between them (°)", np.degrees(self.gap_rad), "magma_r", 180),
            (rank_title, self.rank[:, -1], "viridis", self.coefficients[-1]),
            ("log₁₀ condition (grey: infinite)", np.log10(condition), "magma_r", None),
        )
        for axes, (title, values, colours, top) in zip(figure.subplots(1, len(panels)), panels, strict=True):
            axes.add_patch(neighbour("matplotlib.patches").Circle((0, 0), 1.0, facecolor="0.75", edgecolor="0.3"))
            shown = np.where(square <= 1, values[nearest], np.nan)
            highest = np.nanmax(values) if top is None and np.isfinite(values).any() else top or 1
            limits = {"vmin": 0, "vmax": max(float(highest), 1e-9), "extent": (-1, 1, -1, 1)}
            drawn = axes.imshow(shown, cmap=colours, origin="lower", zorder=2, **limits)
            figure.colorbar(drawn, ax=axes, shrink=0.8)
            axes.set_title(title, fontsize=9, pad=14)
            axes.set(aspect="equal", xlim=(-1.15, 1.15), ylim=(-1.15, 1.15), xticks=[], yticks=[])
            axes.text(1.03, 0, "x", va="center")
            axes.text(0, 1.03, "y", ha="center")
            axes.set_frame_on(False)
        if path is not None:
            with replaced_when_complete(path) as partial:
                figure.savefig(partial, dpi=120, format=Path(path).suffix.lstrip(".") or "png")
        return figure


def observability(
    geometry: Geometry,
    response: Any,
    ell_max: int = 8,
    *,
    directions: int = 200,
    tolerance_rad: float | None = None,
    condition_limit: float = 100.0,
) -> Observability:
    """Ranks and conditions of an acquisition, for constant fields and over directions of structure.

    Views within ``tolerance_rad`` of perpendicular to ξ̂ are counted as seeing it, each turned to the nearest
    perpendicular beam, so that the deviation itself adds no rank. By default the tolerance is the spacing
    of the views (median angle between a beam and the nearest other one, at most 30°): what is judged is structure as
    fine as the views sample without gaps, an object of diameter D at frequencies of about ``1/(2 D tolerance)``.

    Parameters
    ----------
    geometry
        The views.
    response
        An angular response.
    ell_max
        Highest order to look at; even. A response to tensors looks at 2 only.
    directions
        How many directions ξ̂, spread evenly over the half sphere.
    tolerance_rad
        See above.
    condition_limit
        Singular values below ``1/condition_limit`` of the largest count as not seen: their noise is amplified that
        much more.

    Raises
    ------
    ValueError
        If there are no views, or an argument is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from ddf_tomo.operators.responses import SecondMomentResponse
    >>> inner, tilt = np.meshgrid(np.arange(0, 2 * np.pi, 0.2), np.radians([0, 15, 30, 45]))
    >>> geometry = Geometry.from_angles(inner.ravel(), tilt.ravel(), (16, 16, 16), (16, 16))
    >>> found = observability(geometry, SecondMomentResponse(), 8)
    >>> found.coefficients.tolist(), found.ideal_rank.tolist(), found.highest_determined_order
    ([1, 6, 15, 28, 45], [1, 6, 12, 18, 24], 2)
    """
    check_geometry(geometry)
    angular_response(response)
    if not len(geometry):
        raise ValueError(message("geometry", "at least one view", "none"))
    of_harmonics = getattr(response, "of_harmonics", True)
    order = even_order(ell_max) if of_harmonics else 2
    limit = number(condition_limit, "condition_limit", low=1.0)
    grid = half_sphere_grid(integer(directions, "directions", low=1))
    tolerance = (
        view_spacing(geometry)
        if tolerance_rad is None
        else number(tolerance_rad, "tolerance_rad", low=0.0, high=np.pi / 2, low_open=True)
    )
    orders = np.arange(0, order + 1, 2) if of_harmonics else np.array([2])
    counts = np.array([coefficient_count(ell) for ell in orders])

    stacked = _matrix(response, geometry, order).flatten(0, 1)
    constant_rank, constant_condition = _ranks((stacked.T @ stacked)[None], counts, counts, 1 / RELATIVE_RANK_TOLERANCE)
    anywhere = response.in_any_view() if hasattr(response, "in_any_view") else response
    across = _matrix(anywhere, beams_across_z(4 * order + 8), order).flatten(0, 1)
    ideal_gram = (across.T @ across)[None]
    ideal_rank, _ = _ranks(ideal_gram, counts, counts, 1 / RELATIVE_RANK_TOLERANCE)
    _, ideal_condition = _ranks(ideal_gram, counts, ideal_rank[0], 1 / RELATIVE_RANK_TOLERANCE)

    grams = torch.zeros(len(grid), counts[-1], counts[-1], dtype=torch.float64)
    seeing, gap = np.zeros(len(grid), np.int64), np.full(len(grid), np.pi)
    for chunk, which, view, turned in seeing_views(geometry, grid, np.sin(tolerance)):
        matrices = _matrix(response.views(view) if hasattr(response, "views") else response, turned, order)
        grams.index_add_(0, torch.from_numpy(which), matrices.mT @ matrices)
        seeing += np.bincount(which, minlength=len(grid))
        gap[chunk] = [largest_gap(turned.p[which == d], grid[d]) for d in chunk]
    rank, condition = _ranks(grams, counts, ideal_rank[0], limit)
    return Observability(
        response=response,
        views=len(geometry),
        orders=orders,
        coefficients=counts,
        constant_rank=constant_rank[0],
        constant_condition=constant_condition[0],
        ideal_rank=ideal_rank[0],
        ideal_condition=ideal_condition[0],
        directions=grid,
        tolerance_rad=tolerance,
        seeing=seeing,
        gap_rad=gap,
        rank=rank,
        condition=condition,
        condition_limit=limit,
    )


def automatic_ell_max(geometry: Geometry, response: Any, *, regularised: bool = False, highest: int = 8) -> int:
    """The order that ``ell_max="auto"`` means for this acquisition, at most ``highest``.

    The highest order that the data alone determine (2 for second moments) for solvers without a prior; with a
    smoothness or learned prior one more, see `Observability.automatic_ell_max`.

    Parameters
    ----------
    geometry, response
        As in `observability`.
    regularised
        Whether the solver has a smoothness or learned prior.
    highest
        Highest order to look at; even.

    Examples
    --------
    >>> import numpy as np
    >>> from ddf_tomo.operators.responses import RankTwoResponse
    >>> geometry = Geometry.from_angles(np.arange(0, 3, 0.2), 0.3, (8, 8, 8), (8, 8))
    >>> automatic_ell_max(geometry, RankTwoResponse())
    2
    """
    return observability(geometry, response, highest).automatic_ell_max(regularised=regularised)


def _matrix(response: Any, geometry: Geometry, order: int) -> torch.Tensor:
    """The response, with zero columns above the order that it can see at all."""
    highest = getattr(response, "highest_order", None)
    if highest is None or highest >= order:
        matrix = as_tensor(response.matrix(geometry, order), "response.matrix(...)").double()
        check_shape(matrix.shape, "response.matrix(...)", (len(geometry), None, coefficient_count(order)))
        return matrix
    seen = response.matrix(geometry, highest)
    return torch.nn.functional.pad(seen, (0, coefficient_count(order) - seen.shape[-1]))


def _ranks(
    grams: torch.Tensor, counts: NDArray[np.int64], wanted: NDArray[np.int64], limit: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Ranks, and conditions down to the ``wanted``-th singular value, of the leading blocks: ``(matrices, orders)``."""
    ranks, conditions = [], []
    for count, target in zip(counts, wanted, strict=True):
        values = torch.linalg.eigvalsh(grams[:, :count, :count]).clamp_min(0).sqrt().flip(-1).numpy()
        largest = values[:, :1]
        ranks.append(((values * limit >= largest) & (largest > 0)).sum(axis=1))
        smallest = values[:, max(target - 1, 0)]
        seen = smallest > RELATIVE_RANK_TOLERANCE * largest[:, 0]
        conditions.append(np.where(seen, largest[:, 0] / np.where(seen, smallest, 1), np.inf))
    return np.stack(ranks, axis=1), np.stack(conditions, axis=1)
