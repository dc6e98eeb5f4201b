"""Weighted means over neighbours: the compiled sums are the plain ones, and their derivatives the formula's."""

from __future__ import annotations

import pytest
import torch

from ddf_tomo.operators.gaussian_sampling import mirrored, sample

SHAPE = (7, 6)


def arguments(dtype=torch.float64, images=3, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    a, b, c = 0.5 * noise(3, *SHAPE)
    matrix = torch.stack([0.9 + a**2, a * b, 0.9 + b**2 + c**2], -1)
    return [each.to(dtype) for each in (noise(*SHAPE, images), 1.5 * noise(*SHAPE, 2), matrix)]


def results(dtype, transposed, plain):
    """Value, gradients and tangent."""
    given = [each.requires_grad_() for each in arguments(dtype)]
    tangents = [torch.ones_like(each) for each in given]
    direction = torch.linspace(-1, 1, 3, dtype=dtype)
    value = sample(*given, transposed=transposed, plain=plain)
    gradients = torch.autograd.grad((value**2 * direction).sum(), given)
    tangent = torch.func.jvp(
        lambda *each: sample(*each, transposed=transposed, plain=plain), tuple(given), tuple(tangents)
    )[1]
    return [value.detach(), *gradients, tangent.detach()]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 3e-6)])
def test_compiled_sums_are_the_plain_ones(transposed, dtype, tolerance):
    for fast, plain in zip(results(dtype, transposed, False), results(dtype, transposed, True), strict=True):
        assert fast.dtype == dtype
        torch.testing.assert_close(fast, plain, rtol=tolerance, atol=tolerance * float(plain.abs().max()))


@pytest.mark.parametrize("transposed", [False, True])
def test_derivatives(transposed):
    given = [each.requires_grad_() for each in arguments()]
    assert torch.autograd.gradcheck(
        lambda *each: sample(*each, transposed=transposed), given, check_forward_ad=True, fast_mode=True
    )


def test_every_entry_of_the_gradient():
    """The slow check, on few pixels: a random projection may hide what is wrong in one of them."""
    images, u, matrix = (each[:3, :2].contiguous().requires_grad_() for each in arguments(images=1))
    assert torch.autograd.gradcheck(sample, (images, u, matrix))


def test_gradients_of_gradients_are_refused():
    images, u, matrix = (each.requires_grad_() for each in arguments())
    (gradient,) = torch.autograd.grad(sample(images, u, matrix).sum(), u, create_graph=True)
    with pytest.raises(NotImplementedError, match="once"):
        gradient.sum().backward()


def test_images_may_be_differentiated_twice():
    images, u, matrix = arguments()
    assert torch.autograd.gradgradcheck(lambda x: sample(x, u, matrix), images.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("plain", [False, True])
def test_weights_sum_to_one(plain):
    _, u, matrix = arguments()
    ones = torch.ones(*SHAPE, 1, dtype=torch.float64)
    torch.testing.assert_close(sample(ones, u, matrix, plain=plain), ones, rtol=1e-13, atol=0)
    # So light that pixels send is conserved, whatever they do with it.
    light = torch.rand(*SHAPE, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    sent = sample(light, u, matrix, transposed=True, plain=plain)
    torch.testing.assert_close(sent.sum(), light.sum(), rtol=1e-13, atol=0)


@pytest.mark.parametrize("count", [1, 8, 11])
def test_any_number_of_images_far_displacements_and_few_pixels(count):
    images, u, matrix = arguments(images=count)
    for rows, columns, factor in ((7, 6, 40.0), (1, 6, 1.0), (2, 1, 3.0)):
        part = [each[:rows, :columns].contiguous() for each in (images, factor * u, matrix)]
        torch.testing.assert_close(sample(*part), sample(*part, plain=True), rtol=1e-11, atol=1e-11)


def test_the_result_does_not_depend_on_threads():
    given, threads = arguments(torch.float32, 24), torch.get_num_threads()
    alone = [sample(*given, transposed=t) for t in (False, True)]
    try:
        torch.set_num_threads(3)
        together = [sample(*given, transposed=t) for t in (False, True)]
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))


def test_mirror():
    assert mirrored(torch.tensor([-5, 3, 9]), 1).tolist() == [0, 0, 0]
    assert mirrored(torch.arange(-7, 8), 3).tolist() == [1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]
