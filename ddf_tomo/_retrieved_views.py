"""Maps of all views of a scan, one view after the other; finished ones are kept on the disk."""

from __future__ import annotations

import dataclasses
import json
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ddf_tomo._checks import FileFormatError, message
from ddf_tomo._files import replaced_when_complete
from ddf_tomo._progress import progress_bar
from ddf_tomo._streamed import Streamed
from ddf_tomo.readers.scans import Frames
from ddf_tomo.retrieval import Maps, retrieve

PLAN, VIEW = "retrieval.json", "view_{:06d}.h5"


def retrieve_views(
    frames: Frames, method: str, folder: Path | None, progress: bool | None, options: dict[str, Any]
) -> Maps:
    """Maps ``(view, row, column)``; what is in the folder already is not retrieved again."""
    arguments = frames.arguments()
    sample, reference = arguments.pop("sample"), arguments.pop("reference")
    if folder is not None:
        _prepare(folder, _plan(sample, reference, method, options | arguments))
    found = []
    with progress_bar(len(frames), "retrieving", progress, unit="view") as bar:
        for view in range(len(frames)):
            kept = None if folder is None else folder / VIEW.format(view)
            maps = _kept(kept)
            if maps is None:
                beam = reference[view] if isinstance(reference, Streamed) else reference
                try:
                    maps = retrieve(sample[view], beam, method, progress=False, **arguments, **options)
                except (TypeError, ValueError) as error:
                    error.args = (f"{error} (view {view})", *error.args[1:])
                    raise
                if kept is not None:
                    maps.save(kept)
            found.append(maps)
            bar.update()
    return stacked(found)


def stacked(views: list[Maps]) -> Maps:
    """Maps of single views along a new first axis."""
    first, values = views[0], {}
    for name in (field.name for field in dataclasses.fields(Maps)):
        value = getattr(first, name)
        if isinstance(value, np.ndarray):
            value = np.stack([getattr(maps, name) for maps in views])
        values[name] = value
    return Maps(**values)


def remove_views(folder: Path) -> None:
    """Remove what is kept in a folder, and the folder if nothing else is in it."""
    with suppress(OSError):
        for file in (*folder.glob("view_*.h5"), *folder.glob(".view_*.part"), folder / PLAN):
            file.unlink(missing_ok=True)
        folder.rmdir()


def _plan(sample: Any, reference: Any, method: str, options: dict[str, Any]) -> str:
    """What decides the result, as a text: a folder of something else is refused."""
    beam = np.ascontiguousarray(reference[0] if isinstance(reference, Streamed) else reference)
    first = np.ascontiguousarray(sample[0])
    told = {name: _told(value) for name, value in sorted(options.items()) if name != "device"}
    sums = [zlib.crc32(first.tobytes()), zlib.crc32(beam.tobytes())]
    return json.dumps({"method": method, "shape": sample.shape, "frames": sums, "options": told}, default=str)


def _told(value: Any) -> Any:
    return zlib.crc32(np.ascontiguousarray(value).tobytes()) if isinstance(value, np.ndarray) else value


def _prepare(folder: Path, plan: str) -> None:
    if not folder.parent.is_dir() or folder.is_file():
        raise ValueError(message("checkpoint", "a folder, or a name for one in an existing folder", str(folder)))
    folder.mkdir(exist_ok=True)
    file = folder / PLAN
    if not file.exists():
        with replaced_when_complete(file) as partial:
            partial.write_text(plan)
    elif file.read_text(errors="replace") != plan:
        hint = "Remove the folder, or name another"
        raise ValueError(message("checkpoint", "a folder of the same frames and options", str(folder), hint))


def _kept(file: Path | None) -> Maps | None:
    """Maps of a view that is done; a damaged file is as good as none."""
    if file is None or not file.is_file():
        return None
    try:
        return Maps.load(file)
    except FileFormatError:
        return None
