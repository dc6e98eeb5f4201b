"""Every public entry point, with arguments that are right: `case` then breaks some of them.

A new entry point joins by one function in any of these modules.
"""

from tests.fuzz import (
    acquisition,
    acquisition_files,
    alignment,
    backends,
    export,
    frames,
    imaging,
    matching,
    phantoms,
    physics,
    pictures,
    preconditioning,
    reconstruct,
    report,
    retrieval_methods,
    simulated_frames,
    size,
    slabs,
    solvers,
    starts,
    turning,
    workflow,
)
from tests.fuzz.table import TABLE, case, folder

__all__ = [
    "TABLE",
    "acquisition",
    "acquisition_files",
    "alignment",
    "backends",
    "case",
    "export",
    "folder",
    "frames",
    "imaging",
    "matching",
    "phantoms",
    "physics",
    "pictures",
    "preconditioning",
    "reconstruct",
    "report",
    "retrieval_methods",
    "simulated_frames",
    "size",
    "slabs",
    "solvers",
    "starts",
    "turning",
    "workflow",
]
