"""Progress bars: one look for all, and the one place where tqdm is imported."""

from __future__ import annotations

import warnings
from typing import Any

with warnings.catch_warnings():
    # In Jupyter without its widgets tqdm complains when it is imported; its plain bar will do.
    warnings.simplefilter("ignore")
    from tqdm.auto import tqdm


def progress_bar(total: int, name: str, show: bool | None, **options: Any) -> Any:
    """A tqdm bar: always with ``show=True``, never with ``False``, else when it takes longer than two seconds.

    Without a wish of the caller, ``TQDM_DISABLE=1`` in the environment switches bars off.
    """
    if show is not None:
        options["disable"] = not show
    return tqdm(total=total, desc=name, delay=0.0 if show else 2.0, leave=bool(show), **options)
