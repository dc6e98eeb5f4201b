"""Memory is told before it is taken, and refused in words; what is told is what is taken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ddf_tomo import Scan, _resources, memory, reconstruct
from ddf_tomo._plan import METHODS
from ddf_tomo._resources import available_memory
from ddf_tomo.cli import main
from ddf_tomo.memory import Memory, Size, predicted_memory
from ddf_tomo.operators.responses import RankTwoResponse, SecondMomentResponse
from ddf_tomo.phantoms import helicoidal_fibres, simulate, tilt_series
from tests.strategies import random_geometry

LARGE = Size((128, 128, 128), (300, 128, 128, 8), 15)


@pytest.fixture(scope="module")
def scan():
    return simulate(helicoidal_fibres, tilt_series((8, 8, 8))[::10], SecondMomentResponse(), noise=0.02)


# -- what is free -----------------------------------------------------------------------------------------------------


@pytest.fixture
def system(tmp_path, monkeypatch):
    """What the system tells, to be replaced: a folder, and the limit on addresses lifted."""
    (tmp_path / "meminfo").write_text("")
    (tmp_path / "self").write_text("")
    monkeypatch.setattr(_resources, "MEMINFO", str(tmp_path / "meminfo"))
    monkeypatch.setattr(_resources, "OWN_CGROUP", str(tmp_path / "self"))
    monkeypatch.setattr(_resources, "CGROUPS", str(tmp_path))
    monkeypatch.setattr(_resources, "_limit", lambda: None)
    return tmp_path


def cgroup(folder, limit, used, statistics="", names=("memory.max", "memory.current")):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in zip((*names, "memory.stat"), (limit, used, statistics), strict=True):
        (folder / name).write_text(str(text))


def test_what_the_machine_has_free(system):
    (system / "meminfo").write_text("MemTotal: 900 kB\nMemAvailable:      700 kB\n")
    assert available_memory() == 700 * 1024


def test_a_container_leaves_less_and_its_cached_files_do_not_count(system):
    (system / "meminfo").write_text("MemAvailable: 700 kB\n")
    (system / "self").write_text("0::/\n")
    cgroup(system, 500_000, 300_000, "anon 1\ninactive_file 40000\nactive_file 10000\n")
    assert available_memory() == 500_000 - (300_000 - 50_000)
    cgroup(system, "max", 300_000)
    assert available_memory() == 700 * 1024


def test_a_job_in_a_queue_has_the_limit_of_what_is_around_it(system):
    (system / "meminfo").write_text("MemAvailable: 700 kB\n")
    (system / "self").write_text("0::/system.slice/job_7/step_0\n")
    cgroup(system / "system.slice/job_7", 200_000, 50_000)
    cgroup(system / "system.slice/job_7/step_0", "max", 40_000)
    assert available_memory() == 150_000


def test_cgroups_of_the_first_version(system):
    (system / "meminfo").write_text("MemAvailable: 700 kB\n")
    (system / "self").write_text("5:cpu,cpuacct:/job\n4:memory:/job\n")
    cgroup(system / "memory/job", 90_000, 20_000, names=("memory.limit_in_bytes", "memory.usage_in_bytes"))
    assert available_memory() == 70_000


def test_without_proc_half_of_what_the_machine_has(system, monkeypatch):
    monkeypatch.setattr(_resources.os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1000}.__getitem__)
    assert available_memory() == 4096 * 500


def test_a_system_that_tells_nothing_refuses_nothing(system, monkeypatch):
    monkeypatch.delattr(_resources.os, "sysconf")
    assert available_memory() > 10**15


def test_a_limit_on_addresses_counts():
    code = (
        "import resource; from ddf_tomo._resources import available_memory;"
        "pages = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize();"
        "resource.setrlimit(resource.RLIMIT_AS, (pages + 10**8, pages + 10**8)); print(available_memory())"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert 5e7 < int(told) <= 1e8


# -- what is predicted ------------------------------------------------------------------------------------------------


def test_a_volume_and_data_are_counted():
    assert LARGE.volume_bytes == 128**3 * 15 * 4
    assert LARGE.data_bytes == 300 * 128 * 128 * 8 * 4
    assert predicted_memory(LARGE).scan == 2 * LARGE.data_bytes
    assert predicted_memory(replace(LARGE, weighted=False)).scan == LARGE.data_bytes
    told = Memory(1, 20, 300, 4000)
    assert (told.total, told.needed) == (4321, 4320)


def test_the_bars_of_the_project_are_kept():
    assert predicted_memory(LARGE).total < 8e9
    streamed = Size((256, 256, 256), (400, 256, 256, 3), 6, streams=True)
    assert predicted_memory(streamed).total < 20e9


@pytest.mark.parametrize("method", METHODS)
def test_nothing_grows_faster_than_what_it_depends_on(method):
    small, large = (predicted_memory(Size((n, 64, 64), (n, 64, 64, 3), 6), method).total for n in (200, 400))
    assert small < large < 2 * small


@pytest.mark.parametrize("method", [name for name, made in METHODS.items() if made.streams])
def test_streamed_data_cost_no_memory(method):
    fixed = {"volume_shape": (32, 32, 32), "coefficients": 6, "streams": True}
    some, many = (predicted_memory(Size(data_shape=(n, 256, 256, 8), **fixed), method).total for n in (500, 50000))
    assert some == many


def test_the_size_of_a_scan(scan):
    assert Size.of(replace(scan, weights=None), 2) == Size((8, 8, 8), scan.data.shape, 6, weighted=False)
    double = replace(scan, data=scan.data.astype(float), weights=np.ones(len(scan)))
    assert Size.of(double, 4) == Size((8, 8, 8), scan.data.shape, 15, itemsize=8)
    response = RankTwoResponse()
    shape = len(scan), *scan.geometry.detector_shape, response.channels
    tensors = Scan(np.ones(shape), scan.geometry, response)
    assert Size.of(tensors, 2).coefficients == 6
    assert predicted_memory(scan, ell_max=2) == predicted_memory(Size.of(scan, 2))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"scan": 3}, "scan"),
        ({"method": "magic"}, "method"),
        ({"prior": "magic"}, "prior"),
        ({"weight": "magic"}, "weight"),
    ],
)
def test_bad_wishes_are_named(given, words):
    with pytest.raises((TypeError, ValueError), match=words):
        predicted_memory(**({"scan": LARGE} | given))


PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from ddf_tomo import Scan, SecondMomentResponse, reconstruct
from ddf_tomo.memory import predicted_memory
from ddf_tomo.phantoms import tilt_series

def now(what):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if what in line)

size, views, order, weighted, iterations, how = json.loads(sys.argv[1])
geometry = tilt_series((size,) * 3)[:views]
data = np.random.default_rng(0).random((len(geometry), *geometry.detector_shape, 3), np.float32)
scan = Scan(data, geometry, SecondMomentResponse(), weights=data + 1 if weighted else None)
reconstruct(scan[:2].binned(size // 8), ell_max=order, iterations=1, weight=0.01)  # compiles
Path("/proc/self/clear_refs").write_text("5")
before = now("VmRSS")
reconstruct(scan, ell_max=order, iterations=iterations, progress=False, **how)
print(now("VmHWM") - before, predicted_memory(scan, ell_max=order, **how).needed)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux, which tells peaks")
@pytest.mark.parametrize(
    "case",
    [
        [64, 3, 2, False, 2, {"weight": 0.01}],
        [64, 3, 2, False, 2, {"prior": "smoothness", "weight": 0.01}],
        [48, 250, 0, True, 2, {"prior": "smoothness", "weight": 0.01}],
        [32, 3, 2, False, 1, {"prior": "learned"}],
    ],
)
def test_what_is_predicted_is_what_is_taken(case):
    # What is freed goes back to the system at once, as it always does where arrays are larger than 32 MiB.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    how = {"capture_output": True, "text": True, "check": True, "env": environment}
    told = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(case)], **how)
    taken, predicted = map(int, told.stdout.split())
    assert 1 / 1.3 < taken / predicted < 1.3


# -- what is refused --------------------------------------------------------------------------------------------------


def test_too_much_is_refused_with_bytes_and_ways_out(scan, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 10**6)
    with pytest.raises(MemoryError) as told:
        reconstruct(scan, ell_max=2)
    needed = predicted_memory(scan, ell_max=2).needed
    assert str(told.value).startswith(
        f"scan: expected at most 1000000 bytes to be needed (0.001 GB are free), got about {needed}"
    )
    for way in ("in_memory=False", "ell_max=0", "binned(2)"):
        assert way in str(told.value)
    monkeypatch.setattr(memory, "available_memory", iter([10**12, 1]).__next__)
    with pytest.raises(MemoryError, match="scan 2 of 2"):
        reconstruct([scan, scan], ell_max=2)


def test_the_program_tells_it_on_one_line(scan, tmp_path, monkeypatch, capsys):
    scan.write(tmp_path / "scan.h5")
    monkeypatch.setattr(memory, "available_memory", lambda: 10**6)
    with pytest.raises(SystemExit) as end:
        main(["reconstruct", str(tmp_path / "scan.h5"), "-o", str(tmp_path / "out.h5"), "--ell-max", "2"])
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "bytes" in line
    assert {path.name for path in tmp_path.iterdir()} == {"scan.h5"}


def test_shapes_decide_and_precision():
    geometry = random_geometry(2, (3, 4, 5), (2, 3))
    made = Scan(np.ones((2, 2, 3, 3)), geometry, SecondMomentResponse())
    assert Size.of(made, 0) == Size((3, 4, 5), (2, 2, 3, 3), 1, weighted=False, itemsize=8)
