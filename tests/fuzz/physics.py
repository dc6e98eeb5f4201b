"""Entry points of geometry, scan, responses, operators and functions on the sphere, with right arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import ddf_tomo as dt
from ddf_tomo.geometry import rotation_about, view_indices
from ddf_tomo.operators import rank_two, rotation, spherical_harmonics
from ddf_tomo.operators.circle import circle_harmonics
from ddf_tomo.operators.observability import automatic_ell_max
from ddf_tomo.priors import Differences
from tests.fuzz.table import Made, entry, folder
from tests.fuzz.values import Source, maps

# -- geometry and scan ------------------------------------------------------------------------------------------------


@entry("Geometry", 2)
def _(s: Source) -> Made:
    g = s.geometry(s.size(0, 4))
    names = ("p", "j", "k", "j_offset", "k_offset")
    arrays = {name: s.as_good(getattr(g, name)) for name in names}
    return dt.Geometry, arrays | {"volume_shape": g.volume_shape, "detector_shape": g.detector_shape}


@entry("Geometry.from_rotations")
def _(s: Source) -> Made:
    matrices = rotation_about((0.0, 0.6, 0.8), s.generator().uniform(-3, 3, s.size(0, 4)))
    return dt.Geometry.from_rotations, {
        "rotations": s.as_good(matrices) if s.chance(0.5) else matrices,
        "volume_shape": s.sizes(3),
        "detector_shape": s.sizes(2),
        "j_offset": s.number(),
        "k_offset": 0.0,
        "p_0": (0.0, 1.0, 0.0),
        "j_0": (1.0, 0.0, 0.0),
    }


@entry("Geometry.from_angles")
def _(s: Source) -> Made:
    views = s.size(0, 4)
    return dt.Geometry.from_angles, {
        "inner_rad": s.noise(views),
        "outer_rad": s.one_of(0.3, s.noise(views)),
        "volume_shape": s.sizes(3),
        "detector_shape": s.sizes(2),
        "inner_axis": (0.0, 0.0, -1.0),
        "outer_axis": [1.0, 0.0, 0.0],
    }


@entry("Geometry.from_euler")
def _(s: Source) -> Made:
    sequence = s.one_of("zxz", "ZYX", "z", "xy")
    angles = s.noise(s.size(0, 4), len(sequence))
    return dt.Geometry.from_euler, {
        "sequence": sequence,
        "angles_rad": angles,
        "volume_shape": s.sizes(3),
        "detector_shape": s.sizes(2),
    }


@entry("Geometry.concatenate")
def _(s: Source) -> Made:
    g = s.geometry()
    return dt.Geometry.concatenate, {"geometries": s.one_of([g], [g, g], [g, s.geometry()])}


@entry("Geometry, what it gives")
def _(s: Source) -> Made:
    g = s.geometry(s.size(0, 4))
    call = s.one_of(
        lambda views: g[views],
        lambda views: (g[views].pixel_centres(), repr(g[views]), g[views].summary(), g[views].is_left_handed),
        lambda views: view_indices(views, len(g)),
    )
    return call, {"views": s.one_of(0, -1, [0], slice(0, 2), np.zeros(len(g), bool), np.arange(len(g)))}


@entry("Geometry.binned, refined")
def _(s: Source) -> Made:
    g = s.geometry()
    return s.one_of(g.binned, g.refined), {"factor": s.size(1, 3)}


@entry("Scan", 3)
def _(s: Source) -> Made:
    scan = s.scan()
    names = ("data", "geometry", "response", "weights", "diode", "voxel_size_m", "title", "provenance")
    return dt.Scan, {name: getattr(scan, name) for name in names}


@entry("Scan.concatenate")
def _(s: Source) -> Made:
    scan = s.scan()
    return dt.Scan.concatenate, {"scans": s.one_of([scan], [scan, scan], (scan, s.scan()))}


@entry("Scan.from_maps")
def _(s: Source) -> Made:
    g = s.geometry()
    made = maps(s, (len(g), *g.detector_shape))
    return dt.Scan.from_maps, {
        "maps": s.one_of(made, [made]),
        "geometry": g,
        "unit_rad2": s.one_of(1e-12, 1.0),
        "weighted": s.chance(0.5),
        "voxel_size_m": None,
        "title": "",
        "provenance": {"source": "x"},
    }


@entry("Scan[...], full_weights, summary")
def _(s: Source) -> Made:
    scan = s.scan()

    def call(views: Any) -> Any:
        part = scan[views]
        return part, part.full_weights(), part.summary(), repr(part)

    return call, {"views": s.one_of(0, -1, [0], slice(None), slice(0, 1), np.ones(len(scan), bool))}


@entry("Scan.binned")
def _(s: Source) -> Made:
    return s.scan(low=2).binned, {"factor": s.size(1, 2)}


@entry("Scan.write", 0.5)
def _(s: Source) -> Made:
    scan = s.scan()
    return scan.write, {"path": folder() / "written.h5"}


# -- responses --------------------------------------------------------------------------------------------------------


def response_entry(name: str, arguments: Callable[[Source], dict[str, Any]]) -> None:
    @entry(name)
    def _(s: Source) -> Made:
        kind = getattr(dt, name)

        g = s.geometry(3)

        def call(ell_max: Any, views: Any, **given: Any) -> Any:
            response = kind(**given)
            part = response.views(views), response.in_any_view()
            return repr(response), response.channels, [each.channels for each in part], response.matrix(g, ell_max)

        order = 2 if name.startswith("RankTwo") else s.one_of(0, 2, 4)
        return call, {"ell_max": order, "views": [0, 1]} | arguments(s)


response_entry("IsotropicResponse", lambda s: {})
response_entry("SecondMomentResponse", lambda s: {})
response_entry("RankTwoResponse", lambda s: {})
response_entry("RankTwoSaxsResponse", lambda s: {"detector_angles_rad": s.noise(s.size())})
response_entry(
    "SaxsResponse",
    lambda s: {
        "detector_angles_rad": s.as_good(np.arange(4.0) * s.one_of(np.pi / 4, -np.pi / 4, np.pi / 2)),
        "two_theta_rad": s.one_of(0.0, 0.1, [0.0, 0.2]),
        "full_circle": None,
    },
)
response_entry(
    "DirectionalVisibilityResponse", lambda s: {"azimuths_rad": s.noise(s.size()), "exponent": s.number(0.1, 2.0)}
)
response_entry("VisibilityResponse", lambda s: {"sensitivity_angles_rad": s.one_of(s.noise(2), s.noise(3, 2))})


@entry("responses' matrix")
def _(s: Source) -> Made:
    g = s.geometry()
    return s.response(len(g)).matrix, {"geometry": g, "ell_max": 2}


# -- operators --------------------------------------------------------------------------------------------------------


@entry("XRayTransform", 2)
def _(s: Source) -> Made:
    def call(views: Any, **given: Any) -> Any:
        operator = dt.XRayTransform(**given)
        return operator, repr(operator), operator.T.shape, operator.views(views)

    options = {"backend": s.one_of("auto", "numba", "reference"), "device": s.one_of(None, "cpu"), "channels": None}
    return call, {"geometry": s.geometry(), "views": [0]} | options


@entry("XRayTransform(x)", 2, propagates=True)
def _(s: Source) -> Made:
    operator = dt.XRayTransform(s.geometry(s.size(0, 4)), s.one_of("numba", "reference"))
    operator = s.one_of(operator, operator.T)
    return operator, {"x": s.noise(*(n or s.size(0, 2) for n in operator.domain_shape))}


@entry("TensorXRayTransform", 2)
def _(s: Source) -> Made:
    g = s.geometry()

    def call(views: Any, **given: Any) -> Any:
        operator = dt.TensorXRayTransform(**given)
        x = torch.ones([n or 1 for n in operator.domain_shape])
        return operator, repr(operator), operator(x), operator.views(views)

    options = {
        "ell_max": 2,
        "backend": s.one_of("auto", "reference"),
        "device": "cpu",
        "chunk_views": s.one_of(None, 1),
    }
    return call, {"geometry": g, "response": s.response(len(g)), "views": [0]} | options


@entry("TensorXRayTransform(x)", 2, propagates=True)
def _(s: Source) -> Made:
    g = s.geometry()
    operator = dt.TensorXRayTransform(g, s.response(len(g)), 2)
    operator = s.one_of(operator, operator.T, 2 * operator, -operator, dt.stack([operator, operator]))
    return operator, {"x": s.noise(*(n or 1 for n in operator.domain_shape))}


@entry("operator algebra", propagates=True)
def _(s: Source) -> Made:
    operator = dt.XRayTransform(s.geometry(), channels=1)

    def norm(iterations: Any, seed: Any) -> Any:
        return operator.norm(iterations, seed)

    x = s.noise(*operator.domain_shape)
    return s.one_of(
        (norm, {"iterations": 2, "seed": 1}),
        (lambda weights, x: operator.normal(weights)(x), {"weights": s.noise(*operator.range_shape), "x": x}),
        (operator.__mul__, {"factor": s.number()}),
        (lambda operators: dt.stack(operators), {"operators": [operator, operator]}),
        (operator.views, {"indices": s.one_of([0], 0, slice(None))}),
        (lambda dtype: operator.to_scipy(dtype), {"dtype": np.float64}),
        (operator, {"x": x}),
    )


@entry("wrap")
def _(s: Source) -> Made:
    from scipy.sparse.linalg import aslinearoperator

    matrix = s.generator().standard_normal((4, 6))
    tensor = torch.from_numpy(matrix)

    def call(x: Any, **given: Any) -> Any:
        operator = dt.wrap(**given)
        return operator, operator(x)

    functions = (lambda x: tensor.to(x) @ x, lambda y: tensor.to(y).T @ y)
    op = s.one_of(aslinearoperator(matrix), functions, dt.wrap(functions, (6,), (4,)))
    return call, {"op": op, "domain_shape": (6,), "range_shape": (4,), "numpy": None, "x": s.noise(6)}


@entry("check_adjoint, check_linear")
def _(s: Source) -> Made:
    arguments = {"dtype": s.one_of(torch.float32, torch.float64), "tolerance": s.one_of(None, 1e-3), "seed": 1}
    check = s.one_of(dt.check_adjoint, dt.check_linear)
    return check, {"operator": dt.XRayTransform(s.geometry())} | arguments


@entry("observability", 0.4)
def _(s: Source) -> Made:
    g = s.geometry()

    def call(**given: Any) -> Any:
        found = dt.observability(**given)
        return found, found.summary(), found.automatic_ell_max(), found.determined

    options = {"ell_max": s.one_of(0, 2, 4), "directions": 12, "tolerance_rad": s.one_of(None, 0.2)}
    return call, {"geometry": g, "response": s.response(len(g)), "condition_limit": 100.0} | options


@entry("automatic_ell_max", 0.2)
def _(s: Source) -> Made:
    g = s.geometry()
    return automatic_ell_max, {"geometry": g, "response": s.response(len(g)), "regularised": True, "highest": 2}


@entry("Differences", propagates=True)
def _(s: Source) -> Made:
    shape = s.sizes(3)
    return lambda volume_shape, x: Differences(volume_shape)(x), {"volume_shape": shape, "x": s.noise(*shape, 2)}


# -- functions on the sphere ------------------------------------------------------------------------------------------


@entry("harmonics")
def _(s: Source) -> Made:
    order = s.one_of(0, 2, 4)
    sh = spherical_harmonics
    return s.one_of(
        (sh.coefficient_count, {"ell_max": order}),
        (sh.order_of, {"count": (order + 1) * (order + 2) // 2}),
        (sh.orders, {"ell_max": order}),
        (sh.evaluate, {"directions": s.noise(*s.one_of((3,), (4, 3), (0, 3))), "ell_max": order}),
        (sh.half_sphere_grid, {"count": 5}),
        (sh.sphere_quadrature, {"degree": 4}),
        (circle_harmonics, {"geometry": s.geometry(), "ell_max": order, "two_theta_rad": 0.1}),
    )


@entry("coefficients of harmonics", propagates=True)
def _(s: Source) -> Made:
    order = s.one_of(0, 2, 4)
    count = (order + 1) * (order + 2) // 2
    coefficients = s.noise(*s.one_of((count,), (2, count)))
    sh = spherical_harmonics
    return s.one_of(
        (sh.from_function, {"function": lambda q: q[:, 0] ** 2, "ell_max": order, "degree": s.one_of(None, 10)}),
        (sh.fit, {"directions": s.noise(6, 3), "values": s.noise(2, 6), "ell_max": order}),
        (sh.multiply, {"first": coefficients, "second": coefficients, "ell_max": s.one_of(None, 2)}),
        (sh.power, {"coefficients": coefficients}),
        (sh.resize, {"coefficients": coefficients, "ell_max": 2}),
    )


@entry("rank-2 tensors", propagates=True)
def _(s: Source) -> Made:
    six, three, square = s.noise(2, 6), s.noise(2, 3), s.noise(2, 3, 3)
    return s.one_of(
        (rank_two.to_matrix, {"tensor": six}),
        (rank_two.from_matrix, {"matrix": square}),
        (rank_two.coefficients_from_tensor, {"tensor": six}),
        (rank_two.tensor_from_coefficients, {"coefficients": six}),
        (rank_two.second_moment_tensor, {"coefficients": s.one_of(six, s.noise(1), s.noise(15))}),
        (rank_two.rank_two_from_second_moment, {"data": three}),
        (rank_two.second_moment_from_rank_two, {"data": three}),
        (rank_two.map_covariance, {"covariance": square, "linear_map": s.as_good(np.diag([1.0, 2.0, 3.0]))}),
        (rank_two.map_precision, {"precision": square, "linear_map": s.as_good(np.diag([1.0, 2.0, 3.0]))}),
    )


@entry("rotation", propagates=True)
def _(s: Source) -> Made:
    turn = rotation_about((0.0, 0.6, 0.8), np.array([s.number()]))
    turn = s.one_of(turn[0], turn)
    return s.one_of(
        (rotation.wigner_blocks, {"rotation": s.one_of(turn, torch.from_numpy(turn)), "ell_max": 4}),
        (rotation.rotate, {"coefficients": s.noise(*s.one_of((6,), (1, 15))), "rotation": turn}),
        (rotation_about, {"axis": (0.0, 0.6, 0.8), "angles_rad": np.array([0.1, 0.2])}),
    )
