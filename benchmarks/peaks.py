"""What a core can do, for `roofline`: loops of nothing but the loads, multiply-adds and stores that are counted.

A loop is compiled for the width of its vectors and for what it does with each of them. Arrays are small enough for the
cache that is meant, and every thread has its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import llvmlite.ir as ir
import numpy as np
import torch
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ddf_tomo._threads import in_parallel

SUMS = 8, 4  # independent ones, which hide the latency of an operation; the kernels have four
BYTES_OF_LEVEL = (8 * 2**10, 256 * 2**10, 8 * 2**20)  # arrays that lie in the first, second and last cache
MULTIPLY, LOAD, PROJECT, BACKPROJECT = range(4)


@intrinsic(prefer_literal=True)
def _sweep(typing_context: Any, lanes: Any, task: Any, array: Any, factors: Any, count: Any) -> Any:
    """``count`` times as many vectors of ``array`` as there are sums, which at last are written to ``factors``.

    `MULTIPLY`: sum = sum · a + b, in registers. `LOAD`: sum += vector. `PROJECT`: sum += factor · vector, as the
    forward kernel. `BACKPROJECT`: vector += factor · b, as the adjoint kernel. The first two factors are ``a`` and
    ``b``; with two lanes factors are vectors, too, as in the kernels for a single channel.
    """
    width, kind = lanes.literal_value, task.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, _, array_value, factors_value, count_value = arguments
        vector = ir.VectorType(ir.FloatType(), width)

        def data(of: Any, value: Any, index: Any) -> Any:
            return builder.gep(context.make_array(of)(context, builder, value).data, [index])

        def splat(scalar: Any) -> Any:
            first = builder.insert_element(ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
            lanes_ = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)
            return builder.shuffle_vector(first, first, lanes_)

        def multiply_add(a: Any, b: Any, c: Any) -> Any:
            return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))

        zero = ir.Constant(count_value.type, 0)
        a, b = (splat(builder.load(data(factors, factors_value, ir.Constant(zero.type, n)))) for n in range(2))
        sums = [cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * width)) for _ in range(_sums(kind))]
        with cgutils.for_range(builder, count_value) as loop:
            base = builder.mul(loop.index, ir.Constant(zero.type, len(sums)))
            for number, total in enumerate(sums):
                old = builder.load(total)
                if kind == MULTIPLY:
                    builder.store(multiply_add(old, a, b), total)
                    continue
                at = builder.add(base, ir.Constant(zero.type, number))
                place = data(array, array_value, builder.mul(at, ir.Constant(zero.type, width)))
                place = builder.bitcast(place, vector.as_pointer())
                voxel = builder.load(place, align=width * 4)
                if kind == LOAD:
                    builder.store(builder.fadd(old, voxel), total)
                    continue
                if width == 2:
                    factor = data(factors, factors_value, builder.mul(at, ir.Constant(zero.type, 2)))
                    weight = builder.load(builder.bitcast(factor, vector.as_pointer()), align=4)
                else:
                    weight = splat(builder.load(data(factors, factors_value, at)))
                if kind == PROJECT:
                    builder.store(multiply_add(weight, voxel, old), total)
                else:
                    builder.store(multiply_add(weight, b, voxel), place, align=width * 4)
        for number, total in enumerate(sums):  # every lane is wanted, or the compiler leaves the others out
            place = data(factors, factors_value, ir.Constant(zero.type, number * width))
            builder.store(builder.load(total), builder.bitcast(place, vector.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(lanes, task, array, factors, count), generate


def _sums(task: int) -> int:
    return SUMS[task in (PROJECT, BACKPROJECT)]


@cache
def _repeated(lanes: int, task: int) -> Callable[..., None]:
    @njit(nogil=True, error_model="numpy")
    def repeated(array: Any, factors: Any, count: int, repeats: int) -> None:
        for _ in range(repeats):
            _sweep(lanes, task, array, factors, count)

    return repeated


class Loop:
    """A call that does a task with about so many ``vectors``, by all threads, from arrays of ``size`` bytes."""

    def __init__(self, lanes: int, task: int, vectors: float, size: int = BYTES_OF_LEVEL[0]) -> None:
        self.units = 8 * torch.get_num_threads()  # a core that is busy takes fewer of them
        self.count = size // (4 * lanes * _sums(task))
        self.repeats = max(round(vectors / (self.units * self.count * _sums(task))), 1)
        self.vectors = self.units * self.count * self.repeats * _sums(task)
        # Zeros stay zeros, neither denormal nor infinite. The last cache is shared, and so is an array in it.
        self.arrays = [_zeros(size // 4) for _ in range(1 if size > BYTES_OF_LEVEL[1] else self.units)]
        many = size // 4 if lanes == 2 else size // (4 * lanes)
        self.factors = [_zeros(max(many, lanes * max(SUMS))) for _ in range(self.units)]
        self.repeated = _repeated(lanes, task)

    def __call__(self) -> None:
        in_parallel(self.units, 1, self._some)

    def _some(self, start: int, stop: int) -> None:
        for unit in range(start, stop):
            self.repeated(self.arrays[unit % len(self.arrays)], self.factors[unit], self.count, self.repeats)


def _zeros(count: int) -> np.ndarray:
    """So many numbers that begin with a cache line."""
    array = np.zeros(count + 16, np.float32)
    return array[-(array.ctypes.data // 4) % 16 :][:count]
