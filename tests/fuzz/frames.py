"""Entry points of retrieval from frames, its references and its unfinished files, with right arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ddf_tomo.retrieval import retrieve
from ddf_tomo.retrieval.references import estimate_shifts, interpolated, principal_flats, shifted
from tests.fuzz.table import Made, entry, folder
from tests.fuzz.values import Source
from tests.retrieval.simulation import frames as simulated


def frames(s: Source, *shape: int) -> Any:
    return s.as_good(s.generator().poisson(s.generator().uniform(200, 2000, shape)).astype(float))


@entry("retrieve, distances, weights, files")
def _(s: Source) -> Made:
    distances = s.one_of(0, 1, 2)
    shape = (*((distances,) if distances else ()), 4, 16, 17)
    views = s.one_of((), (2,))
    weights = s.one_of(None, (16, 17), (4, 16, 17), (4, 1, 1), (*views, *shape))
    one, other = simulated(4, (16, 17), displacement=(0.1, -0.1), counts=5000, seed=s.rng.randrange(5))
    owned = s.one_of((), views)
    arguments = {
        "sample": s.as_good(np.broadcast_to(one, (*views, *shape)).copy()),
        "reference": s.as_good(np.broadcast_to(other, (*owned, *shape)).copy()),
        "window": s.one_of(None, 1.5),
        "smoothing": 0.5,
        "weights": None if weights is None or weights[-2:] == (1, 1) else s.noise(*weights, positive=True),
        "pixel_size_m": s.one_of(None, 1e-5),
        "distance_m": s.one_of([0.5], (0.5,)) if distances == 1 else [0.5, 1.0] if distances else s.one_of(None, 1.0),
        "gain": s.one_of(None, 2.0),
        "saturation": s.one_of(None, 1990.0),
        "device": s.one_of(None, "cpu"),
        "checkpoint": s.one_of(None, None, folder() / f"{s.rng.random()}.h5"),
        "progress": s.one_of(None, False),
    }
    return retrieve, arguments


@entry("retrieve, a checkpoint that is damaged", 0.5, raw=True)
def _(s: Source) -> Made:
    one, reference = simulated(5, (24, 26), displacement=(0.1, -0.1), counts=5000)
    sample = np.stack([one, one])
    path: Path = folder() / "unfinished.h5"
    options: dict[str, Any] = {"window": 1.5, "smoothing": 0.5, "checkpoint": path}
    path.unlink(missing_ok=True)
    retrieve(sample, reference, **options)
    content = bytearray(path.read_bytes())
    for _ in range(s.size(1, 4)):
        content[s.rng.randrange(min(len(content), s.one_of(100, 3000, len(content))))] = s.rng.randrange(256)
    path.write_bytes(content[: s.one_of(len(content), len(content), s.rng.randrange(len(content)))])
    return (lambda: retrieve(sample, reference, **options)), {}


@entry("references")
def _(s: Source) -> Made:
    flats = frames(s, 5, *s.one_of((), (2,)), 24, 26)
    moving = frames(s, *s.one_of((), (2,)), 32, 34)
    shift = s.one_of([0.2, -0.5], s.noise(*moving.shape[:-2], 2))

    def dynamic(flats: Any, components: Any, frame: Any, air: Any) -> Any:
        return principal_flats(flats, components).fit(frame, air)

    view = {"flats": flats, "components": s.one_of(1, 2, 4), "frame": flats[1], "air": np.ones((24, 26), bool)}
    pair = {"moving": moving, "fixed": moving, "mask": s.one_of(None, np.ones((32, 34), bool)), "smoothing": 1.0}
    sets = {"references": flats, "times": s.one_of([1.0, 0.0, 3.0, 2.0, 7.0], range(5)), "at": s.noise(3)}
    return s.one_of(
        (dynamic, view),
        (estimate_shifts, pair),
        (shifted, {"frames": moving, "shift": shift}),
        (interpolated, sets),
    )
