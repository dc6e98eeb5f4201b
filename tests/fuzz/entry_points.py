"""Every public entry point, with arguments that are right: `case` then breaks some of them.

A new entry point joins by one function in `physics` or `workflow`.
"""

from tests.fuzz import physics, workflow
from tests.fuzz.table import TABLE, case, folder

__all__ = ["TABLE", "case", "folder", "physics", "workflow"]
