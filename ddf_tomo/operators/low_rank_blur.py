"""Fast wide blurs: a few fixed kernels, mixed with weights that differ from pixel to pixel (product-convolution).

``F(x) = Σ_i a_i(C(x)) (G_{C_i} * R)(x − u)``, ``Σ_i a_i = 1``. For patterns whose spectrum is that of grains of width
s, the mean square error relative to the contrast is a quadratic form in a with known integrals (all are Gaussian),

    e² = g(C, C) − 2 Σ_i a_i g(C, C_i) + Σ_ij a_i a_j g(C_i, C_j),   g(C, C') = 2 s² / √det(2 s² 1 + C + C'),

so the best weights solve a small linear system, what they leave is the error, known in each pixel beforehand, and the
next kernel is the one of the pixel that is worst off, until none exceeds the tolerance. (The idea of
product-convolution: Escande & Weiss 2017, SIAM J. Imaging Sci. 10, 1; choosing nodes by what is left: De Marchi,
Schaback & Wendland 2005, Adv. Comput. Math. 23, 317.)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ddf_tomo.operators.blur_kernels import Component
from ddf_tomo.operators.gaussian_sampling import mirrored, sample
from ddf_tomo.operators.warping import VARIANCE, prefilter

GRAIN = 1.0  # s in pixels: grains of 2.4 pixels' full width at half maximum
MOST = 64  # kernels; a field of covariances is a set of three dimensions, smooth to the eye of a pattern
CANDIDATES = 4096


class LowRank:
    """The blur of a field of covariances by a few kernels; made by `DirectionalBlur`.

    Attributes
    ----------
    nodes : (kernel, 3)
        Covariances of the kernels.
    weights : (kernel, row, column)
        ``a_i(C(x))``, those of all components of the shape together.
    error : (row, column)
        Root mean square error relative to the contrast, for patterns with grains of width `GRAIN`.

    Examples
    --------
    >>> C = torch.rand(20, 20, 3) * torch.tensor([2.0, 0.0, 1.0])
    >>> blur = LowRank([(1.0, C)], torch.zeros(20, 20, 2), 1e-3)
    >>> bool(blur.error.max() < 1.01e-3), len(blur.nodes) < 30
    (True, True)
    """

    def __init__(self, components: list[Component], displacement: Tensor, tolerance: float) -> None:
        fields = torch.stack([field for _, field in components])
        self.displacement, self.moves = displacement, bool(displacement.detach().any()) or displacement.requires_grad
        self.nodes = nodes_of(fields.detach().reshape(-1, 3).double(), tolerance)
        self.weights, self.error = torch.zeros(()), torch.zeros(())
        for share, field in components:
            weights, error = weights_of(field.double(), self.nodes)
            factor = share if isinstance(share, Tensor) else torch.tensor(share, dtype=torch.float64)
            self.weights = self.weights + factor * weights
            self.error = self.error + factor.detach() * error

    def __call__(self, images: Tensor) -> Tensor:
        blurred = torch.stack([fourier_blur(images, node) for node in self.nodes])
        weights = self.weights.to(images.dtype)
        return torch.einsum("irk,i...rk->...rk", weights, self._at_points(blurred))

    def _at_points(self, images: Tensor) -> Tensor:
        if not self.moves:
            return images
        wide = images.double()
        stack = prefilter(wide).reshape(-1, *images.shape[-2:]).movedim(0, -1)
        matrix = wide.new_tensor([VARIANCE["gaussian"], 0.0, VARIANCE["gaussian"]]).expand(*images.shape[-2:], 3)
        return sample(stack, self.displacement.double(), matrix).movedim(-1, 0).reshape(images.shape).to(images.dtype)


def overlap(first: Tensor, second: Tensor) -> Tensor:
    """``g(C, C')`` of covariances ``(..., 3)``, 1 for no blur at all.

    Examples
    --------
    >>> overlap(torch.zeros(3), torch.tensor([2.0, 0.0, 0.0]))
    tensor(0.7071)
    """
    jj, jk, kk = (first + second).unbind(-1)
    width = 2 * GRAIN**2
    return width / torch.sqrt((jj + width) * (kk + width) - jk**2)


def nodes_of(field: Tensor, tolerance: float) -> Tensor:
    """Covariances ``(kernel, 3)`` that leave less than the tolerance for all of the field ``(pixel, 3)``.

    Examples
    --------
    >>> nodes_of(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]), 1e-3).shape
    torch.Size([2, 3])
    """
    if len(field) > CANDIDATES:  # spread evenly, with the ends along several directions
        ends = [
            getattr((field * direction).sum(-1), end)()
            for direction in _directions(field)
            for end in ("argmin", "argmax")
        ]
        even = torch.linspace(0, len(field) - 1, CANDIDATES).long().to(field.device)
        field = field[torch.cat([torch.stack(ends), even])]
    chosen = [int((field[:, 0] + field[:, 2]).argmin())]
    while len(chosen) < MOST:
        error = weights_of(field, field[chosen])[1]
        worst = int(error.argmax())
        if float(error[worst]) <= 0.8 * tolerance or worst in chosen:
            break
        chosen.append(worst)
    return field[chosen]


def _directions(like: Tensor) -> Tensor:
    return like.new_tensor([[1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 1], [1, 2, 1], [1, -2, 1]])


def weights_of(field: Tensor, nodes: Tensor) -> tuple[Tensor, Tensor]:
    """The best weights of sum 1, ``(kernel, ...)``, for covariances ``(..., 3)``, and the error that they leave.

    Examples
    --------
    >>> weights, error = weights_of(torch.zeros(4, 4, 3).double(), torch.zeros(1, 3).double())
    >>> weights.flatten()[0], error.max()
    (tensor(1., dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    count = len(nodes)
    system = torch.ones(count + 1, count + 1, dtype=nodes.dtype, device=nodes.device)
    system[:count, :count] = overlap(nodes[:, None], nodes)
    system[count, count] = 0
    target = overlap(field[..., None, :], nodes)
    right = torch.cat([target, torch.ones_like(target[..., :1])], -1)
    weights = torch.linalg.solve(system, right.reshape(-1, count + 1).T)[:count].reshape(count, *field.shape[:-1])
    with torch.no_grad():
        spread = torch.tensordot(system[:count, :count], weights, 1) - 2 * target.movedim(-1, 0)
        square = overlap(field, field) + (weights * spread).sum(0)
    return weights, square.clamp(min=0).sqrt()


def fourier_blur(images: Tensor, covariance: Tensor) -> Tensor:
    """Gaussian blur ``exp(−½ ξᵀCξ)`` of ``(..., row, column)`` images, mirrored at their edges, with one covariance.

    Examples
    --------
    >>> image = torch.zeros(15, 15)
    >>> image[7, 7] = 1.0
    >>> fourier_blur(image, torch.tensor([2.0, 0.0, 2.0]))[7, 7].round(decimals=4)  # 1/4π
    tensor(0.0796)
    """
    rows, columns = images.shape[-2:]
    wide = [max(2 * n - 2, 1) for n in (rows, columns)]
    index = [mirrored(torch.arange(n, device=images.device), m) for n, m in zip(wide, (rows, columns), strict=True)]
    spectrum = torch.fft.rfft2(images[..., index[0][:, None], index[1]])
    xi_j = 2 * math.pi * torch.fft.fftfreq(wide[0], device=images.device, dtype=images.dtype)[:, None]
    xi_k = 2 * math.pi * torch.fft.rfftfreq(wide[1], device=images.device, dtype=images.dtype)
    jj, jk, kk = covariance.to(images).unbind(-1)
    factor = torch.exp(-0.5 * (jj * xi_j**2 + 2 * jk * xi_j * xi_k + kk * xi_k**2))
    return torch.fft.irfft2(spectrum * factor, s=wide)[..., :rows, :columns]
