"""Files of every layout the package reads, and what happens to files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import ddf_tomo as dt
from ddf_tomo.retrieval import Maps
from tests.fuzz.values import Source

ROWS, COLUMNS = 16, 17


def example(folder: Path, kind: str) -> Path:
    """A whole file of this kind; made once."""
    path = folder / f"example_{kind}.h5"
    if not path.exists():
        partial = folder / f"making_{kind}.h5"
        MAKERS[kind](partial)
        partial.replace(path)
    return path


def damaged(folder: Path, kind: str, source: Source) -> Path:
    """A copy of the example: whole, cut off, with other contents, something else, or not there."""
    path = folder / f"damaged_{kind}.h5"
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    what = source.one_of("whole", "cut", "cut", "edited", "edited", "edited", "edited", "edited", "other")
    whole = example(folder, kind)
    if what == "cut":
        contents = whole.read_bytes()
        path.write_bytes(contents[: source.rng.randrange(len(contents))])
    elif what == "other":
        other = source.one_of("text", "empty", "folder", "missing", "foreign")
        if other == "folder":
            path.mkdir()
        elif other == "foreign":
            shutil.copy(example(folder, source.one_of(*MAKERS)), path)
        elif other != "missing":
            path.write_text("not HDF5" * 100 if other == "text" else "")
    else:
        shutil.copy(whole, path)
        if what == "edited":
            with h5py.File(path, "r+") as file:
                for _ in range(source.one_of(1, 1, 2, 3)):
                    _edit(file, source)
    return path


def _edit(file: Any, source: Source) -> None:
    """Remove or replace a dataset, a group or an attribute."""
    names: list[str] = []
    file.visit(names.append)
    places = [(name, None) for name in names]
    places += [(name, key) for name in ("/", *names) for key in file[name].attrs]
    if not places:
        return
    name, key = source.one_of(*places)
    if key is not None:
        old = file[name].attrs[key]
        del file[name].attrs[key]
        if source.chance(0.7):
            file[name].attrs[key] = _other(old, source)
        return
    old = file[name][()] if hasattr(file[name], "dtype") else None
    del file[name]
    if source.chance(0.75):
        if source.chance(0.1):
            file.create_group(name)
        else:
            file[name] = _other(old, source)


def _other(old: Any, source: Source) -> Any:
    array = np.asarray(old) if old is not None else np.zeros(2)
    numeric = array.dtype.kind in "fiub" and array.size
    texts = ["nonsense", b"nonsense", np.bytes_("{}"), "[1, 2", "SaxsResponse([nan])", "deg", ""]
    values: list[Any] = [np.zeros(0), np.zeros((2, 2)), 0, -1, 1e300, 5e-324, np.nan, np.inf, 10**15, 2**62, *texts]
    if isinstance(old, str):
        values += [old[:-1], old + " ", old.replace("0", "nan"), old.replace("Response", "")]
    if numeric:
        values += [array[None], array.ravel(), np.zeros_like(array), -array.astype(float), array.astype(complex)]
        values += [array.astype(np.float16), array.astype(">i4"), array * 1e6, array.astype(bool)]
        values += [array[..., :-1] if array.ndim else array, array[:0] if array.ndim else array]
        broken = array.astype(float)
        broken.flat[source.rng.randrange(array.size)] = source.one_of(np.nan, np.inf, 1e300, 0.0, -1.0)
        values += [broken] * 4
    with np.errstate(all="ignore"):
        return source.one_of(*values)


def _scan(path: Path) -> None:
    generator = np.random.default_rng(1)
    geometry = dt.Geometry.from_angles([0.0, 0.7, 1.4], [0.0, 0.2, 0.3], (4, 3, 3), (4, 3), j_offset=0.5)
    response = dt.SaxsResponse(np.arange(4) * np.pi / 4)
    data, weights = generator.uniform(1, 2, (2, 3, 4, 3, 4)).astype(np.float32)
    dt.Scan(data, geometry, response, weights, data[..., 0], 1e-5, "title", {"source": "x"}).write(path)


def _maps(path: Path) -> None:
    one = np.random.default_rng(2).uniform(0.5, 1.5, (2, 3, 4))
    pair, triple = np.stack([one] * 2, -1), np.stack([one] * 3, -1)
    Maps(one, pair, triple, one, one, pair, triple, one, one, one > 0.6, 1e-5, 1.0).save(path)


def _reconstruction(path: Path) -> None:
    generator = np.random.default_rng(3)
    geometry = dt.Geometry.from_angles([0.0, 0.7], 0.1, (3, 2, 4), (3, 4))
    coefficients = generator.standard_normal((3, 2, 4, 6)).astype(np.float32)
    made = dt.Reconstruction(coefficients, 2, geometry, dt.SecondMomentResponse(), (2.0, 1.0), 1e-5, {"method": "cg"})
    made.save(path)


def _exchange(path: Path) -> None:
    counts = np.random.default_rng(4).poisson(1000, (7, 3, 12)).astype(np.uint16)
    with h5py.File(path, "w") as file:
        for name, value in (("data", counts), ("data_white", counts[:2]), ("data_dark", counts[:2] // 100)):
            file[f"exchange/{name}"] = value
        file["exchange/theta"] = np.linspace(0, 170, 7)
        file["exchange/theta"].attrs["units"] = "deg"


def _plain(path: Path) -> None:
    counts = np.random.default_rng(5).poisson(1000, (7, 3, 12)).astype(np.uint16)
    with h5py.File(path, "w") as file:
        file["frames"], file["flat"], file["angles_rad"] = counts, counts[0], np.linspace(0, 3, 7)
        file.attrs["pixel_size_m"], file.attrs["title"] = 1e-5, "plain"


def _frames(path: Path) -> None:
    counts = np.random.default_rng(6).poisson(1000, (5, ROWS, COLUMNS)).astype(np.uint16)
    with h5py.File(path, "w") as file:
        file["sample"], file["reference"], file["flat"] = counts // 2, counts, counts[0]
        file.attrs.update({"pixel_size_m": 1e-5, "distance_m": 1.0, "energy_kev": 25.0})


MAKERS = {
    "scan": _scan,
    "maps": _maps,
    "reconstruction": _reconstruction,
    "exchange": _exchange,
    "plain": _plain,
    "frames": _frames,
}
