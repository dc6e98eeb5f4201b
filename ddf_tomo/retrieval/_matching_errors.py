"""Compiled standard errors of `ddf_tomo.retrieval.matching` (numba, CPU).

As in ``_matching_kernel``, functions work on rows ``start`` to ``stop`` and write only there.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ddf_tomo.retrieval._matching_kernel import (
    FAST,
    KAPPA,
    RADIUS2,
    RESIDUAL,
    VALUE,
    confidence_in,
    moments_around,
    of_pixel,
    placed,
    regressor_noise,
    regressors_of,
)
from ddf_tomo.retrieval._matching_windows import cholesky, matrix_of, solve

UNINFORMATIVE = 1e-4  # share of a regressor's square that has to differ from step to step
ROUGH_RADIUS2 = 9.0  # as RADIUS2, for what only errors need


@njit(**FAST)
def _correlation(cov_jj, cov_jk, cov_kk, curvature):
    """What a window leaves of a Gaussian correlation, ``exp(-curvature δ²/2)`` of it: its integral, its covariance."""
    det = cov_jj * cov_kk - cov_jk * cov_jk
    jj, jk, kk = cov_kk / det + curvature, -cov_jk / det, cov_jj / det + curvature
    less = 1 / (jj * kk - jk * jk)
    return np.sqrt(less / det), kk * less, -jk * less, jj * less


@njit(**FAST)
def scores(
    sample, reference, alive, weight, reach, factor, slope, noise, smoothing2, chosen, pixelwise,
    curvature, transmission, theta, terms, added_out, own, start, stop,
):  # fmt: skip
    """What standard errors need, at the final parameters.

    Writes ``terms``: upper triangle of the covariance of a pixel's score with the scores around it; ``added_out``:
    that of what noise of the reference adds to the normal matrix; and ``own``: 1/A_TT, variance of the score of T,
    squared misfit, its degrees of freedom, root mean square of the residual (longest distance), slopes of T by the
    unknowns, covariances of its score with theirs.

    Noise of a smoothed frame is correlated over a Gaussian of twice the variance of the smoothing; a sum over
    neighbours of regressors times that correlation is the regressor of a reference blurred as much more.
    """
    distances, _, columns, steps = sample.shape
    count, real = len(chosen), sample.dtype.type
    moments, regressors = np.empty((6, steps), sample.dtype), np.empty((8, steps), sample.dtype)
    sampled, referred = np.empty((7, steps), sample.dtype), np.empty((7, steps), sample.dtype)
    weighted = np.empty(steps, sample.dtype)
    spread, added, normal = np.empty((7, 7)), np.empty((7, 7)), np.empty((7, 7))
    score, part, skew = np.empty(7), np.empty((8, 8)), np.zeros(6)
    product = np.empty((7, 7))
    for j in range(start, stop):
        for k in range(columns):
            terms[j, k], added_out[j, k], own[j, k] = 0, 0, 0
            here, t = theta[j, k], transmission[j, k]
            misfit, freedom, seen, confidence = of_pixel(
                sample, reference, alive, weight, reach, factor, slope[j, k], noise[j, k], smoothing2, j, k, t, here,
                moments, regressors, weighted, spread, part, normal, score, added, skew,
            )  # fmt: skip
            for a in range(7):
                added[a, a] += UNINFORMATIVE * normal[a, a]
                normal[a, a] += UNINFORMATIVE * normal[a, a]
            normal -= added
            if normal[VALUE, VALUE] <= 0:
                continue
            lost = 1 - 1 / seen if pixelwise else 1.0
            own[j, k, 2] = misfit - (score[VALUE] ** 2 / normal[VALUE, VALUE] if pixelwise else 0.0)
            own[j, k, 3] = freedom * lost
            own[j, k, 4] = np.sqrt(part[RESIDUAL, RESIDUAL] / max(lost * part[KAPPA, KAPPA], 1e-30))
            product[:], skew[:], alone = 0, 0, 0.0
            for d in range(distances):
                r = reach[d]
                c_j, c_k, jj, jk, kk = placed(j, k, here, slope[j, k], r, smoothing2)
                if distances > 1:
                    mass = moments_around(reference[d], alive[d], c_j, c_k, jj, jk, kk, skew, RADIUS2, moments)
                    confidence = confidence_in(mass)
                    if confidence == 0:
                        continue
                    regressors_of(moments, jj, jk, kk, r, regressors)
                r2 = r * r
                of_sample, n_jj, n_jk, n_kk = _correlation(
                    2 * (jj - r2 * here[2]), 2 * (jk - r2 * here[3]), 2 * (kk - r2 * here[4]), curvature
                )
                n_jj, n_jk, n_kk = jj + n_jj, jk + n_jk, kk + n_kk
                moments_around(reference[d], alive[d], c_j, c_k, n_jj, n_jk, n_kk, skew, ROUGH_RADIUS2, moments)
                regressors_of(moments, n_jj, n_jk, n_kk, r, sampled)
                of_reference, n_jj, n_jk, n_kk = _correlation(2 * jj, 2 * jk, 2 * kk, curvature)
                n_jj, n_jk, n_kk = jj + n_jj, jk + n_jk, kk + n_kk
                moments_around(reference[d], alive[d], c_j, c_k, n_jj, n_jk, n_kk, skew, ROUGH_RADIUS2, moments)
                regressors_of(moments, n_jj, n_jk, n_kk, r, referred)
                share = 1 / (t * factor[d, j, k])
                power = 1 / (4 * np.pi * np.sqrt(jj * kk - jk * jk))
                total = brightness = squares = fourths = 0.0
                for m in range(steps):
                    w, v = weight[d, j, k, m], regressors[VALUE, m]
                    total += w
                    brightness += w * v
                    squares += w * w * v * v
                    fourths += w * w * v * v * v
                if total <= 0 or brightness <= 0:
                    continue
                inverse = confidence / (brightness / total * (share / (4 * np.pi * smoothing2) + power))
                f_sample, f_reference = real(of_sample * share), real(of_reference)
                for a in range(7):
                    for m in range(steps):
                        sampled[a, m] = f_sample * sampled[a, m] + f_reference * referred[a, m]
                for a in range(7):
                    for m in range(steps):
                        weighted[m] = weight[d, j, k, m] ** 2 * regressors[VALUE, m] * regressors[a, m]
                    for b in range(7):
                        value = real(0)
                        for m in range(steps):
                            value += weighted[m] * sampled[b, m]
                        product[a, b] += inverse * inverse * noise[j, k] * value
                alone += inverse * inverse * noise[j, k] * fourths * (share / (4 * np.pi * smoothing2) + power)
                # Regressors and misfit share the reference's noise: what its square adds is negative for the odd ones.
                regressor_noise(2 * jj, 2 * jk, 2 * kk, r, spread)
                extra = inverse * inverse * noise[j, k] ** 2 * squares
                for a in range(7):
                    for b in range(7):
                        product[a, b] += (-extra if a < 2 and b < 2 else extra) * spread[a, b]
            for a in range(7):
                for b in range(a):
                    product[a, b] = product[b, a] = 0.5 * (product[a, b] + product[b, a])
            own[j, k, 0], own[j, k, 1] = 1 / normal[VALUE, VALUE], alone
            at = 0
            for n in range(count):
                a = chosen[n]
                g_a = normal[a, VALUE] / normal[VALUE, VALUE] if pixelwise else 0.0
                own[j, k, 5 + n] = g_a
                own[j, k, 5 + count + n] = product[a, VALUE] - g_a * product[VALUE, VALUE]
                for i in range(n, count):
                    b = chosen[i]
                    g_b = normal[b, VALUE] / normal[VALUE, VALUE] if pixelwise else 0.0
                    terms[j, k, at] = (
                        product[a, b] - g_a * product[VALUE, b] - g_b * product[a, VALUE]
                        + g_a * g_b * product[VALUE, VALUE]
                    )  # fmt: skip
                    added_out[j, k, at] = added[a, b]
                    at += 1


@njit(**FAST)
def errors(sums, spread, added, own, transmission, pixelwise, central, out, valid, pull, start, stop):
    """Covariance matrices of (T, u, C, κ), from gathered normal matrices and covariances of scores.

    Where a pixel has no data of its own, T has none either: infinite. ``central`` is the peak of the window. ``pull``
    is the trace of A⁻¹ times the covariance of the scores: how many data of the window the unknowns have used up.
    """
    columns, count = out.shape[1], (own.shape[2] - 5) // 2
    normal, noisy, factor = np.empty((count, count)), np.empty((count, count)), np.empty((count, count))
    meat, inverse, scale = np.empty((count, count)), np.empty((count, count)), np.empty(count)
    slope, cross = np.empty(count), np.empty(count)
    for j in range(start, stop):
        for k in range(columns):
            valid[j, k], pull[j, k] = False, 0
            matrix_of(sums[j, k], normal)
            matrix_of(added[j, k], noisy)
            matrix_of(spread[j, k], meat)
            good = True
            for n in range(count):
                good = good and normal[n, n] > 0
            if not good:
                continue
            for n in range(count):
                scale[n] = 1 / np.sqrt(normal[n, n])
            # Where more than half of some combination of regressors is noise, taking it off leaves a guess.
            for n in range(count):
                for i in range(count):
                    factor[n, i] = (normal[n, i] - noisy[n, i]) * scale[n] * scale[i]
            if not cholesky(factor, 0.0):
                continue
            for n in range(count):
                for i in range(count):
                    factor[n, i] = normal[n, i] * scale[n] * scale[i]
            if not cholesky(factor, 0.0):
                continue
            valid[j, k] = True
            for n in range(count):
                cross[:] = 0
                cross[n] = scale[n]
                solve(factor, cross)
                for i in range(count):
                    inverse[i, n] = cross[i] * scale[i]
            for n in range(count):
                for i in range(count):
                    factor[n, i] = 0
                    for h in range(count):
                        factor[n, i] += inverse[n, h] * meat[h, i]
                pull[j, k] += factor[n, n]
            for n in range(count):
                for i in range(count):
                    noisy[n, i] = 0
                    for h in range(count):
                        noisy[n, i] += factor[n, h] * inverse[h, i]
            found, t, unit = out[j, k], transmission[j, k], own[j, k, 0]
            others = count if pixelwise else count - 1
            for n in range(others):
                for i in range(others):
                    found[1 + n, 1 + i] = noisy[n, i]
            if not pixelwise:
                found[0, 0] = t * t * noisy[others, others]
                for n in range(others):
                    found[0, 1 + n] = found[1 + n, 0] = t * noisy[others, n]
                continue
            if unit <= 0:
                found[0, :], found[:, 0] = np.inf, np.inf
                continue
            variance = own[j, k, 1] * unit * unit
            for n in range(count):
                slope[n] = own[j, k, 5 + n]
                cross[n] = 0
                for i in range(count):
                    cross[n] += central * inverse[n, i] * own[j, k, 5 + count + i] * unit
            for n in range(count):
                variance -= 2 * slope[n] * cross[n]
                for i in range(count):
                    variance += slope[n] * noisy[n, i] * slope[i]
            found[0, 0] = t * t * variance
            for n in range(count):
                total = cross[n]
                for i in range(count):
                    total -= noisy[n, i] * slope[i]
                found[0, 1 + n] = found[1 + n, 0] = t * total
