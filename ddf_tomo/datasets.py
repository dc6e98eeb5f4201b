"""Measured data that ships with the package, for tests, tutorials and the demonstration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import FileFormatError, check_shape, choice, file_path, message, number, real_array
from ddf_tomo.radiographs import Radiographs, read_radiographs

__all__ = ["FourRods", "ct_projections", "data_path", "four_rods", "tooth"]
FRAMES = ("sample", "reference", "flat")
SIZES = ("pixel_size_m", "distance_m", "energy_kev")
FOUR_RODS_ROWS = (112, 142)
CT_PROJECTIONS_ROWS = (48, 115)


class FourRods(NamedTuple):
    """Frames of the four rods, made by `four_rods`.

    Attributes
    ----------
    sample, reference
        Counts with and without the rods behind the sandpaper; shape ``(step, row, column)``.
    flat
        Counts without sandpaper and rods; shape ``(row, column)``.
    pixel_size_m, distance_m, energy_kev
        Pixel, distance from the rods to the detector, and photon energy.
    """

    sample: NDArray[np.uint16]
    reference: NDArray[np.uint16]
    flat: NDArray[np.uint16]
    pixel_size_m: float
    distance_m: float
    energy_kev: float


def data_path(name: str) -> Path:
    """Path of a shipped data file; ``ValueError`` lists the names there are.

    Parameters
    ----------
    name
        Name of the file.

    Examples
    --------
    >>> data_path("four_rods.h5").name
    'four_rods.h5'
    """
    folder = Path(__file__).parent / "data"
    names = sorted(file.name for file in folder.glob("*.h5"))
    return folder / choice(name, "name", names)


def four_rods(path: str | os.PathLike[str] | None = None) -> FourRods:
    """Four rods behind sandpaper at 13 positions: measured speckle images (25 keV, 6.5 µm pixels, 0.7 m).

    From left to right: a rod with coarse structure (columns 0–500), air, a smooth plastic rod that does not scatter
    (540–1070), a fibrous rod (1080–1390), air (1400–1590), a strongly scattering fibrous rod (1600–2120), air. The
    shipped file holds the `FOUR_RODS_ROWS` of the 256 rows; `crop_four_rods` made it.

    Measured at MicroCT, Australian Synchrotron; published by samanthaalloo in
    github.com/samanthaalloo/EvVSDev_SBXIFokkerPlanck (folder FourRod_SBXIData) under the MIT licence, whose notice
    lies beside the file. Cite that repository.

    Parameters
    ----------
    path
        Another file of this layout, for example the uncropped one.

    Examples
    --------
    >>> rods = four_rods()
    >>> rods.sample.shape[0], rods.sample.shape[2], rods.sample.dtype
    (13, 2220, dtype('uint16'))
    """
    import h5py

    source = data_path("four_rods.h5") if path is None else file_path(path)
    if not source.exists():
        raise FileNotFoundError(message("path", "an existing file", str(source)))
    try:
        with h5py.File(source, "r") as file:
            frames: list[Any] = [np.asarray(file[name][()]) for name in FRAMES]
            sizes = [number(file.attrs[name], name, low=0, low_open=True) for name in SIZES]
        check_shape(frames[0].shape, "sample", (None, None, None))
        for values, name, shape in zip(frames, FRAMES, (None, frames[0].shape, frames[0].shape[1:]), strict=True):
            real_array(values, name, shape)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise FileFormatError(message("path", "a file of the four rods", f"{source}: {error}")) from error
    return FourRods(*frames, *sizes)


def crop_four_rods(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Cut the shipped band of rows out of the full file: all positions, all columns, no binning, counts unchanged."""
    import h5py

    from ddf_tomo._files import replaced_when_complete

    rows = slice(*FOUR_RODS_ROWS)
    with (
        replaced_when_complete(target) as partial,
        h5py.File(source, "r") as full,
        h5py.File(partial, "w") as crop,
    ):
        crop.attrs.update(full.attrs)
        crop.attrs["crop"] = f"rows {rows.start} to {rows.stop - 1} of {full['flat'].shape[0]}"
        for name in ("sample", "reference", "flat"):
            made = crop.create_dataset(
                name, data=full[name][..., rows, :], compression="gzip", compression_opts=9, shuffle=True
            )
            made.attrs.update(full[name].attrs)


def ct_projections(path: str | os.PathLike[str] | None = None) -> Radiographs:
    """91 parallel-beam views over 182° of a dense insert in a cylindrical holder, 160 columns.

    The axis is 6.3 columns off the centre, air reads a transmission of 0.70, and view 90 mirrors view 0. The shipped
    file holds the `CT_PROJECTIONS_ROWS` of the 135 rows; `crop_ct_projections` made it. From the test data of Savu
    (github.com/DiamondLightSource/Savu), used under the Apache-2.0 licence that lies beside the file.

    Parameters
    ----------
    path
        Another file that `read_radiographs` can read, for example the uncropped one.

    Examples
    --------
    >>> ct_projections()
    Radiographs(91 views of 67 rows x 160 columns, angles -1.539 to 1.602 rad)
    """
    return read_radiographs(data_path("ct_projections.h5") if path is None else path)


def crop_ct_projections(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Cut the shipped band of rows out of the full file: all views, all columns, counts unchanged."""
    import h5py

    from ddf_tomo._files import replaced_when_complete

    rows = slice(*CT_PROJECTIONS_ROWS)
    with replaced_when_complete(target) as partial, h5py.File(source, "r") as full, h5py.File(partial, "w") as crop:
        crop.attrs.update(full.attrs)
        crop.attrs["crop"] = f"rows {rows.start} to {rows.stop - 1} of {full['flat'].shape[0]}"
        crop["angles_deg"] = full["angles_deg"][()]
        crop["angles_deg"].attrs.update({"units": "degrees", **full["angles_deg"].attrs})
        for name in ("frames", "flat", "dark"):
            counts = full[name][..., rows, :].astype(np.uint16)  # flat and dark are whole numbers held as floats
            chunks = (len(counts), 1, counts.shape[2]) if counts.ndim == 3 else counts.shape
            made = crop.create_dataset(
                name, data=counts, chunks=chunks, compression="gzip", compression_opts=9, shuffle=True
            )
            made.attrs.update(full[name].attrs)


def tooth() -> Radiographs:
    """181 parallel-beam views over half a turn of a tooth, two rows of 640 columns, in the DataExchange layout.

    The axis is 24 columns off the centre. From TomoPy (github.com/tomopy/tomopy, source/tomopy/data), UChicago Argonne,
    under the BSD-style licence that lies beside the file.

    Examples
    --------
    >>> tooth()
    Radiographs(181 views of 2 rows x 640 columns, angles 0 to 3.124 rad)
    """
    return read_radiographs(data_path("tooth.h5"))
