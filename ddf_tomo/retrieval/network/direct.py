"""The network: from windowed estimates of all sizes to one map, by gates and small corrections, from coarse to fine."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Conv2d, Module, ModuleList
from torch.nn.functional import avg_pool2d, interpolate, silu

from ddf_tomo._checks import integer, message
from ddf_tomo.retrieval.network._evidence import QUANTITIES
from ddf_tomo.retrieval.network._pyramid import LEVELS, PER_WINDOW, WIDTH, WINDOWS
from ddf_tomo.weights import architecture

__all__ = ["DirectNetwork"]
NOISE = 1.2  # of evidence: smoothing lets neighbours share their noise, which A does not know
LEAST_BLUR = 0.01  # square pixels: how softly eigenvalues of C are kept positive
WIDEST = 3.0  # z-scores are soft beyond it


class Block(Module):
    """Two convolutions with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Conv2d(width, width, 3, padding=1)
        self.second = Conv2d(width, width, 3, padding=1)
        self.second.weight.data *= 0.3

    def forward(self, images: Tensor) -> Tensor:
        return images + self.second(silu(self.first(silu(images))))


@architecture("retrieval-network")
class DirectNetwork(Module):
    """Maps of u, C and ln T with their errors, from the estimates of `pyramid`; fully convolutional.

    An encoder goes from fine to coarse over the levels of the pyramid. On the way back each level moves what came from
    the coarser one towards its own windows' estimates by gates, and adds a correction in units of their errors. C is
    made of three numbers of its Cholesky factor, two of them logarithms (Pinheiro & Bates 1996, Stat. Comput. 6, 289):
    it is positive.

    Parameters
    ----------
    widths
        Channels of the four levels, fine to coarse.

    Examples
    --------
    >>> network = DirectNetwork((8, 8, 8, 8))
    >>> levels = [torch.zeros(1, 25, 16 // 2**n, 24 // 2**n) for n in range(4)]
    >>> network(levels).shape
    torch.Size([1, 12, 16, 24])
    """

    calibration: Tensor

    def __init__(self, widths: Sequence[int] = (24, 32, 48, 64)) -> None:
        super().__init__()
        if not isinstance(widths, (list, tuple)) or len(widths) != LEVELS:
            raise ValueError(message("widths", f"{LEVELS} numbers", repr(widths)))
        sizes = [integer(width, "widths", low=2, high=1024) for width in widths]
        inputs = WIDTH + QUANTITIES * (WINDOWS + 1)
        self.inward = ModuleList(Conv2d(inputs, size, 1) for size in sizes)
        self.down = ModuleList(Conv2d(a, b, 1) for a, b in itertools.pairwise(sizes))
        self.encode = ModuleList(Block(size) for size in sizes)
        self.up = ModuleList(Conv2d(b, a, 1) for a, b in itertools.pairwise(sizes))
        self.innovation = ModuleList(Conv2d(QUANTITIES * WINDOWS, size, 1) for size in sizes)
        self.decode = ModuleList(Block(size) for size in sizes)
        self.outward = ModuleList(Conv2d(size, QUANTITIES * (WINDOWS + 1), 3, padding=1) for size in sizes)
        self.error = Conv2d(sizes[0], QUANTITIES, 3, padding=1)
        self.shape = Conv2d(sizes[0], 3, 3, padding=1)
        for head in [*self.outward, self.error, self.shape]:
            torch.nn.init.zeros_(head.weight)
            torch.nn.init.zeros_(head.bias)
        self.register_buffer("calibration", torch.ones(QUANTITIES))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Maps ``(example, 12, row, column)`` at the finest of the ``levels``: (u, C, ln T) and log errors."""
        down: list[Tensor] = []
        for n, level in enumerate(levels):
            coarser = levels[n + 1] if n + 1 < len(levels) else None
            own = self.inward[n](_inputs(level, coarser))
            if n:
                own = own + self.down[n - 1](avg_pool2d(down[-1], 2))
            down.append(self.encode[n](own))
        theta, noise = _window(levels[-1], WINDOWS - 1)
        features = down[-1]
        for n in reversed(range(len(levels))):
            if n + 1 < len(levels):
                theta, noise = finer(theta), finer(noise)
                features = down[n] + self.up[n](interpolate(features, scale_factor=2, mode="nearest"))
            windows = [_window(levels[n], w) for w in range(WINDOWS)]
            innovations = [soft((value - theta) * (-log - NOISE).exp()) for value, log in windows]
            features = self.decode[n](features + self.innovation[n](torch.cat(innovations, 1)))
            found = self.outward[n](features)
            gates = found[:, : QUANTITIES * WINDOWS].unflatten(1, (WINDOWS, QUANTITIES))
            # Before it has learned, a gate opens where the difference is more than noise (James & Stein 1961).
            moved, known = theta, noise
            for w, (value, log) in enumerate(windows):
                significance = avg_pool2d(innovations[w].square(), 3, 1, 1, count_include_pad=False)
                gate = torch.sigmoid(gates[:, w] + (significance + 1e-2).log() - 2)
                moved = moved + gate * (value - moved)
                known = known + gate * (log - known)
            theta, noise = moved + found[:, QUANTITIES * WINDOWS :] * known.exp(), known
        log_error = noise + NOISE + self.error(features).clamp(-4, 4)
        covariance = covariance_head(theta[:, 2:5], noise[:, 2:5], self.shape(features))
        maps = torch.cat([theta[:, :2], covariance, theta[:, 5:]], 1)
        return torch.cat([maps, log_error + self.calibration[:, None, None].log()], 1)


def _window(level: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Estimates of a window, and the logarithms of their errors."""
    part = level[:, window * PER_WINDOW : (window + 1) * PER_WINDOW]
    return part[:, :QUANTITIES], part[:, QUANTITIES:]


def _inputs(level: Tensor, coarser: Tensor | None) -> Tensor:
    """Channels of a level of the order of one, and how far its estimates are from wider windows', in their errors."""
    (fine, error), (wide, wide_error) = (_window(level, window) for window in range(WINDOWS))
    widest = wide if coarser is None else finer(_window(coarser, 0)[0])
    differences = [soft((fine - wide) * (-error).exp()), soft((wide - widest) * (-wide_error).exp())]
    size = soft(0.3 * wide * (-wide_error).exp())
    return torch.cat([level[:, :-1].clamp(-8, 3) / 2, soft(level[:, -1:]), *differences, size], 1)


def soft(values: Tensor) -> Tensor:
    """Linear up to some errors, logarithmic beyond."""
    return WIDEST * torch.asinh(values / WIDEST)


def finer(images: Tensor) -> Tensor:
    """At twice the resolution, by parabolas."""
    return interpolate(images, scale_factor=2, mode="bicubic", align_corners=False)


def covariance_head(estimate: Tensor, log_error: Tensor, change: Tensor) -> Tensor:
    """C ``(example, 3, row, column)`` = L Lᵀ, (ln L_jj, L_kj, ln L_kk) those of an estimate, changed in its errors."""
    jj, jk, kk = positive(estimate).unbind(1)
    first = jj.sqrt()
    second, third = jk / first, (kk - jk.square() / jj).clamp(min=0.5 * LEAST_BLUR**2).sqrt()
    one, two, three = change.unbind(1)
    sizes = log_error.exp().unbind(1)
    # Errors of the three numbers to first order; none is changed by more than its order of size at once.
    first = first * (one * torch.clamp(sizes[0] / (2 * jj), max=1)).clamp(-3, 3).exp()
    second = second + two * sizes[1] / (jj + sizes[1]).sqrt()
    third = third * (three * torch.clamp(sizes[2] / (2 * third.square()), max=1)).clamp(-3, 3).exp()
    return torch.stack([first.square(), first * second, second.square() + third.square()], 1)


def positive(covariance: Tensor) -> Tensor:
    """C ``(example, 3, row, column)`` with eigenvalues that noise made negative brought smoothly to zero."""
    jj, jk, kk = covariance.unbind(1)
    mean, half = 0.5 * (jj + kk), 0.5 * (jj - kk)
    radius = (half.square() + jk.square() + 1e-12).sqrt()
    large, small = (_ramp(each) for each in (mean + radius, mean - radius))
    kept, mean = 0.5 * (large - small) / radius, 0.5 * (large + small)
    return torch.stack([mean + half * kept, jk * kept, mean - half * kept], 1)


def _ramp(values: Tensor) -> Tensor:
    """Smooth, positive, and the value itself far above zero."""
    root = (values.square() + LEAST_BLUR**2).sqrt()
    # Two forms of one number: neither loses its digits.
    above, below = values.clamp(min=0), values.clamp(max=0)
    up, down = (above + root) / 2, LEAST_BLUR**2 / (2 * (root - below))
    return torch.where(values > 0, up, down) + LEAST_BLUR**2
