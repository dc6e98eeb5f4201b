"""Binary arrays whose periodic autocorrelation is flat beside its peak."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ddf_tomo._checks import integer, message

# Feedback taps of maximal sequences: x^m = sum of x^tap modulo 2, for m = 2n.
TAPS = {4: (4, 3), 6: (6, 5), 8: (8, 6, 5, 4), 10: (10, 7), 12: (12, 6, 4, 1), 14: (14, 5, 3, 1), 16: (16, 15, 13, 4)}


def is_prime(number: int) -> bool:
    """Whether a number is prime."""
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def ura_cells(order: Any) -> Tensor:
    """``(p + 2, p)`` zeros and ones of Fenimore and Cannon's array for the twin primes p and p + 2."""
    p = integer(order, "order", low=3, high=1000)
    if not (is_prime(p) and is_prime(p + 2)):
        twins = ", ".join(str(n) for n in range(3, 200) if is_prime(n) and is_prime(n + 2))
        raise ValueError(message("order", f"the smaller one of twin primes, {twins}", p))
    rows, columns = (_signs(n) for n in (p + 2, p))
    array = (rows[:, None] * columns > 0).float()
    array[:, 0] = 1
    array[0] = 0
    return array


def hadamard_cells(order: Any) -> Tensor:
    """``(2ⁿ − 1, 2ⁿ + 1)`` zeros and ones: a maximal sequence along the diagonal of the array, which wraps around."""
    n = integer(order, "order", low=2, high=8)
    length, taps = 4**n - 1, TAPS[2 * n]
    bits = [1] * (2 * n)
    for _ in range(length - 2 * n):
        bits.append(sum(bits[-tap] for tap in taps) % 2)
    index = torch.arange(length)
    array = torch.zeros(2**n - 1, 2**n + 1)
    array[index % (2**n - 1), index % (2**n + 1)] = torch.tensor(bits, dtype=torch.float32)
    return array


def _signs(prime: int) -> Tensor:
    """1 for squares modulo the prime, −1 for other numbers, 0 for 0: Legendre's symbol."""
    signs = -torch.ones(prime)
    signs[torch.arange(1, prime) ** 2 % prime] = 1
    signs[0] = 0
    return signs
