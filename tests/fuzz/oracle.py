"""What may come of a call: a result, finite if the input is, or an error in the package's own words."""

from __future__ import annotations

import dataclasses
import dis
import io
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

import ddf_tomo
from ddf_tomo.operators.base import LinearOperator

PACKAGE = str(Path(ddf_tomo.__file__).parent)
LIMIT_S = 10.0
ERRORS = (ValueError, TypeError, FileNotFoundError, IndexError, AssertionError)  # the last is `check_adjoint`'s
# Documented infinities: errors and conditions of what was not seen, the spread of an angle nobody measured.
INFINITE = ("condition", "_error", "error", "error_matrix")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """``kind`` is "accepted" or the error's type; ``fault`` says what is wrong with it, if anything."""

    kind: str
    fault: str = ""


def judge(
    call: Callable[..., Any], arguments: dict[str, Any], *, propagates: bool = False, raw: bool = False
) -> Outcome:
    """Make the call and judge what comes of it.

    ``propagates`` is for plain linear maps: their sums may leave the range of floating point (IEEE 754), as torch's do.
    ``raw`` is for readers that give what is in a file, NaN too.
    """
    largest = float(np.max([0.0, *(_magnitude(array) for _, array in numbers(arguments))]))
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", category=RuntimeWarning, module="ddf_tomo")
            result = call(**arguments)
            seconds = time.perf_counter() - start
            fault = (
                "" if raw or not np.isfinite(largest) else next(_not_finite(result, propagates and largest > 1e18), "")
            )
        outcome = Outcome("accepted", fault)
    except Exception as error:
        seconds = time.perf_counter() - start
        outcome = Outcome(type(error).__name__, _fault_of(error))
    return dataclasses.replace(outcome, fault=f"took {seconds:.0f} s") if seconds > LIMIT_S else outcome


def _fault_of(error: Exception) -> str:
    frames: list[TracebackType] = []
    step = error.__traceback__
    while step is not None:
        frames.append(step)
        step = step.tb_next
    last = frames[-1]
    where = last.tb_frame.f_code.co_filename
    said = f"{type(error).__name__}: {str(error)[:200]}"
    inside = [f for f in frames if f.tb_frame.f_code.co_filename.startswith(PACKAGE)]
    place = f"{Path(inside[-1].tb_frame.f_code.co_filename).name}:{inside[-1].tb_lineno}" if inside else "nowhere"
    tests = str(Path(__file__).parent)
    if inside and last.tb_frame.f_code.co_filename.startswith(tests):
        return ""  # a function that the caller handed over raised it
    if not isinstance(error, ERRORS):
        return f"{said} at {place}"
    if not inside:
        return f"outside the package: {said}\n" + "".join(traceback.format_tb(error.__traceback__)[-2:])
    # An error that C code raises has the caller's frame: only a raise statement is the package's own word.
    code = last.tb_frame.f_code.co_code
    if not where.startswith(PACKAGE) or dis.opname[code[last.tb_lasti]] != "RAISE_VARARGS":
        return f"not the package's own words: {said} at {place}"
    if not isinstance(error, AssertionError) and "expected" not in str(error) and ": " not in str(error):
        return f"names no argument: {said} at {place}"
    return ""


def numbers(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, np.ndarray]]:
    """All arrays of numbers in a value, however nested, with the name of the place where they are."""
    if depth > 6:
        return
    if isinstance(value, torch.Tensor):
        if value.device.type == "cpu" and value.layout == torch.strided:
            wide = value.double() if value.dtype == torch.bfloat16 else value
            yield name, wide.detach().resolve_neg().resolve_conj().numpy()
    elif isinstance(value, np.ndarray):
        if value.dtype.kind in "fc":
            yield name, np.ma.getdata(value)
        elif value.dtype == object:
            yield from numbers(value.tolist(), name, depth + 1)
    elif isinstance(value, (float, complex, np.floating)):
        yield name, np.asarray(value)
    elif isinstance(value, int) and not -(2**60) < value < 2**60:
        yield name, np.asarray(float(value) if abs(value) < 1e300 else 1e300)
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from numbers(entry, str(key), depth + 1)
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        for key in value._fields:
            yield from numbers(getattr(value, key), key, depth + 1)
    elif isinstance(value, (tuple, list)):
        for entry in value:
            yield from numbers(entry, name, depth + 1)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for each in dataclasses.fields(value):
            yield from numbers(getattr(value, each.name), each.name, depth + 1)


def _magnitude(array: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        return float(np.abs(array).max(initial=0.0))  # NaN if there is one


def _not_finite(result: Any, overflows: bool) -> Iterator[str]:
    if isinstance(result, LinearOperator) or overflows:
        return
    for name, array in numbers(result):
        if np.isnan(array).any():
            yield f"NaN in {name or 'the result'} out of finite input"
        elif not np.isfinite(array).all() and not name.endswith(INFINITE):
            yield f"infinity in {name or 'the result'} out of finite input"
