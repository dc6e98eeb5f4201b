"""Operators whose views are divided among the processes of ``torch.distributed``: several GPUs, or several machines.

Every process runs the same program on the same data and arrives at the same numbers; only the work is divided. A
projection is computed view by view where the view belongs, and then given to all; a back-projection is the sum of what
the processes have. Solvers, which know no more than ``A(x)`` and ``A.T(y)``, need not know.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from ddf_tomo._checks import integer, message
from ddf_tomo.operators.autograd import OpaqueOperator
from ddf_tomo.operators.base import LinearOperator, Normal

__all__ = ["DistributedViews", "over_views", "own_share"]


class DistributedViews(OpaqueOperator):
    """An operator whose views are divided among processes; `over_views` makes it.

    Parameters
    ----------
    whole
        The operator, undivided.
    group
        The processes; ``None`` for all of them.

    Attributes
    ----------
    part
        The operator of this process' views.
    share
        Which views these are.

    Examples
    --------
    Two processes run this and print the same:

    >>> import torch.distributed as dist
    >>> from ddf_tomo import Geometry, XRayTransform
    >>> dist.init_process_group("gloo")  # doctest: +SKIP
    >>> A = over_views(XRayTransform(Geometry.from_angles([0.0, 0.4, 0.9], 0.0, (8, 8, 8), (8, 8))))  # doctest: +SKIP
    >>> A.range_shape  # doctest: +SKIP
    (3, 8, 8, None)
    """

    def __init__(self, whole: LinearOperator, group: Any = None) -> None:
        super().__init__()
        self.whole, self.group = whole, group
        self.domain_shape, self.range_shape = whole.domain_shape, whole.range_shape
        self.device, self.adjoint_is_exact = whole.device, whole.adjoint_is_exact
        self.share = own_share(int(whole.range_shape[0] or 0), group)
        self.part = whole.views(self.share)

    def views(self, indices: Any) -> DistributedViews:
        """The operator of some views, divided anew.

        Parameters
        ----------
        indices
            As in `Geometry.__getitem__`, counted through all processes.
        """
        return DistributedViews(self.whole.views(indices), self.group)

    def normal(self, weights: Any = None) -> LinearOperator:
        """``Aᵀ W A``: each process its own views, and one sum; no data travel.

        Parameters
        ----------
        weights
            Those of all views, or what broadcasts to them.
        """
        checked = Normal(self.whole, weights).weights
        if checked is not None and checked.ndim == len(self.range_shape) and checked.shape[0] > 1:
            checked = checked[self.share]
        # A quick way that `part` may have need not know what to do without views.
        own = self.part.normal(checked) if self.share.start < self.share.stop else Normal(self.part, checked)
        return SumOverProcesses(own, self.group)

    def _forward_kernel(self, x: torch.Tensor) -> torch.Tensor:
        own = self.part(x).movedim(1, 0)
        y = own.new_empty((int(self.range_shape[0] or 0), *own.shape[1:]))
        y[self.share] = own
        sent = []
        for rank in range(dist.get_world_size(self.group)):
            views = share_of(rank, len(y), self.group)
            if y[views].numel():
                source = rank if self.group is None else dist.get_global_rank(self.group, rank)
                sent.append(dist.broadcast(y[views], source, self.group, async_op=True))
        for transfer in sent:
            transfer.wait()
        return y.movedim(0, 1).contiguous()

    def _adjoint_kernel(self, y: torch.Tensor) -> torch.Tensor:
        return summed(self.part.T(y[:, self.share]), self.group)

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("DistributedViews cannot be pickled, as it belongs to running processes; pickle A.whole")


class SumOverProcesses(OpaqueOperator):
    """The sum of symmetric operators, one in each process."""

    def __init__(self, own: LinearOperator, group: Any) -> None:
        super().__init__()
        self.own, self.group, self.device = own, group, own.device
        self.domain_shape = self.range_shape = own.domain_shape
        self.adjoint_is_exact = own.adjoint_is_exact

    def _forward_kernel(self, x: torch.Tensor) -> torch.Tensor:
        return summed(self.own(x), self.group)

    def _adjoint_kernel(self, y: torch.Tensor) -> torch.Tensor:
        return summed(self.own.T(y), self.group)


def over_views(A: LinearOperator, group: Any = None) -> DistributedViews:
    """``A`` with its views divided among the processes of a group, to be used as ``A`` is.

    Every process calls this with the same operator, and then everything in the same order with the same arrays: data,
    weights, start, number of iterations, seeds. Solvers, autograd, `LinearOperator.views` and
    `LinearOperator.normal` work unchanged, and all processes end with the same numbers. Views are divided evenly, in
    runs that follow each other. A process holds all data; what travels is the projections, once an application, and a
    sum of volumes for an adjoint.

    Parameters
    ----------
    A
        An operator with `views`: `XRayTransform`, `TensorXRayTransform`, a stack of such.
    group
        A process group of ``torch.distributed``; by default all processes.

    Returns
    -------
    DistributedViews

    Raises
    ------
    RuntimeError
        If ``torch.distributed`` is not initialised in this process, or the process does not belong to the group.
    TypeError
        If ``A`` is no operator, or has no views.

    Examples
    --------
    >>> import torch.distributed as dist
    >>> from ddf_tomo import Geometry, XRayTransform
    >>> from ddf_tomo.solvers import cgls
    >>> A = XRayTransform(Geometry.from_angles([0.0, 0.4, 0.9], 0.0, (8, 8, 8), (8, 8)), channels=1)
    >>> dist.init_process_group("gloo")  # doctest: +SKIP
    >>> cgls(over_views(A), y, iterations=10)  # doctest: +SKIP
    """
    if not isinstance(A, LinearOperator):
        raise TypeError(message("A", "a LinearOperator", type(A).__name__, "make one with wrap(...)"))
    _check_group(group)
    if not A.range_shape or A.range_shape[0] is None:
        raise TypeError(message("A", "an operator with views", repr(A)))
    return DistributedViews(A, group)


def own_share(count: int, group: Any = None) -> slice:
    """Which of ``count`` things are this process' own: even shares, in order, for work that is divided by hand.

    Scans, q-bins, energies and distances do not know of each other: each process takes its own and no more is needed.

    Parameters
    ----------
    count
        How many there are.
    group
        A process group of ``torch.distributed``; by default all processes.

    Returns
    -------
    slice
        With both ends given; the shares of all processes make up ``range(count)``.

    Raises
    ------
    RuntimeError
        If ``torch.distributed`` is not initialised in this process.

    Examples
    --------
    >>> import torch.distributed as dist
    >>> dist.init_process_group("gloo")  # doctest: +SKIP
    >>> [reconstruct(scan) for scan in scans[own_share(len(scans))]]  # doctest: +SKIP
    """
    count = integer(count, "count")
    _check_group(group)
    return share_of(dist.get_rank(group), count, group)


def share_of(rank: int, count: int, group: Any) -> slice:
    """The share of the process ``rank`` of the group."""
    size = dist.get_world_size(group)
    return slice(rank * count // size, (rank + 1) * count // size)


def summed(own: torch.Tensor, group: Any) -> torch.Tensor:
    """The sum over the group, the same bits in each of its processes."""
    own = own.contiguous()
    if own.numel():
        dist.all_reduce(own, dist.ReduceOp.SUM, group)
    return own


def _check_group(group: Any) -> None:
    if not dist.is_available():
        raise RuntimeError("this build of torch has no torch.distributed: install another one")
    if not dist.is_initialized():
        raise RuntimeError(
            "torch.distributed is not initialised: start the program with torchrun --nproc-per-node=2 program.py, and "
            "call torch.distributed.init_process_group('nccl') in it ('gloo' on CPUs)"
        )
    if isinstance(group, int) and group == dist.GroupMember.NON_GROUP_MEMBER:
        raise RuntimeError("this process does not belong to the group: call it in the group's processes only")
    if group is not None and not isinstance(group, dist.ProcessGroup):
        raise TypeError(message("group", "a process group of torch.distributed, or None", repr(group)))
