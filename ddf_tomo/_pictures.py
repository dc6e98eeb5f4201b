"""What figures and the small pictures of Jupyter share: colours, points on a half sphere, names."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddf_tomo._checks import check_shape, real_array


def axis_colour(directions: ArrayLike, strength: ArrayLike) -> NDArray[np.float64]:
    """RGB in [0, 1], ``(..., 3)``, of axes in space: red along x, green along y, blue along z, black without strength.

    The direction-encoded colour of diffusion imaging [Pajevic & Pierpaoli 1999, Magn. Reson. Med. 42, 526].

    Parameters
    ----------
    directions
        Unit vectors, ``(..., 3)``; opposite ones share a colour.
    strength
        Brightness ``(...)``, clipped to [0, 1].

    Examples
    --------
    >>> axis_colour([0.0, 0.0, -1.0], 0.5).tolist()
    [0.0, 0.0, 0.5]
    """
    axes, value = np.abs(real_array(directions, "directions")), real_array(strength, "strength").clip(0, 1)
    check_shape(axes.shape, "directions", (*value.shape, 3))
    # The largest component is brought to full brightness, so that strength alone decides how bright a colour is.
    return axes / np.maximum(axes.max(axis=-1, keepdims=True), np.finfo(float).tiny) * value[..., None]


def equal_area(directions: ArrayLike) -> NDArray[np.float64]:
    """Axes in space to points in the unit disc, ``(..., 2)``: the half sphere seen from +z, equal areas kept equal.

    Opposite directions are one axis, of which the end with ``z ≥ 0`` is shown. Lambert's azimuthal projection, scaled:
    the point at polar angle θ lies ``√2 sin(θ/2)`` from the centre.

    Parameters
    ----------
    directions
        Unit vectors ``(..., 3)``.

    Examples
    --------
    >>> equal_area([[0, 0, -1.0], [0, 1, 0]]).tolist()
    [[0.0, 0.0], [0.0, 1.0]]
    """
    vectors = real_array(directions, "directions")
    check_shape(vectors.shape[-1:], "directions (last axis)", (3,))
    upper = np.where(vectors[..., 2:] < 0, -vectors, vectors)
    return upper[..., :2] / np.sqrt(1 + upper[..., 2:]) + 0.0  # no -0.0


def channel_names(response: Any, count: int) -> list[str]:
    """What to call the channels of a response, ``count`` texts.

    Examples
    --------
    >>> from ddf_tomo import SaxsResponse, SecondMomentResponse
    >>> channel_names(SecondMomentResponse(), 3), channel_names(SaxsResponse([0.0, 1.5707963]), 2)
    (['Θ_jj', 'Θ_jk', 'Θ_kk'], ['0°', '90°'])
    """
    if type(response).__name__ in ("SecondMomentResponse", "RankTwoResponse") and count == 3:
        return ["Θ_jj", "Θ_jk", "Θ_kk"]
    for name in ("detector_angles_rad", "azimuths_rad", "sensitivity_angles_rad"):
        angles = np.ravel(np.asarray(getattr(response, name, ()), np.float64))
        if len(angles) == count:
            return [f"{angle:.4g}°" for angle in np.degrees(angles)]
    return ["signal"] if count == 1 else [f"channel {n}" for n in range(count)]
