"""What a file of weights says of itself: a model card (Mitchell et al. 2019, FAT* '19, 220)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ddf_tomo._checks import FileFormatError, message


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """What a network is, how it came about, what it is for, and what it cannot do.

    Parameters
    ----------
    architecture
        Its name; filled in when a network is saved.
    options
        Arguments of its constructor; filled in when a network is saved.
    intended_use
        What it was made for.
    limits
        Where it must not be trusted.
    data
        What it was trained on: families, sizes, noise, seeds.
    recipe
        Text of the recipe that made it.
    metrics
        Figures reached, by name.
    commit
        Of the source that trained it; empty where there is no git.
    version
        Of ddf_tomo.
    machine
        That trained it, and for how long.
    created
        When, UTC.

    Raises
    ------
    TypeError
        If a field is of another kind.

    Examples
    --------
    >>> card = ModelCard(intended_use="denoising of coefficients at 2 % noise", metrics={"loss": 0.21})
    >>> card.metrics["loss"], "synthetic" in card.limits
    (0.21, False)
    """

    architecture: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    intended_use: str = ""
    limits: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    recipe: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    commit: str = ""
    version: str = ""
    machine: str = ""
    created: str = ""

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            kind: Any = Mapping if each.name in ("options", "data", "metrics") else str
            if not isinstance(value, kind):
                expected = "a text" if kind is str else "a mapping"
                raise TypeError(message(each.name, expected, repr(value)))
            if kind is Mapping:
                try:
                    object.__setattr__(self, each.name, json.loads(json.dumps(dict(value), allow_nan=False)))
                except (TypeError, ValueError, RecursionError) as error:
                    raise TypeError(
                        message(each.name, "texts, numbers and lists, as JSON holds them", error)
                    ) from error

    def as_text(self) -> str:
        """The card as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_text(cls, text: str) -> ModelCard:
        """The card that `as_text` wrote as ``text``; fields that a later version added are left out."""
        try:
            found = json.loads(text)
            known = {each.name for each in fields(cls)}
            return cls(**{name: value for name, value in found.items() if name in known})
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            raise FileFormatError(message("model card", "the fields of a ModelCard in JSON", error)) from error

    def __str__(self) -> str:
        """A line a field, for people; the recipe is left out."""
        told = {name: value for name, value in asdict(self).items() if value and name != "recipe"}
        return "\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in told.items())


def where_and_when(device: str = "cpu", seconds: float | None = None) -> dict[str, str]:
    """Commit, version, machine and time, as a card holds them.

    Examples
    --------
    >>> sorted(where_and_when())
    ['commit', 'created', 'machine', 'version']
    """
    import ddf_tomo

    name = (
        torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or platform.machine()
    )
    machine = f"{device} ({name}), {os.cpu_count()} cores, torch {torch.__version__}"
    if seconds is not None:
        machine += f", {seconds / 60:.1f} minutes"
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {"commit": _commit(), "version": ddf_tomo.__version__, "machine": machine, "created": created}


def _commit() -> str:
    """Commit of the checkout that this package lies in, marked if files differ from it; empty if it is installed."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        told = [
            subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
            ).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no", "ddf_tomo"])
        ]
    except (OSError, subprocess.SubprocessError):
        return ""
    return told[0].strip() + (" with changes" if told[1].strip() else "")
