"""What the compiled CPU kernel must not touch, seen by memory that ends the process when it is written to."""

from __future__ import annotations

import os
import subprocess
import sys
from platform import machine

import pytest

PROGRAM = """
import ctypes, mmap
import numpy as np
from ddf_tomo import Geometry
from ddf_tomo.operators.backends import _numba_kernel as kernel
from ddf_tomo.operators.backends.table import view_table

channels = 15
for axis in range(3):
    # Long along the axis that is contiguous in memory, so that a page fits between the lines of one brick.
    shape = [(8, 2, 96), (2, 8, 96), (2, 2, 96)][axis]
    p, j, k = np.eye(3)[[axis, (axis + 1) % 3, (axis + 2) % 3]]
    geometry = Geometry([p], [j], [k], 0.0, 0.0, shape, (100, 100))
    views, main = view_table(geometry)
    assert main[0] == axis
    sizes, strides = (tuple(int(n) for n in views[0, part]) for part in (slice(0, 3), slice(3, 6)))
    owned = 8  # voxels along z of the first brick: slices, or its extent along w
    extents = (sizes[1], sizes[2]) if axis == 2 else (sizes[1], owned)

    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 64 * page)
    place = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    first = page - 4 * channels * owned  # the brick's first line ends where the second page begins
    size = int(np.prod(shape)) * channels
    volume = np.frombuffer(memory, np.float32, size, first)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    assert protect(ctypes.c_void_p(place + page), ctypes.c_size_t(page), 1) == 0  # to be read, not written

    kernel.adjoint_bricks(
        volume, np.ones(100 * 100 * channels, np.float32), strides, sizes, extents, 16, 16, (channels, 0, channels, 16),
        100, 100, views, np.array([0]), 0, 1,
    )
    assert (volume[: channels * owned] == 1).all()
    assert not volume[channels * owned : channels * 80].any()
    print("kept to its own")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="protects pages of memory")
def test_a_brick_writes_nothing_that_another_thread_owns():
    # Processors with masks for single lanes would not show it: code for one without.
    plain = os.environ | ({"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": ""} if machine() == "x86_64" else {})
    told = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False, env=plain)
    assert told.stdout.splitlines() == 3 * ["kept to its own"], told.stderr  # one for each main axis
