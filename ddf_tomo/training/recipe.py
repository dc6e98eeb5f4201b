"""Recipes: one text file that makes one file of weights, again and again."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from ddf_tomo._checks import FileFormatError, choice, file_path, flag, message, of_kind
from ddf_tomo._manifest_keys import text
from ddf_tomo._manifest_text import Keys, located, read_tables
from ddf_tomo.training._inputs import known_device
from ddf_tomo.training._volume_task import VolumeTask
from ddf_tomo.training.deconvolving import Deconvolving
from ddf_tomo.training.denoising import Denoising
from ddf_tomo.training.loop import Task, Trained, train
from ddf_tomo.training.retrieving import Retrieving
from ddf_tomo.training.schedule import Schedule
from ddf_tomo.training.statistics import VOLUMES, training_statistics
from ddf_tomo.training.unrolling import Unrolling
from ddf_tomo.weights import ModelCard, load_network, make_network, read_card, save_network
from ddf_tomo.weights.card import where_and_when
from ddf_tomo.weights.registry import options_of

__all__ = ["Recipe", "run_recipe", "shipped_recipes"]
RECIPES = Path(__file__).parent / "recipes"
SUFFIX = ".toml"
Kind = Denoising | Unrolling | Retrieving | Deconvolving
TASKS: dict[str, type[Kind]] = {
    "denoising": Denoising,
    "unrolling": Unrolling,
    "retrieving": Retrieving,
    "deconvolving": Deconvolving,
}
DATA = {task: [each.name for each in fields(cls) if each.name != "device"] for task, cls in TASKS.items()}
TRAINING = tuple(each.name for each in fields(Schedule))


def _any(value: Any, key: str) -> Any:
    return value  # checked by the dataclass that it goes to


def _data(value: Any, key: str) -> Any:
    if key not in ("families", "validation"):  # of which each is right with the other only
        task = next(name for name, keys in DATA.items() if key in keys)
        TASKS[task](**{key: value})
    return value


def _training(value: Any, key: str) -> Any:
    replace(Schedule(steps=1), **{key: value})
    return value


KEYS: Keys = {
    "architecture": ("network", "architecture", text),
    "task": ("data", "task", lambda value, key: choice(value, key, tuple(TASKS))),
    **{name: ("data", name, _data) for names in DATA.values() for name in names},
    **{name: ("training", name, _training) for name in TRAINING if name != "seed"},
    "intended_use": ("card", "intended_use", text),
    "limits": ("card", "limits", text),
}
REQUIRED = {"architecture": "the name of an architecture", "steps": "the number of steps"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a file of weights is made: network, task, schedule, and what its card says; see `Recipe.read`.

    Parameters
    ----------
    architecture
        Name of the network's.
    options
        Arguments of its constructor.
    task
        What is to be learned.
    schedule
        How long and how fast; its seed draws the fresh weights.
    intended_use, limits
        For the model card.
    text
        Of the file, which the card keeps; by default nothing.

    Raises
    ------
    ValueError
        If there is no such architecture.

    Examples
    --------
    >>> Recipe.read("residual-unet").task.families
    ('fibrous', 'layered', 'porous', 'smooth', 'grains')
    """

    architecture: str
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    task: Kind
    schedule: Schedule
    intended_use: str = ""
    limits: str = ""
    text: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.task, Kind):
            raise TypeError(message("task", "a Denoising, an Unrolling or a Retrieving", type(self.task).__name__))
        of_kind(Schedule, self.schedule, "schedule")
        self.network()

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Recipe:
        """The recipe of a file in TOML, or one that is shipped, by its name.

        Tables: ``[network]`` (``architecture``, and arguments of its constructor), ``[data]`` (``task``,
        ``"denoising"``, ``"unrolling"`` or ``"retrieving"``, and what `Denoising`, `Unrolling` or `Retrieving` takes),
        ``[training]`` (what `Schedule` takes; the seed is that of the data), ``[card]`` (``intended_use``, ``limits``).

        Parameters
        ----------
        path
            The file, or one of `shipped_recipes`.

        Raises
        ------
        FileNotFoundError
            If there is neither.
        FileFormatError
            If it is not TOML, or a key is unknown, missing or wrong; the message names line, table and key.

        Examples
        --------
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "mine.toml"
        >>> _ = path.write_text("[network]\\narchitecture = 'residual-unet'\\n[training]\\nsteps = 0")
        >>> try:
        ...     Recipe.read(path)
        ... except FileFormatError as error:
        ...     print(str(error).partition("mine.toml, ")[2])
        line 4, [training] steps: expected an integer in [1, 100000000], got 0
        """
        file = file_path(path)
        if isinstance(path, str) and path in shipped_recipes():
            file = RECIPES / f"{path}{SUFFIX}"
        elif not file.is_file():
            known = ", ".join(map(repr, shipped_recipes()))
            raise FileNotFoundError(
                message("path", f"an existing file, or a shipped recipe ({known})", repr(str(path)))
            )
        values = read_tables(file, KEYS, "a recipe", free=["network"], required=REQUIRED)
        try:
            kind = values.get("task", "denoising")
            data = {name: values[name] for names in DATA.values() for name in names if name in values}
            for name in data.keys() - set(DATA[kind]):
                raise ValueError(message(name, f"a key of the task {kind!r}", "one of another task"))
            pace = {name: values[name] for name in TRAINING if name in values}
            words = {name: values[name] for name in ("architecture", "intended_use", "limits") if name in values}
            return cls(
                options=values["network"],
                task=TASKS[kind](**data),
                schedule=Schedule(**pace),
                text=file.read_text(encoding="utf-8"),
                **words,
            )
        except (TypeError, ValueError) as error:
            raise FileFormatError(located(error, file, KEYS)) from error

    def network(self) -> torch.nn.Module:
        """The network with the fresh weights that the seed draws."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.schedule.seed)
            try:
                return make_network(self.architecture, self.options)
            except ValueError as error:
                raise ValueError(str(error).replace("name:", "architecture:", 1)) from error

    def with_seed(self, seed: int) -> Recipe:
        """The same with another ``seed`` of samples, noise and fresh weights: one of several trainings to compare."""
        return replace(self, task=replace(self.task, seed=seed), schedule=replace(self.schedule, seed=seed))

    def data(self) -> dict[str, Any]:
        """Name of the task, and its fields."""
        name = next(name for name, cls in TASKS.items() if isinstance(self.task, cls))
        return {"task": name, **{key: getattr(self.task, key) for key in DATA[name]}}

    def card(self, trained: Trained, device: str) -> ModelCard:
        """What the file says of the network ``trained`` on a ``device``."""
        where: dict[str, Any] = dict(where_and_when(device, trained.seconds))
        return ModelCard(
            intended_use=self.intended_use,
            limits=self.limits,
            data=self.data() | self._seen(),
            recipe=self.text,
            metrics=dict(trained.figures) | {"steps done": trained.step, "stopped by": trained.stopped},
            **where,
        )

    def _seen(self) -> dict[str, Any]:
        """Ranges of what the samples were like, of as many as a short training has seen."""
        if not isinstance(self.task, VolumeTask):
            return {}
        return {"statistics": training_statistics(self.task, min(VOLUMES, self.schedule.steps * self.task.batch))}


def shipped_recipes() -> tuple[str, ...]:
    """Names of the recipes that come with the package, for `Recipe.read`.

    Examples
    --------
    >>> "residual-unet" in shipped_recipes()
    True
    """
    return tuple(sorted(path.stem for path in RECIPES.glob(f"*{SUFFIX}")))


def run_recipe(
    recipe: Recipe,
    output: str | os.PathLike[str],
    *,
    start: str | os.PathLike[str] | None = None,
    resume: bool = False,
    device: str = "cpu",
    time_limit_s: float = math.inf,
    progress: bool | None = None,
) -> Trained:
    """Train as a recipe says, and write the weights with their model card.

    Beside ``output`` stand the metrics, a line of JSON each validation (``.jsonl``), and, while it runs or after a
    time limit, the state (``.state``).

    Parameters
    ----------
    recipe
        What to do.
    output
        File for the weights.
    start
        Weights to begin with in place of fresh ones, a file or one of `ddf_tomo.weights.shipped_weights`: of the same
        network. The card says which, and keeps the recipe that made them.
    resume
        Go on from the state that an interruption left.
    device
        ``"cpu"`` or ``"cuda"``.
    time_limit_s
        Seconds after which to stop; weights are written, and the state is kept.
    progress
        Whether to show a progress bar; by default when it takes longer than two seconds.

    Returns
    -------
    Trained

    Raises
    ------
    ValueError
        If there is a state and ``resume`` is not set, the device is not there, or ``start`` is another network.
    CollapseError
        If the network learns nothing.

    Examples
    --------
    >>> import tempfile
    >>> task = Denoising(shape=(6, 6, 6), orders=(2,), batch=1, reconstructed=0.0, validation_volumes=1)
    >>> recipe = Recipe(architecture="residual-unet", options={"widths": [2, 2, 2]}, task=task,
    ...                 schedule=Schedule(steps=3, average=0.0, learning_rate=0.01))
    >>> run_recipe(recipe, Path(tempfile.mkdtemp()) / "small.safetensors").stopped
    'steps'
    """
    of_kind(Recipe, recipe, "recipe")
    file, state = file_path(output, "output"), beside(output, ".state")
    resume = flag(resume, "resume")
    task = replace(recipe.task, device=str(known_device(device)))
    if state.is_file() and not resume:
        hint = "Resume (--resume), or remove it to begin anew"
        raise ValueError(message("output", "no state of a training that was interrupted", repr(str(state)), hint))
    key = repr((recipe.architecture, dict(recipe.options), recipe.data()))
    network = recipe.network()
    before: dict[str, str] = {}
    if start is not None:
        given, its_card = load_network(start), read_card(start)
        if options_of(given) != options_of(network):
            raise ValueError(message("start", "weights of the recipe's network", f"those of {options_of(given)}"))
        network.load_state_dict(given.state_dict())
        before = {"weights": Path(start).name, "commit": its_card.commit, "recipe": its_card.recipe}
        key += repr([before, [float(weight.sum()) for weight in given.state_dict().values()]])
    learning: Task = task
    trained = train(
        network,
        learning,
        recipe.schedule,
        state=state,
        key=key,
        log=beside(output, ".jsonl"),
        device=device,
        time_limit_s=time_limit_s,
        progress=progress,
    )
    if isinstance(task, Retrieving):
        task.calibrate(trained.network)
    card = recipe.card(trained, device)
    save_network(trained.network, file, replace(card, data={**card.data, "start": before}) if before else card)
    if trained.stopped != "time":
        state.unlink(missing_ok=True)
    return trained


def beside(path: str | os.PathLike[str], suffix: str) -> Path:
    """A file of the same name with another suffix.

    Examples
    --------
    >>> beside("weights.safetensors", ".jsonl").name
    'weights.jsonl'
    """
    return file_path(path, "output").with_suffix(suffix)
