"""What tests and the examples in docstrings share: deepinv can be imported where torchvision is half there."""

from tests import torchvision_operators

torchvision_operators.declare()
