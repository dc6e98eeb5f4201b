"""Retrievals that end early go on where they were, and their file is never broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ddf_tomo import FileFormatError
from ddf_tomo.retrieval import Maps, retrieve
from ddf_tomo.retrieval._tiles import arrays
from tests.retrieval.simulation import frames

SHAPE = (24, 26)
OPTIONS = {"window": 1.0, "smoothing": 0.5}
VIEWS = [frames(5, SHAPE, displacement=(0.1, -0.1), transmission=t, counts=5000, seed=1) for t in (1.0, 0.8, 0.6)]
SAMPLE = np.stack([sample for sample, _ in VIEWS])
REFERENCE = VIEWS[0][1]


class Watched:
    """Frames as a file would hold them, of which reading may fail, as on a full disk or at Ctrl+C."""

    def __init__(self, values: np.ndarray, last: int = 99) -> None:
        self.values, self.last, self.read = values, last, []
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, index: Any) -> Any:
        if index[0] > self.last:
            raise KeyboardInterrupt
        self.read.append(index[0])
        return self.values[index]


def equal(one: Maps, other: Maps) -> None:
    for name, value in arrays(other):
        np.testing.assert_array_equal(getattr(one, name), value, err_msg=name)


def test_views_are_read_one_by_one_from_files(tmp_path: Path) -> None:
    expected = retrieve(SAMPLE, REFERENCE, **OPTIONS)
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["sample"], file["reference"] = SAMPLE.astype(np.uint16), REFERENCE.astype(np.uint16)
        from_file = retrieve(file["sample"], file["reference"], **OPTIONS)
    equal(from_file, retrieve(SAMPLE.astype(np.uint16), REFERENCE.astype(np.uint16), **OPTIONS))
    mapped = np.memmap(tmp_path / "raw", np.float64, "w+", shape=SAMPLE.shape)
    mapped[:] = SAMPLE
    equal(retrieve(mapped, REFERENCE, **OPTIONS), expected)
    watched = Watched(SAMPLE)
    equal(retrieve(watched, REFERENCE, **OPTIONS), expected)
    assert watched.read == [0, 1, 2]


def test_an_interrupted_retrieval_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = retrieve(SAMPLE, REFERENCE, **OPTIONS)
    path = tmp_path / "unfinished.h5"
    with pytest.raises(KeyboardInterrupt):
        retrieve(Watched(SAMPLE, last=1), REFERENCE, checkpoint=path, **OPTIONS)
    assert [each.name for each in tmp_path.iterdir()] == ["unfinished.h5"]

    done = count_fits(monkeypatch)
    equal(retrieve(Watched(SAMPLE), REFERENCE, checkpoint=path, **OPTIONS), expected)
    assert len(done) == 1
    # All is there now; a view whose frames have changed is done again, and other settings are another matter.
    equal(retrieve(SAMPLE, REFERENCE, checkpoint=path, **OPTIONS), expected)
    assert len(done) == 1
    changed = SAMPLE.copy()
    changed[1, 2, 3, 4] += 1
    retrieve(changed, REFERENCE, checkpoint=path, **OPTIONS)
    assert len(done) == 2
    retrieve(SAMPLE, REFERENCE, checkpoint=path, **OPTIONS | {"window": 1.5})
    assert len(done) == 5


def count_fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    from ddf_tomo.retrieval import METHODS

    done: list[int] = []
    kind, fit = type(METHODS["differential"]), type(METHODS["differential"]).fit

    def counted(*arguments: Any) -> Maps:
        done.append(1)
        return fit(*arguments)

    monkeypatch.setattr(kind, "fit", counted)
    return done


def test_every_moment_leaves_a_file_to_go_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A process that dies between any two writes: the file opens, and holds either a view or no mark of it.
    import builtins

    expected = retrieve(SAMPLE, REFERENCE, **OPTIONS)
    path = tmp_path / "unfinished.h5"
    with pytest.raises(KeyboardInterrupt):
        retrieve(Watched(SAMPLE, last=0), REFERENCE, checkpoint=path, **OPTIONS)
    states: list[bytes] = []
    opened = builtins.open

    def spied(name: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        file = opened(name, mode, *rest, **more)
        if mode != "rb+" or Path(name) != path:
            return file

        class Spy:
            def __getattr__(self, attribute: str) -> Any:
                return getattr(file, attribute)

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def write(self, content: bytes) -> None:
                file.flush()
                states.append(path.read_bytes())
                for half in (content[: len(content) // 2], content[len(content) // 2 :]):
                    file.write(half)
                    file.flush()
                    states.append(path.read_bytes())

        return Spy()

    monkeypatch.setattr("builtins.open", spied)
    retrieve(SAMPLE[:2].repeat(1, 0)[[0, 1, 1]], REFERENCE, checkpoint=path, **OPTIONS)
    monkeypatch.undo()
    assert len(states) > 50
    for state in states[:: max(1, len(states) // 12)]:
        path.write_bytes(state)
        with h5py.File(path) as file:
            assert file["inputs"].shape[0] == 3
        equal(retrieve(SAMPLE, REFERENCE, checkpoint=path, **OPTIONS), expected)


def test_foreign_and_broken_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "unfinished.h5"
    retrieve(SAMPLE, REFERENCE, checkpoint=path, **OPTIONS)
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="checkpoint: expected a file for 2 views"):
        retrieve(SAMPLE[:2], REFERENCE, checkpoint=path, **OPTIONS)
    for content in (b"", b"no HDF5", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(FileFormatError):
            retrieve(SAMPLE, REFERENCE, checkpoint=path, **OPTIONS)
    with pytest.raises(ValueError, match="checkpoint"):
        retrieve(SAMPLE, REFERENCE, checkpoint=tmp_path, **OPTIONS)
    with pytest.raises(ValueError, match="checkpoint"):
        retrieve(SAMPLE, REFERENCE, checkpoint=tmp_path / "none" / "x.h5", **OPTIONS)
