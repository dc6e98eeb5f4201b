"""The file that holds the frames of a scan: written view by view, read view by view."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import check_shape, file_path, message
from ddf_tomo._files import read_header, reading_hdf5, write_header
from ddf_tomo._streamed import Streamed
from ddf_tomo.geometry import Geometry

__all__ = ["FrameFile"]

LAYOUT = "ddf_tomo frames 1"
GEOMETRY = ("p", "j", "k", "j_offset", "k_offset")
TRUTH: dict[str, tuple[int, ...]] = {"transmission": (), "displacement": (2,), "covariance": (3,)}


@dataclass(frozen=True)
class FrameFile:
    """Frames of a scan in an HDF5 file, written by `simulate_frames`; views are read when they are asked for.

    Attributes
    ----------
    path
        The file.
    sample
        Counts, shape ``(view, [distance,] step, row, column)``, on the disk.
    reference
        Counts without the sample, shape ``([distance,] step, row, column)``.
    geometry
        Views whose detector pixels are those of the frames, and voxels as large as these pixels.
    pixels_per_voxel
        Bin a `ddf_tomo.Scan` with this geometry by it to come back to the voxels that were simulated.
    pixel_size_m
        In the plane of the sample.
    distance_m
        One length, or a tuple if the frames have an axis of distances.
    details
        How it was made: texts and numbers.

    Examples
    --------
    >>> import tempfile
    >>> from ddf_tomo.acquisition.frames import simulate_frames
    >>> from ddf_tomo.acquisition.specimen import Specimen
    >>> from ddf_tomo.phantoms import tilt_series
    >>> sample = Specimen(lambda shape: np.full((*shape, 1), 1e-9))
    >>> geometry = tilt_series((6, 6, 6), views=[2], tilts_rad=[0.0])
    >>> path = Path(tempfile.mkdtemp()) / "frames.h5"
    >>> frames = simulate_frames(sample, geometry, path, voxel_size_m=4e-5, steps=5)
    >>> frames.sample.shape, frames.geometry.detector_shape, frames.pixel_size_m
    ((2, 5, 24, 24), (24, 24), 1e-05)
    """

    path: Path
    sample: Streamed
    reference: NDArray[Any]
    geometry: Geometry
    pixels_per_voxel: int
    pixel_size_m: float
    distance_m: float | tuple[float, ...]
    details: dict[str, Any]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FrameFile:
        """Open what `simulate_frames` wrote to ``path``; raise `ddf_tomo.FileFormatError` if it is anything else."""
        source = file_path(path)
        with reading_hdf5(source, "frames") as file:
            header = read_header(file, LAYOUT)
            sample = file["sample"]
            vectors: Any = [file[f"geometry/{name}"][()] for name in GEOMETRY]
            shapes = [tuple(header[name]) for name in ("volume_shape", "detector_shape")]
            shape, dtype = sample.shape, sample.dtype
            geometry = Geometry(*vectors, *shapes)
            check_shape(shape[:1] + shape[-2:], "sample", (len(geometry), *geometry.detector_shape))

            dark = file["dark"][()] if np.any(file["dark"][()]) else None

            def read(views: NDArray[np.intp]) -> NDArray[Any]:
                with reading_hdf5(source, "frames") as again:
                    return np.stack([_without(dark, again["sample"][int(view)]) for view in views])

            distances = tuple(header["distances_m"])
            return cls(
                source,
                Streamed(shape, dtype if dark is None else np.float32, read),
                _without(dark, file["reference"][()]),
                geometry,
                header["pixels_per_voxel"],
                header["pixel_size_m"],
                distances if header["several_distances"] else distances[0],
                header["details"],
            )

    def truth(self) -> dict[str, NDArray[Any]]:
        """Transmission, displacement and covariance as they went into the frames, as in `ddf_tomo.retrieval.Maps`.

        Raises
        ------
        ValueError
            If they were not kept: ``simulate_frames(..., truth=True)``.
        """
        with reading_hdf5(self.path, "frames") as file:
            if "truth" in file:
                return {name: file[f"truth/{name}"][()] for name in file["truth"]}
        raise ValueError(message("path", "a file with its truth", str(self.path), "simulate_frames(..., truth=True)"))

    def __repr__(self) -> str:
        return f"FrameFile({str(self.path)!r}, sample {self.sample.shape}, pixel_size_m={self.pixel_size_m:g})"


def _without(dark: NDArray[Any] | None, frames: NDArray[Any]) -> NDArray[Any]:
    return frames if dark is None else frames - dark


@contextmanager
def unfinished(
    part: Path,
    header: dict[str, Any],
    geometry: Geometry,
    arrays: dict[str, NDArray[Any]],
) -> Iterator[tuple[Any, int]]:
    """The unfinished file, open, and how many views it has; what another call began is started anew."""
    import h5py

    vectors = {name: np.asarray(getattr(geometry, name)) for name in GEOMETRY}
    contents = {**arrays, **{f"geometry/{name}": value for name, value in vectors.items()}}
    try:
        with h5py.File(part, "r") as file:
            same = read_header(file, LAYOUT) == header
            same = same and all(np.array_equal(file[name][()], value) for name, value in contents.items())
            done = int(file.attrs["views_done"]) if same else 0
    except (OSError, KeyError, ValueError, TypeError, RuntimeError):  # none, damaged, or another file
        done = 0
    if not done:
        with h5py.File(part, "w") as file:
            write_header(file, header)
            for name, value in contents.items():
                file[name] = value
            # What `ddf-tomo retrieve` reads.
            file.attrs["pixel_size_m"] = header["pixel_size_m"]
            file.attrs["distance_m"] = (
                header["distances_m"] if header["several_distances"] else header["distances_m"][0]
            )
            file.create_dataset("sample", (len(geometry), *arrays["reference"].shape), np.uint16)
            if header["details"]["truth"]:
                for name, channels in TRUTH.items():
                    file.create_dataset(
                        f"truth/{name}", (len(geometry), *geometry.detector_shape, *channels), np.float32
                    )
            file.attrs["views_done"] = 0
    with h5py.File(part, "r+") as file:
        yield file, done
