"""Networks in files: who may be in one, what the file says of itself, and how it is read without trusting it.

A file of weights is one `safetensors` file: plain arrays and, as text, a model card. Reading it runs nothing that is in
it. The class of the network is found by its name among the architectures of the package (and of your own).
"""

from ddf_tomo.weights.card import ModelCard
from ddf_tomo.weights.network_files import load_network, read_card, save_network, shipped_weights
from ddf_tomo.weights.registry import architecture, architecture_names, make_network, options_of

__all__ = [
    "ModelCard",
    "architecture",
    "architecture_names",
    "load_network",
    "make_network",
    "options_of",
    "read_card",
    "save_network",
    "shipped_weights",
]
