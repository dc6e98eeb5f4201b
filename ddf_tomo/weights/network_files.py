"""Networks to and from `safetensors` files, with a model card; nothing in a file is ever executed."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch.nn import Module

from ddf_tomo._checks import FileFormatError, choice, file_path, message, of_kind
from ddf_tomo._files import replaced_when_complete
from ddf_tomo.weights.card import ModelCard
from ddf_tomo.weights.registry import architecture_names, make_network, options_of

LAYOUT = "ddf_tomo network 1"
SHIPPED = Path(__file__).parent / "shipped"
SUFFIX = ".safetensors"
STORED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
NAMED = 4  # how many tensors a message names
KEPT = 8  # networks
Network = TypeVar("Network", bound=Module)


def save_network(
    network: Module, path: str | os.PathLike[str], card: ModelCard | None = None, *, stored_as: str = "float32"
) -> None:
    """Write a network's weights and its model card to one `safetensors` file.

    Parameters
    ----------
    network
        Of a class with the decorator `architecture`.
    path
        The file.
    card
        What to say of it; architecture and options are filled in.
    stored_as
        ``"float32"``, or ``"float16"`` or ``"bfloat16"`` for half the size; what is loaded is float32 again.

    Raises
    ------
    TypeError, ValueError
        If the network has no registered architecture, or weights that are not finite.

    Examples
    --------
    >>> import tempfile
    >>> from ddf_tomo.weights import architecture
    >>> @architecture("example-of-a-gain")
    ... class Gain(Module):
    ...     def __init__(self, start: float = 1.0) -> None:
    ...         super().__init__()
    ...         self.gain = torch.nn.Parameter(torch.tensor([start]))
    >>> path = Path(tempfile.mkdtemp()) / "gain.safetensors"
    >>> save_network(Gain(3.0), path, ModelCard(limits="an example"))
    >>> load_network(path).gain.item(), read_card(path).options
    (3.0, {'start': 3.0})
    """
    name, options = options_of(network)
    dtype = STORED[choice(stored_as, "stored_as", tuple(STORED))]
    of_kind(ModelCard, card := ModelCard() if card is None else card, "card")
    card = dataclasses.replace(card, architecture=name, options=options)
    tensors = {key: value.detach().cpu() for key, value in network.state_dict().items()}
    tensors = {key: (value.to(dtype) if value.is_floating_point() else value).clone() for key, value in tensors.items()}
    _check_finite(tensors, "network")
    write_tensors(path, tensors, {"layout": LAYOUT, "card": card.as_text()})


def load_network(path: str | os.PathLike[str]) -> Module:
    """The network of a file or, by its name, one that is shipped; in evaluation mode, float32, on the CPU.

    Its attribute ``card`` is the file's `ModelCard`.

    Parameters
    ----------
    path
        A file, or one of `shipped_weights`.

    Raises
    ------
    FileNotFoundError
        If there is neither such a file nor such a name.
    FileFormatError
        If the file is damaged, not ours, of an unknown architecture, or does not fit the network it names; the message
        says the file, what was expected, and what was found.

    Examples
    --------
    >>> try:
    ...     load_network("nowhere.safetensors")
    ... except FileNotFoundError as error:
    ...     print(str(error).partition(",")[0])
    path: expected an existing file of weights
    """
    file, tensors, card = _read(path)
    if card.architecture not in architecture_names():
        known = ", ".join(map(repr, architecture_names())) or "none yet"
        raise FileFormatError(message(str(file), f"one of the architectures {known}", repr(card.architecture)))
    with torch.random.fork_rng(devices=[]):  # fresh weights are drawn, and replaced
        try:
            network = make_network(card.architecture, card.options)
        except ValueError as error:
            raise FileFormatError(f"{file}: {error}") from error
    expected = network.state_dict()
    _check_fit(file, card.architecture, expected, tensors)
    _check_finite(tensors, str(file))
    network.load_state_dict({name: value.to(expected[name].dtype) for name, value in tensors.items()})
    network.__dict__["card"] = card
    return network.eval().requires_grad_(False)


def network_for(kind: type[Network], model: Any) -> Network:
    """The network that the option ``model`` of a method names; kept, and read again only when the file has changed.

    Parameters
    ----------
    kind
        Class that it has to be of.
    model
        As ``path`` in `load_network`.

    Raises
    ------
    TypeError
        If ``model`` is neither a file nor a name.
    FileNotFoundError, FileFormatError
        As `load_network`, and if the network is of another architecture.

    Examples
    --------
    >>> from ddf_tomo.priors.learned import ResidualUNet
    >>> network_for(ResidualUNet, "residual-unet") is network_for(ResidualUNet, "residual-unet")
    True
    """
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(message("model", "a file of weights, or a name", type(model).__name__))
    name = os.fspath(model)
    network = _kept(name, os.stat(name).st_mtime if os.path.isfile(name) else 0.0)
    if not isinstance(network, kind):
        found = f"{options_of(network)[0]!r}. It was made for something else"
        raise FileFormatError(message(name, f"a network of the class {kind.__name__}", found))
    return network


@functools.lru_cache(KEPT)
def _kept(name: str, changed: float) -> Module:
    return load_network(name)


def read_card(path: str | os.PathLike[str]) -> ModelCard:
    """The model card of a file, or of a shipped network by its name; no weights are read.

    Parameters
    ----------
    path
        As in `load_network`.

    Raises
    ------
    FileNotFoundError, FileFormatError
        As `load_network`.

    Examples
    --------
    >>> [read_card(name).architecture != "" for name in shipped_weights()][:1] in ([], [True])
    True
    """
    return _read(path, weights=False)[2]


def shipped_weights() -> tuple[str, ...]:
    """Names of the networks that come with the package, for `load_network`.

    Examples
    --------
    >>> isinstance(shipped_weights(), tuple)
    True
    """
    return tuple(sorted(path.stem for path in SHIPPED.glob(f"*{SUFFIX}")))


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], texts: Mapping[str, str]) -> None:
    """Tensors and texts to a `safetensors` file that is whole or not there.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
    >>> write_tensors(path, {"a": torch.ones(2)}, {"layout": "example"})
    >>> read_tensors(path, "example")[1]
    {'layout': 'example'}
    """
    from safetensors.torch import save

    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replaced_when_complete(path) as partial:
        partial.write_bytes(save(whole, dict(texts)))  # `save_file` would let nobody else read it


def read_tensors(path: Path, layout: str, *, weights: bool = True) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and texts of a `safetensors` file of this layout.

    Raises
    ------
    FileFormatError
        If it is not a whole file of this layout.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
    >>> _ = path.write_text("not one")
    >>> try:
    ...     read_tensors(path, "example")
    ... except FileFormatError as error:
    ...     print("expected a safetensors file" in str(error))
    True
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            texts: dict[str, str] = dict(file.metadata() or {})
            if texts.get("layout") != layout:
                found = repr(texts["layout"]) if "layout" in texts else "a safetensors file of something else"
                raise FileFormatError(message(str(path), f"the layout {layout!r}", found))
            return ({name: file.get_tensor(name) for name in file.keys()} if weights else {}), texts  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise FileFormatError(message(str(path), "a safetensors file", error)) from error


def _read(path: str | os.PathLike[str], weights: bool = True) -> tuple[Path, dict[str, torch.Tensor], ModelCard]:
    file = file_path(path)
    if isinstance(path, str) and path in shipped_weights():
        file = SHIPPED / f"{path}{SUFFIX}"
    elif not file.is_file():
        known = ", ".join(map(repr, shipped_weights())) or "none here"
        raise FileNotFoundError(
            message("path", f"an existing file of weights, or a shipped name ({known})", repr(str(file)))
        )
    tensors, texts = read_tensors(file, LAYOUT, weights=weights)
    try:
        return file, tensors, ModelCard.from_text(texts.get("card", ""))
    except FileFormatError as error:
        raise FileFormatError(f"{file}: {error}") from error


def _check_fit(file: Path, name: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """The names and shapes of a network, no more and no less."""
    missing, foreign = ([key for key in a if key not in b] for a, b in ((expected, found), (found, expected)))
    if missing or foreign:
        faults = [f"{kind} {', '.join(keys[:NAMED])}" for kind, keys in (("no", missing), ("also", foreign)) if keys]
        raise FileFormatError(message(str(file), f"the {len(expected)} tensors of {name!r}", "; ".join(faults)))
    for key, tensor in expected.items():
        if tensor.shape != found[key].shape:
            raise FileFormatError(message(f"{file}, {key}", f"shape {tuple(tensor.shape)}", tuple(found[key].shape)))
        if tensor.is_floating_point() != found[key].is_floating_point():
            raise FileFormatError(message(f"{file}, {key}", str(tensor.dtype), found[key].dtype))


def _check_finite(tensors: Mapping[str, torch.Tensor], place: str) -> None:
    for name, value in tensors.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise FileFormatError(message(f"{place}, {name}", "finite weights", "NaN or infinite ones"))
