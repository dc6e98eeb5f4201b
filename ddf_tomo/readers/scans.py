"""Files of a scan put together: frames by view, distance and mask step, corrected, and read when they are asked for."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddf_tomo._checks import FileFormatError, message, number
from ddf_tomo._streamed import Streamed
from ddf_tomo.geometry import Geometry, view_indices
from ddf_tomo.readers.frames import HDF5_SUFFIXES, Stack, open_frames
from ddf_tomo.readers.layouts import Layout, find_layout
from ddf_tomo.readers.names import AXES, Cell, Pattern, numbers_of

UNSEEN = np.inf
"""What pixels read that are saturated, not finite, or of missing frames."""
SATURATION = 1e30
TOLD_BY_HDF5 = Layout("", "")


@dataclass(frozen=True)
class Wanted:
    """What is looked for: patterns, counts and numbers of each axis, as the manifest has them."""

    folder: Path
    sample: str
    reference: str | None
    dark: str | None
    flat: str | None
    bad_pixels: str | None
    order: tuple[str, ...]
    counts: Mapping[str, int | None]
    numbers: Mapping[str, Any]
    refuse: bool
    reference_at: list[float] | None
    saturation: float | None


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of a scan on the disk, with what is known of them; made by `ddf_tomo.manifest.Manifest.frames`.

    Attributes
    ----------
    sample : (view, [distance,] step, row, column)
        Dark-subtracted, divided by the flat where there is one. Pixels that are saturated, not finite, or of missing
        frames read infinity. Reads views from the disk when it is indexed.
    reference : ([view,] [distance,] step, row, column)
        The same without the sample: in memory, or on the disk where each view has its own.
    weights : (row, column) or None
        False where a pixel is to be ignored.
    geometry : Geometry
        Of the views: rows along j, columns along k.
    distances_m : tuple of float
        Of the axis of distances, if there is one; or the only one.
    pixel_size_m, energy_kev, gain, title
        Where the manifest or the files tell them.
    missing : tuple of (view, distance, step)
        Frames that are not there.
    told : Layout
        What the files say of the scan.
    """

    sample: Streamed
    reference: Any
    weights: NDArray[np.bool_] | None
    missing: tuple[Cell, ...]
    told: Layout
    geometry: Geometry | None = None
    distances_m: tuple[float, ...] = ()
    pixel_size_m: float | None = None
    energy_kev: float | None = None
    gain: float | None = None
    title: str = ""

    def __len__(self) -> int:
        return len(self.sample)

    def __repr__(self) -> str:
        return f"<Frames: {' × '.join(map(str, self.sample.shape))} on disk, {len(self.missing)} missing>"

    @property
    def several_distances(self) -> bool:
        """Whether there is an axis of distances."""
        return self.sample.ndim == 5

    def arguments(self) -> dict[str, Any]:
        """What `ddf_tomo.retrieval.retrieve` takes, by name."""
        distance: Any = self.distances_m if self.several_distances else next(iter(self.distances_m), None)
        if self.several_distances and not distance:
            raise ValueError(message("distances_m", "a length for each distance", "none"))
        return {
            "sample": self.sample,
            "reference": self.reference,
            "weights": None if self.weights is None else self.weights.astype(np.float32),
            "pixel_size_m": self.pixel_size_m,
            "distance_m": distance,
            "gain": self.gain,
            "saturation": SATURATION,
        }

    def at_distance(self, distance_m: float) -> Frames:
        """Those of one distance, ``distance_m`` in metres, to one part in a thousand; no axis of distances is left."""
        wanted = number(distance_m, "distance_m", low=0, low_open=True)
        near = [n for n, d in enumerate(self.distances_m) if abs(d - wanted) <= 1e-3 * wanted]
        if not near:
            there = ", ".join(f"{d:g}" for d in self.distances_m) or "none"
            raise ValueError(message("distance_m", f"one of the distances {there}", distance_m))
        if not self.several_distances:
            return self
        n, sample, reference = near[0], self.sample, self.reference
        shape = (len(sample), *sample.shape[2:])
        chosen: Any = reference[n]
        if isinstance(reference, Streamed):
            chosen = Streamed(shape, reference.dtype, lambda views: reference[views][:, n])
        return replace(
            self,
            sample=Streamed(shape, sample.dtype, lambda views: sample[views][:, n]),
            reference=chosen,
            distances_m=(self.distances_m[n],),
            missing=tuple(cell for cell in self.missing if cell[1] == n),
        )

    def __getitem__(self, views: Any) -> Frames:
        """Those of some views: an index, a slice, an index array or a boolean mask."""
        places = view_indices(views, len(self))
        at = {int(view): place for place, view in enumerate(places)}
        return replace(
            self,
            sample=self.sample.chosen(places),
            reference=self.reference.chosen(places) if isinstance(self.reference, Streamed) else self.reference,
            geometry=None if self.geometry is None else self.geometry[places],
            missing=tuple((at[view], *rest) for view, *rest in self.missing if view in at),
        )


def frames_of(wanted: Wanted) -> Frames:
    """Look for the files of a scan, and check that they fit together."""
    sample = _Source(wanted, wanted.sample, "sample", "sample")
    found = sample.found
    if wanted.reference is None:
        if "reference" not in found.has:
            raise ValueError(message("reference", "the files of the frames without the sample", "nothing"))
        reference = _Source(wanted, wanted.sample, "reference", "reference", sample)
    else:
        reference = _Source(wanted, wanted.reference, "reference", "reference", sample)
    missing = sorted(set(sample.missing) | set(reference.missing))
    _tell_missing(missing, sample.sizes, wanted.refuse)
    dark = _average(wanted, wanted.dark, "dark", sample)
    if wanted.dark is None and "dark" in found.has:
        dark = _average(wanted, str(sample.first_file.resolve()), "dark", sample)
    flat = _average(wanted, wanted.flat, "flat", sample)
    marked = _average(wanted, wanted.bad_pixels, "bad_pixels", sample)
    bad = np.zeros(sample.image, bool) if marked is None else marked != 0
    divisor = None
    if flat is not None:
        light = flat - (0.0 if dark is None else dark)
        lit = light > 0
        if not lit.any():
            raise ValueError(message("flat", "more counts than in the dark", "no pixel that has them"))
        bad |= ~lit
        divisor = np.where(lit, light, 1) / light[lit].mean()
    if bad.all():
        raise ValueError(message("bad_pixels", "some pixels that are good", "none"))

    def corrected(frames: NDArray[Any]) -> NDArray[np.float32]:
        unseen = ~np.isfinite(frames)
        if wanted.saturation is not None:
            unseen |= frames >= wanted.saturation
        values = frames if dark is None else frames - dark
        values = values if divisor is None else values / divisor
        return np.where(unseen, UNSEEN, values).astype(np.float32)

    one = sample.sizes["distance"] == 1 and wanted.counts["distance"] in (None, 1)
    inner = (sample.sizes["step"],) if one else (sample.sizes["distance"], sample.sizes["step"])
    shape = (sample.sizes["view"], *inner, *sample.image)

    def of_views(source: _Source) -> Streamed:
        def read(views: NDArray[np.intp]) -> NDArray[np.float32]:
            frames = np.empty((len(views), *shape[1:]), np.float32)
            for target, view in zip(frames, views, strict=True):
                target[...] = source.view(int(view), corrected).reshape(shape[1:])
            return frames

        return Streamed(shape, np.float32, read)

    beam = of_views(reference) if reference.per_view else of_views(reference)[0]
    return Frames(of_views(sample), beam, ~bad if bad.any() else None, tuple(missing), found)


class _Source:
    """Where each frame of one kind is: the stack of a file, and the place in it."""

    def __init__(self, wanted: Wanted, text: str, argument: str, kind: str, like: _Source | None = None) -> None:
        self.argument, self.kind = argument, kind
        self.pattern = Pattern(text, argument, wanted.folder)
        self.files = self.pattern.files()
        self.at = wanted.reference_at if argument == "reference" else None
        if self.at is not None and (
            not self.pattern.repeats or {len(each) for each in self.files.values()} != {len(self.at)}
        ):
            found = "another number of files" if self.pattern.repeats else repr(text)
            raise ValueError(message("reference_at", f"{len(self.at)} references that differ in {{repeat}}", found))
        self.stacks: dict[tuple[Path, str | None], Stack] = {}
        self.numbers: dict[str, list[int]] = {}
        sizes: dict[str, int | None] = dict(wanted.counts) if like is None else dict(like.sizes)
        for axis in (*self.pattern.of_file, *self.pattern.of_dataset):
            if like is not None and axis in like.numbers:
                self.numbers[axis] = like.numbers[axis]
            elif axis in self.pattern.of_file:
                there = {cell[self.pattern.of_file.index(axis)] for cell in self.files}
                given = wanted.numbers[axis]
                self.numbers[axis] = numbers_of(axis, there, sizes[axis], given, argument)
            else:
                given = wanted.numbers[axis]
                if given is None and sizes[axis] is None:
                    hint = f"[scan] {axis}s or [numbers] {axis}"
                    raise ValueError(message(argument, f"a number of {axis}s for {{{axis}}}", "none", hint))
                self.numbers[axis] = numbers_of(axis, set(range(sizes[axis] or 0)), sizes[axis], given, argument)
            sizes[axis] = len(self.numbers[axis])
        first = self.files.get(
            self._cell_of({a: n[0] for a, n in self.numbers.items()}), next(iter(self.files.values()))
        )
        self.first_file = first[0]
        dataset = self.pattern.dataset_of({axis: numbers[0] for axis, numbers in self.numbers.items()})
        self.found = _layout(self.first_file, dataset)
        self.averaged = kind != "sample" and kind in self.found.has and text == wanted.sample
        stack = self._stack(self.first_file, dataset)
        self.image: tuple[int, int] = (stack.frames.shape[1], stack.frames.shape[2])
        if like is not None and self.image != like.image:
            raise ValueError(message(argument, f"frames of shape {like.image}, as the sample's", self.image))
        self.inner = [axis for axis in AXES if axis not in self.numbers]
        self.per_view = "view" in self.numbers or self.at is not None
        self._order_inside(stack, wanted, sizes, like)
        self.sizes: dict[str, int] = {axis: int(sizes[axis] or 1) for axis in AXES}
        self.missing = self._missing()

    def _order_inside(self, stack: Stack, wanted: Wanted, sizes: dict[str, int | None], like: _Source | None) -> None:
        """Which axes the frames of one file have, and how long those are that the file alone tells."""
        count = len(stack.frames)
        rest = [axis for axis in AXES if axis not in wanted.order]
        inner = [axis for axis in (*rest, *wanted.order) if axis in self.inner]
        if self.averaged:
            if set(inner) - {"view"} and any(sizes[axis] not in (None, 1) for axis in inner if axis != "view"):
                hint = "Flat fields in the sample's files belong to all frames of their file: one file a step"
                raise ValueError(message(self.argument, "the files of the frames without the sample", "none", hint))
            self.inner = []
            return
        if like is not None and "view" in inner:
            fixed = math.prod(int(sizes[axis] or 1) for axis in inner if axis != "view")
            if count == fixed:
                inner.remove("view")
            else:
                self.per_view = True
        open_axes = [axis for axis in inner if sizes[axis] is None]
        known = math.prod(int(sizes[axis] or 1) for axis in inner)
        if "distance" in open_axes and len(open_axes) > 1:
            sizes["distance"] = 1
            open_axes.remove("distance")
        if len(open_axes) > 1 and len(stack.axes) == len([a for a in inner if sizes[a] != 1]):
            lengths = iter(stack.axes)
            for axis in inner:
                length = next(lengths) if sizes[axis] != 1 else 1
                sizes[axis] = length if sizes[axis] is None else sizes[axis]
        elif len(open_axes) == 1:
            sizes[open_axes[0]] = max(1, count // max(1, known))
        elif open_axes:
            keys = " and ".join(f"[scan] {axis}s" for axis in open_axes)
            raise ValueError(message(self.argument, f"a file that tells its axes, or {keys}", f"{count} frames"))
        lengths_wanted = tuple(int(sizes[axis] or 1) for axis in inner)
        long = tuple(n for n in stack.axes if n > 1)
        fits = count == math.prod(lengths_wanted)
        if len(stack.axes) > 1 and fits:
            fits = long == tuple(n for n in lengths_wanted if n > 1)
        if not fits:
            each = [f"{n} {axis}s" for n, axis in zip(lengths_wanted, inner, strict=True) if n > 1]
            said = " × ".join(each) or "one frame"
            hint = "[files] order says which axis is the slowest"
            raise ValueError(message(self.argument, f"{said} in {self.first_file.name}", f"axes {stack.axes}", hint))
        self.inner = inner

    def _cell_of(self, numbers: Mapping[str, int]) -> Cell:
        return tuple(numbers[axis] for axis in self.pattern.of_file)

    def _stack(self, path: Path, dataset: str | None) -> Stack:
        if (path, dataset) not in self.stacks:
            kind = self.kind if self.kind in self.found.has else "sample"
            self.stacks[path, dataset] = open_frames(path, dataset, kind=kind)
        return self.stacks[path, dataset]

    def _places(self, view: int, distance: int, step: int) -> tuple[list[Path], str | None, int]:
        """Files, dataset and index of one frame; no files where it is missing."""
        at = {"view": view, "distance": distance, "step": step}
        numbers = {axis: values[at[axis]] for axis, values in self.numbers.items()}
        index = 0
        for axis in self.inner:
            index = index * self.sizes[axis] + at[axis]
        return self.files.get(self._cell_of(numbers), []), self.pattern.dataset_of(numbers), index

    def _missing(self) -> list[Cell]:
        lengths = [self.sizes[axis] for axis in AXES]
        everywhere = itertools.product(*map(range, lengths))
        return [cell for cell in everywhere if not self._places(*cell)[0]] if self.pattern.of_file else []

    def _shares(self, view: int, count: int) -> NDArray[np.float32]:
        """Of the frames that are repeated: equal ones, or those that interpolate between the times of references."""
        if self.at is None:
            return np.full(count, 1 / count, np.float32)
        return np.array([np.interp(view, self.at, row) for row in np.eye(count)], np.float32)

    def view(self, view: int, change: Any) -> NDArray[np.float32]:
        """Frames ``(distance, step, row, column)`` of one view, each changed after it is read."""
        shape = (self.sizes["distance"], self.sizes["step"])
        frames = np.full((*shape, *self.image), UNSEEN, np.float32)
        together: dict[tuple[tuple[Path, ...], str | None], list[tuple[int, int, int]]] = {}
        for distance, step in np.ndindex(*shape):
            files, dataset, index = self._places(view, distance, step)
            if files:
                together.setdefault((tuple(files), dataset), []).append((distance, step, index))
        for (those, dataset), places in together.items():
            total: Any = 0.0
            for file, share in zip(those, self._shares(view, len(those)), strict=True):
                if not share:
                    continue
                stack = self._stack(file, dataset).frames
                if stack.shape[1:] != self.image:
                    raise FileFormatError(
                        message(self.argument, f"frames of shape {self.image}", f"{stack.shape[1:]} in {file}")
                    )
                if self.averaged:
                    read = np.mean([change(stack[n]) for n in range(len(stack))], axis=0)[None]
                else:
                    indices = np.array([index for _, _, index in places])
                    if indices.max() >= len(stack):
                        raise FileFormatError(
                            message(self.argument, f"{indices.max() + 1} frames or more", f"{len(stack)} in {file}")
                        )
                    read = change(stack[indices])
                total = total + share * read
            for (distance, step, _), frame in zip(
                places, np.broadcast_to(total, (len(places), *self.image)), strict=True
            ):
                frames[distance, step] = frame
        return frames


def _layout(path: Path, dataset: str | None) -> Layout:
    if not path.name.lower().endswith(HDF5_SUFFIXES):
        return TOLD_BY_HDF5
    return find_layout(path, dataset)


def _average(wanted: Wanted, text: str | None, argument: str, like: _Source) -> NDArray[np.float64] | None:
    """Mean of all frames of all files."""
    if text is None:
        return None
    pattern = Pattern(text, argument, wanted.folder)
    if pattern.of_file or pattern.of_dataset:
        raise ValueError(message(argument, "files whose frames are averaged, with * for anything", repr(text)))
    total, count = np.zeros(like.image), 0
    for file in (file for files in pattern.files().values() for file in files):
        dataset = pattern.dataset_of({})
        kind = "dark" if argument == "dark" and "dark" in _layout(file, dataset).has else "sample"
        frames = open_frames(file, dataset, kind=kind).frames
        if frames.shape[1:] != like.image:
            raise ValueError(message(argument, f"frames of shape {like.image}, as the sample's", frames.shape[1:]))
        for _, piece in frames.pieces():
            total, count = total + piece.sum(0, dtype=np.float64), count + len(piece)
    mean = total / count
    if not np.isfinite(mean).all():
        raise ValueError(message(argument, "finite counts", "NaN or infinite ones"))
    return mean


def _tell_missing(missing: list[Cell], sizes: Mapping[str, int], refuse: bool) -> None:
    if not missing:
        return
    shown = "; ".join(f"view {v}, distance {d}, step {s}" for v, d, s in missing[:3]) + (
        "; …" if len(missing) > 3 else ""
    )
    found = f"{len(missing)} of {math.prod(sizes.values())} frames are missing (counted from 0): {shown}"
    if refuse or len(missing) == math.prod(sizes.values()):
        raise FileNotFoundError(message("sample", "all frames, or missing = 'mask'", found))
    warnings.warn(found + ". They get no weight", UserWarning, stacklevel=4)
