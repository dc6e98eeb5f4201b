"""Compiled inner loops of `ddf_tomo.retrieval.matching` (numba, CPU).

Arrays hold the mask steps last, padded to whole vectors by weights of zero, so that one set of Gaussian weights serves
a whole run of memory. Functions work on rows ``start`` to ``stop`` and write only there: threads share nothing else.

Regressors, in this order: the five of the windowed unknowns (u_j, u_k, C_jj, C_jk, C_kk), 1 of the background, the
blurred reference of the transmission.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES, MOST = 8, 4  # steps in a vector; vectors that are summed together
RADIUS2 = 16.0  # of the ellipse of taps, in standard deviations, squared: 3e-4 of the Gaussian lies outside
KAPPA, VALUE, RESIDUAL = 5, 6, 7
LEAST_MASS, FULL_MASS = 0.97, 0.995  # of a Gaussian on living pixels: below the first a pixel counts for nothing
LEAST_NARROWNESS = 0.1  # square pixels, determinant over trace: no Gaussian below
STEEP = 0.05  # squared change of ln T over the smoothing, at which a pixel counts for half
STEEPEST = 0.5  # relative change of C over a standard deviation
LEAST_SIGMA2 = 0.2  # square pixels: narrower Gaussians are not resolved by the sampling
FAST = {"nogil": True, "error_model": "numpy", "cache": True, "fastmath": True}


@intrinsic(prefer_literal=True)
def _row(
    typing_context: Any,
    groups: Any,
    frames: Any,
    at: Any,
    stride: Any,
    weights: Any,
    count: Any,
    far: Any,
    out: Any,
    start: Any,
) -> Any:
    """Add a row of taps, from ``frames[at]`` on, to the moments of ``groups`` vectors of steps, in registers.

    ``weights`` holds w, w δ_k and w δ_k² of ``count`` taps, ``far`` is their δ_j; ``out`` the six moments of all
    ``stride`` steps, of which those from ``start`` on are meant.
    """
    width = groups.literal_value

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, frames_value, at_value, stride_value, weights_value, count_value, far_value, out_value, start_value = (
            arguments
        )
        source, table, target = (
            context.make_array(kind)(context, builder, value).data
            for kind, value in ((frames, frames_value), (weights, weights_value), (out, out_value))
        )
        vector = ir.VectorType(context.get_value_type(frames.dtype), LANES)
        size = context.get_abi_sizeof(vector.element)
        whole, lane = at_value.type, ir.IntType(32)

        def splat(scalar: Any) -> Any:
            undefined = ir.Constant(vector, ir.Undefined)
            first = builder.insert_element(undefined, scalar, ir.Constant(lane, 0))
            return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(lane, LANES), [0] * LANES))

        def address(data: Any, index: Any, group: int) -> Any:
            index = builder.add(index, ir.Constant(whole, group * LANES))
            return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())

        def add(total: Any, factor: Any, value: Any) -> Any:
            return builder.fadd(builder.fmul(factor, value, flags=("contract",)), total, flags=("contract",))

        zero, one = ir.Constant(vector, [0.0] * LANES), ir.Constant(vector, [1.0] * LANES)
        totals = [[cgutils.alloca_once_value(builder, zero) for _ in range(width)] for _ in range(3)]
        begin = builder.add(at_value, start_value)
        with cgutils.for_range(builder, count_value, intp=whole) as loop:
            tap = builder.add(begin, builder.mul(loop.index, stride_value))
            values = [builder.load(address(source, tap, group), align=size) for group in range(width)]
            first = builder.mul(loop.index, ir.Constant(whole, 3))
            for n in range(3):
                weight = splat(builder.load(builder.gep(table, [builder.add(first, ir.Constant(whole, n))])))
                for value, total in zip(values, totals[n], strict=True):
                    builder.store(add(builder.load(total), weight, value), total)
        distance = splat(context.cast(builder, far_value, far, frames.dtype))
        square = builder.fmul(distance, distance)
        # 1, δ_j, δ_k, δ_j², δ_j δ_k, δ_k² of the sums over w, w δ_k, w δ_k²
        moments = (0, one), (0, distance), (1, one), (0, square), (1, distance), (2, one)
        for place, (n, factor) in enumerate(moments):
            index = builder.add(start_value, builder.mul(stride_value, ir.Constant(whole, place)))
            for group in range(width):
                where = address(target, index, group)
                new = add(builder.load(where, align=size), factor, builder.load(totals[n][group]))
                builder.store(new, where, align=size)
        return context.get_dummy_value()

    return types.void(groups, frames, at, stride, weights, count, far, out, start), generate


@njit(**FAST)
def moments_around(reference, alive, centre_j, centre_k, cov_jj, cov_jk, cov_kk, skew, radius2, out):
    """Moments 1, δ_j, δ_k, δ_j², δ_j δ_k, δ_k² of a Gaussian around a place, times the steps of ``reference``.

    δ points from a tap to the place; ``radius2`` bounds δᵀ Σ⁻¹ δ. Returns how much of the Gaussian lies on living
    pixels.
    """
    rows, columns, steps = reference.shape
    out[:] = 0
    det = cov_jj * cov_kk - cov_jk * cov_jk
    if cov_jj <= 0 or cov_kk <= 0 or det < LEAST_NARROWNESS * (cov_jj + cov_kk):
        return 0.0
    p_jj, p_jk, p_kk = cov_kk / det, -cov_jk / det, cov_jj / det
    norm = 1 / (2 * np.pi * np.sqrt(det))
    half_j = np.sqrt(radius2 * cov_jj)
    shrink = np.exp(-p_kk)
    mass = 0.0
    frames = reference.reshape(rows * columns * steps)
    flat = out.reshape(6 * steps)
    weights = np.empty(3 * columns, reference.dtype)
    for n_j in range(max(int(np.ceil(centre_j - half_j)), 0), min(int(np.floor(centre_j + half_j)), rows - 1) + 1):
        d_j = centre_j - n_j
        middle = centre_k + p_jk * d_j / p_kk
        half_k = np.sqrt(max(radius2 - d_j * d_j / cov_jj, 0.0) / p_kk)
        first = max(int(np.ceil(middle - half_k)), 0)
        last = min(int(np.floor(middle + half_k)), columns - 1)
        if last < first:
            continue
        # Along a row log w is a parabola: each weight is the one before times a ratio that shrinks evenly.
        d_k = centre_k - first
        weight = norm * np.exp(-0.5 * (p_jj * d_j * d_j + 2 * p_jk * d_j * d_k + p_kk * d_k * d_k))
        ratio = np.exp(p_jk * d_j + p_kk * d_k - 0.5 * p_kk)
        s_0, s_1 = 1 + d_j * (skew[0] + d_j * d_j * skew[2]), skew[1] + d_j * d_j * skew[3]
        s_2, s_3 = d_j * skew[4], skew[5]
        count = last - first + 1
        for t in range(count):
            mass += weight * alive[n_j, first + t]
            skewed = weight * (s_0 + d_k * (s_1 + d_k * (s_2 + d_k * s_3)))
            weights[3 * t], weights[3 * t + 1], weights[3 * t + 2] = skewed, skewed * d_k, skewed * d_k * d_k
            weight *= ratio
            ratio *= shrink
            d_k -= 1
        at = (n_j * columns + first) * steps
        for start in range(0, steps, MOST * LANES):
            groups = (steps - start) // LANES
            if groups >= MOST:
                _row(MOST, frames, at, steps, weights, count, d_j, flat, start)
            elif groups == 3:
                _row(3, frames, at, steps, weights, count, d_j, flat, start)
            elif groups == 2:
                _row(2, frames, at, steps, weights, count, d_j, flat, start)
            else:
                _row(1, frames, at, steps, weights, count, d_j, flat, start)
    return mass


@njit(**FAST)
def regressors_of(moments, cov_jj, cov_jk, cov_kk, reach, out):
    """Derivatives of the blurred, moved reference by the windowed unknowns, and its value, from `moments_around`."""
    real = out.dtype.type
    det = cov_jj * cov_kk - cov_jk * cov_jk
    jj, jk, kk = cov_kk / det, -cov_jk / det, cov_jj / det
    r, r2 = reach, reach * reach
    a_1, a_2, b_1, b_2 = real(r * jj), real(r * jk), real(r * jk), real(r * kk)
    c_0, c_3, c_4, c_5 = real(-0.5 * r2 * jj), real(0.5 * r2 * jj * jj), real(r2 * jj * jk), real(0.5 * r2 * jk * jk)
    d_0, d_3, d_4, d_5 = real(-r2 * jk), real(r2 * jj * jk), real(r2 * (jj * kk + jk * jk)), real(r2 * jk * kk)
    e_0, e_3, e_4, e_5 = real(-0.5 * r2 * kk), real(0.5 * r2 * jk * jk), real(r2 * jk * kk), real(0.5 * r2 * kk * kk)
    one = real(1)
    for m in range(moments.shape[1]):
        y_0, y_1, y_2 = moments[0, m], moments[1, m], moments[2, m]
        y_3, y_4, y_5 = moments[3, m], moments[4, m], moments[5, m]
        out[0, m] = a_1 * y_1 + a_2 * y_2
        out[1, m] = b_1 * y_1 + b_2 * y_2
        out[2, m] = c_0 * y_0 + c_3 * y_3 + c_4 * y_4 + c_5 * y_5
        out[3, m] = d_0 * y_0 + d_3 * y_3 + d_4 * y_4 + d_5 * y_5
        out[4, m] = e_0 * y_0 + e_3 * y_3 + e_4 * y_4 + e_5 * y_5
        out[KAPPA, m] = one
        out[VALUE, m] = one + y_0


@njit(**FAST)
def regressor_noise(cov_jj, cov_jk, cov_kk, reach, out):
    """Covariances (7, 7) of the regressors under white noise of variance 1 in the reference.

    In the Fourier domain they are ``i k_a`` and ``-k_a k_b`` times ``exp(-kᵀ Σ k / 2)``: fourth moments of a
    Gaussian of covariance ``Σ⁻¹ / 2``.
    """
    det = cov_jj * cov_kk - cov_jk * cov_jk
    jj, jk, kk = cov_kk / det, -cov_jk / det, cov_jj / det
    power = 1 / (4 * np.pi * np.sqrt(det))
    r2 = reach * reach * power
    r4 = reach * reach * r2
    out[:] = 0
    out[0, 0], out[0, 1], out[1, 1] = 0.5 * r2 * jj, 0.5 * r2 * jk, 0.5 * r2 * kk
    out[2, 2], out[2, 3], out[2, 4] = 0.1875 * r4 * jj * jj, 0.375 * r4 * jj * jk, r4 * (jj * kk + 2 * jk * jk) / 16
    out[3, 3], out[3, 4], out[4, 4] = 4 * out[2, 4], 0.375 * r4 * jk * kk, 0.1875 * r4 * kk * kk
    out[2, VALUE], out[3, VALUE], out[4, VALUE] = -0.25 * r2 * jj, -0.5 * r2 * jk, -0.25 * r2 * kk
    out[VALUE, VALUE] = power
    for a in range(7):
        for b in range(a):
            out[a, b] = out[b, a]


@njit(**FAST)
def placed(j, k, theta, slope, reach, smoothing2):
    """Place and covariance of the Gaussian that makes of the reference what the smoothed sample is.

    The sample is smoothed after it was moved: with ``ε`` of covariance ``σ²``, ``x + ε`` comes from
    ``x - u + M ε``, ``M = 1 - ∇u``, with the transmission ``T (1 + ε·∇ln T)``. To first order in these slopes that is
    a Gaussian of covariance ``C + σ² M Mᵀ`` around ``x - u + σ² M ∇ln T``.
    """
    m_jj, m_jk = 1 - reach * slope[0, 0], -reach * slope[0, 1]
    m_kj, m_kk = -reach * slope[1, 0], 1 - reach * slope[1, 1]
    t_j, t_k = slope[VALUE, 0], slope[VALUE, 1]
    r2 = reach * reach
    return (
        j - reach * theta[0] + smoothing2 * (m_jj * t_j + m_jk * t_k),
        k - reach * theta[1] + smoothing2 * (m_kj * t_j + m_kk * t_k),
        r2 * theta[2] + smoothing2 * (m_jj * m_jj + m_jk * m_jk),
        r2 * theta[3] + smoothing2 * (m_jj * m_kj + m_jk * m_kk),
        r2 * theta[4] + smoothing2 * (m_kj * m_kj + m_kk * m_kk),
    )


@njit(**FAST)
def skewness(slope, reach, cov_jj, cov_jk, cov_kk, out):
    """Polynomial in δ that a Gaussian is multiplied by, because light starts with the covariance of its own place.

    A ray from ``x - u - δ`` spreads with ``C - δ·∇C``. Less the mean displacement ``-∂_a C_ab`` that belongs to u,

        1 - ½ Σ_ab (δ·∇C_ab) (q_a q_b - P_ab) + Σ_ab ∂_a C_ab q_b,   P = Σ⁻¹, q = P δ.

    ``out``: factors of δ_j, δ_k, δ_j³, δ_j² δ_k, δ_j δ_k², δ_k³. Slopes too steep for first order are reduced.
    """
    det, trace = cov_jj * cov_kk - cov_jk * cov_jk, cov_jj + cov_kk
    jj, jk, kk = cov_kk / det, -cov_jk / det, cov_jj / det
    r2 = reach * reach
    total = 0.0
    for a in range(2):
        total += slope[2, a] ** 2 + 2 * slope[3, a] ** 2 + slope[4, a] ** 2
    steepness = r2 * np.sqrt(total * trace) * trace / det
    f = -0.5 * r2 * min(1.0, STEEPEST / max(steepness, 1e-30))
    x_j, x_k, y_j, y_k, z_j, z_k = slope[2, 0], slope[2, 1], slope[3, 0], slope[3, 1], slope[4, 0], slope[4, 1]
    # Σ_ab D_ab q_a q_b of a slope D, as a δ_j² + b δ_j δ_k + c δ_k², and Σ_ab D_ab P_ab.
    a_j = x_j * jj * jj + 2 * y_j * jj * jk + z_j * jk * jk
    b_j = 2 * (x_j * jj * jk + y_j * (jj * kk + jk * jk) + z_j * jk * kk)
    c_j = x_j * jk * jk + 2 * y_j * jk * kk + z_j * kk * kk
    e_j = x_j * jj + 2 * y_j * jk + z_j * kk
    a_k = x_k * jj * jj + 2 * y_k * jj * jk + z_k * jk * jk
    b_k = 2 * (x_k * jj * jk + y_k * (jj * kk + jk * jk) + z_k * jk * kk)
    c_k = x_k * jk * jk + 2 * y_k * jk * kk + z_k * kk * kk
    e_k = x_k * jj + 2 * y_k * jk + z_k * kk
    v_j, v_k = x_j + y_k, y_j + z_k
    out[0] = f * (-e_j - 2 * (jj * v_j + jk * v_k))
    out[1] = f * (-e_k - 2 * (jk * v_j + kk * v_k))
    out[2], out[3], out[4], out[5] = f * a_j, f * (b_j + a_k), f * (c_j + b_k), f * c_k


@njit(**FAST)
def confidence_in(mass):
    """Weight of a pixel of whose Gaussian this share lies on living pixels: 0 below `LEAST_MASS`, then rising to 1."""
    return min(max((mass - LEAST_MASS) / (FULL_MASS - LEAST_MASS), 0.0), 1.0)


@njit(**FAST)
def _products(weight, regressors, weighted, part):
    """Sums over the steps of products of all rows with each other."""
    rows, steps = regressors.shape
    for a in range(rows):
        for m in range(steps):
            weighted[m] = weight[m] * regressors[a, m]
        for b in range(a, rows):
            total = regressors.dtype.type(0)
            for m in range(steps):
                total += weighted[m] * regressors[b, m]
            part[a, b] = part[b, a] = total


@njit(**FAST)
def of_pixel(
    sample, reference, alive, weight, reach, factor, slope, noise, smoothing2, j, k, transmission, theta,
    moments, regressors, weighted, spread, part, normal, score, added, skew,
):  # fmt: skip
    """Normal matrix and score of one pixel, all distances together; what noise adds to the matrix stays in it.

    Returns squared misfit, weight of the data in it, their number, and the confidence in the last distance.
    """
    distances, _, _, steps = sample.shape
    real = sample.dtype.type
    normal[:], score[:], added[:] = 0, 0, 0
    misfit, freedom, count, confidence = 0.0, 0.0, 0, 0.0
    for d in range(distances):
        r = reach[d]
        c_j, c_k, jj, jk, kk = placed(j, k, theta, slope, r, smoothing2)
        skewness(slope, r, jj, jk, kk, skew)
        mass = moments_around(reference[d], alive[d], c_j, c_k, jj, jk, kk, skew, RADIUS2, moments)
        confidence = confidence_in(mass)
        if confidence == 0:
            continue
        regressors_of(moments, jj, jk, kk, r, regressors)
        share = 1 / (transmission * factor[d, j, k])
        gain, offset = real(share), real(theta[KAPPA])
        for m in range(steps):
            regressors[RESIDUAL, m] = gain * sample[d, j, k, m] - regressors[VALUE, m] - offset
            count += weight[d, j, k, m] > 0
        _products(weight[d, j, k], regressors, weighted, part)
        if part[KAPPA, KAPPA] <= 0 or part[KAPPA, VALUE] <= 0:
            continue
        regressor_noise(jj, jk, kk, r, spread)
        level = part[KAPPA, VALUE] / part[KAPPA, KAPPA]
        inverse = confidence / (level * (share / (4 * np.pi * smoothing2) + spread[VALUE, VALUE]))
        # Where T changes within the smoothing, first order in its slope is not enough.
        steep = smoothing2 * (slope[VALUE, 0] ** 2 + slope[VALUE, 1] ** 2) / STEEP
        inverse /= 1 + steep * steep
        extra = noise * part[KAPPA, VALUE]
        for a in range(7):
            score[a] += inverse * (part[a, RESIDUAL] + extra * spread[a, VALUE])
            for b in range(7):
                normal[a, b] += inverse * part[a, b]
                added[a, b] += inverse * extra * spread[a, b]
        misfit += inverse * part[RESIDUAL, RESIDUAL]
        freedom += confidence * part[KAPPA, KAPPA]
    return misfit, freedom, count, confidence


@njit(**FAST)
def evaluate(
    sample, reference, alive, weight, reach, factor, slope, noise, smoothing2, chosen, pixelwise,
    active, again, transmission, theta, terms, own, start, stop,
):  # fmt: skip
    """Share of each active pixel in the normal equations, at its own present parameters.

    Writes ``terms``: upper triangle of the normal matrix ``A``, ``s + A θ`` with the score ``s`` (``again``: the score
    alone), squared misfit and its degrees of freedom in units of the noise of one count; and ``own``: T as
    ``own[0] - own[1:] · θ``.
    """
    columns, steps, count = sample.shape[2], sample.shape[3], len(chosen)
    moments, regressors = np.empty((6, steps), sample.dtype), np.empty((8, steps), sample.dtype)
    weighted = np.empty(steps, sample.dtype)
    spread, added, normal = np.empty((7, 7)), np.empty((7, 7)), np.empty((7, 7))
    score, part, skew = np.empty(7), np.empty((8, 8)), np.zeros(6)
    for j in range(start, stop):
        for k in range(columns):
            if not active[j, k]:
                continue
            here, t = theta[j, k], transmission[j, k]
            misfit, freedom, seen, _ = of_pixel(
                sample, reference, alive, weight, reach, factor, slope[j, k], noise[j, k], smoothing2, j, k, t, here,
                moments, regressors, weighted, spread, part, normal, score, added, skew,
            )  # fmt: skip
            normal -= added
            own[j, k, 0], own[j, k, 1:] = t, 0
            terms[j, k] = 0
            if normal[VALUE, VALUE] <= 0:
                continue
            if pixelwise:
                pull = score[VALUE] / normal[VALUE, VALUE]
                misfit -= pull * score[VALUE]
                freedom *= 1 - 1 / seen
                own[j, k, 0] = t * (1 + pull)
                for n in range(count):
                    a = chosen[n]
                    share = normal[a, VALUE] / normal[VALUE, VALUE]
                    own[j, k, 0] += t * share * here[a]
                    own[j, k, 1 + n] = t * share
                    score[a] -= share * score[VALUE]
                    for b in range(VALUE):
                        normal[a, b] -= share * normal[VALUE, b]
            at = 0
            for n in range(count):
                for i in range(n, count):
                    terms[j, k, at] = normal[chosen[n], chosen[i]]
                    at += 1
            for n in range(count):
                total = score[chosen[n]]
                for i in range(0 if again else count):
                    total += normal[chosen[n], chosen[i]] * here[chosen[i]]
                terms[j, k, at + n] = total
            terms[j, k, at + count], terms[j, k, at + count + 1] = max(misfit, 0.0), freedom
