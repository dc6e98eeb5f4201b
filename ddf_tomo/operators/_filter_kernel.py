"""The compiled loops of the filter on the detector (numba, CPU); the obvious form stands in ``detector_filter``.

A Fourier transform is a product of sparse matrices, the stages of `transform_stages`: each number of a stage is the sum
of at most `TERMS` of the stage before. Along one axis all channels of all places along the other are transformed at
once: contiguous numbers, in blocks that remain in the cache of a core from the first stage to the last.

Between the transforms the channels of a frequency are taken to eigenvectors of its direction, damped, and taken to
coefficients, in vector registers, `TOGETHER` frequencies of a sector at a time. Lengths, channels and filters are data:
nothing is compiled for new ones. All arrays are flat; rows of a stage begin at multiples of `ROW_LANES`.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ddf_tomo.operators.detector_filter import LANES, ROW_LANES, TERMS, TOGETHER

GROUPS = 4  # that take turns
_INT = ir.IntType(32)
_CONTRACT = {"flags": ("contract",)}


def _splat(builder: Any, scalar: Any, vector: Any) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_INT, vector.count), [0] * vector.count))


class _Build:
    """What the intrinsics below share: addresses in arrays, and vectors."""

    def __init__(self, context: Any, builder: Any, dtype: Any, lanes: int) -> None:
        self.context, self.builder = context, builder
        self.vector = ir.VectorType(context.get_value_type(dtype), lanes)
        self.size = context.get_abi_sizeof(self.vector.element)
        self.zero = ir.Constant(self.vector, [0.0] * lanes)

    def data(self, kind: Any, array: Any) -> Any:
        return self.context.make_array(kind)(self.context, self.builder, array).data

    def splat(self, scalar: Any) -> Any:
        return _splat(self.builder, scalar, self.vector)

    def number(self, data: Any, index: Any) -> Any:
        return self.builder.load(self.builder.gep(data, [index]))

    def place(self, data: Any, index: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(data, [index]), self.vector.as_pointer())

    def load(self, data: Any, index: Any) -> Any:
        return self.builder.load(self.place(data, index), align=self.size)

    def store(self, value: Any, data: Any, index: Any) -> None:
        self.builder.store(value, self.place(data, index), align=self.size)

    def multiply_add(self, total: Any, a: Any, b: Any) -> Any:
        return self.builder.fadd(total, self.builder.fmul(a, b, **_CONTRACT), **_CONTRACT)

    def multiply_subtract(self, total: Any, a: Any, b: Any) -> Any:
        return self.builder.fsub(total, self.builder.fmul(a, b, **_CONTRACT), **_CONTRACT)


@intrinsic
def _copy(typing_context: Any, source: Any, at: Any, target: Any, to: Any, count: Any) -> Any:
    """``target[to : to + count] = source[at : at + count]``, without questions."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source_value, at_value, target_value, to_value, count_value = arguments
        build = _Build(context, builder, source.dtype, 1)
        here = builder.gep(build.data(source, source_value), [at_value])
        there = builder.gep(build.data(target, target_value), [to_value])
        cgutils.raw_memcpy(builder, there, here, count_value, build.size)
        return context.get_dummy_value()

    return types.void(source, at, target, to, count), generate


@intrinsic
def _copy_vectors(typing_context: Any, source: Any, at: Any, target: Any, to: Any, count: Any) -> Any:
    """`_copy` of few numbers, and what follows them up to a whole vector."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source_value, at_value, target_value, to_value, count_value = arguments
        build = _Build(context, builder, source.dtype, LANES)
        here, there = build.data(source, source_value), build.data(target, target_value)
        lanes = ir.Constant(count_value.type, LANES)
        more = builder.add(count_value, ir.Constant(count_value.type, LANES - 1))
        with cgutils.for_range(builder, builder.sdiv(more, lanes)) as loop:
            index = builder.mul(loop.index, lanes)
            build.store(build.load(here, builder.add(at_value, index)), there, builder.add(to_value, index))
        return context.get_dummy_value()

    return types.void(source, at, target, to, count), generate


# fmt: off
@intrinsic(prefer_literal=True)
def _row(
    typing_context: Any, kind: Any, x: Any, u: Any, y: Any, v: Any, sources: Any, targets: Any, cosines: Any,
    sines: Any, row: Any, stride: Any,
) -> Any:
    # fmt: on
    """Rows of a stage: ``(y + i v)[target · stride …] = Σ_t (cosine + i sine)[t] (x + i u)[source[t] · stride …]``.

    ``kind``: number of terms. With 0, four terms with a factor each are transformed to four rows; a negative one makes
    the inverse, without scale.
    """
    terms, is_sum = (abs(kind.literal_value) if kind.literal_value > 0 else TERMS), kind.literal_value > 0

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, *arrays, row_value, stride_value = arguments
        build = _Build(context, builder, x.dtype, ROW_LANES)
        kinds = (x, u, y, v, sources, targets, cosines, sines)
        data = [build.data(kind, array) for kind, array in zip(kinds, arrays, strict=True)]
        first = builder.mul(row_value, ir.Constant(row_value.type, TERMS))
        places = [builder.add(first, ir.Constant(first.type, term)) for term in range(TERMS)]
        starts = [builder.mul(build.number(data[4], place), stride_value) for place in places[:terms]]
        ends = [builder.mul(build.number(data[5], place), stride_value) for place in places[: 1 if is_sum else TERMS]]
        factors = [[build.splat(build.number(data[n], place)) for n in (6, 7)] for place in places[:terms]]
        steps = builder.sdiv(stride_value, ir.Constant(stride_value.type, ROW_LANES))
        with cgutils.for_range(builder, steps) as loop:
            index = builder.mul(loop.index, ir.Constant(loop.index.type, ROW_LANES))
            real, imaginary = [], []
            for start, (cosine, sine) in zip(starts, factors, strict=True):
                at = builder.add(start, index)
                a, b = build.load(data[0], at), build.load(data[1], at)
                if is_sum and real:
                    real[0] = build.multiply_subtract(build.multiply_add(real[0], cosine, a), sine, b)
                    imaginary[0] = build.multiply_add(build.multiply_add(imaginary[0], cosine, b), sine, a)
                elif real or is_sum:  # the first of four has no factor but 1
                    real.append(build.multiply_subtract(builder.fmul(cosine, a, **_CONTRACT), sine, b))
                    imaginary.append(build.multiply_add(builder.fmul(cosine, b, **_CONTRACT), sine, a))
                else:
                    real.append(a)
                    imaginary.append(b)
            if not is_sum:
                real, imaginary = _four_point(builder, real, imaginary, kind.literal_value < 0)
            for end, a, b in zip(ends, real, imaginary, strict=True):
                to = builder.add(end, index)
                build.store(a, data[2], to)
                build.store(b, data[3], to)
        return context.get_dummy_value()

    return types.void(kind, x, u, y, v, sources, targets, cosines, sines, row, stride), generate


def _four_point(builder: Any, a: list[Any], b: list[Any], inverse: bool) -> tuple[list[Any], list[Any]]:
    """The transform of four complex numbers ``a + i b``."""
    even, odd = [(builder.fadd(a[n], a[n + 2]), builder.fsub(a[n], a[n + 2])) for n in (0, 1)]
    even_i, odd_i = [(builder.fadd(b[n], b[n + 2]), builder.fsub(b[n], b[n + 2])) for n in (0, 1)]
    turned = [odd_i[1], odd[1]]  # times -i: (b, -a)
    add, subtract = builder.fadd, builder.fsub
    plus, minus = (subtract, add) if inverse else (add, subtract)
    real = [add(even[0], odd[0]), plus(even[1], turned[0]), subtract(even[0], odd[0]), minus(even[1], turned[0])]
    imaginary = [add(even_i[0], odd_i[0]), minus(even_i[1], turned[1])]
    imaginary += [subtract(even_i[0], odd_i[0]), plus(even_i[1], turned[1])]
    return real, imaginary


# fmt: off
@intrinsic(prefer_literal=True)
def _combine(
    typing_context: Any, damped: Any, matrix: Any, at: Any, stride: Any, count: Any, source: Any, starts: Any,
    target: Any, ends: Any, block: Any, valid: Any, eigenvalues: Any, eigen: Any, ramps: Any, dampings: Any,
    places: Any, group: Any,
) -> Any:
    # fmt: on
    """``target[end + block …] = Σ_i matrix[at + i · stride …] source[start + i]``, `LANES` numbers.

    The same for real and imaginary parts of the `TOGETHER` frequencies of a ``group``, whose ``starts`` and ``ends``
    are pairs one after the other. If ``damped`` they are multiplied with the ramp of each ``place`` over
    ``eigenvalues[eigen …] +`` damping, otherwise only ``valid`` numbers are written.
    """
    with_damping = damped.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, matrix_value, at_value, stride_value, count_value, source_value, starts_value, *others = arguments
        target_value, ends_value, block_value, valid_value, *others = others
        eigenvalues_value, eigen_value, ramps_value, dampings_value, places_value, group_value = others
        build = _Build(context, builder, matrix.dtype, LANES)
        wide = at_value.type
        columns, numbers = build.data(matrix, matrix_value), build.data(source, source_value)
        found, pairs = build.data(target, target_value), range(2 * TOGETHER)
        of_group = builder.mul(group_value, ir.Constant(wide, 2 * TOGETHER))
        numbered = [builder.add(of_group, ir.Constant(wide, pair)) for pair in pairs]
        first = [build.number(build.data(starts, starts_value), pair) for pair in numbered]
        totals = [cgutils.alloca_once_value(builder, build.zero) for _ in pairs]
        with cgutils.for_range(builder, count_value) as loop:
            column = build.load(columns, builder.add(at_value, builder.mul(loop.index, stride_value)))
            for total, start in zip(totals, first, strict=True):
                factor = build.splat(build.number(numbers, builder.add(start, loop.index)))
                builder.store(build.multiply_add(builder.load(total), column, factor), total)
        results = [builder.load(total) for total in totals]
        if with_damping:
            eigen_here = build.load(build.data(eigenvalues, eigenvalues_value), eigen_value)
            for one in range(TOGETHER):
                at_place = builder.add(builder.mul(group_value, ir.Constant(wide, TOGETHER)), ir.Constant(wide, one))
                place = build.number(build.data(places, places_value), at_place)
                ramp = build.splat(build.number(build.data(ramps, ramps_value), place))
                damping = build.splat(build.number(build.data(dampings, dampings_value), place))
                weight = builder.fdiv(ramp, builder.fadd(eigen_here, damping))
                for pair in (2 * one, 2 * one + 1):
                    results[pair] = builder.fmul(results[pair], weight)
        lanes = ir.VectorType(valid_value.type, LANES)
        is_valid = builder.icmp_signed("<", ir.Constant(lanes, list(range(LANES))), _splat(builder, valid_value, lanes))
        for pair, result in zip(numbered, results, strict=True):
            to = builder.add(build.number(build.data(ends, ends_value), pair), block_value)
            if not with_damping:
                result = builder.select(is_valid, result, build.load(found, to))
            build.store(result, found, to)
        return context.get_dummy_value()

    # fmt: off
    return types.void(
        damped, matrix, at, stride, count, source, starts, target, ends, block, valid,
        eigenvalues, eigen, ramps, dampings, places, group,
    ), generate
    # fmt: on


@njit(inline="always")
def _stages(stages, x, u, y, v, width):
    """Run all stages on ``width`` columns of ``x + i u``; the result is the first pair of what is returned."""
    starts, kinds, sources, targets, cosines, sines = stages
    for stage in range(len(kinds)):
        for row in range(starts[stage], starts[stage + 1]):
            if kinds[stage] == 0:
                _row(0, x, u, y, v, sources, targets, cosines, sines, row, width)
            elif kinds[stage] < 0:
                _row(-1, x, u, y, v, sources, targets, cosines, sines, row, width)
            elif kinds[stage] <= 2:
                _row(2, x, u, y, v, sources, targets, cosines, sines, row, width)
            else:
                _row(4, x, u, y, v, sources, targets, cosines, sines, row, width)
        x, u, y, v = y, v, x, u
    return x, u, y, v


@njit(inline="always")
def _stride(width):
    return -(-width // ROW_LANES) * ROW_LANES


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def transform(data, spectra, shapes, stages_j, stages_k, start, stop):
    """Of projections ``(views, J, K, channels)``, views ``start … stop``.

    ``spectra`` has the shape (views, 2, frequencies along k, along j ≥ 0, channels): real and imaginary parts.
    ``shapes`` end with how many places along the other axis are transformed together, and rows in a stage.
    """
    rows, columns, along_k, along_j, channels, many, places = shapes
    x, u, y, v = np.zeros((4, places * _stride(many * channels) + LANES), data.dtype)
    size = columns * along_j * channels + LANES
    middle = np.empty(2 * size, data.dtype)
    for view in range(start, stop):
        for first in range(0, columns, many):
            here = min(many, columns - first)
            stride = _stride(here * channels)
            for j in range(rows):
                _copy(data, ((view * rows + j) * columns + first) * channels, x, j * stride, here * channels)
            u[: rows * stride] = 0
            x, u, y, v = _stages(stages_j, x, u, y, v, stride)
            for k in range(here):
                for f in range(along_j):
                    to, at = ((first + k) * along_j + f) * channels, f * stride + k * channels
                    _copy_vectors(x, at, middle, to, channels)
                    _copy_vectors(u, at, middle, size + to, channels)
        for first in range(0, along_j, many):
            width = min(many, along_j - first) * channels
            stride = _stride(width)
            for k in range(columns):
                at = (k * along_j + first) * channels
                _copy(middle, at, x, k * stride, width)
                _copy(middle, size + at, u, k * stride, width)
            x, u, y, v = _stages(stages_k, x, u, y, v, stride)
            for f in range(along_k):
                real = ((2 * view * along_k + f) * along_j + first) * channels
                _copy(x, f * stride, spectra, real, width)
                _copy(u, f * stride, spectra, real + along_k * along_j * channels, width)


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def filter_and_return(
    spectra, filtered, shapes, response, systems, nearest, groups, ramps, dampings, stages_k, stages_j, start, stop
):
    """The filter, and the way back to pixels: ``filtered`` of shape (views, J, K, coefficients).

    ``systems``: eigenvalues (directions, padded), vectors (directions, coefficients, padded), and the way from them to
    coefficients (directions, eigenvectors, padded); numbers padded to `LANES`.

    ``groups``: first group of each block of frequencies along j, sector of each group, its frequencies (groups,
    `TOGETHER`). ``ramps``, ``dampings``: of each frequency, and then of frequency 0 in each sector.
    """
    rows, columns, along_k, along_j, channels, coefficients, padded, sectors, many, places = shapes
    values, into, out = systems
    group_starts, group_sectors, members, member_ends, skipped, negligible = groups
    dtype, frequencies, pairs = spectra.dtype, along_k * along_j, 2 * TOGETHER
    plane, size = places * _stride(many * coefficients), columns * along_j * coefficients + LANES
    memory = np.zeros((2, 2 * plane + padded), dtype)
    block, other = memory
    x, u, y, v = block[:plane], block[plane:], other[:plane], other[plane:]
    middle, ways = np.zeros(2 * size, dtype), np.empty(sectors * channels * padded, dtype)
    parts, where = np.empty(GROUPS * pairs * padded, dtype), np.zeros(GROUPS * TOGETHER, np.int64)
    starts, ends = np.zeros(GROUPS * pairs, np.int64), np.zeros(GROUPS * pairs, np.int64)
    seen = np.empty(2 * frequencies * channels, dtype)
    counts = np.zeros(GROUPS, np.int64)
    within, strengths, total = np.arange(GROUPS * pairs) * padded, np.empty(padded, dtype), np.empty(padded, dtype)
    for view in range(start, stop):
        for place in range(sectors):
            at = nearest[view * sectors + place] * coefficients * padded
            for s in range(0, channels, pairs):
                for n in range(pairs):
                    channel = min(s + n, channels - 1)
                    starts[n] = (view * channels + channel) * coefficients
                    ends[n] = (place * channels + channel) * padded
                for first in range(0, padded, LANES):
                    _combine(
                        False, into, at + first, padded, coefficients, response, starts, ways, ends, first, LANES,
                        values, 0, ramps, dampings, where, 0,
                    )  # fmt: skip
        _copy(spectra, view * len(seen), seen, 0, len(seen))  # one after the other first: then they are in the cache
        for number in range(len(group_starts) - 1):
            first_j = number * many
            here = min(many, along_j - first_j)
            stride = _stride(here * coefficients)
            if skipped:
                block[:] = 0
            # One step of several groups after the other: none waits for its own.
            for some in range(group_starts[number], group_starts[number + 1], GROUPS):
                count = min(GROUPS, group_starts[number + 1] - some)
                for group in range(count):
                    place = group_sectors[some + group]
                    for n in range(TOGETHER):
                        index, at = members[(some + group) * TOGETHER + n], group * TOGETHER + n
                        starts[2 * at] = index * channels
                        starts[2 * at + 1] = (index + frequencies) * channels
                        where[at] = index
                    # Damping grows within a sector, eigenvalues fall.
                    eigen, least = nearest[view * sectors + place] * padded, dampings[where[group * TOGETHER]]
                    used = coefficients
                    while used > 1 and values[eigen + used - 1] < negligible * least:
                        used -= 1
                    counts[group] = used
                    for first in range(0, used, LANES):
                        _combine(
                            True, ways, place * channels * padded + first, padded, channels, seen, starts,
                            parts, within, first, LANES, values, eigen + first, ramps, dampings, where, group,
                        )  # fmt: skip
                for group in range(count):
                    for n in range(TOGETHER):
                        to, at = member_ends[(some + group) * TOGETHER + n], group * TOGETHER + n
                        ends[2 * at] = to
                        ends[2 * at + 1] = plane + to
                    system = nearest[view * sectors + group_sectors[some + group]]
                    for first in range(0, padded, LANES):
                        _combine(
                            False, out, system * coefficients * padded + first, padded, counts[group], parts, within,
                            block, ends, first, coefficients - first, values, 0, ramps, dampings, where, group,
                        )  # fmt: skip
            if number == 0:  # frequency 0, a real number: the mean over all sectors
                total[:] = 0
                for place in range(sectors):
                    system = nearest[view * sectors + place]
                    strengths[:] = 0
                    for s in range(channels):
                        at, factor = (place * channels + s) * padded, seen[s] * ramps[frequencies + place]
                        for c in range(padded):
                            strengths[c] += ways[at + c] * factor
                    for c in range(padded):
                        strengths[c] /= values[system * padded + c] + dampings[frequencies + place]
                    for r in range(coefficients):
                        at = (system * coefficients + r) * padded
                        for c in range(padded):
                            total[c] += out[at + c] * strengths[r]
                block[:coefficients] = total[:coefficients]
                block[plane : plane + coefficients] = 0
            real, imaginary, _, _ = _stages(stages_k, x, u, y, v, stride)
            for k in range(columns):
                to = (k * along_j + first_j) * coefficients
                _copy(real, k * stride, middle, to, here * coefficients)
                _copy(imaginary, k * stride, middle, size + to, here * coefficients)
        for first in range(0, columns, many):
            here = min(many, columns - first)
            stride = _stride(here * coefficients)
            # Upwards, and real parts first: what is written beyond the end is overwritten.
            for part in range(2):
                for f in range(along_j):
                    for k in range(here):
                        at, to = ((first + k) * along_j + f) * coefficients, f * stride + k * coefficients
                        _copy_vectors(middle, part * size + at, block, part * plane + to, coefficients)
            real, _, _, _ = _stages(stages_j, x, u, y, v, stride)
            for j in range(rows):
                to = ((view * rows + j) * columns + first) * coefficients
                _copy(real, j * stride, filtered, to, here * coefficients)
