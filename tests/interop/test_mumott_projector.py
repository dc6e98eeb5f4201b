"""Our projector in MUMOTT's place: the same numbers, and it follows the geometry object."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

mumott = pytest.importorskip("mumott")

from mumott.core.geometry import GeometryTuple  # noqa: E402
from mumott.methods.projectors import SAXSProjector  # noqa: E402
from mumott.methods.projectors.base_projector import Projector as BaseProjector  # noqa: E402

import ddf_tomo.interop.mumott  # noqa: E402
from ddf_tomo.interop.mumott import Projector, geometry_from, substituted  # noqa: E402
from ddf_tomo.interop.mumott.voxel_driven import backproject_voxel_driven  # noqa: E402


def random_geometry(seed: int, views: int = 4, volume=(12, 11, 10), detector=(14, 13)):
    generator = np.random.default_rng(seed)
    theirs = mumott.Geometry()
    for rotation in Rotation.random(views, random_state=seed).as_matrix():
        theirs.append(GeometryTuple(rotation, *generator.normal(0, 1, 2)))
    theirs.volume_shape, theirs.projection_shape = volume, detector
    return theirs


def field_in_air(shape, channels, seed=0):
    """White noise with two empty voxels around: without them MUMOTT 2.3 reads wrong neighbours at the low faces."""
    field = np.zeros((*shape, channels))
    inside = field[2:-2, 2:-2, 2:-2]
    inside[...] = np.random.default_rng(seed).normal(size=inside.shape)
    return field


def test_projections_are_mumotts():
    theirs = random_geometry(0)
    field = field_in_air((12, 11, 10), 3)
    expected = SAXSProjector(theirs).forward(field)
    ours = Projector(theirs)
    np.testing.assert_allclose(ours.forward(field), expected, atol=1e-12)
    single = ours.forward(field.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=1e-5 * np.abs(expected).max())


def test_it_is_a_projector_of_mumotts():
    projector = Projector(random_geometry(1))
    assert isinstance(projector, BaseProjector)
    assert projector.dtype(0.5) == np.float32(0.5)
    assert projector.number_of_projections == 4
    assert projector.volume_shape == (12, 11, 10)
    assert projector.projection_shape == (14, 13)
    for found, expected in zip(
        projector.john_transform_parameters, SAXSProjector(projector._geometry).john_transform_parameters, strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-12)
    assert "ddf_tomo Projector" in str(projector)
    assert "numba" in projector._repr_html_()


@pytest.mark.parametrize("indices", [[2, 0], np.array([1]), 3, [-1, -1], np.arange(2, dtype=np.int32)])
def test_subsets(indices):
    projector = Projector(random_geometry(2))
    field = field_in_air((12, 11, 10), 2)
    whole = projector.forward(field)
    chosen = np.array(indices).ravel()
    part = projector.forward(field, indices)
    np.testing.assert_array_equal(part, whole[chosen])
    spread = sum(projector.adjoint(whole[None, i], np.array([i])) for i in chosen)
    np.testing.assert_allclose(projector.adjoint(part, indices), spread, atol=1e-12)


def test_adjoint_is_exact_with_subsets_and_strides():
    projector = Projector(random_geometry(3))
    x = np.random.default_rng(0).normal(size=(12, 11, 10, 2))
    y = projector.forward(x, [0, 3])
    assert np.sum(y * y) == pytest.approx(np.sum(x * projector.adjoint(y, [0, 3])), rel=1e-12)
    strided = np.repeat(y, 2, axis=-1)[..., ::2]
    np.testing.assert_array_equal(projector.adjoint(strided, [0, 3]), projector.adjoint(y, [0, 3]))
    np.testing.assert_array_equal(projector.adjoint(y[0], [0]), projector.adjoint(y[:1], [0]))


def test_changes_of_the_geometry_are_followed():
    theirs = random_geometry(4)
    projector, field = Projector(theirs), field_in_air((12, 11, 10), 1)
    before, key = projector.forward(field), hash(projector)
    theirs.j_offsets[1] += 1e-7 * theirs.j_offsets[1]  # MUMOTT's hash of five digits cannot see this
    assert projector.is_dirty
    moved = projector.forward(field)
    assert not projector.is_dirty
    assert np.array_equal(moved[[0, 2, 3]], before[[0, 2, 3]])
    assert not np.array_equal(moved[1], before[1])
    theirs.rotate_reconstruction(Rotation.from_euler("z", 0.3).as_matrix())
    np.testing.assert_allclose(projector.forward(field), Projector(theirs).forward(field), atol=1e-12)
    assert hash(projector) != key
    del theirs[0]
    theirs.projection_shape = (9, 8)
    assert projector.forward(field).shape == (3, 9, 8, 1)
    assert projector.number_of_projections == 3


def test_misfits_are_named():
    projector = Projector(random_geometry(5))
    with pytest.raises(ValueError, match=r"field: expected shape \(12, 11, 10, any\)"):
        projector.forward(np.zeros((12, 11, 9, 1)))
    with pytest.raises(ValueError, match=r"projections: expected shape \(4, 14, 13, any\)"):
        projector.adjoint(np.zeros((3, 14, 13, 1)))
    with pytest.raises(TypeError, match="integer"):
        projector.forward(np.zeros((12, 11, 10, 1)), np.array([0.5]))
    with pytest.raises(IndexError, match="indices in"):
        projector.forward(np.zeros((12, 11, 10, 1)), [4])
    with pytest.raises(TypeError, match="real numbers"):
        projector.forward(np.zeros((12, 11, 10, 1), complex))
    assert projector.forward(np.ones((12, 11, 10, 1), int)).dtype == np.float32


def test_views_may_be_none_and_names_may_not_exist():
    geometry = geometry_from(random_geometry(6))[:0]
    assert (backproject_voxel_driven(geometry, np.zeros((0, 14, 13, 2))) == 0).all()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ddf_tomo.interop.mumott.nothing


def test_substitution_ends_with_its_context():
    from mumott.pipelines import optical_flow_alignment
    from mumott.pipelines.reconstruction import sirt

    def fail_inside():
        with substituted():
            assert sirt.SAXSProjector is Projector
            assert optical_flow_alignment.SAXSProjectorCUDA is Projector
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert sirt.SAXSProjector is SAXSProjector


def test_importing_the_package_does_not_import_mumott():
    code = (
        "import sys; sys.modules['mumott'] = None; import ddf_tomo.interop.mumott as m\n"
        "try: m.Projector\n"
        "except ImportError as error: assert 'pip install' in str(error)\n"
        "else: raise SystemExit('no error')\n"
        "try: m.nothing\n"
        "except AttributeError as error: assert 'nothing' in str(error)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
