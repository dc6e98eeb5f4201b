"""MUMOTT's kernels, compiled when they are first called and only once, and for one thread.

MUMOTT freezes geometry, shapes and channels into its kernels: each projector object compiles its own two, 3 s in all,
also the one that it never calls. For several threads that takes twice as long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from numba import njit


@pytest.fixture(autouse=True, scope="module")
def _compiled_once() -> Iterator[None]:
    """Import it into a module of tests, or into a folder's `conftest`."""
    try:
        kernels = import_module("mumott.core.john_transform")  # of which the package has the function of that name
        from mumott.methods.projectors import saxs_projector
    except ImportError:  # the tests that need it are left out
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "njit", _for_one_thread)
        for name in ("john_transform", "john_transform_adjoint"):
            patch.setattr(saxs_projector, name, _once(getattr(saxs_projector, name)))
        yield


def _for_one_thread(*signature: Any, **options: Any) -> Any:
    return njit(*signature, **options | {"parallel": False})


@cache
def _once(compiled: Callable[..., Any]) -> Callable[..., Any]:
    kernels: dict[Any, Callable[..., Any]] = {}

    def later(field: Any, projections: Any, *vectors: Any) -> Callable[..., Any]:
        vectors = tuple(np.array(vector) for vector in vectors)  # as they are now
        key = field.shape, projections.shape, field.dtype, *(vector.tobytes() for vector in vectors)

        def kernel(field: Any, projections: Any) -> Any:
            if key not in kernels:
                kernels[key] = compiled(field, projections, *vectors)
            return kernels[key](field, projections)

        return kernel

    return later
