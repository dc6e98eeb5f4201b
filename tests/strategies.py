"""Random geometries, of the kinds that kernels get wrong: odd shapes, single voxels and pixels, ties, far offsets."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ddf_tomo import Geometry

FRAME = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])  # p, j, k as MUMOTT has them: left-handed
QUARTERS = [0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4, np.pi, -np.pi / 4]  # axes, and ties between components of p


def random_geometry(
    views: int, volume_shape=(7, 6, 5), detector_shape=(8, 9), *, seed: int = 0, offset: float = 1.0
) -> Geometry:
    """Random frames of both hands and random offsets."""
    generator = np.random.default_rng(seed)
    frames = FRAME @ Rotation.random(views, random_state=seed).as_matrix()
    frames[:, 0] *= generator.choice([-1.0, 1.0], views)[:, None]
    return Geometry(*frames.transpose(1, 0, 2), *generator.normal(0, offset, (2, views)), volume_shape, detector_shape)


@st.composite
def geometries(draw: st.DrawFn, max_views: int = 4, max_size: int = 8) -> Geometry:
    """Any geometry of a small volume."""
    sizes = st.integers(1, max_size)
    volume_shape, detector_shape = draw(st.tuples(sizes, sizes, sizes)), draw(st.tuples(sizes, sizes))
    views = draw(st.integers(0, max_views))
    angle = st.one_of(st.sampled_from(QUARTERS), st.floats(-4, 4))
    angles = draw(st.lists(st.tuples(angle, angle, angle), min_size=views, max_size=views))
    frames = FRAME @ Rotation.from_euler("zxz", angles).as_matrix() if views else np.empty((0, 3, 3))
    signs = draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=views, max_size=views))
    frames[:, 0] *= np.reshape(signs, (-1, 1))
    offset = st.one_of(
        st.sampled_from([0.0, 0.5, -0.5, 1.0, -7.0, 40.0, -1e6, 1e19, 1e300, -1.7e308]), st.floats(-3, 3)
    )
    offsets = [draw(st.lists(offset, min_size=views, max_size=views)) for _ in range(2)]
    return Geometry(*frames.transpose(1, 0, 2), *offsets, volume_shape, detector_shape)


@st.composite
def axial_geometries(draw: st.DrawFn) -> Geometry:
    """Computed tomography about z: every column of the detector sees one plane of the volume."""
    x, y, z, rows, views = (draw(st.integers(1, n)) for n in (8, 8, 5, 8, 4))
    angles = draw(st.lists(st.one_of(st.sampled_from(QUARTERS), st.floats(-4, 4)), min_size=views, max_size=views))
    return Geometry.from_angles(angles, 0.0, (x, y, z), (rows, z), j_offset=draw(st.floats(-2, 2)))
