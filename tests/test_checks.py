"""The checks of user input: what passes comes back clean, what does not is told in the words of the caller."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ddf_tomo import FileFormatError
from ddf_tomo import _checks as checks

# What people pass where a number is meant.
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.lists(st.one_of(st.floats(), st.text(max_size=2), st.lists(st.integers(), max_size=2)), max_size=3),
    st.dictionaries(st.text(max_size=1), st.integers(), max_size=2),
    arrays.arrays(
        st.sampled_from([np.float32, np.int8, np.complex64, np.dtype("U3"), np.bool_]), arrays.array_shapes()
    ),
    st.just(object()),
    st.just(torch.ones(2, requires_grad=True)),
    st.just(torch.tensor([0.5])),
    st.just(torch.ones(2, 2, device="meta")),
    st.just(10**400),
)


def test_a_message_says_argument_expected_and_found():
    assert checks.message("window", "an odd number", 4) == "window: expected an odd number, got 4"
    assert checks.message("a", "b", "c", "do d") == "a: expected b, got c. do d"


def test_format_errors_are_value_errors():
    assert issubclass(FileFormatError, ValueError)


# -- every check, whatever comes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "check",
    [
        lambda value: checks.real_array(value, "argument"),
        lambda value: checks.real_array(value, "argument", (None, 3), dtype=np.float32),
        lambda value: checks.size_tuple(value, "argument", 2),
        lambda value: checks.number(value, "argument", low=0, high=1),
        lambda value: checks.integer(value, "argument", low=-3, high=3),
        lambda value: checks.even_order(value, "argument"),
        lambda value: checks.choice(value, "argument", ("a", "b")),
    ],
)
@given(value=ANYTHING)
def test_whatever_comes_passes_or_is_told(check, value):
    words = None
    try:
        assert check(value) is not None
    except (ValueError, TypeError) as error:
        words = str(error)
    assert words is None or (words.startswith("argument: expected ") and ", got " in words)


# -- arrays -----------------------------------------------------------------------------------------------------------


@given(arrays.arrays(np.float64, arrays.array_shapes(min_side=0), elements=st.floats(-1e9, 1e9)))
def test_arrays_come_back_as_contiguous_copies(values):
    result = checks.real_array(values.T, "a")
    np.testing.assert_array_equal(result, values.T)
    assert result.flags.c_contiguous
    assert result.flags.writeable
    assert not np.shares_memory(result, values)


@pytest.mark.parametrize("value", [[[1, 2], [3]], ["1", "x"], {1: 2}, object(), torch.ones(2, requires_grad=True)])
def test_what_is_no_array_of_numbers(value):
    with pytest.raises(TypeError, match="a: expected real numbers in a regular array, got "):
        checks.real_array(value, "a")


@pytest.mark.parametrize("value", [1j, [1, 2j], np.zeros(2, np.complex64), torch.zeros(2, dtype=torch.complex64)])
def test_complex_numbers_are_not_cut_to_their_real_part(value):
    with pytest.raises(TypeError, match="a: expected real numbers, got complex"):
        checks.real_array(value, "a")


def test_non_finite_entries_are_counted_unless_allowed():
    with pytest.raises(ValueError, match="a: expected finite values, got 2 NaN or infinite"):
        checks.real_array([1, np.nan, -np.inf], "a")
    assert np.isnan(checks.real_array([1, np.nan], "a", finite=False)[1])


def test_float32_that_overflows_is_not_finite():
    with pytest.raises(ValueError, match="1 NaN or infinite"):
        checks.real_array([1e300], "a", dtype=np.float32)


@pytest.mark.parametrize("found", [(2,), (2, 4), (2, 3, 1), ()])
def test_shapes_that_differ(found):
    with pytest.raises(ValueError, match=r"a: expected shape \(any, 3\), got "):
        checks.check_shape(found, "a", (None, 3))


@pytest.mark.parametrize("found", [(0, 3), (7, 3)])
def test_shapes_that_match(found):
    checks.check_shape(found, "a", (None, 3))


# -- numbers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [(4, 5), [4.0, 5.0], np.array([4, 5], np.uint8), torch.tensor([4, 5])])
def test_sizes(value):
    result = checks.size_tuple(value, "shape", 2)
    assert result == (4, 5)
    assert all(type(entry) is int for entry in result)


@pytest.mark.parametrize("value", [(4,), (4, 5, 6), (4, 0), (4, -1), (4, 4.5), (4, np.nan), (4, np.inf), 7])
def test_what_is_no_size(value):
    with pytest.raises(ValueError, match="shape: expected 2 positive integers, got "):
        checks.size_tuple(value, "shape", 2)


@given(st.floats(0, 1))
def test_numbers_inside_their_bounds(value):
    assert checks.number(value, "n", low=0, high=1) == value
    assert checks.number(np.float32(0.5), "n", low=0.5, high=0.5) == 0.5


@pytest.mark.parametrize("value", [-1e-300, 1.0000001, math.nan, math.inf, -math.inf])
def test_numbers_outside_their_bounds(value):
    with pytest.raises(ValueError, match=r"n: expected a finite number in \[0, 1\], got "):
        checks.number(value, "n", low=0, high=1)


def test_an_open_bound_is_outside():
    assert checks.number(0, "n", low=0) == 0
    with pytest.raises(ValueError, match=r"n: expected a finite number in \(0, inf\], got 0"):
        checks.number(0, "n", low=0, low_open=True)


@pytest.mark.parametrize("value", [1j, np.complex64(0.5), "x", None, [0.5, 0.5]])
def test_what_is_no_number_at_all(value):
    with pytest.raises(TypeError, match=r"n: expected a finite number in \[0, 1\], got "):
        checks.number(value, "n", low=0, high=1)


@pytest.mark.parametrize("value", [3, 3.0, np.int8(3), np.float32(3), torch.tensor(3)])
def test_integers(value):
    result = checks.integer(value, "n", low=3, high=3)
    assert (result, type(result)) == (3, int)


@pytest.mark.parametrize("value", [2, 4, 3.5, "3"])
def test_what_is_not_the_integer_wanted(value):
    with pytest.raises((ValueError, TypeError), match=r"n: expected an integer in \[3, 3\], got "):
        checks.integer(value, "n", low=3, high=3)


@pytest.mark.parametrize("value", [True, np.True_, None, "x", math.nan, math.inf, [1]])
def test_what_is_no_integer_at_all(value):
    with pytest.raises((TypeError, ValueError), match=r"n: expected an integer in \[0, ∞\], got "):
        checks.integer(value, "n")


@given(st.integers(-5, 40))
def test_orders_are_even_and_within_reach(order):
    if order % 2 == 0 and 0 <= order <= 32:
        assert checks.even_order(order) == order
    else:
        with pytest.raises(ValueError, match="ell_max: expected "):
            checks.even_order(order)


def test_choices_are_listed():
    assert checks.choice("b", "method", ("a", "b")) == "b"
    with pytest.raises(ValueError, match="method: expected one of 'a', 'b', got 'c'"):
        checks.choice("c", "method", ("a", "b"))


# -- neighbours -------------------------------------------------------------------------------------------------------


def test_a_neighbour_that_is_there_is_given():
    assert checks.neighbour("numpy.linalg") is np.linalg


@pytest.mark.parametrize("module", ["mumott", "astra", "tomosipo", "deepinv", "matplotlib.pyplot", "skimage.transform"])
def test_a_missing_neighbour_comes_with_the_line_that_installs_it(monkeypatch, module):
    package = module.partition(".")[0]
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)  # makes its import fail
    with pytest.raises(ImportError, match=f"this needs {package}, which is not usable here") as failure:
        checks.neighbour(module)
    assert f"\n  {checks.INSTALL_LINES[package]}" in str(failure.value)


def test_a_neighbour_that_torch_refuses_comes_with_its_line_too(monkeypatch):
    """As deepinv, where torchvision was built for another torch."""

    def refused(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(checks.importlib, "import_module", refused)
    with pytest.raises(ImportError, match="torchvision::nms does not exist\n  pip install deepinv"):
        checks.neighbour("deepinv")
