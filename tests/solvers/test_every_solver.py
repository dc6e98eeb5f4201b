"""What every solver must do: tell its history, stop when told, go on from where it was, name what is wrong."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddf_tomo import solvers, wrap
from ddf_tomo.solvers import Checkpoint
from tests.solvers.registry import SOLVERS, WEIGHTS, data, operator

every_solver = pytest.mark.parametrize("name", SOLVERS)


class Killed(Exception):
    pass


def kill_after(last):
    def callback(iteration, x, residual):
        if iteration == last:
            raise Killed

    return callback


def norm(r, weights=1.0):
    return float((torch.as_tensor(weights) * r.double() ** 2).sum().sqrt())


def test_none_is_missing():
    public = {name for name in solvers.__all__ if inspect.isfunction(getattr(solvers, name))}
    chosen_by_weight = {name for name in public if name.endswith("_weight")}
    # What does not iterate, what calls those that do, `cgls` on X-ray transforms only, and what needs known volumes.
    of_solvers = {"fbp", "multiresolution", "preconditioner", "pcg", "rehearsed"}
    assert public - chosen_by_weight - of_solvers == {name.split(",")[0] for name in SOLVERS}


@every_solver
@pytest.mark.parametrize(("weights", "start"), [(None, None), (WEIGHTS, 0.3)])
def test_history(name, weights, start):
    A, y, seen = operator(), data(), []
    x0 = None if start is None else torch.full(A.domain_shape, start, dtype=torch.float64)
    solution = SOLVERS[name](
        weights=weights, x0=x0, iterations=6, callback=lambda i, x, r: seen.append((i, x.clone(), r))
    )
    w = 1.0 if weights is None else weights
    assert solution.residuals[0] == pytest.approx(norm(y if x0 is None else A(x0) - y, w))
    assert [i for i, _, _ in seen] == list(range(1, solution.iterations + 1)) == [1, 2, 3, 4, 5, 6]
    for (_, x, told), noted in zip(seen, solution.residuals[1:], strict=True):
        assert told == noted == pytest.approx(norm(A(x) - y, w), rel=1e-9)
    assert torch.equal(solution.x, seen[-1][1])
    assert solution.stopped_by == "iterations"


@every_solver
def test_it_stops_when_told(name):
    solution = SOLVERS[name](callback=lambda i, x, r: i == 2, iterations=5)
    assert (solution.stopped_by, solution.iterations) == ("callback", 2)


@every_solver
def test_it_stops_at_the_noise_level(name):
    free = SOLVERS[name](iterations=30, weights=WEIGHTS).residuals
    level = (free[0] + min(free)) / 2
    solution = SOLVERS[name](iterations=30, noise_level=level, weights=WEIGHTS)
    assert solution.stopped_by == "noise level"
    assert solution.residuals[-1] <= level < min(solution.residuals[:-1])
    assert solution.residuals == free[: len(solution.residuals)]
    already = SOLVERS[name](noise_level=2 * free[0], weights=WEIGHTS)
    assert (already.stopped_by, already.iterations) == ("noise level", 0)


@every_solver
def test_it_stops_when_converged(name):
    loose, tight = (SOLVERS[name](tolerance=tolerance, iterations=2000) for tolerance in (1e-1, 1e-3))
    assert loose.stopped_by == tight.stopped_by == "convergence"
    assert loose.iterations < tight.iterations < 2000


@every_solver
@pytest.mark.parametrize(("dtype", "kills"), [(torch.float64, (3,)), (torch.float32, (1, 6, 7, 12))])
def test_what_was_killed_goes_on_as_if_it_had_not_been(name, dtype, kills, tmp_path):
    solve, y, path = SOLVERS[name], data(dtype), tmp_path / "state.h5"
    whole = solve(y=y, weights=WEIGHTS, iterations=15)
    for last in kills:
        with pytest.raises(Killed):
            solve(
                y=y, weights=WEIGHTS, iterations=15, callback=kill_after(last), checkpoint=Checkpoint(path, every_s=0)
            )
    resumed = solve(y=y, weights=WEIGHTS, iterations=15, checkpoint=path)
    assert torch.equal(resumed.x, whole.x)
    assert resumed == replace(whole, x=resumed.x)
    longer = solve(y=y, weights=WEIGHTS, iterations=18, checkpoint=path)
    assert torch.equal(longer.x, solve(y=y, weights=WEIGHTS, iterations=18).x)


@every_solver
def test_the_checkpoint_of_another_problem_is_refused(name, tmp_path):
    solve, path = SOLVERS[name], tmp_path / "state.h5"
    solve(iterations=2, checkpoint=path)
    for other in ({"y": 1.01 * data()}, {"y": data().flip(1)}, {"weights": WEIGHTS}, {"y": data(torch.float32)}):
        with pytest.raises(ValueError, match=r"^checkpoint: expected .* remove it, or name another file"):
            solve(iterations=2, checkpoint=path, **other)
    names = [*SOLVERS, *SOLVERS]
    rival = names[names.index(name) + 1]
    with pytest.raises(ValueError, match=r"^checkpoint: expected"):
        SOLVERS[rival](iterations=2, checkpoint=path)


@every_solver
def test_where_it_starts(name):
    x0 = torch.rand(operator().domain_shape, generator=torch.Generator().manual_seed(1))
    copy = x0.clone()
    assert torch.allclose(SOLVERS[name](x0=x0, iterations=0).x, x0.double(), atol=1e-12)
    SOLVERS[name](x0=x0, iterations=3)
    assert torch.equal(x0, copy)
    assert not SOLVERS[name](iterations=0).x.any()
    # From the end of a run it goes down no further than that run would.
    near, far = SOLVERS[name](iterations=40), SOLVERS[name](x0=torch.zeros_like(x0), iterations=1)
    assert SOLVERS[name](x0=near.x, iterations=1).residuals[1] < far.residuals[1]


@every_solver
def test_float32_is_float64_but_for_rounding(name):
    y, double = data(torch.float32), SOLVERS[name](iterations=10)
    copy = y.clone()
    single = SOLVERS[name](y=y, iterations=10)
    assert single.x.dtype == torch.float32
    assert double.x.dtype == torch.float64
    assert norm(single.x.double() - double.x) < 1e-4 * norm(double.x)
    assert torch.equal(y, copy)
    assert torch.equal(SOLVERS[name](y=y.numpy(), iterations=10).x, single.x)


@every_solver
def test_no_graph_grows_behind_a_solution(name):
    y = data().requires_grad_()
    assert not SOLVERS[name](y=y, weights=torch.from_numpy(WEIGHTS).requires_grad_(), iterations=2).x.requires_grad


@every_solver
def test_masked_data_may_be_anything(name):
    weights, y = WEIGHTS.copy(), data()
    weights[:, 2], y[:, 2] = 0, torch.nan
    kept = torch.where(torch.from_numpy(weights) > 0, y, 5.0)
    found, expected = (SOLVERS[name](y=each, weights=weights, iterations=5) for each in (y, kept))
    assert torch.equal(found.x, expected.x)
    assert torch.isfinite(found.x).all()


@every_solver
def test_nothing_seen(name):
    A = operator()
    blind = wrap((lambda x: 0 * A(x), lambda y: 0 * A.T(y)), A.domain_shape, A.range_shape)
    if "subsets" not in name:
        solution = SOLVERS[name](A=blind, iterations=3)
        assert not solution.x.any()
    assert not SOLVERS[name](y=0 * data(), iterations=3).x.any()


@every_solver
def test_data_in_any_unit(name):
    """Squares of 1e-15 and 1e15 are at the edge of float32; priors, which have a unit, are left out."""
    if "," in name or name == "irtt":
        pytest.skip("has a prior")
    extra = {"tikhonov": 0.0} if name == "cgls" else {}
    expected = SOLVERS[name](iterations=8, **extra)
    for scale in (1e-15, 1e15):
        found = SOLVERS[name](y=(scale * data()).float(), iterations=8, **extra)
        assert norm(found.x.double() / scale - expected.x) < 1e-4 * norm(expected.x)


BAD = [
    ({"A": np.ones((3, 3))}, TypeError, "^A: expected a LinearOperator, got ndarray"),
    ({"y": np.ones(5)}, ValueError, r"^y: expected shape \(3, 5, 4, 3\), got \(5,\)"),
    ({"y": np.ones((3, 5, 4, 3), int)}, TypeError, "^y: expected float32 or float64"),
    ({"y": np.full((3, 5, 4, 3), np.nan)}, ValueError, "^y: expected finite data"),
    ({"y": np.full((3, 5, 4, 3), 1e38, np.float32), "weights": 100}, ValueError, "^y, weights: expected numbers whose"),
    ({"weights": -WEIGHTS}, ValueError, "^weights: expected finite numbers ≥ 0"),
    ({"weights": np.ones(4)}, ValueError, "^weights: expected a shape that broadcasts"),
    ({"weights": 0 * WEIGHTS}, ValueError, "^weights: expected a positive weight somewhere"),
    ({"x0": np.ones(3)}, ValueError, r"^x0: expected shape \(4, 3, 5, 6\)"),
    ({"x0": np.full((4, 3, 5, 6), np.inf)}, ValueError, "^x0: expected finite values"),
    ({"iterations": -1}, ValueError, "^iterations: expected an integer"),
    ({"noise_level": -1.0}, ValueError, "^noise_level: expected a finite number"),
    ({"tolerance": 2.0}, ValueError, "^tolerance: expected a finite number"),
    ({"callback": 3}, TypeError, "^callback: expected a function or None"),
    ({"callback": dict}, TypeError, "^callback: expected a function or None"),
    ({"progress": "yes"}, TypeError, "^progress: expected True or False"),
    ({"checkpoint": 3}, TypeError, "^path: expected the path of a file"),
]


@every_solver
@pytest.mark.parametrize(("arguments", "error", "text"), BAD)
def test_bad_input_is_named(name, arguments, error, text):
    with pytest.raises(error, match=text):
        SOLVERS[name](**{"iterations": 1, **arguments})


BAD_TERMS = [
    ("total variation", TypeError, "^regularisers: expected a Functional, or a list of them, got str"),
    (["total variation"], TypeError, "^regularisers: expected Functionals only, got str"),
    (3.0, TypeError, "^regularisers: expected a Functional"),
    (solvers.Solution, TypeError, "^regularisers: expected a Functional"),
]


@pytest.mark.parametrize("name", ["fista", "pdhg", "lbfgs", "irtt"])
@pytest.mark.parametrize(("terms", "error", "text"), BAD_TERMS)
def test_what_is_no_prior_is_named(name, terms, error, text):
    with pytest.raises(error, match=text):
        SOLVERS[name](regularisers=terms)


@pytest.mark.parametrize("name", ["fista", "pdhg", "lbfgs", "irtt"])
def test_a_prior_for_another_volume_is_named(name):
    from ddf_tomo.priors import Smoothness

    with pytest.raises(
        ValueError, match=r"^regularisers: expected one on \(4, 3, 5, 6\), got .*Smoothness.* on \(9, 9"
    ):
        SOLVERS[name](regularisers=Smoothness((9, 9, 9)))
