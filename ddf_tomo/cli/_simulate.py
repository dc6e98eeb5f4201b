"""``ddf-tomo simulate``: a sample with known truth to a scan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from ddf_tomo.cli._app import AsJson, app, check_folder, numbers, tell

RESPONSES = (
    "second-moment",
    "rank-two",
    "saxs",
    "rank-two-saxs",
    "visibility",
    "directional-visibility",
    "isotropic",
)
TILTS = "0,7.5,15,22.5,30,37.5,45"  # those of `ddf_tomo.phantoms.tilt_series`
MICRORADIANS = 1e-12  # square ones in rad²: the unit of scans from maps
LARGEST_EDGE = 1024  # a cube of a billion voxels: as many as a phantom can have


@app.command(short_help="Simulate a scan of a sample whose truth is known.")
def simulate(
    phantom: Annotated[
        str,
        typer.Argument(
            metavar="PHANTOM",
            help="The sample: helicoidal, bundles, crossing, shells, mixture or random.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", help="HDF5 file for the scan, in MUMOTT's layout, or for the frames.", show_default=False
        ),
    ],
    truth: Annotated[
        Path | None, typer.Option(metavar="TRUTH.h5", help="Keep the sample too, for ddf-tomo report --truth.")
    ] = None,
    size: Annotated[str, typer.Option(help="Voxels along each edge, or along x,y,z.")] = "32",
    tilts: Annotated[str, typer.Option(help="Tilts of the rotation axis in degrees.")] = TILTS,
    views: Annotated[
        int | None,
        typer.Option(
            help="Number of views in all; larger tilts get fewer, as their circle is shorter.",
            show_default="255 at the default tilts, else 36 a tilt",
            min=1,
        ),
    ] = None,
    response: Annotated[
        str, typer.Option(help=f"What the detector measures: {', '.join(RESPONSES[:-1])} or {RESPONSES[-1]}.")
    ] = "second-moment",
    segments: Annotated[
        int, typer.Option(help="Detector segments of saxs; azimuths or grating angles of the visibilities.", min=1)
    ] = 8,
    exponent: Annotated[
        float, typer.Option(help="Exponent β of directional-visibility, above 0, at most 2 (second moments).")
    ] = 1.0,
    noise: Annotated[
        float | None,
        typer.Option(help="Gaussian noise relative to the strongest signal, 0 for none.", show_default="0.02"),
    ] = None,
    counts: Annotated[
        float | None,
        typer.Option(
            help="Counting noise instead: expected counts at the strongest signal; of frames, in the reference.",
            show_default="2000 for frames",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the noise: the same number gives the same scan.", min=0)] = 0,
    voxel_size: Annotated[
        float | None,
        typer.Option(help="Edge of a voxel in micrometres, noted in the scan.", show_default="unknown; 40 for frames"),
    ] = None,
    frames: Annotated[
        bool, typer.Option("--frames", help="Frames behind a random mask instead of signals: the raw data of a scan.")
    ] = False,
    steps: Annotated[int, typer.Option(help="Frames: positions of the mask.", min=1)] = 12,
    pixels_per_voxel: Annotated[int, typer.Option(help="Frames: pixels along an edge of a voxel.", min=1)] = 4,
    distances: Annotated[
        str, typer.Option(help="Frames: metres from the sample to the detector; several between commas.")
    ] = "1",
    blur: Annotated[float, typer.Option(help="Frames: largest entry of the blur covariance, square pixels.")] = 1.0,
    shift: Annotated[float, typer.Option(help="Frames: largest displacement by refraction, pixels.")] = 0.5,
    transmission: Annotated[float, typer.Option(help="Frames: lowest transmission of the sample.")] = 0.8,
    as_json: AsJson = False,
) -> None:
    """Simulate a scan of a sample whose truth is known: to try things out, and to see what a measurement could tell.

    The sample is projected on a grid twice as fine as the one of the scan, so that results are no better than measured
    data would give. Then: ddf-tomo reconstruct, and ddf-tomo report with --truth for the errors.

    With --frames, the images themselves: the sample scatters, refracts and absorbs behind a random mask, and photons
    are counted. An interrupted simulation is taken up by the same command.
    """
    from ddf_tomo._checks import choice, message, number
    from ddf_tomo.phantoms import PHANTOMS
    from ddf_tomo.phantoms import simulate as simulate_scan

    choice(phantom, "phantom", tuple(PHANTOMS))
    if noise is not None and counts is not None:
        raise ValueError(message("noise", "either --noise or --counts", "both"))
    metres = None if voxel_size is None else 1e-6 * number(voxel_size, "voxel_size", low=0, high=1e6, low_open=True)
    geometry = _geometry(size, tilts, views)
    check_folder("output", output)
    check_folder("truth", truth)
    if frames:
        if noise is not None:
            raise ValueError(message("noise", "none, as photons are counted", noise, "Give --counts"))
        strengths = {"blur": blur, "shift": shift, "transmission": transmission}
        options: dict[str, Any] = {"pixels_per_voxel": pixels_per_voxel, "steps": steps, "seed": seed}
        options["voxel_size_m"] = 40e-6 if metres is None else metres
        options["counts"] = 2000.0 if counts is None else counts
        tell(_simulate_frames(phantom, geometry, output, truth, distances, strengths, options), as_json)
        return
    measured = _response(response, segments, exponent)
    model: dict[str, Any] = {"noise": 0.02 if noise is None else noise}
    if counts is not None:
        model = {"noise_model": "poisson", "counts": counts}
    made = simulate_scan(phantom, geometry, measured, seed=seed, **model)
    made = replace(made, title=f"simulated sample: {phantom}", voxel_size_m=metres)
    if truth is not None:
        _keep_truth(truth, phantom, geometry, measured, metres)
    made.write(output)
    data = made.data
    figures: dict[str, Any] = {"views": len(made), "shape": list(data.shape), "response": type(measured).__name__}
    figures |= {"strongest_signal": float(data.max()), "noise_model": model.get("noise_model", "gaussian")}
    figures |= {"counts": counts} if counts is not None else {"noise": model["noise"]}
    figures |= {"seed": seed, "output": str(output)} | ({} if truth is None else {"truth": str(truth)})
    tell(figures, as_json)


def _response(name: str, segments: int, exponent: float) -> Any:
    import ddf_tomo
    from ddf_tomo._checks import choice, integer

    choice(name, "response", RESPONSES)
    angles = np.arange(integer(segments, "segments", low=1, high=3600)) * np.pi / segments
    if name == "directional-visibility":
        return ddf_tomo.DirectionalVisibilityResponse(angles, exponent)
    if name == "visibility":
        return ddf_tomo.VisibilityResponse(angles)
    if name == "isotropic":
        return ddf_tomo.IsotropicResponse()
    if name == "saxs":
        return ddf_tomo.SaxsResponse(angles, full_circle=False)
    if name == "rank-two-saxs":
        return ddf_tomo.RankTwoSaxsResponse(angles)
    return ddf_tomo.SecondMomentResponse() if name == "second-moment" else ddf_tomo.RankTwoResponse()


def _geometry(size: str, tilts: str, views: int | None) -> Any:
    from ddf_tomo._checks import integer, message, number
    from ddf_tomo.phantoms import tilt_series

    edges = numbers("size", size, int, "one number of voxels, or three between commas")
    if len(edges) not in (1, 3):
        raise ValueError(message("size", "one number of voxels, or three between commas", repr(size)))
    shape = [integer(edge, "size", low=1, high=LARGEST_EDGE) for edge in (edges * 3 if len(edges) == 1 else edges)]
    given = numbers("tilts", tilts, float, "angles in degrees between commas")
    degrees = np.array([number(tilt, "tilts", low=-90, high=90) for tilt in given])
    if views is None and tilts == TILTS:
        return tilt_series(shape)
    counts = shared_views(np.radians(degrees), 36 * len(degrees) if views is None else views)
    return tilt_series(shape, tilts_rad=np.radians(degrees), views=counts)


def shared_views(tilts_rad: NDArray[np.float64], views: int) -> list[int]:
    """Numbers of views of each tilt, at least one, by the length of its circle (half a circle at tilt 0).

    Raises
    ------
    ValueError
        If there are fewer views than tilts.

    Examples
    --------
    >>> shared_views(np.radians([0.0, 60.0]), 60)
    [30, 30]
    """
    from ddf_tomo._checks import integer
    from ddf_tomo.phantoms.views import MOST_VIEWS

    integer(views, "views", low=len(tilts_rad), high=MOST_VIEWS)
    length = np.where(tilts_rad == 0, 0.5, np.cos(tilts_rad)) + 1e-9
    exact = (views - len(length)) * length / length.sum()
    counts = np.floor(exact).astype(int)
    # Whole numbers with the same sum: the largest remainders are rounded up.
    counts[np.argsort(counts - exact, kind="stable")[: views - len(length) - counts.sum()]] += 1
    return (counts + 1).tolist()


def _simulate_frames(
    phantom: str,
    geometry: Any,
    output: Path,
    truth: Path | None,
    distances: str,
    strengths: dict[str, float],
    options: dict[str, Any],
) -> dict[str, Any]:
    """Write frames, and the sample in the units in which a reconstruction of them comes out."""
    from ddf_tomo import SecondMomentResponse
    from ddf_tomo._checks import number
    from ddf_tomo.acquisition.frames import simulate_frames
    from ddf_tomo.acquisition.specimen import phantom_specimen

    lengths = [
        number(each, "distances", low=0, high=1e6, low_open=True)
        for each in numbers("distances", distances, float, "metres between commas")
    ]
    voxel = options["voxel_size_m"]
    sizes = {"voxel_size_m": voxel, "pixel_size_m": voxel / options["pixels_per_voxel"], "distance_m": max(lengths)}
    specimen = phantom_specimen(phantom, geometry, **sizes, **strengths)
    distance = lengths[0] if len(lengths) == 1 else lengths
    if truth is not None:
        values = specimen.scattering(geometry.volume_shape) * (voxel / MICRORADIANS)
        _keep_truth(truth, phantom, geometry, SecondMomentResponse(), voxel, values)
    made = simulate_frames(specimen, geometry, output, distance_m=distance, **options)
    figures = {"views": len(geometry), "shape": list(made.sample.shape), "pixel_size_m": made.pixel_size_m}
    figures |= {"distance_m": made.distance_m, "counts": options["counts"], "seed": options["seed"]}
    figures |= {"output": str(output)}
    return figures | ({} if truth is None else {"truth": str(truth)})


def _keep_truth(
    path: Path, phantom: str, geometry: Any, response: Any, voxel_size_m: float | None, values: Any = None
) -> None:
    """The sample on the grid of the scan, as a reconstruction that fits it perfectly would be."""
    from ddf_tomo import Reconstruction, __version__
    from ddf_tomo.operators.spherical_harmonics import order_of
    from ddf_tomo.phantoms import PHANTOMS

    of_harmonics = getattr(response, "of_harmonics", True)
    if values is None:
        true = PHANTOMS[phantom](geometry.volume_shape)
        values = true.coefficients if of_harmonics else true.tensors()
    made = Reconstruction(
        values,
        order_of(values.shape[-1]) if of_harmonics else 2,
        geometry,
        response,
        voxel_size_m=voxel_size_m,
        provenance={"title": f"truth: {phantom}", "sample": phantom, "ddf_tomo": __version__},
    )
    made.save(path)
