"""Views divided among two processes (gloo): the same numbers as in one, whatever is asked."""

from __future__ import annotations

import os
import pickle
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

import ddf_tomo as dt
from ddf_tomo.operators import distributed
from ddf_tomo.operators.distributed import over_views, own_share
from ddf_tomo.phantoms import helicoidal_fibres, simulate
from ddf_tomo.priors import Differences
from tests.operators.distributed_program import GEOMETRY, everything, noise

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="a torch without torch.distributed")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def expected():
    return everything(lambda A: A)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each of two processes saved."""
    folder = tmp_path_factory.mktemp("processes")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tests.operators.distributed_program"]
    running = [
        subprocess.Popen([*command, str(rank), "2", str(folder)], cwd=ROOT, env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    told = []
    for process in running:
        try:
            told.append(process.communicate(timeout=240)[1].decode())
        except subprocess.TimeoutExpired:
            process.kill()
            told.append("took too long")
    assert [process.returncode for process in running] == [0, 0], "\n".join(told)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_the_numbers_are_those_of_one_process(expected, found):
    for name, value in expected.items():
        value = torch.as_tensor(value)
        theirs = torch.as_tensor(found[0][name])
        tolerance = 1e-12 if value.dtype == torch.float64 and name not in ("norm", "weight") else 1e-5
        difference = (theirs - value).norm() / (value.norm() or 1.0)
        assert theirs.shape == value.shape, name
        assert difference <= tolerance, (name, float(difference))


def test_all_processes_have_the_same_bits(expected, found):
    for name in expected:
        assert torch.equal(torch.as_tensor(found[0][name]), torch.as_tensor(found[1][name])), name


def test_groups_and_shares(found):
    assert [each["own share"] for each in found] == [slice(0, 2), slice(2, 5)]
    assert [each["own residuals"] for each in found] == [[5, 1], [6, 2]]  # nobody has those of all 11 views, and 3
    assert found[1]["alone"]
    assert found[1]["group share"] == slice(0, 5)
    assert "does not belong to the group" in found[0]["refused"]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("count", [0, 1, 5, 12])
def test_shares_are_even_and_complete(size, count, monkeypatch):
    monkeypatch.setattr(dist, "get_world_size", lambda group: size)
    shares = [range(count)[distributed.share_of(rank, count, None)] for rank in range(size)]
    assert [place for share in shares for place in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("call", [lambda: over_views(dt.XRayTransform(GEOMETRY)), lambda: own_share(3)])
def test_without_processes_it_says_what_to_do(call):
    assert not dist.is_initialized()
    with pytest.raises(RuntimeError, match=r"not initialised: start the program with torchrun .*init_process_group"):
        call()


@pytest.fixture
def single(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("single")
def test_bad_arguments_are_named():
    A = dt.XRayTransform(GEOMETRY)
    with pytest.raises(TypeError, match="A: expected a LinearOperator, got int"):
        over_views(3)
    with pytest.raises(TypeError, match="has no views"):
        over_views(Differences((3, 3, 3)))
    with pytest.raises(TypeError, match="group: expected a process group"):
        over_views(A, "gloo")
    with pytest.raises(TypeError, match=r"pickle A\.whole"):
        pickle.dumps(over_views(A))
    with pytest.raises(ValueError, match="x: expected shape"):
        over_views(A)(torch.zeros(3))
    with pytest.raises(ValueError, match="weights: expected"):
        over_views(A).normal(torch.ones(3, 1, 1, 1))
    with pytest.raises(ValueError, match="count: expected"):
        own_share(-1)


@pytest.mark.usefixtures("single")
def test_solvers_know_the_whole():
    A = over_views(dt.TensorXRayTransform(GEOMETRY, dt.SecondMomentResponse(), 2))
    with pytest.raises(ValueError, match="a rank-2 response, got SecondMomentResponse"):
        dt.solvers.irtt(A, noise(*A.range_shape, seed=0))


@pytest.mark.usefixtures("single")
def test_a_process_alone_has_the_very_operator():
    A = dt.XRayTransform(GEOMETRY)
    x = noise(*GEOMETRY.volume_shape, 2, seed=0)
    assert torch.equal(over_views(A)(x), A(x))
    assert dt.check_adjoint(over_views(A), torch.float64) < 1e-12
    assert over_views(A)(x[None][:0]).shape == (0, 11, 7, 6, 2)


# -- the manual -------------------------------------------------------------------------------------------------------

PROGRAMS = re.findall(r"^```py\n(.*?)^```", (ROOT / "docs" / "distributed.md").read_text(), re.DOTALL | re.MULTILINE)


def test_the_program_of_the_manual_runs(tmp_path, monkeypatch):
    """In one process, which has of torchrun's environment what a start with one process would give."""
    simulate(helicoidal_fibres, dt.phantoms.tilt_series((4, 4, 4)), dt.SecondMomentResponse()).write(
        tmp_path / "scan.h5"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)
    exec(compile(PROGRAMS[0], "program.py", "exec"), {"__name__": "__main__"})
    assert np.load("coefficients.npy").shape == (4, 4, 4, 6)
    assert not dist.is_initialized()


def test_the_recipe_of_the_manual_is_python():
    assert len(PROGRAMS) == 2
    compile(PROGRAMS[1], "recipe.py", "exec")
