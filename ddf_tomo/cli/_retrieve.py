"""``ddf-tomo retrieve``: images through a mask to maps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ddf_tomo.cli._app import AsJson, app, check_folder, given, tell

MANIFEST = ".toml"
LENGTHS = {"pixel_size_m": "pixel_size_m", "distances_m": "distance_m"}  # by their names in a file of frames


@app.command(short_help="Turn images through a mask into dark-field maps.")
def retrieve(
    frames: Annotated[
        Path,
        typer.Argument(
            metavar="SCAN.toml|FRAMES.h5",
            help="Manifest of a scan (where its frames lie, steps, distances, angles: see the manual), or an HDF5 file"
            " with the datasets 'sample' and 'reference' (mask position, row, column).",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file for the maps.", show_default=False)],
    method: Annotated[
        str,
        typer.Option(
            help="How to compare the images: differential is the quickest, matching the most exact; visibility,"
            " correlation, periodic."
        ),
    ] = "differential",
    window: Annotated[
        float | None,
        typer.Option(
            help="Size in pixels of the window over which the blur is taken as constant.",
            show_default="the method's own",
        ),
    ] = None,
    smoothing: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation in pixels of the smoothing against noise.", show_default="the method's own"
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="Another option of the method, such as background=false; may be repeated."
        ),
    ] = None,
    distance: Annotated[
        float | None,
        typer.Option(help="Only the frames of this distance, in metres.", show_default="all of the manifest"),
    ] = None,
    views: Annotated[
        str | None,
        typer.Option(help="Only some views, counted from 0: first:last:step as in Python.", show_default="all"),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where to compute: cpu, cuda.", show_default="cpu")] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="File to keep finished views in. What was interrupted goes on from there when the same command is"
            " given again; it is removed when the maps are written.",
            show_default="OUTPUT.checkpoint",
        ),
    ] = None,
    no_checkpoint: Annotated[bool, typer.Option("--no-checkpoint", help="Keep nothing on the disk.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn images through a mask (sandpaper, membrane, grating) into dark-field maps.

    Gives transmission, displacement and directional blur with their standard errors in every pixel. A manifest, which
    describes a whole scan, also brings the angles: ddf-tomo reconstruct then takes the maps as they are. Of a single
    HDF5 file, pixel size and distance (attributes 'pixel_size_m' and 'distance_m') turn displacements into angles.
    """
    from ddf_tomo.retrieval import retrieve as retrieve_maps

    described = _described(frames)
    scan = None if described is None else _scan(described, distance, views)
    if scan is None:
        _refuse_without_manifest(distance=distance, views=views)
    images = _read_frames(frames) if scan is None else {}
    check_folder("output", output)
    if frames.exists() and output.exists() and output.samefile(frames):
        from ddf_tomo._checks import message

        raise ValueError(message("output", "another file than the frames", repr(str(output))))
    options = given(window=window, smoothing=smoothing, device=device) | _options(option or [])
    if scan is None:
        maps = retrieve_maps(**images, method=method, **options)
        maps.save(output)
    else:
        state = None if no_checkpoint else checkpoint or output.with_name(output.name + ".checkpoint")
        maps = _retrieved(scan, frames, method, state, options, output)
    tell(_maps_figures(maps) | {"output": str(output)}, as_json)


def _described(path: Path) -> Any:
    """The manifest; for frames with their geometry (simulated ones) one that says so; for frames alone, none."""
    import h5py

    from ddf_tomo.manifest import Manifest

    if path.suffix.lower() == MANIFEST:
        return Manifest.read(path)
    try:
        with h5py.File(path) as file:
            if "geometry" not in file:
                return None
            told: dict[str, Any] = {name: file.attrs[key] for name, key in LENGTHS.items() if key in file.attrs}
            inside: dict[str, Any] = {
                name: f"{path.name}:/{name}" for name in ("sample", "reference", "dark") if name in file
            }
    except (OSError, RuntimeError, KeyError):  # told when the frames are read
        return None
    return Manifest(**({"sample": ""} | inside | told), geometry=path.name, folder=path.parent)


def _scan(manifest: Any, distance: float | None, views: str | None) -> Any:
    """The frames that a manifest describes, those that were asked for."""
    from ddf_tomo._checks import message

    found = manifest.frames()
    if distance is not None:
        found = found.at_distance(distance)
    if views is not None:
        try:
            if ":" in views:
                chosen = slice(*(int(part) if part.strip() else None for part in views.split(":")))
            else:
                chosen = slice(int(views), int(views) + 1 or None)  # -1 is the last one
        except (TypeError, ValueError) as error:
            raise ValueError(message("views", "first:last or first:last:step", repr(views))) from error
        found = found[chosen]
        if not len(found):
            raise ValueError(message("views", "at least one view", repr(views)))
    return found


def _refuse_without_manifest(**options: Any) -> None:
    from ddf_tomo._checks import message

    for name, value in options.items():
        if value is not None:
            raise ValueError(message(name, "a manifest, which tells what there is", "a file of frames"))


def _options(pairs: list[str]) -> dict[str, Any]:
    """Names and values; values as TOML has them, or else texts."""
    import tomllib

    from ddf_tomo._checks import message

    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip().isidentifier():
            raise ValueError(message("option", "NAME=VALUE", repr(pair)))
        try:
            found[name.strip()] = tomllib.loads(f"value = {text}")["value"]
        except ValueError:
            found[name.strip()] = text.strip()
    return found


def _retrieved(scan: Any, source: Path, method: str, state: Path | None, options: dict[str, Any], output: Path) -> Any:
    """Maps of a scan, view by view, into a file with their geometry."""
    from dataclasses import replace

    from ddf_tomo import __version__
    from ddf_tomo.map_series import MapSeries

    if state is not None and state.exists():
        print(f"ddf-tomo: going on from {state}", file=sys.stderr)
    try:
        made = MapSeries.retrieve(scan, method, checkpoint=state, **options)
    except KeyboardInterrupt:
        if state is not None and state.exists():
            print(f"ddf-tomo: interrupted; the same command goes on from {state}", file=sys.stderr)
        raise
    told = {"frames": str(source), "method": method, "ddf_tomo": __version__}
    replace(made, provenance=told).save(output)
    if state is not None:
        state.unlink(missing_ok=True)
    return made.maps


def _read_frames(path: Path) -> dict[str, Any]:
    """Sample and reference frames, pixel size and distance from an HDF5 file, as `retrieve` takes them."""
    import h5py

    from ddf_tomo._checks import FileFormatError, message

    if not path.is_file():
        raise FileNotFoundError(message("frames", "an HDF5 file", f"{str(path)!r}, which is no file"))
    try:
        with h5py.File(path) as file:
            found: dict[str, Any] = {}
            for name in ("sample", "reference"):
                if not isinstance(file.get(name), h5py.Dataset):
                    contents = ", ".join(file) or "nothing"
                    raise FileFormatError(message("frames", f"a dataset {name!r}", f"{str(path)!r} with {contents}"))
                found[name] = file[name][()]
            found |= {name: file.attrs[name] for name in ("pixel_size_m", "distance_m") if name in file.attrs}
            return found
    except (OSError, RuntimeError, KeyError) as error:  # what h5py raises on truncated or damaged files
        raise FileFormatError(message("frames", "a complete HDF5 file", f"{str(path)!r}: {error}")) from error


def _maps_figures(maps: Any) -> dict[str, Any]:
    valid = maps.valid
    return {
        "shape": list(maps.transmission.shape),
        "retrieved_share": float(valid.mean()),
        "median_transmission": float(np.median(maps.transmission[valid])),
        "median_displacement_error_pixels": float(np.median(maps.displacement_error[valid])),
        "median_blur_error_pixels2": float(np.median(maps.covariance_error[valid])),
    }
