"""The doctor: a healthy core is called healthy, each way of being broken is recognised, and nothing breaks it."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from ddf_tomo import XRayTransform, doctor
from ddf_tomo.doctor import Finding, Report, examine, show


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A function that puts a fake package in front of the installed ones."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name, code):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)

    return make


@pytest.fixture
def versions(monkeypatch):
    """A dictionary whose entries replace what is installed."""
    found = {}
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: found.get(name, real(name)))
    return found


def neighbour(name):
    """The others are not looked for: each import takes a process of its own, and seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "find_spec", lambda other, find=doctor.find_spec: find(other) if other == name else None)
        return next(finding for finding in doctor._neighbours() if finding.name == name)


# -- the core ---------------------------------------------------------------------------------------------------------


def test_this_installation_works_and_the_report_survives_json():
    report = examine()
    assert report.works
    assert {finding.name: finding.works for finding in report.core} == dict.fromkeys(
        ("reference", "numba", "files"), True
    )
    read = json.loads(report.to_json())
    assert read["works"] is True
    assert read["versions"]["torch"] == torch.__version__
    assert read["machine"]["threads"].startswith(str(torch.get_num_threads()))
    assert [finding["name"] for finding in read["neighbours"]] == [
        "mumott", "astra", "tomosipo", "deepinv", "matplotlib",
    ]  # fmt: skip


@pytest.mark.parametrize(("works", "verdict"), [(True, True), (False, False), (None, False)])
def test_only_the_core_decides(works, verdict):
    broken = (Finding("other", False, ""),)
    assert Report({}, {}, (Finding("files", True, ""), Finding("numba", works, "")), broken, broken).works is verdict


def test_a_projector_that_is_off_by_a_thousandth_is_caught(monkeypatch):
    exact = XRayTransform._forward_kernel

    def scaled(self, x):
        return exact(self, x) * (1.001 if self.backend == "numba" else 1)

    monkeypatch.setattr(XRayTransform, "_forward_kernel", scaled)
    assert doctor._try_backend("reference", "reference").works
    finding = doctor._try_backend("numba", "numba")
    assert finding.works is False
    assert "right to 1e-03" in finding.detail
    assert "report" in finding.cure


def test_an_adjoint_that_is_off_is_caught(monkeypatch):
    exact = XRayTransform._adjoint_kernel
    monkeypatch.setattr(XRayTransform, "_adjoint_kernel", lambda self, y: exact(self, y) * 1.001)
    finding = doctor._try_backend("numba", "numba")
    assert (finding.works, "adjoint to 1e-03" in finding.detail) == (False, True)


def test_a_kernel_that_does_not_compile_is_explained(monkeypatch):
    def fail(self, x):
        raise RuntimeError("cannot cache function: no locator available\nand more")

    monkeypatch.setattr(XRayTransform, "_forward_kernel", fail)
    finding = doctor._try_backend("numba", "numba")
    assert finding.works is False
    assert finding.detail == "RuntimeError: cannot cache function: no locator available"
    assert "NUMBA_CACHE_DIR" in finding.cure


def test_broken_hdf5_is_explained(monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)  # makes its import fail
    finding = doctor._try_files()
    assert (finding.works, finding.cure) == (False, "pip install --upgrade h5py")


# -- GPU --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cuda", "words"), [(None, "is a build without CUDA"), ("12.8", "finds no device")])
def test_without_a_gpu_it_says_why(monkeypatch, cuda, words):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    finding = doctor._try_gpu()
    assert finding.works is None
    assert words in finding.detail


def test_a_gpu_that_does_not_answer_is_broken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(doctor, "_try_backend", lambda *_: Finding("GPU", False, "RuntimeError: no kernel image"))
    assert doctor._try_gpu().works is False


def test_a_gpu_that_works_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(doctor, "_try_backend", lambda *_: Finding("GPU", True, "projection right to 1e-07"))
    assert doctor._try_gpu() == Finding("GPU", True, "Some GPU: projection right to 1e-07")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_gpu_works():
    assert doctor._try_gpu().works


# -- neighbours -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matplotlib", "trapped"), [("3.9.0", True), ("3.10.7", True), ("4.0", True), ("3.8.4", False), ("", False)]
)
def test_the_matplotlib_trap_of_mumott_is_recognised(packages, versions, matplotlib, trapped):
    packages("mumott", "raise ImportError(\"cannot import name 'get_cmap' from 'matplotlib.cm'\")")
    versions.update(mumott="2.3", matplotlib=matplotlib)
    finding = neighbour("mumott")
    assert finding.works is False
    assert finding.detail.startswith("2.3 does not import: ImportError: cannot import name 'get_cmap'")
    assert ("the matplotlib trap" in finding.detail) is trapped
    assert 'pip install "mumott>=2.3" "matplotlib<3.9"' in finding.cure


def test_the_thread_trap_of_mumott_is_recognised(packages, monkeypatch):
    packages("mumott", "raise ValueError('The number of threads must be between 1 and 1')")
    monkeypatch.setenv("NUMBA_NUM_THREADS", "1")
    assert "unset NUMBA_NUM_THREADS, which is 1" in neighbour("mumott").detail


def test_the_trap_is_mumotts_alone(packages, versions):
    packages("deepinv", "import nothing_of_that_name")
    versions.update(matplotlib="3.10", deepinv="0.5")
    assert (
        neighbour("deepinv").detail
        == "0.5 does not import: ModuleNotFoundError: No module named 'nothing_of_that_name'"
    )


def test_a_torchvision_for_another_torch_is_named(packages):
    packages("deepinv", "raise RuntimeError('operator torchvision::nms does not exist')")
    assert "torchvision was built for another torch" in neighbour("deepinv").detail


def test_a_neighbour_that_kills_its_process_harms_nobody(packages):
    packages("tomosipo", "import os; os._exit(42)")
    finding = neighbour("tomosipo")
    assert finding.works is False
    assert "ended with code 42" in finding.detail


def test_a_neighbour_that_hangs_is_given_up(packages, monkeypatch):
    packages("tomosipo", "import time; time.sleep(600)")
    monkeypatch.setattr(doctor, "PROBE_TIMEOUT_S", 0.2)
    assert "takes more than 0.2 s" in neighbour("tomosipo").detail


def test_missing_neighbours_are_named_with_the_line_that_installs_them(monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    findings = {finding.name: finding for finding in doctor._neighbours()}
    assert all(finding.works is None and finding.cure.startswith("pip install ") for finding in findings.values())
    assert findings["astra"].cure == "pip install astra-toolbox"


@pytest.mark.parametrize(("has_gpu", "words"), [(True, "projectors too"), (False, "they need a GPU")])
def test_astra_is_asked_for_a_gpu_and_nothing_else(packages, has_gpu, words):
    packages("astra", f"def use_cuda(): return {has_gpu}")
    finding = neighbour("astra")
    assert finding.works is True
    assert words in finding.detail


# -- machine and display ----------------------------------------------------------------------------------------------


def test_memory_unknown_on_a_system_without_sysconf(monkeypatch):
    monkeypatch.delattr(doctor.os, "sysconf")
    assert doctor._memory() == "unknown"


def test_a_memory_limit_of_the_container_is_told(monkeypatch):
    monkeypatch.setattr(doctor.os, "access", lambda place, mode: "memory.max" in place)
    monkeypatch.setattr(doctor.Path, "read_text", lambda self: f"{2**29}\n")
    assert doctor._memory().endswith("limited to 0.5 GiB for this process")


def test_the_number_of_threads_names_what_set_it(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert doctor._machine()["threads"].endswith("(OMP_NUM_THREADS=3)")
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert doctor._machine()["threads"].isdigit()


def test_the_display_shows_findings_cures_and_verdict(capsys):
    core = (Finding("numba", False, "it broke [sic]", "mend it"),)
    show(Report({"torch": "1.0"}, {"cores": "2"}, core, (), (Finding("mumott", None, "not installed"),)))
    text = capsys.readouterr().out
    for words in ("torch", "broken", "it broke [sic]", "→ mend it", "absent", "The core does not work"):
        assert words in text


# -- threads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "runtimes", "mumott", "works"),
    [
        ("passive", ["libgomp.so.1", "libiomp5.so"], True, True),
        ("PASSIVE", ["libgomp.so.1"], True, True),
        ("", ["libgomp.so.1"], False, True),
        ("", ["libgomp.so.1", "libiomp5.so"], False, None),
        ("active", ["libgomp.so.1"], True, None),
    ],
)
def test_threads_that_spin_are_pointed_out_where_they_can_hurt(monkeypatch, policy, runtimes, mumott, works):
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    monkeypatch.setattr(doctor, "_openmp_runtimes", lambda: runtimes)
    monkeypatch.setattr(doctor, "find_spec", lambda name: mumott or None)
    finding = doctor._try_threads()
    assert finding.works is works
    assert ("OMP_WAIT_POLICY=passive" in finding.cure) is (works is None)


def test_openmp_of_torch_is_found():
    if sys.platform == "linux":
        assert any("omp" in name for name in doctor._openmp_runtimes())
