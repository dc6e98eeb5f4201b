"""Compiled sums over the frames of the linear retrieval: normal equations of each pixel, what noise adds, windows."""

from __future__ import annotations

import numpy as np

from ddf_tomo.retrieval._differential_frames import (
    CHANGE,
    CONTRASTS,
    FIRST_MAPS,
    FLAT,
    INVERSE,
    LEFT,
    OF_FRAME,
    OF_NOISE,
    PAD,
    PATTERN,
    RIGHT,
    SECOND_MAPS,
    SEGMENT,
    SIZE,
    SQUARES,
    SUMS,
    clear,
    compiled,
    filtered_along,
    place,
    rounded,
    scaled,
)
from ddf_tomo.retrieval._lanes import lanewise, where

# -- derivatives and their products -----------------------------------------------------------------------------------


@lanewise
def slopes(c, image, f, r, first, taps, d, slope, k):
    """∂_j of a segment and `PAD` columns around it, to row k of ``slope`` (2, SEGMENT + 2 PAD); asks for the next."""
    image.ahead(f, r + 2 * PAD + 1, first + c)
    slope[k, c] = _odd(taps, d, lambda lag: image[f, r + PAD + lag, first + c])


def _odd(taps, d, at):
    return sum((taps[d, 0, lag] * (at(lag) - at(-lag)) for lag in range(2, PAD + 1)), taps[d, 0, 1] * (at(1) - at(-1)))


def _even(taps, d, at):
    return sum((taps[d, 1, lag] * (at(lag) + at(-lag)) for lag in range(1, PAD + 1)), taps[d, 1, 0] * at(0))


def regressors_of(c, image, f, r, first, taps, d, slope, k):
    """−∂_j, −∂_k, ½∂_jj, ∂_jk, ½∂_kk; ``taps`` (distance, 2, 5) of the first derivative, half of those of the second.

    ``slope`` (2, SEGMENT + 2 PAD) holds ∂_j.
    """
    down, across = (
        (lambda n: image[f, r + PAD + n, first + c + PAD]),
        (lambda n: image[f, r + PAD, first + c + PAD + n]),
    )
    mixed = _odd(taps, d, lambda n: slope[k, c + PAD + n])
    return [-slope[k, c + PAD], -_odd(taps, d, across), _even(taps, d, down), mixed, _even(taps, d, across)]


def frame_of(c, pattern, reference, f, r, first, taps, d, slope, k):
    """Pattern, regressors, and twice the difference of the frames, of frame f."""
    reference.ahead(f, r + PAD + 1, first + c + PAD)
    here = pattern[f, r + PAD, first + c + PAD]
    difference = here - reference[f, r + PAD, first + c + PAD]
    return here, regressors_of(c, pattern, f, r, first, taps, d, slope, k), difference + difference


def _add_products(second):
    """Add all products of two frames' rows to the sums of a segment; their difference's rest to ``noise``."""

    def body(c, pattern, reference, f, g, r, first, roots, d, i, j, taps, slope, sums, unknowns, flat, noise):
        factors = []
        for k, (frame, step) in enumerate(((f, i), (g, j))):
            here, slopes, left = frame_of(c, pattern, reference, frame, r, first, taps, d, slope, k)
            if second:
                rest = left - unknowns[SIZE - 1, r, first + c] * flat[d, r, first + c]
                for a, each in enumerate(slopes):
                    rest -= unknowns[a, r, first + c] * each
                noise[frame, r + PAD, first + c + PAD] = rest
            root = roots[d, step, r, first + c]
            roots.ahead(d, step, r + 1, first + c)
            factors.append([root * here, *(root * each for each in slopes), root, root * left])
        n = 0
        for a in range(OF_FRAME):
            for b in range(a, OF_FRAME):
                sums[n, c] = sum((each[a] * each[b] for each in factors), sums[n, c])
                n += 1

    return lanewise(body)


_first_products, _second_products = _add_products(False), _add_products(True)


@compiled
def pair_of(start, s, steps, given):
    """Frames s and s + 1 of those from ``start`` on, and the roots of their weights: the last one is nothing."""
    alone = s + 1 == steps
    return start + s, start + s + (0 if alone else 1), s % given, given if alone else (s + 1) % given


@compiled
def sum_products(
    pattern, reference, roots, flat, precision, taps, window, unknowns, noise, own, maps, second, start, stop
):
    """Normal equations of the windowed unknowns with the transmission eliminated, summed along the window's rows.

    ``maps`` (row, segment, map, `SEGMENT`) as `RIGHT` and the following say, ``own`` (distance, `OWN`, row, column).
    On the ``second`` pass what the ``unknowns`` leave of each frame's difference goes to ``noise``, and the right side
    waits for `sum_noise`.
    """
    distances, _, columns = flat.shape
    steps = len(pattern) // distances
    dtype = pattern.dtype
    reach, pitch, given = len(window) - 1, rounded(columns + 2 * (len(window) - 1)), roots.shape[1] - 1
    sums, slope = np.empty((SUMS, SEGMENT), dtype), np.empty((2, SEGMENT + 2 * PAD), dtype)
    lines = np.empty((FIRST_MAPS, pitch), dtype)
    for r in range(start, stop):
        clear(lines.size, lines)
        for first in range(0, columns, SEGMENT):
            width = min(SEGMENT, columns - first)
            for d in range(distances):
                clear(sums.size, sums)
                for s in range(0, steps, 2):
                    f, g, i, j = pair_of(d * steps, s, steps, given)
                    slopes(width + 2 * PAD, pattern, f, r, first, taps, d, slope, 0)
                    slopes(width + 2 * PAD, pattern, g, r, first, taps, d, slope, 1)
                    if second:
                        _second_products(
                            width, pattern, reference, f, g, r, first, roots, d, i, j, taps, slope, sums,
                            unknowns, flat, noise,
                        )  # fmt: skip
                    else:
                        _first_products(
                            width, pattern, reference, f, g, r, first, roots, d, i, j, taps, slope, sums,
                            unknowns, flat, noise,
                        )  # fmt: skip
                if second:
                    _eliminate_again(width, sums, flat, precision, own, lines, d, r, first, reach, unknowns)
                    for f in range(d * steps, (d + 1) * steps):
                        _take_off_change(width, noise, pattern, f, r, first, sums)
                else:
                    _eliminate(width, sums, flat, precision, own, lines, d, r, first, reach, unknowns)
        for n in range(FIRST_MAPS):
            for k in range(maps.shape[1]):
                at, width = ((r * maps.shape[1] + k) * SECOND_MAPS + n) * SEGMENT, min(SEGMENT, columns - k * SEGMENT)
                if second and RIGHT <= n < SQUARES:
                    scaled(width, lines, n * pitch + reach + k * SEGMENT, dtype.type(1), maps, at)
                elif n < RIGHT or not second:
                    filtered_along(lines, n * pitch + reach + k * SEGMENT, window, maps, at, width)


def _eliminating(second):
    """Take the pixel's transmission out of the sums and add what is left, weighted, to the lines.

    The second time the change of its T, relative to the one divided out, replaces the first row of the sums.
    """

    def body(c, sums, flat, precision, own, lines, d, r, first, reach, unknowns):
        weight, shape, at = precision[d, r, first + c], flat[d, r, first + c], reach + first + c
        precision.ahead(d, r + 1, first + c)
        flat.ahead(d, r + 1, first + c)
        s = {}
        for a in range(OF_FRAME):
            for b in range(a, OF_FRAME):
                s[a, b] = sums[place(a, b, OF_FRAME), c]
        if not second:
            for line, sign in ((CONTRASTS, -0.5), (CONTRASTS + 1, 0.5)):  # squared: of the reference, of the sample
                total = s[PATTERN, FLAT] + sign * s[FLAT, LEFT]
                squares = s[PATTERN, PATTERN] + 2 * sign * s[PATTERN, LEFT] + 0.25 * s[LEFT, LEFT]
                ones = where(s[FLAT, FLAT] > 0, s[FLAT, FLAT], 1)
                lines[line, at] += weight * (squares - where(s[FLAT, FLAT] > 0, total * total / ones, 0))
        for a in range(OF_FRAME):
            s[min(a, FLAT), max(a, FLAT)] *= shape
        s[FLAT, FLAT] *= shape
        inverse = where(s[0, 0] > 0, 1 / where(s[0, 0] > 0, s[0, 0], 1), 0)
        change = s[0, LEFT] * inverse
        own[d, CHANGE, r, first + c], own[d, INVERSE, r, first + c] = change, inverse
        n = 0
        for a in range(1, SIZE + 1):
            share = s[0, a] * inverse
            own[d, a - 1, r, first + c] = share
            own.ahead(d, a - 1, r + 1, first + c)
            lines[RIGHT + a - 1, at] += weight * (s[a, LEFT] - share * s[0, LEFT])
            for b in range(a, SIZE + 1):
                lines[n, at] += weight * (s[a, b] - share * s[0, b])
                n += 1
            if second:
                change -= share * unknowns[a - 1, r, first + c]
            else:
                lines[SQUARES + a - 1, at] += weight * s[a, a]
        if second:
            sums[0, c] = change

    return lanewise(body)


_eliminate, _eliminate_again = _eliminating(False), _eliminating(True)


@lanewise
def _take_off_change(c, noise, pattern, f, r, first, change):
    noise[f, r + PAD, first + c + PAD] -= change[0, c] * pattern[f, r + PAD, first + c + PAD]


@compiled
def free_of_blur(residual, excess, unknowns, taps, noise, start, stop):
    """The residual of a blurred pattern is noise blurred: undo it to first order."""
    distances, _, columns = excess.shape
    steps = len(residual) // distances
    slope = np.empty((1, SEGMENT + 2 * PAD), residual.dtype)
    for r in range(start, stop):
        for first in range(0, columns, SEGMENT):
            width = min(SEGMENT, columns - first)
            for f in range(len(residual)):
                slopes(width + 2 * PAD, residual, f, r, first, taps, f // steps, slope, 0)
                _free(width, residual, f, r, first, taps, f // steps, slope, excess, unknowns, noise)


@lanewise
def _free(c, residual, f, r, first, taps, d, slope, excess, unknowns, noise):
    blur = 0.0
    for a, each in enumerate(regressors_of(c, residual, f, r, first, taps, d, slope, 0)):
        blur = unknowns[a, r, first + c] * each + blur
    noise[f, r + PAD, first + c + PAD] = residual[f, r + PAD, first + c + PAD] + excess[d, r, first + c] * blur


@lanewise
def _noise_products(c, noise, f, g, r, first, roots, d, i, j, taps, slope, sums):
    """Add the products of two frames' noise and its derivatives, without the noise's own square."""
    factors = []
    for k, (frame, step) in enumerate(((f, i), (g, j))):
        root = roots[d, step, r, first + c]
        roots.ahead(d, step, r + 1, first + c)
        here = noise[frame, r + PAD, first + c + PAD]
        slopes = regressors_of(c, noise, frame, r, first, taps, d, slope, k)
        factors.append([root * here, *(root * each for each in slopes)])
    n = 0
    for a in range(SIZE):
        for b in range(max(a, 1), SIZE):
            sums[n, c] = sum((each[a] * each[b] for each in factors), sums[n, c])
            n += 1


@compiled
def sum_noise(noise, roots, excess, precision, taps, window, maps, start, stop):
    """What noise adds to the normal equations, and take what it adds off their right side; along the window's rows."""
    distances, _, columns = excess.shape
    steps = len(noise) // distances
    dtype = noise.dtype
    reach, pitch, given = len(window) - 1, rounded(columns + 2 * (len(window) - 1)), roots.shape[1] - 1
    sums, slope = np.empty((SIZE - 1 + OF_NOISE, SEGMENT), dtype), np.empty((2, SEGMENT + 2 * PAD), dtype)
    lines = np.empty((SECOND_MAPS - RIGHT, pitch), dtype)
    for r in range(start, stop):
        clear(lines.size, lines)
        for k in range(maps.shape[1]):
            first = k * SEGMENT
            width, at = min(SEGMENT, columns - first), (r * maps.shape[1] + k) * SECOND_MAPS * SEGMENT
            for a in range(SIZE):
                scaled(width, maps, at + (RIGHT + a) * SEGMENT, dtype.type(1), lines, a * pitch + reach + first)
            for d in range(distances):
                clear(sums.size, sums)
                for s in range(0, steps, 2):
                    f, g, i, j = pair_of(d * steps, s, steps, given)
                    slopes(width + 2 * PAD, noise, f, r, first, taps, d, slope, 0)
                    slopes(width + 2 * PAD, noise, g, r, first, taps, d, slope, 1)
                    _noise_products(width, noise, f, g, r, first, roots, d, i, j, taps, slope, sums)
                _add_noise(width, sums, precision, excess, lines, d, r, first, reach)
        for n in range(SECOND_MAPS - RIGHT):
            for k in range(maps.shape[1]):
                at = ((r * maps.shape[1] + k) * SECOND_MAPS + RIGHT + n) * SEGMENT
                filtered_along(
                    lines, n * pitch + reach + k * SEGMENT, window, maps, at, min(SEGMENT, columns - k * SEGMENT)
                )


@lanewise
def _add_noise(c, sums, precision, excess, lines, d, r, first, reach):
    weight, factor = precision[d, r, first + c], excess[d, r, first + c]
    for a in range(SIZE - 1):
        lines[a, reach + first + c] -= weight * factor * sums[a, c]
    for n in range(OF_NOISE):
        lines[SIZE + n, reach + first + c] += 0.25 * weight * sums[SIZE - 1 + n, c]
