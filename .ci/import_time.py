"""``import ddf_tomo`` must cost less than half a second on top of torch, and import no optional neighbour."""

import json
import statistics
import subprocess
import sys

ALLOWED_S = 0.5
PROCESSES = 7
NEIGHBOURS = {"mumott", "astra", "tomosipo", "ts_algorithms", "deepinv", "matplotlib", "skimage"}
# numba is what torch does not bring and every start would pay for.
SLOW = {"numba", "h5py", "scipy", "typer", "rich"}
PROBE = """
import json, sys, time
import torch
before = set(sys.modules)
start = time.perf_counter()
import ddf_tomo
seconds = time.perf_counter() - start
print(json.dumps([seconds, sorted({name.partition(".")[0] for name in set(sys.modules) - before})]))
"""


def main() -> int:
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", PROBE])) for _ in range(PROCESSES)]
    median = statistics.median(seconds for seconds, _ in runs)
    imported = set(runs[0][1])
    print(f"import ddf_tomo: {median:.3f} s on top of torch (median of {PROCESSES} processes, allowed {ALLOWED_S} s)")
    unwanted = sorted(imported & (NEIGHBOURS | SLOW))
    if unwanted:
        print("import ddf_tomo imports " + ", ".join(unwanted), file=sys.stderr)
    return int(median > ALLOWED_S or bool(unwanted))


if __name__ == "__main__":
    sys.exit(main())
