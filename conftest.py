"""What tests and the examples in docstrings share: deepinv can be imported where torchvision is half there; threads."""

import pytest
import torch

from tests import torchvision_operators

torchvision_operators.declare()
THREADS = torch.get_num_threads()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """As many threads as at the start: MUMOTT's numba takes all cores, and torch, which shares its OpenMP, along.

    Two processes of two threads each on two cores made transforms of small images a hundred times as slow.
    """
    if torch.get_num_threads() != THREADS:
        torch.set_num_threads(THREADS)
