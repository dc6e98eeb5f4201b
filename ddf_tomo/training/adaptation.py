"""A prior adapted to one scan, without a truth, and judged by views that took no part.

Noise2Inverse (Hendriksen, Pelt & Batenburg 2020, IEEE Trans. Comput. Imaging 6, 1320): views are dealt out to several
reconstructions; the network is given the mean of all but one and shown that one. It cannot learn the noise, which they
do not share. The 24 rotations of the cube make many samples of one. What comes of it has to predict views that were
kept aside better than the network that was there before; otherwise that one stays.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Module

from ddf_tomo._balanced import balanced
from ddf_tomo._checks import LARGEST_SEED, even_order, integer, message, number, of_kind
from ddf_tomo.operators.cube_rotations import CUBE_ROTATIONS
from ddf_tomo.operators.observability import observability
from ddf_tomo.operators.spherical_harmonics import power
from ddf_tomo.operators.tensor import TensorXRayTransform
from ddf_tomo.scan import Scan
from ddf_tomo.solvers import cgls
from ddf_tomo.training._inputs import known_device, shown
from ddf_tomo.training.loop import CollapseError, train
from ddf_tomo.training.schedule import Schedule
from ddf_tomo.training.self_supervised import split_views
from ddf_tomo.weights import ModelCard
from ddf_tomo.weights.card import where_and_when

__all__ = ["Adapted", "adapt"]
KEPT_ASIDE = 10  # one view in ten chooses among the weights, and another one judges them
ITERATIONS = 30  # many: what is stopped early is biased, and bias is what the network would learn
MOST_PARTS, VIEWS_OF_A_PART = 4, 40
FEWEST_VIEWS = 20


@dataclass(frozen=True)
class Adapted:
    """What became of a network on one scan; made by `adapt`.

    Attributes
    ----------
    network
        The one that predicts views better, in evaluation mode: the adapted one or the one that was given.
    better
        Whether that is the adapted one.
    residuals
        Of the views that judge, relative to their data: of the reconstruction itself (``"reconstruction"``), of what
        the given network makes of it (``"given"``), and the adapted one (``"adapted"``).
    steps
        How many steps were done; 0 where training failed.
    seconds
        That training took.
    """

    network: Module
    better: bool
    residuals: Mapping[str, float]
    steps: int
    seconds: float

    def __str__(self) -> str:
        """The decision in words."""
        given, adapted = (self.residuals[name] for name in ("given", "adapted"))
        if self.better:
            return f"the adapted weights predict views kept aside better: residual {adapted:.4g}, it was {given:.4g}"
        return f"the given weights stay: residual of views kept aside {given:.4g}, of the adapted ones {adapted:.4g}"


def adapt(
    scan: Scan,
    network: Module,
    *,
    ell_max: int | str = "auto",
    parts: int | None = None,
    steps: int = 400,
    learning_rate: float = 2e-4,
    time_limit_s: float = 900.0,
    seed: int = 0,
    device: str = "cpu",
    progress: bool | None = None,
) -> Adapted:
    """Adapt a denoiser to one scan, and decide by views that took no part whether that made it better.

    Parameters
    ----------
    scan
        Of 20 views or more, to harmonics.
    network
        A denoiser, ``network(volume, sigma)``, such as `ddf_tomo.weights.load_network` gives; it is not changed.
    ell_max
        Order of the volumes; ``"auto"``: what a learned prior may carry (`ddf_tomo.operators.automatic_ell_max`).
    parts
        Reconstructions among which the views are dealt out; by default two to four, of 40 views or more where there are
        as many.
    steps
        Of training.
    learning_rate
        Highest.
    time_limit_s
        Seconds after which training stops.
    seed
        Of turns and of the choice of reconstructions.
    device
        ``"cpu"`` or ``"cuda"``.
    progress
        Whether to show a progress bar; by default when it takes longer than two seconds.

    Returns
    -------
    Adapted

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the kind above.

    Examples
    --------
    >>> from ddf_tomo import SecondMomentResponse
    >>> from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
    >>> from ddf_tomo.weights import make_network
    >>> scan = simulate(helicoidal_fibres, tilt_series((8, 8, 8), views=[12, 12], tilts_rad=[0, 0.5]),
    ...                 SecondMomentResponse(), noise=0.1)
    >>> found = adapt(scan, make_network("residual-unet", {"widths": [2, 2, 2]}), ell_max=2, steps=2, progress=False)
    >>> sorted(found.residuals)
    ['adapted', 'given', 'reconstruction']
    """
    of_kind(Scan, scan, "scan")
    of_kind(Module, network, "network")
    if not getattr(scan.response, "of_harmonics", True):
        raise ValueError(message("scan", "a response to harmonics", type(scan.response).__name__))
    if len(scan) < FEWEST_VIEWS:
        raise ValueError(message("scan", f"at least {FEWEST_VIEWS} views", len(scan)))
    if isinstance(ell_max, str):
        if ell_max != "auto":
            raise ValueError(message("ell_max", "'auto' or an even order", repr(ell_max)))
        order = max(2, observability(scan.geometry, scan.response, 8).automatic_ell_max(regularised=True))
    else:
        order = even_order(ell_max, high=8)
    schedule = Schedule(
        steps=integer(steps, "steps", low=1),
        learning_rate=learning_rate,
        warmup=0.1,
        average=0.98,
        validate_every=max(1, steps // 10),
        seed=integer(seed, "seed", high=LARGEST_SEED),
    )
    on = known_device(device)
    limit = number(time_limit_s, "time_limit_s", low=0.0)
    task = Halves(scan.in_memory(), order, parts, schedule.seed, on)
    trained = copy.deepcopy(network)
    trained.requires_grad_(True)
    given = copy.deepcopy(network).to(on).eval().requires_grad_(False)
    try:
        found = train(trained, task, schedule, device=on, time_limit_s=limit, progress=shown(progress))
        adapted, done, seconds, learned = found.network, found.step, found.seconds, True
    except CollapseError:  # the loss is not finite
        adapted, done, seconds, learned = trained.eval().requires_grad_(False), 0, 0.0, False
    with torch.no_grad():
        residuals = {
            "reconstruction": task.residual(lambda volume, level: volume, task.judges),
            "given": task.residual(given, task.judges),
            "adapted": task.residual(adapted, task.judges),
        }
    better = learned and residuals["adapted"] < residuals["given"]
    return Adapted((adapted if better else given).cpu(), better, residuals, done, seconds)


def adapted_card(card: ModelCard, found: Adapted, start: str, scan: str, device: str = "cpu") -> ModelCard:
    """The card of what `adapt` wrote: that of the weights it started from, and what was done to them.

    Examples
    --------
    >>> found = Adapted(torch.nn.Identity(), True, {"given": 0.2, "adapted": 0.1}, 400, 60.0)
    >>> adapted_card(ModelCard(limits="simulated samples only"), found, "residual-unet", "bone.h5").limits
    'simulated samples only Adapted to one scan, bone.h5: of no use for others.'
    """
    if not found.better:
        return replace(card, metrics={**card.metrics, **found.residuals}, data={**card.data, "not adapted to": scan})
    where: dict[str, Any] = dict(where_and_when(device, found.seconds))
    data = {**card.data, "adapted to": scan, "adapted from": start, "steps of adaptation": found.steps}
    limits = f"{card.limits} Adapted to one scan, {scan}: of no use for others.".strip()
    return replace(card, metrics=dict(found.residuals), data=data, limits=limits, **where)


class Halves:
    """The task: from all reconstructions but one, that one; validated by views that none of them has seen.

    Examples
    --------
    >>> from ddf_tomo import SecondMomentResponse
    >>> from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
    >>> geometry = tilt_series((8, 8, 8), views=[12, 12], tilts_rad=[0, 0.5])
    >>> scan = simulate(helicoidal_fibres, geometry, SecondMomentResponse(), noise=0.1)
    >>> task = Halves(scan, 2, 2, 0, torch.device("cpu"))
    >>> task.volumes.shape, task.judges.tolist()
    (torch.Size([2, 8, 8, 8, 6]), [5, 15])
    """

    def __init__(self, scan: Scan, order: int, parts: int | None, seed: int, device: torch.device) -> None:
        data, weights, _ = balanced(scan)
        self.data = torch.as_tensor(data)
        self.weights = torch.ones(()) if weights is None else torch.as_tensor(weights)
        self.A = TensorXRayTransform(scan.geometry, scan.response, order)
        views = np.arange(len(scan))
        self.choosers, self.judges = (views[start::KEPT_ASIDE] for start in (0, KEPT_ASIDE // 2))
        learning = np.setdiff1d(views, np.concatenate([self.choosers, self.judges]))
        parts = max(2, min(MOST_PARTS, len(learning) // VIEWS_OF_A_PART)) if parts is None else parts
        chosen = [learning[part] for part in split_views(len(learning), parts)]
        self.volumes = torch.stack([self._reconstructed(part) for part in chosen]).to(device)
        self.count, self.seed, self.device = len(chosen), seed, device
        self.mean = self.volumes.mean(0)
        coefficients = torch.arange(1, 2 * order + 2, 4, device=device)
        spread = power(self.volumes - self.mean).mean((0, 1, 2, 3)) * self.count / (self.count - 1)
        self.level = (spread / coefficients).sqrt()  # of one reconstruction, for each order
        self.strength = power(self.volumes).sum((1, 2, 3)).mean(0)

    def _reconstructed(self, views: Any) -> Tensor:
        weights = self._of(views)
        return cgls(self.A.views(views), self.data[views], weights=weights, iterations=ITERATIONS, progress=False).x.to(
            torch.float32
        )

    def _of(self, views: Any) -> Tensor:
        """Weights of some views, of which there may be one for all."""
        return self.weights[views] if self.weights.ndim and len(self.weights) > 1 else self.weights

    def loss(self, network: Callable[..., Tensor], step: int) -> Tensor:
        """Of what ``network`` makes of the mean of all but one, in a pose that the ``step`` draws."""
        draw = np.random.default_rng([self.seed, step])
        aim, turn = int(draw.integers(self.count)), CUBE_ROTATIONS[int(draw.integers(len(CUBE_ROTATIONS)))]
        others = (self.mean * self.count - self.volumes[aim]) / (self.count - 1)
        found = network(turn.volume(others)[None], self.level / math.sqrt(self.count - 1))[0]
        errors = power(found - turn.volume(self.volumes[aim])).sum((0, 1, 2))
        return (errors / self.strength.clamp_min(1e-3 * self.strength[0])).mean()

    def validate(self, network: Callable[..., Tensor]) -> Mapping[str, float]:
        """Residual of the views that choose, of what ``network`` makes of the mean.

        No training ends early for being no better than its input: other views judge that.
        """
        return {"loss": self.residual(network, self.choosers), "input": math.inf}

    def residual(self, network: Callable[..., Tensor], views: Any) -> float:
        """``|W^(1/2) (A D(x̄) - y)| / |W^(1/2) y|`` over some ``views``, with D the ``network``."""
        volume = network(self.mean[None], self.level / math.sqrt(self.count))[0].cpu()
        data, roots = self.data[views], self._of(views).sqrt()
        misfit = roots * (self.A.views(views)(volume.to(data)) - data)
        return float(misfit.norm() / (roots * data).norm())
