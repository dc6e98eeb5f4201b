"""``ddf-tomo retrieve``: images through a mask to maps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ddf_tomo.cli._app import AsJson, app, check_folder, given, tell


@app.command(short_help="Turn images through a mask into dark-field maps.")
def retrieve(
    frames: Annotated[
        Path,
        typer.Argument(
            metavar="FRAMES.h5",
            help="HDF5 file with the datasets 'sample' and 'reference' (mask position, row, column).",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="HDF5 file for the maps.", show_default=False)],
    method: Annotated[str, typer.Option(help="How to compare the images.")] = "differential",
    window: Annotated[
        float | None,
        typer.Option(
            help="Standard deviation in pixels of the window over which the blur is taken as constant.",
            show_default="3",
        ),
    ] = None,
    smoothing: Annotated[
        float | None,
        typer.Option(help="Standard deviation in pixels of the smoothing against noise.", show_default="1"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Turn images through a mask (sandpaper, membrane, grating) into dark-field maps.

    Gives transmission, displacement and directional blur with their standard errors in every pixel. Pixel size and
    distance (attributes 'pixel_size_m' and 'distance_m' of the file) turn displacements into angles.
    """
    from ddf_tomo.retrieval import retrieve as retrieve_maps

    images = _read_frames(frames)
    check_folder("output", output)
    maps = retrieve_maps(**images, method=method, **given(window=window, smoothing=smoothing))
    maps.save(output)
    tell(_maps_figures(maps) | {"output": str(output)}, as_json)


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
