"""Execute every tutorial in ``notebooks/``, each in a fresh kernel of the interpreter that runs this program.

``python .ci/notebooks.py [--to FOLDER] [--timeout SECONDS] [--together N] [NAME ...]``. The scripts are jupytext's
percent format; the executed notebooks, with their figures, go to the folder. The program fails where a cell does, and
says which.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).parents[1] / "notebooks"
LINES_OF_A_CELL = 12  # shown when it fails
MOST_SECONDS = 300


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Execute the tutorials in notebooks/ and fail where one does.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of scripts, or how they begin; by default all")
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="write the executed notebooks here, as .ipynb")
    parser.add_argument("--timeout", type=int, default=MOST_SECONDS, help="seconds that one cell may take")
    parser.add_argument("--together", type=int, default=min(2, os.cpu_count() or 1), help="how many run at a time")
    parser.add_argument("--folder", type=Path, default=SCRIPTS, help="of the scripts")
    options = parser.parse_args(arguments)
    # The last one takes longest: begun first, nothing waits for it.
    scripts = sorted(options.folder.glob("*.py"), reverse=True)
    scripts = [script for script in scripts if script.stem.startswith(tuple(options.names) or "")]
    if not scripts:
        parser.error(f"no script in {options.folder} of these names: {', '.join(options.names) or 'any'}")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // max(1, options.together))))
    failures = 0
    with ThreadPoolExecutor(max(1, options.together)) as pool:
        runs = [pool.submit(timed, script, options.to, options.timeout) for script in scripts]
        for script, run in zip(scripts, runs, strict=True):
            failure, seconds = run.result()
            after = f"{seconds:.0f} s"
            print(
                f"{script.name}: FAILED after {after} in {failure}" if failure else f"{script.name}: ran in {after}",
                flush=True,
            )
            failures += bool(failure)
    return int(failures > 0)


def timed(script: Path, target: Path | None, timeout: int) -> tuple[str, float]:
    """What `execute` says of a script, and the seconds it took."""
    start = time.perf_counter()
    return execute(script, target, timeout), time.perf_counter() - start


def execute(script: Path, target: Path | None, timeout: int = MOST_SECONDS) -> str:
    """Run one script; what failed in plain words, or nothing. The notebook is written in either case."""
    import jupytext
    import nbformat
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    notebook = jupytext.read(script)
    failure = ""
    try:
        with tempfile.TemporaryDirectory() as folder:  # where the notebook's files go
            run(notebook, folder, timeout)
    except CellExecutionError as error:
        failure = f"{error.ename}: {error.evalue}"
    except CellTimeoutError:
        failure = f"took longer than {timeout} s"
    except DeadKernelError:
        failure = "its process died"
    if target is not None:
        target.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target / f"{script.stem}.ipynb")
    return failure and f"{last_executed(notebook)}\n{failure}\n"


def run(notebook: Any, folder: str, timeout: int) -> None:
    """Execute the cells in this folder, keeping the outputs in the notebook."""
    from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient
    from traitlets import default

    class ThisInterpreter(KernelSpecManager):
        """Whatever kernels are installed under whatever names: what is tested is this interpreter."""

        def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
            command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
            return KernelSpec(argv=command, display_name="Python 3", language="python")

    class Kernel(AsyncKernelManager):
        @default("kernel_spec_manager")
        def _this_interpreter(self) -> KernelSpecManager:
            return ThisInterpreter()

        @default("connection_file")
        def _beside_the_files_of_the_notebook(self) -> str:
            return os.path.join(folder, "kernel.json")

        @default("transport")
        def _without_a_port(self) -> str:
            return "ipc" if os.name == "posix" else "tcp"

    files = {"metadata": {"path": folder}}
    NotebookClient(notebook, kernel_manager_class=Kernel, timeout=timeout, resources=files).execute(env=environment())
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}


def environment() -> dict[str, str]:
    """The caller's, with figures inside the notebook, and this package before any other of its name."""
    paths = [os.fspath(SCRIPTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONDONTWRITEBYTECODE": "1",
        "OMP_WAIT_POLICY": "passive",  # threads that spin while they wait cost a hundredfold where cores are shared
        "PYTHONWARNINGS": "ignore:IProgress not found",  # of tqdm, where there are no widgets
    }


def last_executed(notebook: Any) -> str:
    """The cell that was reached last, with the heading above it."""
    heading, reached = "", ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            heading = (re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE) or [heading])[-1]
        elif cell.get("execution_count") or cell.get("outputs"):
            lines = cell.source.splitlines()
            shown = [f"    {line}" for line in lines[:LINES_OF_A_CELL]] + ["    …"] * (len(lines) > LINES_OF_A_CELL)
            place = f"this cell under “{heading}”:" if heading else "this cell:"
            reached = "\n".join([place, *shown])
    return reached or "its first cell:"


if __name__ == "__main__":
    sys.exit(main())
