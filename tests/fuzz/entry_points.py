"""Every public entry point, with arguments that are right: `cases` then breaks some of them.

A new entry point joins by one function here.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import ddf_tomo as dt
from ddf_tomo import datasets, derived, phantoms, radiographs, visualization
from ddf_tomo.cli import main
from ddf_tomo.geometry import rotation_about, view_indices
from ddf_tomo.interop import astra, tomosipo
from ddf_tomo.operators import rank_two, rotation, spherical_harmonics
from ddf_tomo.operators.circle import circle_harmonics
from ddf_tomo.operators.observability import automatic_ell_max
from ddf_tomo.priors import Differences
from ddf_tomo.retrieval import Maps, absorption, retrieve
from ddf_tomo.retrieval.rotation_axis import find_rotation_axis, mirror_correlation
from ddf_tomo.solvers import cgls
from tests.fuzz.files import damaged, example
from tests.fuzz.values import Source, spoiled

Made = tuple[Callable[..., Any], dict[str, Any]]


@dataclass(frozen=True)
class EntryPoint:
    """``make`` gives the function to call and right arguments for it.

    ``weight`` is its share of the cases; ``propagates`` and ``raw``: see `tests.fuzz.oracle.judge`.
    """

    make: Callable[[Source], Made]
    weight: float = 1.0
    propagates: bool = False
    raw: bool = False


TABLE: dict[str, EntryPoint] = {}


def entry(name: str, weight: float = 1.0, **kind: bool) -> Callable[[Any], Any]:
    def register(make: Any) -> Any:
        TABLE[name] = EntryPoint(make, weight, **kind)
        return make

    return register


def case(name: str, rng: random.Random) -> Made:
    """One call: right arguments, of which none, one or several are broken."""
    source = Source(rng)
    function, arguments = TABLE[name].make(source)
    for _ in range(source.one_of(0, 1, 1, 1, 1, 2, 3)) if arguments else ():
        argument = source.one_of(*arguments)
        arguments[argument] = spoiled(arguments[argument], source)
    return function, arguments


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


# -- retrieval --------------------------------------------------------------------------------------------------------


def frames(s: Source, *shape: int) -> np.ndarray:
    return s.generator().poisson(s.generator().uniform(200, 2000, shape))


@entry("retrieve", 0.6)
def _(s: Source) -> Made:
    reference = frames(s, 5, 16, 17).astype(s.one_of(np.float32, np.float64, np.uint16))
    sample = s.one_of(reference // 2 + 1, frames(s, 5, 16, 17), np.stack([reference, reference + 3]))
    return retrieve, {
        "sample": s.one_of(sample, s.as_good(sample.astype(float))),
        "reference": reference,
        "method": "differential",
        "window": 2.0,
        "smoothing": s.one_of(0.0, 0.5, 1.0),
        "background": s.chance(0.5),
        "weights": s.one_of(None, s.noise(16, 17, positive=True)),
        "pixel_size_m": s.one_of(None, 1e-5),
        "distance_m": s.one_of(None, 1.0),
        "progress": None,
    }


def maps_arguments(s: Source, shape: tuple[int, ...]) -> dict[str, Any]:
    one = s.generator().uniform(0.5, 1.5, (9, *shape))
    pair, triple = np.stack([one[1], one[2]], -1), np.stack([one[3], one[4], one[5]], -1)
    return {
        "transmission": one[0],
        "displacement": pair,
        "covariance": triple,
        "background": one[6],
        "transmission_error": one[7],
        "displacement_error": pair,
        "covariance_error": triple,
        "background_error": one[8],
        "residual": one[0],
        "valid": one[0] > 0.6,
        "pixel_size_m": 1e-5,
        "distance_m": 1.0,
    }


def maps(s: Source, shape: tuple[int, ...]) -> Maps:
    return Maps(**maps_arguments(s, shape))


@entry("Maps")
def _(s: Source) -> Made:
    return Maps, maps_arguments(s, s.one_of((3, 4), (2, 3, 4)))


@entry("Maps, what they give")
def _(s: Source) -> Made:
    def call(**given: Any) -> Any:
        made = Maps(**given)
        return made.direction(), made.scattering(), made.refraction_angle(), repr(made)

    return call, maps_arguments(s, (3, 4))


@entry("Radiographs")
def _(s: Source) -> Made:
    return dt_radiographs, radiographs_arguments(s)


def dt_radiographs(**given: Any) -> Any:
    made = radiographs.Radiographs(**given)
    return repr(made), len(made), made


def radiographs_arguments(s: Source) -> dict[str, Any]:
    return {
        "frames": s.as_good(frames(s, 7, 3, 12).astype(float)),
        "flat": s.one_of(np.full((3, 12), 2100.0), np.full((2, 3, 12), 2100.0)),
        "dark": s.one_of(None, np.full((3, 12), 3.0)),
        "angles_rad": s.as_good(np.linspace(0, 3, 7)),
        "pixel_size_m": s.one_of(None, 1e-5),
        "provenance": {"file": "x"},
    }


@entry("absorption")
def _(s: Source) -> Made:
    made = radiographs.Radiographs(**radiographs_arguments(s))
    air = s.one_of("margins", None, np.ones((3, 12), bool), np.ones((7, 3, 12), bool))
    return absorption.absorption, {"radiographs": made, "air": air, "air_order": 1, "counts_per_photon": 1.0}


@entry("absorption of damaged frames")
def _(s: Source) -> Made:
    def call(**given: Any) -> Any:
        return absorption.absorption(radiographs.Radiographs(**given))

    return call, radiographs_arguments(s)


@entry("absorption_scan", 0.5)
def _(s: Source) -> Made:
    made = radiographs.Radiographs(**radiographs_arguments(s))
    shape = s.one_of(None, (12, 12, 3))
    options = {"air": "margins", "air_order": 0, "counts_per_photon": 2.0}
    return absorption.absorption_scan, {
        "radiographs": made,
        "column": s.one_of(None, 5.0),
        "volume_shape": shape,
    } | options


@entry("axial_geometry")
def _(s: Source) -> Made:
    arguments = {"angles_rad": s.noise(3), "detector_shape": (4, 3), "column": 1.5, "volume_shape": None}
    return absorption.axial_geometry, arguments


@entry("find_rotation_axis, mirror_correlation")
def _(s: Source) -> Made:
    data, angles = s.noise(7, 12, *s.one_of((2,), (2, 1)), positive=True), s.as_good(np.linspace(0, 3, 7))
    return s.one_of(
        (find_rotation_axis, {"projections": data, "angles_rad": angles, "search": s.one_of(None, (2.0, 9.0))}),
        (mirror_correlation, {"projections": data, "angles_rad": angles, "column": 5.0}),
    )


# -- solvers, reconstruction, derived quantities ----------------------------------------------------------------------


@entry("cgls", 1.5)
def _(s: Source) -> Made:
    operator = dt.XRayTransform(s.geometry(), channels=1)
    return cgls, {
        "A": operator,
        "y": s.noise(*operator.range_shape),
        "weights": s.one_of(None, s.noise(*operator.range_shape, positive=True)),
        "tikhonov": s.one_of(0.0, 0.1),
        "penalty": s.one_of(None, Differences(operator.geometry.volume_shape)),
        "iterations": 3,
        "noise_level": s.one_of(None, 1.0),
        "tolerance": s.one_of(0.0, 1e-3),
        "x0": s.one_of(None, s.noise(*operator.domain_shape)),
        "callback": s.one_of(None, lambda *_: False),
        "progress": False,
    }


@entry("reconstruct", 1.0)
def _(s: Source) -> Made:
    scan = s.scan(s.one_of(2, 3, 12))
    ell_max = 2 if not scan.response.of_harmonics else s.one_of(0, 2)
    options = {"smoothness": s.one_of("auto", 0.0, 0.1), "noise_level": s.one_of(None, 0.1)}
    return dt.reconstruct, {
        "scan": scan,
        "method": "cg",
        "ell_max": ell_max,
        "iterations": 3,
        "progress": False,
    } | options


@entry("reconstruct, damaged scans", 1.5)
def _(s: Source) -> Made:
    scan = s.scan(s.one_of(1, 2, 12))

    def call(**given: Any) -> Any:
        made = dt.Scan(geometry=scan.geometry, response=scan.response, **given)
        result = dt.reconstruct(made, ell_max=2, iterations=3, progress=False)
        return result, result.derived(), result.predicted()

    return call, {"data": scan.data, "weights": scan.weights, "diode": scan.diode, "voxel_size_m": scan.voxel_size_m}


@entry("derive, angle_between")
def _(s: Source) -> Made:
    coefficients = s.noise(*s.sizes(3), 6)
    arguments = {"coefficients": coefficients, "of_harmonics": s.chance(0.5), "threshold": 0.1}
    two = {"first": s.noise(2, 3), "second": s.noise(2, 3)}
    return s.one_of((derived.derive, arguments), (derived.derive, arguments), (derived.angle_between, two))


@entry("phantoms")
def _(s: Source) -> Made:
    series = {"volume_shape": s.sizes(3), "detector_shape": None, "tilts_rad": s.noise(2), "views": [2, 3]}
    fibres = {"shape": s.sizes(3), "ell_max": s.one_of(0, 2, 4, 6), "pitch": 1.0, "isotropic": 0.2}
    return s.one_of(
        (phantoms.tilt_series, series),
        (phantoms.zonal, {"directions": s.noise(2, 3), "legendre": [1.0, 0.5]}),
        (phantoms.helicoidal_fibres, fibres),
    )


@entry("simulate")
def _(s: Source) -> Made:
    g = s.geometry(high=3)
    sample = s.one_of(
        lambda shape: phantoms.helicoidal_fibres(shape, 2),
        lambda shape: np.ones((*shape, 6)),
        lambda shape: np.ones(shape),
        lambda shape: np.full((*shape, 6), np.nan),
    )
    options = {"oversampling": s.one_of(1, 2), "noise": s.one_of(0.0, 0.1), "seed": 1}
    return phantoms.simulate, {"sample": sample, "geometry": g, "response": s.response(len(g))} | options


# -- figures ----------------------------------------------------------------------------------------------------------


@entry("colours")
def _(s: Source) -> Made:
    return s.one_of(
        (visualization.direction_colour, {"angle_rad": s.noise(3), "strength": s.noise(3)}),
        (visualization.axis_colour, {"directions": s.noise(2, 3), "strength": s.noise(2)}),
    )


def drawn(draw: Callable[..., Any]) -> Callable[..., Any]:
    def call(**given: Any) -> int:
        return len(draw(**given).axes)

    return call


@entry("figures", 0.1)
def _(s: Source) -> Made:
    shape = s.sizes(3)
    volumes = {"a": s.noise(*shape)}
    coloured = {"a": (s.noise(*shape, 3), s.noise(*shape))}
    path = s.one_of(None, None, None, folder() / "figure.png")
    return s.one_of(
        (drawn(visualization.show_slices), {"volumes": volumes, "path": path, "unit": "1/m"}),
        (drawn(visualization.show_directions), {"volumes": coloured, "path": path}),
        (drawn(visualization.show_maps), {"maps": maps(s, (2, 3, 4)), "path": path, "view": 1}),
    )


# -- neighbours -------------------------------------------------------------------------------------------------------


@entry("interop.astra")
def _(s: Source) -> Made:
    g = s.geometry()
    vectors = astra.to_vectors(g)
    shapes = {"volume_shape": g.volume_shape, "detector_shape": g.detector_shape}
    pair = {
        "projection_geometry": astra.to_projection_geometry(g),
        "volume_geometry": astra.to_volume_geometry(g),
    }
    return s.one_of(
        (astra.to_vectors, {"geometry": g}),
        (astra.from_vectors, {"vectors": s.one_of(vectors, vectors.tolist())} | shapes),
        (astra.to_projection_geometry, {"geometry": g}),
        (astra.to_volume_geometry, {"geometry": g}),
        (astra.geometry_from, pair),
        (astra.geometry_from, pair),
        (astra.to_sinogram, {"projections": s.noise(2, 3, 4)}),
        (astra.from_sinogram, {"sinogram": s.noise(2, 3, 4)}),
    )


@entry("interop.tomosipo")
def _(s: Source) -> Made:
    g = s.geometry()
    vectors = tomosipo.to_parallel_vec(g, build=False)
    return s.one_of(
        (lambda geometry: tomosipo.to_parallel_vec(geometry, build=False), {"geometry": g}),
        (tomosipo.from_parallel_vec, {"parallel_vec": vectors, "volume_shape": g.volume_shape}),
    )


@entry("interop.mumott", 0.5)
def _(s: Source) -> Made:
    from ddf_tomo.interop import mumott

    scan = s.scan(s.size(1, 3))
    theirs = mumott.to_geometry(scan.geometry, scan.response if isinstance(scan.response, dt.SaxsResponse) else None)
    shapes = {"volume_shape": scan.geometry.volume_shape, "detector_shape": scan.geometry.detector_shape}
    container = _container(s.one_of(0, 1))
    frame = {"p_0": (0.0, 1.0, 0.0), "j_0": None, "k_0": None}
    return s.one_of(
        (mumott.to_geometry, {"geometry": scan.geometry, "response": scan.response} | frame),
        (mumott.geometry_from, {"mumott_geometry": theirs} | shapes),
        (mumott.response_from, {"mumott_geometry": theirs}),
        (mumott.scan_from, {"data_container": container, "response": None, "voxel_size_m": 1e-5, "title": ""}),
        (mumott.to_data_container, {"scan": scan}),
    )


@lru_cache(2)
def _container(number: int) -> Any:
    from ddf_tomo.interop import mumott

    scan = Source(random.Random(number)).scan(2)
    return mumott.to_data_container(scan)


# -- files and the command line ---------------------------------------------------------------------------------------


@lru_cache(1)
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="ddf_tomo_fuzz_"))


@entry("Scan.read", 2)
def _(s: Source) -> Made:
    arguments = {"angles": s.one_of("auto", "radians", "degrees"), "nonfinite": s.one_of("raise", "mask")}
    return partial(dt.Scan.read, damaged(folder(), "scan", s)), arguments


@entry("Maps.load", raw=True)
def _(s: Source) -> Made:
    return partial(Maps.load, damaged(folder(), "maps", s)), {}


@entry("Reconstruction.load")
def _(s: Source) -> Made:
    return partial(dt.Reconstruction.load, damaged(folder(), "reconstruction", s)), {}


@entry("read_radiographs, ct_projections")
def _(s: Source) -> Made:
    path = damaged(folder(), s.one_of("exchange", "plain"), s)
    return partial(s.one_of(radiographs.read_radiographs, datasets.ct_projections), path), {}


@entry("four_rods, data_path")
def _(s: Source) -> Made:
    if s.chance(0.3):
        return datasets.data_path, {"name": "tooth.h5"}
    return partial(datasets.four_rods, damaged(folder(), "frames", s)), {}


@entry("paths")
def _(s: Source) -> Made:
    kind, read = s.one_of(
        ("scan", dt.Scan.read),
        ("maps", Maps.load),
        ("reconstruction", dt.Reconstruction.load),
        ("exchange", radiographs.read_radiographs),
        ("frames", datasets.four_rods),
    )
    path = example(folder(), kind)
    return read, {"path": s.one_of(path, str(path), str(path) + ".not", folder(), "\0", "", folder() / "x" / "y")}


@entry("save")
def _(s: Source) -> Made:
    scan, made, volume = (_things(name) for name in ("scan", "maps", "reconstruction"))
    save = s.one_of(scan.write, made.save, volume.save)
    return save, {
        "path": s.one_of(folder() / "saved.h5", str(folder() / "saved.h5"), folder(), folder() / "x" / "y", "")
    }


@lru_cache(3)
def _things(name: str) -> Any:
    path = example(folder(), name)
    return {"scan": dt.Scan.read, "maps": Maps.load, "reconstruction": dt.Reconstruction.load}[name](path)


@entry("ddf-tomo", 0.5)
def _(s: Source) -> Made:
    out = str(folder() / "out.h5")
    kind, file = s.one_of(("retrieve", "frames"), ("reconstruct", "scan"))
    path = str(damaged(folder(), file, s))
    options = {
        "retrieve": ["--window", s.one_of("2", "nan", "-1", "x"), "--smoothing", s.one_of("0.5", "1e300", "")],
        "reconstruct": ["--ell-max", s.one_of("2", "3", "auto", "x"), "--iterations", s.one_of("2", "0", "1e9")],
    }[kind]
    words = [kind, path, "-o", s.one_of(out, out, str(folder()), "/nowhere/x.h5"), *options[: s.one_of(0, 2, 4)]]
    if s.chance(0.3):
        words[s.rng.randrange(len(words))] = s.one_of("--json", "--nothing", "", "-o", "demo2", "\0")

    def call() -> int:
        try:
            main(words)
        except SystemExit as end:
            if end.code not in (0, 2):
                raise RuntimeError(f"exit code {end.code} of ddf-tomo {words}") from end
            return int(end.code or 0)
        raise RuntimeError("main came back")

    return call, {}
