"""Architectures by name: a file of weights names the class that it is for, and recipes name the one to train."""

from __future__ import annotations

import functools
import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch.nn import Module

from ddf_tomo._checks import choice, message

HOMES = (
    "ddf_tomo.priors.learned",
    "ddf_tomo.solvers.unrolled",
    "ddf_tomo.retrieval.deconvolution.unrolled",
    "ddf_tomo.retrieval.network",
)
"""Packages whose import registers architectures; they are imported when a name is looked for."""

Network = TypeVar("Network", bound=type[Module])
_classes: dict[str, type[Module]] = {}


def architecture(name: str) -> Callable[[Network], Network]:
    """Decorator of a network's class: gives it a name in files and recipes.

    The arguments of the constructor are kept (`options_of`), so that a file can say how to build the network again;
    they have to be what JSON can hold.

    Parameters
    ----------
    name
        Unique among all architectures.

    Raises
    ------
    ValueError
        If another class has the name.
    TypeError
        If it does not decorate a class of networks; later, if an argument of a constructor is nothing for JSON.

    Examples
    --------
    >>> import torch
    >>> @architecture("example-of-a-scale")
    ... class Scale(torch.nn.Module):
    ...     def __init__(self, factor: float = 1.0) -> None:
    ...         super().__init__()
    ...         self.factor = torch.nn.Parameter(torch.tensor(factor))
    >>> make_network("example-of-a-scale", {"factor": 2.0}).factor.item()
    2.0
    """
    if not isinstance(name, str) or not name:
        raise TypeError(message("name", "a text", repr(name)))

    def register(cls: Network) -> Network:
        if not (isinstance(cls, type) and issubclass(cls, Module)):
            raise TypeError(message("architecture", "a class of torch.nn.Module", repr(cls)))
        there = _classes.get(name)
        if there is not None and (there.__module__, there.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(message("name", "one that no other architecture has", repr(name)))
        build = cls.__init__
        signature = inspect.signature(build)

        @functools.wraps(build)
        def remember(self: Module, *values: Any, **named: Any) -> None:
            bound = signature.bind(self, *values, **named)
            bound.apply_defaults()
            options = dict(list(bound.arguments.items())[1:])
            build(self, *values, **named)
            if type(self) is cls:
                self.__dict__["_architecture"] = name, _plain(options)

        cls.__init__ = remember  # type: ignore[method-assign]
        _classes[name] = cls
        return cls

    return register


def architecture_names() -> tuple[str, ...]:
    """Names of all architectures, those of the package and those that were registered since.

    Examples
    --------
    >>> all(isinstance(name, str) for name in architecture_names())
    True
    """
    for home in HOMES:
        try:
            importlib.import_module(home)
        except ModuleNotFoundError as error:
            if error.name is None or not home.startswith(error.name):
                raise
    return tuple(sorted(_classes))


def make_network(name: str, options: Mapping[str, Any] | None = None) -> Module:
    """A network of an architecture, with fresh weights from torch's own random numbers.

    Parameters
    ----------
    name
        One of `architecture_names`.
    options
        Arguments of its constructor.

    Raises
    ------
    ValueError
        If there is no architecture of that name, or it does not take these options.

    Examples
    --------
    >>> try:
    ...     make_network("perceptron")
    ... except ValueError as error:
    ...     print(str(error).partition(" one of")[0])
    name: expected
    """
    cls = _classes[choice(name, "name", architecture_names())]
    try:
        return cls(**dict(options or {}))
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError, OverflowError, MemoryError) as error:
        raise ValueError(message("options", f"what the architecture {name!r} takes", f"{options}: {error}")) from error


def options_of(network: Module) -> tuple[str, dict[str, Any]]:
    """Name of a network's architecture, and the options that build it again.

    Parameters
    ----------
    network
        Of a class that `architecture` decorates.

    Raises
    ------
    TypeError
        If it is of another class.

    Examples
    --------
    >>> import torch
    >>> try:
    ...     options_of(torch.nn.Linear(2, 2))
    ... except TypeError as error:
    ...     print(error)
    network: expected a network whose class has the decorator @architecture(...), got Linear
    """
    found = getattr(network, "_architecture", None)
    if not isinstance(network, Module) or found is None:
        expected = "a network whose class has the decorator @architecture(...)"
        raise TypeError(message("network", expected, type(network).__name__))
    name, options = found
    return name, dict(options)


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    try:
        plain: dict[str, Any] = json.loads(json.dumps(options))
    except (TypeError, ValueError) as error:
        raise TypeError(
            message("options of the network", "texts, numbers and lists, as JSON holds them", error)
        ) from error
    return plain
