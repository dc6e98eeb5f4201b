"""The state of an iteration on disk, so that what was interrupted goes on as if it had not been."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ddf_tomo._checks import FileFormatError, file_path, message, number
from ddf_tomo._files import read_header, reading_hdf5, remove_leftovers, replaced_when_complete, write_header

LAYOUT = "ddf_tomo checkpoint 1"
State = dict[str, Any]  # tensors, and numbers


class Checkpoint:
    """A file that holds the state of a solver; whole at any moment, whenever the process is killed.

    Given to a solver, it is written now and then and at the end. If the file is there already, the solver goes on from
    it, with the same result as without the interruption; asked for more iterations, it goes on from the last one. A
    file of another problem (data, operator, settings) is refused, and one of more iterations than are asked for.

    Ctrl-C loses what was done since the last writing, no more than a kill does.

    Parameters
    ----------
    path
        HDF5 file.
    every_s
        Seconds between two writings; 0 writes after each iteration.

    Examples
    --------
    >>> import tempfile, torch
    >>> from ddf_tomo import wrap
    >>> from ddf_tomo.solvers import cgls
    >>> A = wrap((lambda x: x.cumsum(0), lambda y: y.flip(0).cumsum(0).flip(0)), (9,), (9,))
    >>> path = tempfile.mkdtemp() + "/state.h5"
    >>> first = cgls(A, torch.ones(9), iterations=3, checkpoint=path)
    >>> went_on = cgls(A, torch.ones(9), iterations=6, checkpoint=path)
    >>> torch.equal(went_on.x, cgls(A, torch.ones(9), iterations=6).x)
    True
    """

    def __init__(self, path: str | os.PathLike[str], every_s: float = 30.0) -> None:
        self.path: Path = file_path(path)
        self.every_s = number(every_s, "every_s", low=0.0)
        self._written = time.monotonic()

    def __repr__(self) -> str:
        return f"Checkpoint({str(self.path)!r}, every_s={self.every_s})"

    @property
    def due(self) -> bool:
        """Whether it is time to write."""
        return time.monotonic() - self._written >= self.every_s

    def write(self, state: State, problem: Mapping[str, Any], residuals: list[float], stopped_by: str) -> None:
        """Replace the file by one with this ``state`` of this ``problem``, its ``residuals`` and ``stopped_by``."""
        import h5py

        numbers = {name: value for name, value in state.items() if not isinstance(value, torch.Tensor)}
        header = {"layout": LAYOUT, "problem": dict(problem), "numbers": numbers, "stopped_by": stopped_by}
        with replaced_when_complete(self.path) as partial, h5py.File(partial, "w") as file:
            write_header(file, header | {"residuals": residuals})
            for name, value in state.items():
                if isinstance(value, torch.Tensor):
                    file[f"state/{name}"] = value.detach().cpu().numpy()
        self._written = time.monotonic()

    def read(
        self, state: State, problem: Mapping[str, Any], hint: str = "remove it, or name another file"
    ) -> tuple[list[float], str] | None:
        """Fill ``state`` from the file; residuals and why it stopped, or ``None`` if there is no file yet.

        Parameters
        ----------
        state
            What the solver remembers; its entries say which are expected.
        problem
            What tells this problem from another.
        hint
            What to do about a file of another problem.

        Raises
        ------
        FileFormatError
            If the file is no checkpoint.
        ValueError
            If it is one of another problem.
        """
        remove_leftovers(self.path)
        if not self.path.exists():
            return None
        with reading_hdf5(self.path, "a checkpoint") as file:
            header = read_header(file, LAYOUT)
            numbers, residuals, stopped_by = header["numbers"], header["residuals"], header["stopped_by"]
            stored = header["problem"]
            tensors = {name: torch.from_numpy(file[f"state/{name}"][()]) for name in file.get("state", ())}
        if different := sorted(name for name in problem | stored if not _same(problem.get(name), stored.get(name))):
            expected, found = _told(problem, different, "these"), _told(stored, different, "other")
            raise ValueError(message("checkpoint", expected, f"{found} in {self.path}", hint))
        if set(state) != set(numbers) | set(tensors):
            raise FileFormatError(
                message("checkpoint", f"a state of {sorted(state)}", sorted(set(numbers) | set(tensors)))
            )
        for name, value in state.items():
            state[name] = tensors[name].to(value) if isinstance(value, torch.Tensor) else numbers[name]
        return residuals, stopped_by

    def check_length(self, residuals: list[float], iterations: int) -> None:
        """Raise ``ValueError`` if the ``residuals`` that were read go on for longer than these ``iterations``."""
        if (there := len(residuals) - 1) > iterations:
            expected, hint = f"at most iterations={iterations}", "remove it, or name another file"
            raise ValueError(message("checkpoint", expected, f"{there} in {self.path}", hint))


def _told(problem: Mapping[str, Any], names: list[str], which: str) -> str:
    """Settings by their values; of data, weights and operator only that they are not the same."""
    settings = [f"{name}={problem.get(name)!r}" for name in names if name not in ("sums", "shapes", "dtype")]
    return ", ".join(settings) or f"{which} data, weights and operator"


def _same(first: Any, second: Any) -> bool:
    # Sums of float32 numbers depend on the number of threads: a computation may go on with another one.
    if isinstance(first, float) and isinstance(second, (int, float)):
        return math.isclose(first, second, rel_tol=1e-5)
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(_same, first, second))
    return bool(first == second)
