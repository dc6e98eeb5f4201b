# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Projectors in your own code
#
# You have an idea of your own: another loss, another prior, a network. Or a projector of your own. Here the operators
# of `ddf_tomo` stand alone: in a torch training loop, in a SciPy solver, behind a prior that you write in ten lines;
# and the other way round, your projector stands in our solvers. It takes less than a minute and needs `pip install
# "ddf_tomo[viz]"`.

# %%
import numpy as np
import torch
from scipy.sparse.linalg import lsqr

import ddf_tomo
from ddf_tomo.merits import compare
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from ddf_tomo.priors import Functional, TotalVariation
from ddf_tomo.solvers import cgls, fista, pdhg
from ddf_tomo.visualization import show_convergence, show_slices

torch.manual_seed(0)
torch.set_num_threads(1)  # so small a volume has no work for more

# %% [markdown]
# ## The operator
#
# A directional dark-field scan: three second moments in each pixel. The sample is a field of spherical functions, six
# numbers in each voxel at `ell_max=2`, and `A` is everything in between: line integrals along the beam, and the
# response matrix that says what a view's channels tell about the six numbers.

# %%
VOXELS = (12, 12, 12)
geometry = tilt_series(VOXELS, views=(8, 12, 12, 10, 10, 10, 8))
response = ddf_tomo.SecondMomentResponse()
scan = simulate(helicoidal_fibres, geometry, response, noise=0.02)
truth = helicoidal_fibres(VOXELS)

A = ddf_tomo.TensorXRayTransform(geometry, response, ell_max=2)
print(A)
print("volume (x, y, z, coefficient):", A.domain_shape)
print("data (view, j, k, channel):   ", A.range_shape)

# %% [markdown]
# `A(x)` projects, `A.T(y)` projects back, and both take and give what you work with: torch tensors, or numpy arrays.
# Batches go in front. `A.views(...)` is the operator of some views, `A @ B`, `2 * A`, `A + B` are operators too.

# %%
print(
    type(A(np.zeros(A.domain_shape))).__name__,
    "in, the same out;",
    type(A(torch.zeros(A.domain_shape))).__name__,
    "too",
)
print("a batch of five:", tuple(A(torch.zeros(5, *A.domain_shape)).shape))
print("ten views:", A.views(slice(0, 10)))

# %% [markdown]
# ## A loss of your own, by gradient descent in torch
#
# Suppose that one pixel in a hundred was hit by something else and reads nonsense. Least squares believes it. Huber's
# loss is quadratic for small residuals and linear beyond, so that an outlier pulls with a bounded force. Nobody has to
# write its gradient: torch goes through the operator as through any layer.

# %%
sigma = 0.02 * float(scan.data.max())
spoiled = scan.data.copy()
hit = np.random.default_rng(0).random(spoiled.shape) < 0.01
spoiled[hit] += 50 * sigma
data = torch.as_tensor(spoiled)


def roughness(x):
    return sum(x.diff(dim=axis).square().sum() for axis in range(3))


def reconstruct_with(loss, steps=60):
    x = torch.zeros(A.domain_shape, requires_grad=True)
    optimiser = torch.optim.Adam([x], lr=0.05)
    history = []
    for _ in range(steps):
        optimiser.zero_grad()
        value = loss((A(x) - data) / sigma) + 5.0 * roughness(x)
        value.backward()
        optimiser.step()
        history.append(value.item())
    return x.detach(), history


def squared(residual):
    return 0.5 * residual.square().sum()


def huber(residual):
    return torch.nn.functional.huber_loss(residual, torch.zeros_like(residual), delta=1.5, reduction="sum")


def error(x):
    merits = compare(np.asarray(x), truth)
    return f"{merits.nrmse_shared_orders:.3f}, directions {np.degrees(merits.direction_error_median_rad):.1f}°"


by_squares, _ = reconstruct_with(squared)
by_huber, history = reconstruct_with(huber)
print("error of the coefficients, and of the median direction")
print("squares:", error(by_squares))
print("Huber:  ", error(by_huber))

# %%
show_slices(
    {"truth": truth.coefficients[..., 0], "squares": by_squares[..., 0].numpy(), "Huber": by_huber[..., 0].numpy()},
    quantity="mean",
)

# %% [markdown]
# ## A solver of SciPy's
#
# `A.to_scipy()` is the same map on flat vectors.

# %%
flat = lsqr(A.to_scipy(), scan.data.ravel(), iter_lim=12)[0]
by_lsqr = flat.reshape(A.domain_shape)
by_cgls = cgls(A, scan.data, iterations=12).x
print("SciPy's lsqr:      ", error(by_lsqr))
print("our cgls:          ", error(by_cgls))
print("they differ by     ", f"{np.linalg.norm(by_lsqr - by_cgls.numpy()) / np.linalg.norm(by_lsqr):.0e}")

# %% [markdown]
# They are the same algorithm. Twelve iterations are not many: without a prior, the number of iterations is what keeps
# the noise out.
#
# ## A prior of your own
#
# A prior is a class with a value and a proximal map, `argmin_u g(u) + |u - z|² / (2 step)`. This one says that
# functions on the sphere are smooth: the sum of the squared curvature over the sphere, which for harmonics of order ℓ
# is (ℓ(ℓ + 1))². It is a quadratic, so that its proximal map is a division.


# %%
class SmoothOnTheSphere(Functional):
    """½ Σ (ℓ (ℓ + 1))² c², half the squared Laplacian of each voxel's function over the sphere."""

    def __init__(self, ell_max):
        orders = [ell for ell in range(0, ell_max + 1, 2) for _ in range(2 * ell + 1)]
        self.factors = torch.tensor([float(ell * (ell + 1)) ** 2 for ell in orders])

    def value(self, z):
        return 0.5 * (self.factors.to(z) * z.square()).sum()

    def proximal(self, z, step):
        return z / (1 + step * self.factors.to(z))


ELL_MAX = 4  # more than these views determine at every ξ: the prior has to carry the rest
B = ddf_tomo.TensorXRayTransform(geometry, response, ELL_MAX)
for name, weight in (("without", 0.0), ("with", 0.3)):
    found = fista(B, scan.data, regularisers=weight * SmoothOnTheSphere(ELL_MAX), iterations=40, progress=False)
    print(f"{name:7} the prior, ell_max = {ELL_MAX}: {error(found.x)}")

# %% [markdown]
# A constraint is a prior as well, whose proximal map is a projection. Say you know from the transmission images where
# the sample is. `pdhg` takes any number of terms; this one and total variation together:


# %%
class Support(Functional):
    """Nothing where there is no sample."""

    is_constraint = True

    def __init__(self, mask):
        self.mask = torch.as_tensor(mask)[..., None]

    def value(self, z):
        return z.new_zeros(())  # constraints count nothing; the projection enforces them

    def proximal(self, z, step):
        return z * self.mask


inside = truth.coefficients[..., 0] > 0
smooth = 3.0 * TotalVariation(VOXELS)
alone = pdhg(A, scan.data, regularisers=smooth, iterations=100, progress=False)
both = pdhg(A, scan.data, regularisers=[smooth, Support(inside)], iterations=100, progress=False)
print("total variation:  ", error(alone.x))
print("and the support:  ", error(both.x))

# %% [markdown]
# ## A projector of your own
#
# Here is one as many are written: turn the image by interpolation, sum the columns. To project back, spread each row
# over the image and turn it back. It has the form of tomosipo's operators, `op(x)` and `op.T(y)` with two shapes,
# which is all that `ddf_tomo.wrap` asks for.


# %%
class RotateAndSum:
    def __init__(self, angles, size):
        self.angles = angles
        self.domain_shape = (size, size)
        self.range_shape = (len(angles), size)

    def turned(self, image, angle):
        c, s = np.cos(angle), np.sin(angle)
        grid = torch.nn.functional.affine_grid(torch.tensor([[[c, -s, 0.0], [s, c, 0.0]]]), (1, 1, *image.shape), False)
        return torch.nn.functional.grid_sample(image[None, None], grid.to(image), align_corners=False)[0, 0]

    def __call__(self, x):
        return torch.stack([self.turned(x, angle).sum(0) for angle in self.angles])

    def T(self, y):
        return sum(
            self.turned(row.expand(self.domain_shape), -angle) for row, angle in zip(y, self.angles, strict=True)
        )


class ExactRotateAndSum(RotateAndSum):
    """The same, with the transpose from torch's automatic differentiation."""

    def T(self, y):
        _, pullback = torch.func.vjp(self.__call__, y.new_zeros(self.domain_shape))
        return pullback(y)[0]


SIZE = 32
angles = np.arange(24) * np.pi / 24
projectors = {"turned back": RotateAndSum(angles, SIZE), "exact": ExactRotateAndSum(angles, SIZE)}
wrapped = {name: ddf_tomo.wrap(op) for name, op in projectors.items()}

# %% [markdown]
# Is the back-projection the transpose, `<A x, y> = <x, Aᵀ y>`? The obvious test takes positive random numbers, and
# both pass to a fraction of a per cent. It is blind: the sums are dominated by the mean, which any smearing conserves.

# %%
for name, op in projectors.items():
    x, y = torch.rand(op.domain_shape), torch.rand(op.range_shape)
    there, back = (op(x) * y).sum(), (x * op.T(y)).sum()
    print(f"{name:12} positive noise: {abs(there / back - 1):.2%}")

# %% [markdown]
# `check_adjoint` takes zero-mean noise and y = A x, where nothing hides, and raises when the identity is violated.

# %%
for name, operator in wrapped.items():
    try:
        print(f"{name:12} {ddf_tomo.check_adjoint(operator):.1e}")
    except AssertionError as complaint:
        print(f"{name:12} {complaint}")

# %% [markdown]
# Does it matter? Conjugate gradients rely on it. For some iterations nothing is to be seen; then the residual stalls,
# and the image, instead of getting better, gets worse. MUMOTT's and ASTRA's back-projections are of this kind, too,
# and further off.

# %%
axis = torch.linspace(-1, 1, SIZE)
disc = ((axis[:, None] ** 2 + axis**2 < 0.6) * (1 + 0.5 * (axis > 0.2))).float()
measured = projectors["exact"](disc)
runs = {}
for name, operator in wrapped.items():
    few, runs[name] = (cgls(operator, measured, iterations=count, progress=False) for count in (60, 300))
    errors = [float((run.x - disc).norm() / disc.norm()) for run in (few, runs[name])]
    print(f"{name:12} error of the image after 60 iterations {errors[0]:.3f}, after 300 {errors[1]:.3f}")
show_convergence(runs)

# %% [markdown]
# A wrapped operator is one of ours: it has gradients for torch (the derivative of a linear map is the map, its
# gradient what you gave as the transpose), it has `to_scipy`, and it goes into every solver here. Whether torch's
# gradients are right can be asked, too, in double precision:

# %%
small = ddf_tomo.TensorXRayTransform(tilt_series((3, 3, 3), views=[3, 2], tilts_rad=[0.0, 0.5]), response, ell_max=2)
x = torch.randn(small.domain_shape, dtype=torch.float64, requires_grad=True)
print(
    "our gradients:  ", torch.autograd.gradcheck(small, x), "and second ones:", torch.autograd.gradgradcheck(small, x)
)
tiny = torch.randn(6, 6, dtype=torch.float64, requires_grad=True)
for name, kind in (("turned back", RotateAndSum), ("exact", ExactRotateAndSum)):
    right = torch.autograd.gradcheck(ddf_tomo.wrap(kind(angles[:5], 6)), tiny, raise_exception=False)
    print(f"{name}:", right)

# %% [markdown]
# ## A layer in a network
#
# An operator holds no parameters and keeps no state: call it in `forward`. Below are three steps of gradient descent
# on the data, each followed by a small learned correction of the volume, trained end to end on random samples of which
# the truth is known. It is far too small to be useful, and large enough to see that it learns.


# %%
class Unrolled(torch.nn.Module):
    def __init__(self, operator, steps=3, width=12):
        super().__init__()
        self.operator, self.scale = operator, 1 / operator.norm() ** 2
        count = operator.domain_shape[-1]
        self.sizes = torch.nn.Parameter(torch.ones(steps))
        self.corrections = torch.nn.ModuleList(
            torch.nn.Sequential(
                torch.nn.Conv3d(count, width, 3, padding=1),
                torch.nn.SiLU(),
                torch.nn.Conv3d(width, count, 3, padding=1),
            )
            for _ in range(steps)
        )

    def forward(self, y):
        x = y.new_zeros(len(y), *self.operator.domain_shape)
        for size, correct in zip(self.sizes, self.corrections, strict=True):
            x = x - size * self.scale * self.operator.T(self.operator(x) - y)
            x = x + correct(x.movedim(-1, 1)).movedim(1, -1)
        return x


def samples(seeds):
    from ddf_tomo.phantoms import random_field

    x = torch.stack([torch.as_tensor(random_field(VOXELS, ell_max=2, seed=seed).coefficients) for seed in seeds])
    return x, A(x) + sigma * torch.randn(len(x), *A.range_shape)


network = Unrolled(A)
optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
losses = []
training = samples(range(8))
for _ in range(30):
    optimiser.zero_grad()
    volumes, signals = training
    loss = (network(signals) - volumes).square().mean() / volumes.square().mean()
    loss.backward()
    optimiser.step()
    losses.append(float(loss.detach()))

# %%
unseen, signals = samples([100, 101])
with torch.no_grad():
    learned = network(signals)
plain = {count: torch.stack([cgls(A, y, iterations=count, progress=False).x for y in signals]) for count in (3, 12)}
results = {f"{count} iterations of conjugate gradients": x for count, x in plain.items()} | {"3 learned steps": learned}
for name, x in results.items():
    print(f"{name:38} error {float((x - unseen).norm() / unseen.norm()):.3f} on samples it has not seen")
print(f"training loss: {losses[0]:.3f} before, {losses[-1]:.3f} after {len(losses)} steps")

# %% [markdown]
# From here: [working with torch](../docs/torch.md), [with SciPy](../docs/scipy.md), [solvers and
# priors](../docs/solvers.md), and the contracts of `ddf_tomo.LinearOperator` and `ddf_tomo.priors.Functional`.
