"""The compiled inner loops of `gaussian_sampling` (numba, CPU); the obvious form is `gaussian_sampling.Taps`.

Each pixel x has one set of weights ``G_M(x − u − n)`` for all images: it is listed once, then images are taken eight at
a time, whose values at a place are one vector register. Images are the fastest axis, padded to multiples of `LANES`.
A pixel's weights follow each other by two multiplications, since the ratio of neighbours on a row is geometric.
"""

from __future__ import annotations

import math
from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8
UNROLLED = 4  # taps whose sums do not wait for each other; lists of taps are padded to multiples of it
_INT = ir.IntType(32)


def _data(context: Any, builder: Any, kind: Any, array: Any) -> Any:
    return context.make_array(kind)(context, builder, array).data


def _splat(builder: Any, scalar: Any) -> Any:
    undefined = ir.Constant(ir.VectorType(scalar.type, LANES), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT, LANES), [0] * LANES))


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))


def _total(builder: Any, vector: Any) -> Any:
    """The sum of a register's numbers."""
    undefined, width = ir.Constant(vector.type, ir.Undefined), LANES
    while width > 1:
        width //= 2
        order = ir.Constant(ir.VectorType(_INT, LANES), [width + n if n < width else n for n in range(LANES)])
        vector = builder.fadd(vector, builder.shuffle_vector(vector, undefined, order))
    return builder.extract_element(vector, ir.Constant(_INT, 0))


@intrinsic
def _weighted_sum(
    typing_context: Any, images: Any, place: Any, weight: Any, count: Any, block: Any, result: Any, at: Any
):
    """``result[at : at + 8] = Σ_t weight[t] images[place[t] + block :][:8]``; ``count`` is a multiple of `UNROLLED`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        images_value, place_value, weight_value, count_value, block_value, result_value, at_value = arguments
        vector = ir.VectorType(context.get_value_type(images.dtype), LANES)
        size = context.get_abi_sizeof(vector.element)
        source = builder.gep(_data(context, builder, images, images_value), [block_value])
        where = _data(context, builder, place, place_value)
        factors = _data(context, builder, weight, weight_value)
        zero = ir.Constant(vector, [0.0] * LANES)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(UNROLLED)]
        with cgutils.for_range(builder, builder.sdiv(count_value, count_value.type(UNROLLED))) as loop:
            first = builder.mul(loop.index, loop.index.type(UNROLLED))
            for n, total in enumerate(sums):
                t = builder.add(first, first.type(n))
                address = builder.gep(source, [builder.load(builder.gep(where, [t]))])
                value = builder.load(builder.bitcast(address, vector.as_pointer()), align=size)
                factor = _splat(builder, builder.load(builder.gep(factors, [t])))
                builder.store(_multiply_add(builder, factor, value, builder.load(total)), total)
        totals = [builder.load(total) for total in sums]
        while len(totals) > 1:
            totals = [builder.fadd(a, b) for a, b in zip(totals[::2], totals[1::2], strict=True)]
        target = builder.gep(_data(context, builder, result, result_value), [at_value])
        builder.store(totals[0], builder.bitcast(target, vector.as_pointer()), align=size)
        return context.get_dummy_value()

    return types.void(images, place, weight, count, block, result, at), generate


@intrinsic
def _spread(typing_context: Any, images: Any, at: Any, place: Any, weight: Any, count: Any, block: Any, result: Any):
    """``result[place[t] + block :][:8] += weight[t] images[at : at + 8]`` for all t."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        images_value, at_value, place_value, weight_value, count_value, block_value, result_value = arguments
        vector = ir.VectorType(context.get_value_type(images.dtype), LANES)
        size = context.get_abi_sizeof(vector.element)
        source = builder.gep(_data(context, builder, images, images_value), [at_value])
        value = builder.load(builder.bitcast(source, vector.as_pointer()), align=size)
        target = builder.gep(_data(context, builder, result, result_value), [block_value])
        where = _data(context, builder, place, place_value)
        factors = _data(context, builder, weight, weight_value)
        with cgutils.for_range(builder, count_value) as loop:
            address = builder.gep(target, [builder.load(builder.gep(where, [loop.index]))])
            address = builder.bitcast(address, vector.as_pointer())
            factor = _splat(builder, builder.load(builder.gep(factors, [loop.index])))
            builder.store(_multiply_add(builder, factor, value, builder.load(address, align=size)), address, align=size)
        return context.get_dummy_value()

    return types.void(images, at, place, weight, count, block, result), generate


@intrinsic
def _products(
    typing_context: Any, images: Any, place: Any, count: Any, gradient: Any, at: Any, stride: Any, result: Any
):
    """``result[t] = Σ_s gradient[at + s] images[place[t] + s]`` over ``stride`` images, a multiple of 8."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        images_value, place_value, count_value, gradient_value, at_value, stride_value, result_value = arguments
        vector = ir.VectorType(context.get_value_type(images.dtype), LANES)
        size = context.get_abi_sizeof(vector.element)
        source = _data(context, builder, images, images_value)
        where = _data(context, builder, place, place_value)
        against = builder.gep(_data(context, builder, gradient, gradient_value), [at_value])
        target = _data(context, builder, result, result_value)
        zero = ir.Constant(vector, [0.0] * LANES)
        total = cgutils.alloca_once(builder, vector)
        with cgutils.for_range(builder, count_value) as loop:
            voxel = builder.gep(source, [builder.load(builder.gep(where, [loop.index]))])
            builder.store(zero, total)
            with cgutils.for_range(builder, builder.sdiv(stride_value, stride_value.type(LANES))) as inner:
                step = builder.mul(inner.index, inner.index.type(LANES))
                pair = [builder.bitcast(builder.gep(base, [step]), vector.as_pointer()) for base in (voxel, against)]
                a, b = (builder.load(address, align=size) for address in pair)
                builder.store(_multiply_add(builder, a, b, builder.load(total)), total)
            builder.store(_total(builder, builder.load(total)), builder.gep(target, [loop.index]))
        return context.get_dummy_value()

    return types.void(images, place, count, gradient, at, stride, result), generate


@njit(nogil=True, cache=True, inline="always")
def _mirrored(n, size):
    if 0 <= n < size:
        return n
    if size == 1:
        return 0
    period = 2 * size - 2
    n = abs(n) % period
    return n if n < size else period - n


@njit(nogil=True, cache=True, fastmath={"contract", "arcp", "nsz"}, error_model="numpy")
def _list_taps(y_j, y_k, m_jj, m_jk, m_kk, reach, rows, columns, stride, place, weight, p_j, p_k):
    """Places, weights of sum 1 and ``p = M⁻¹ (y − n)`` of all n within ``reach`` standard deviations; their number."""
    determinant = m_jj * m_kk - m_jk * m_jk
    a, b, d = m_kk / determinant, -m_jk / determinant, m_jj / determinant
    half_j = reach * math.sqrt(m_jj)
    fall = math.exp(-d)
    count, total = 0, 0.0
    for j in range(math.ceil(y_j - half_j), math.floor(y_j + half_j) + 1):
        d_j = y_j - j
        rest = reach * reach - d_j * d_j / m_jj
        if rest < 0:
            continue
        centre, half = y_k - m_jk / m_jj * d_j, math.sqrt(rest / d)
        first, last = math.ceil(centre - half), math.floor(centre + half)
        d_k = y_k - first
        w = math.exp(-0.5 * (a * d_j * d_j + 2 * b * d_j * d_k + d * d_k * d_k))
        ratio = math.exp(b * d_j + d * d_k - 0.5 * d)
        row = _mirrored(j, rows) * columns
        for k in range(first, last + 1):
            d_k = y_k - k
            place[count] = (row + _mirrored(k, columns)) * stride
            weight[count] = w
            p_j[count], p_k[count] = a * d_j + b * d_k, b * d_j + d * d_k
            total += w
            w *= ratio
            ratio *= fall
            count += 1
    for t in range(count):
        weight[t] /= total
    return count


@njit(nogil=True, cache=True, fastmath={"contract", "arcp", "nsz"}, error_model="numpy")
def _differentiate(weight, p_j, p_k, q, factor, count):
    """Weights times a quadratic in p, less its mean: the derivative of normalised weights."""
    mean = 0.0
    for t in range(count):
        a, b = p_j[t], p_k[t]
        factor[t] = a * (q[0] + a * q[2] + b * q[3]) + b * (q[1] + b * q[4])
        mean += weight[t] * factor[t]
    for t in range(count):
        weight[t] *= factor[t] - mean


@njit(nogil=True, cache=True, fastmath={"contract", "arcp", "nsz"}, error_model="numpy")
def gather(images, displacement, matrix, quadratic, reach, most, result, start, stop):
    """``result[x] = Σ_n w(n) images[n]`` for rows ``start ≤ x_j < stop``.

    ``images`` and ``result`` have shape (rows, columns, a multiple of `LANES`); ``displacement`` (rows, columns, 2) and
    ``matrix`` (rows, columns, 3) are float64; ``quadratic`` (rows, columns, 5) asks for the
    derivative of the weights along it, unless it is empty.
    """
    rows, columns, stride = images.shape
    flat, out = images.reshape(-1), result.reshape(-1)
    place, weight, p_j, p_k = np.empty(most, np.int64), np.empty(most), np.empty(most), np.empty(most)
    factor, narrow = np.empty(most), np.empty(most, images.dtype)
    for j in range(start, stop):
        for k in range(columns):
            m = matrix[j, k]
            y_j, y_k = j - displacement[j, k, 0], k - displacement[j, k, 1]
            count = _list_taps(y_j, y_k, m[0], m[1], m[2], reach, rows, columns, stride, place, weight, p_j, p_k)
            if quadratic.size:
                _differentiate(weight, p_j, p_k, quadratic[j, k], factor, count)
            for t in range(count):
                narrow[t] = weight[t]
            while count % UNROLLED:
                place[count], narrow[count] = 0, 0
                count += 1
            for block in range(0, stride, LANES):
                _weighted_sum(flat, place, narrow, count, block, out, (j * columns + k) * stride + block)


@njit(nogil=True, cache=True, fastmath={"contract", "arcp", "nsz"}, error_model="numpy")
def scatter(images, displacement, matrix, quadratic, reach, most, result, start, stop):
    """``result[n] += Σ_x w(n) images[x]`` for blocks of images ``start ≤ b < stop``: the transpose of `gather`.

    A thread owns blocks of images, so that nobody else writes where it does.
    """
    rows, columns, stride = images.shape
    flat, out = images.reshape(-1), result.reshape(-1)
    place, weight, p_j, p_k = np.empty(most, np.int64), np.empty(most), np.empty(most), np.empty(most)
    factor, narrow = np.empty(most), np.empty(most, images.dtype)
    for j in range(rows):
        for k in range(columns):
            m = matrix[j, k]
            y_j, y_k = j - displacement[j, k, 0], k - displacement[j, k, 1]
            count = _list_taps(y_j, y_k, m[0], m[1], m[2], reach, rows, columns, stride, place, weight, p_j, p_k)
            if quadratic.size:
                _differentiate(weight, p_j, p_k, quadratic[j, k], factor, count)
            for t in range(count):
                narrow[t] = weight[t]
            for block in range(LANES * start, LANES * stop, LANES):
                _spread(flat, (j * columns + k) * stride + block, place, narrow, count, block, out)


@njit(nogil=True, cache=True, fastmath={"contract", "arcp", "nsz"}, error_model="numpy")
def moments(images, gradient, displacement, matrix, reach, most, result, start, stop):
    """``result[x] = Σ_n w(n) (h(n) − h̄) (p_j, p_k, p_j², p_j p_k, p_k²)``, rows ``start ≤ x_j < stop``.

    ``h(n) = gradient[x] · images[n]``, and h̄ is its weighted mean, as `_differentiate` subtracts that of the quadratic.
    """
    rows, columns, stride = images.shape
    flat, against = images.reshape(-1), gradient.reshape(-1)
    place, weight, p_j, p_k = np.empty(most, np.int64), np.empty(most), np.empty(most), np.empty(most)
    product = np.empty(most, images.dtype)
    for j in range(start, stop):
        for k in range(columns):
            m = matrix[j, k]
            y_j, y_k = j - displacement[j, k, 0], k - displacement[j, k, 1]
            count = _list_taps(y_j, y_k, m[0], m[1], m[2], reach, rows, columns, stride, place, weight, p_j, p_k)
            _products(flat, place, count, against, (j * columns + k) * stride, stride, product)
            mean = 0.0
            for t in range(count):
                mean += weight[t] * product[t]
            s0 = s1 = s2 = s3 = s4 = 0.0
            for t in range(count):
                h, a, b = weight[t] * (product[t] - mean), p_j[t], p_k[t]
                s0 += h * a
                s1 += h * b
                s2 += h * a * a
                s3 += h * a * b
                s4 += h * b * b
            result[j, k, 0], result[j, k, 1] = s0, s1
            result[j, k, 2], result[j, k, 3], result[j, k, 4] = s2, s3, s4
