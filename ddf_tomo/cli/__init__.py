"""The command line ``ddf-tomo``: the main jobs, each one command, and errors that fit on one line."""

# The order of these imports is the order of the commands in the help.
from ddf_tomo.cli import _demo, _simulate, _retrieve, _reconstruct, _report, _train, _doctor  # noqa: F401, I001
from ddf_tomo.cli._run import main

__all__ = ["main"]
