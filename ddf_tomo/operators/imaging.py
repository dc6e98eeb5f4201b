"""Image formation: from maps of a sample and the mask's image to the frames that are expected behind the sample.

For mask step m at distance d, with pixel size s (physics: ``I = T · J · [G_C * R_m](x − u)``),

    ``u = d α / s``, ``C = (d/s)² Θ``, ``J = |det ∂(x − u)/∂x| ≈ 1 − ∇·u``,

with transmission T, refraction angle α and scattering covariance Θ of the sample, and the reference R_m, what the
detector sees without it. J keeps the photons that a warp alone would make or lose; it is the propagation contrast −d
∇·α/s.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import check_shape, choice, dense, flag, message, number, real_array
from ddf_tomo.operators.blur_kernels import checked_covariance, components_of, kernel_of
from ddf_tomo.operators.directional_blur import gathered
from ddf_tomo.operators.warping import FARTHEST, floating, flux_factor, prefilter, shift

__all__ = ["ModulatedImaging"]
CHANNELS = {"transmission": 0, "refraction_rad": 2, "displacement": 2, "scattering_rad2": 3, "covariance": 3}


class ModulatedImaging(torch.nn.Module):
    """Frames through a mask, expected from maps of transmission, refraction and scattering.

    ``model(T, α, Θ)`` gives frames ``(..., distance, step, row, column)`` for maps ``(..., row, column[, channel])``;
    axes in front of the maps (views) stretch to each other. Differentiable in maps, reference and steps, once,
    forwards (`torch.func.jvp`) and backwards. Weights of a pixel's neighbours are found once for all steps; nothing
    but frames is kept for the way back.

    Parameters
    ----------
    reference : (step, row, column) or (distance, step, row, column)
        What the detector sees without the sample, at all distances alike or at each; float32 or float64 (integers
        become float32). A tensor may require gradients, and an `torch.nn.Parameter` is one of the module's.
    pixel_size_m : number
        In the plane of the sample for a cone beam.
    distance_m : number or row of numbers
        From the sample (mask upstream) or the mask (downstream) to the detector, over the magnification in a cone
        beam. With one number the frames have no axis of distances, unless the reference has one.
    kernel : {"gaussian", "exponential"} or a shape
        Of the blur, see `ddf_tomo.operators.blur_kernels`.
    flux
        Whether the refraction conserves photons (J). Without it T has to hold the propagation contrast.
    steps_px : (step, 2), optional
        What the mask moved by in each step, beyond what the reference shows, along j and k in pixels: jitter that is
        sought, or all of the stepping of a mask whose image is given once, (1, row, column).
    method : {"auto", "plain"}
        Compiled code where there is some, or plain torch operations (slow, for comparison).

    Raises
    ------
    ValueError, TypeError
        For arrays of other shapes, NaN, lengths that are not positive, and covariances that are negative or too wide.

    Examples
    --------
    >>> reference = 1 + 0.3 * torch.rand(6, 24, 24, generator=torch.Generator().manual_seed(0))
    >>> model = ModulatedImaging(reference, pixel_size_m=1e-5, distance_m=1.0)
    >>> angle, scattering = torch.zeros(24, 24, 2), torch.zeros(24, 24, 3)
    >>> bool(torch.allclose(model(0.5, angle, scattering), 0.5 * reference, atol=1e-3))
    True
    >>> scattering[..., 0] = 1e-10  # rad²: a blur of one pixel, down the rows
    >>> model(0.5, angle, scattering).shape
    torch.Size([6, 24, 24])
    """

    reference: Tensor
    steps_px: Tensor | None

    def __init__(
        self,
        reference: Any,
        pixel_size_m: float,
        distance_m: Any,
        kernel: Any = "gaussian",
        *,
        flux: bool = True,
        steps_px: Any = None,
        method: str = "auto",
    ) -> None:
        super().__init__()
        self.pixel_size_m = number(pixel_size_m, "pixel_size_m", low=1e-12, high=1.0)
        distances = real_array(distance_m, "distance_m")
        if distances.ndim > 1 or not distances.size:
            raise ValueError(message("distance_m", "a number or a row of numbers", f"shape {distances.shape}"))
        self.distances_m = tuple(number(d, "distance_m", low=1e-6, high=1e6) for d in distances.reshape(-1))
        frames = floating(reference, "reference")
        if frames.ndim not in (3, 4) or 0 in frames.shape:
            expected = "shape (step, row, column) or (distance, step, row, column) without empty axes"
            raise ValueError(message("reference", expected, tuple(frames.shape)))
        if frames.ndim == 4:
            check_shape(frames.shape, "reference", (len(self.distances_m), None, None, None))
        self._has_distances = distances.ndim == 1 or frames.ndim == 4
        self._keep("reference", reference if isinstance(reference, torch.nn.Parameter) else frames)
        steps = None if steps_px is None else floating(steps_px, "steps_px")
        if steps is not None:
            length = frames.shape[-3]
            check_shape(steps.shape, "steps_px", (None if length == 1 else length, 2))
            if not len(steps) or float(steps.detach().abs().max()) > FARTHEST:
                raise ValueError(message("steps_px", f"at least one step, at most {FARTHEST:g} pixels", "others"))
        self._keep("steps_px", steps_px if isinstance(steps_px, torch.nn.Parameter) else steps)
        self.kernel = kernel_of(kernel)
        self.flux, self.method = flag(flux, "flux"), choice(method, "method", ("auto", "plain"))
        self._cached: tuple[Any, ...] = ()

    def _keep(self, name: str, value: Tensor | None) -> None:
        if isinstance(value, torch.nn.Parameter):
            self.register_parameter(name, value)
        else:
            self.register_buffer(name, value, persistent=False)

    def extra_repr(self) -> str:
        """What `repr` tells of the model."""
        return f"pixel_size_m={self.pixel_size_m}, distances_m={self.distances_m}, flux={self.flux}"

    def forward(
        self,
        transmission: Any = None,
        refraction_rad: Any = None,
        scattering_rad2: Any = None,
        *,
        displacement: Any = None,
        covariance: Any = None,
    ) -> Tensor:
        """Expected frames.

        Parameters
        ----------
        transmission : number or (..., row, column), optional
            T; by default 1.
        refraction_rad, scattering_rad2 : (..., row, column, 2) and (..., row, column, 3), optional
            α_j, α_k and Θ_jj, Θ_jk, Θ_kk; by default zero.
        displacement, covariance : (..., row, column, 2) and (..., row, column, 3), optional
            Instead of them: u in pixels and C in square pixels, those at the longest distance.

        Returns
        -------
        Tensor
            ``(..., distance, step, row, column)`` of the reference's dtype; no axis of distances if the model has none.
        """
        if refraction_rad is not None and displacement is not None:
            raise ValueError(message("displacement", "none beside refraction_rad", "both"))
        if scattering_rad2 is not None and covariance is not None:
            raise ValueError(message("covariance", "none beside scattering_rad2", "both"))
        longest = max(self.distances_m) / self.pixel_size_m
        rows, columns = self.reference.shape[-2:]
        T = self._map("transmission", 1.0 if transmission is None else transmission)
        u, C = self._map("displacement", displacement), self._map("covariance", covariance)
        if u is None:
            alpha = self._map("refraction_rad", refraction_rad)
            u = self.reference.new_zeros(rows, columns, 2) if alpha is None else longest * alpha
        if C is None:
            theta = self._map("scattering_rad2", scattering_rad2)
            C = self.reference.new_zeros(rows, columns, 3) if theta is None else longest**2 * theta
        assert T is not None
        largest = float(u.detach().abs().max())
        if not largest <= FARTHEST:
            raise ValueError(message("displacement", f"at most {FARTHEST:g} pixels at the longest distance", largest))
        checked_covariance(C)
        views = torch.broadcast_shapes(*self._views(T, u, C))
        maps = (T.expand(*views, rows, columns), u.expand(*views, rows, columns, 2), C.expand(*views, rows, columns, 3))
        frames = list(self._frames(*(each.reshape(-1, *each.shape[len(views) :]) for each in maps)))
        result = torch.stack(frames).reshape(*views, len(self.distances_m), *frames[0].shape)
        return result if self._has_distances else result.squeeze(-4)

    def _frames(self, transmission: Tensor, displacement: Tensor, covariance: Tensor) -> Iterator[Tensor]:
        """Frames (step, row, column) of each view and distance."""
        stacks = self._coefficients()
        for T, u_longest, C_longest in zip(transmission, displacement, covariance, strict=True):
            for index, distance in enumerate(self.distances_m):
                reach = distance / max(self.distances_m)
                u, C = reach * u_longest, reach**2 * C_longest
                stack = stacks[index if len(stacks) > 1 else 0]
                seen = gathered(stack, u, components_of(self.kernel, C), plain=self.method == "plain")
                factor = T * flux_factor(u) if self.flux else T
                yield (factor[..., None] * seen).movedim(-1, 0)

    def _coefficients(self) -> list[Tensor]:
        """Of the reference at its steps, (row, column, step) for each distance or for all; kept while it stays."""
        key = tuple((each, each._version) for each in (self.reference, self.steps_px) if each is not None)
        if len(key) == len(self._cached[0] if self._cached else ()) and all(
            a is b and m == n for (a, m), (b, n) in zip(key, self._cached[0], strict=True)
        ):
            return self._cached[1]
        images = self.reference if self.reference.ndim == 4 else self.reference[None]
        moved = images if self.steps_px is None else shift(images, self.steps_px)
        stacks = [each.movedim(0, -1).contiguous() for each in prefilter(moved)]
        if not any(each.requires_grad for each, _ in key):
            self._cached = (key, stacks)
        return stacks

    def _map(self, name: str, value: Any) -> Tensor | None:
        """A map checked, as a tensor like the reference."""
        if value is None:
            return None
        shape = tuple(self.reference.shape[-2:]) + ((CHANNELS[name],) if CHANNELS[name] else ())
        if isinstance(value, (int, float)) and name == "transmission":
            return self.reference.new_tensor(number(value, name)).expand(shape)
        tensor = floating(dense(value, name) if isinstance(value, Tensor) else value, name)
        check_shape(tensor.shape[max(tensor.ndim - len(shape), 0) :], f"last axes of {name}", shape)
        if tensor.device != self.reference.device:
            raise ValueError(message(name, f"a tensor on {self.reference.device}, as reference", str(tensor.device)))
        if not tensor.numel():
            raise ValueError(message(name, "at least one view", tuple(tensor.shape)))
        return tensor.to(self.reference.dtype)

    @staticmethod
    def _views(transmission: Tensor, displacement: Tensor, covariance: Tensor) -> list[torch.Size]:
        views = [transmission.shape[:-2], displacement.shape[:-3], covariance.shape[:-3]]
        try:
            torch.broadcast_shapes(*views)
        except RuntimeError as error:
            found = ", ".join(str(tuple(each)) for each in views)
            raise ValueError(message("maps", "axes of views that stretch to each other", found)) from error
        return views
