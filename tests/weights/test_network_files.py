"""Networks to files and back, and files that must not become networks."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from ddf_tomo._checks import FileFormatError
from ddf_tomo.weights import (
    ModelCard,
    architecture,
    architecture_names,
    load_network,
    make_network,
    network_files,
    options_of,
    read_card,
    save_network,
    shipped_weights,
)
from ddf_tomo.weights.card import where_and_when
from ddf_tomo.weights.network_files import LAYOUT


@architecture("test-mixing")
class Mixing(nn.Module):
    def __init__(self, channels: int = 6, *, names: tuple[str, ...] = ("a",), bias: bool = True) -> None:
        super().__init__()
        self.mix = nn.Linear(channels, channels, bias=bias)
        self.norm = nn.BatchNorm1d(channels)  # with a counter: a buffer of integers
        self.names = list(names)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mixing.safetensors"


@pytest.fixture
def network() -> Mixing:
    torch.manual_seed(0)
    network = Mixing(4, names=("b", "c"))
    network.norm(torch.randn(5, 4))
    return network


def test_what_is_saved_is_loaded(path, network):
    card = ModelCard(
        intended_use="a test", limits="everything", metrics={"loss": 0.5}, recipe="[data]\n", data={"n": 1}
    )
    save_network(network, path, card)
    found = load_network(str(path))
    assert isinstance(found, Mixing)
    assert found.names == ["b", "c"]
    assert not found.training
    state = network.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in found.state_dict().items())
    read = read_card(path)
    assert read == dataclasses.replace(
        card, architecture="test-mixing", options={"channels": 4, "names": ["b", "c"], "bias": True}
    )
    assert "mixing" in str(read)
    assert "[data]" not in str(read)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_the_size(path, network, kind):
    network = Mixing(64)
    save_network(network, path)
    whole = path.stat().st_size
    save_network(network, path, stored_as=kind)
    assert path.stat().st_size < 0.65 * whole
    found = load_network(path)
    assert found.mix.weight.dtype == torch.float32
    assert torch.allclose(found.mix.weight, network.mix.weight, rtol=2**-8)


def test_who_may_read_other_new_files_may_read_weights(path, network):
    save_network(network, path)
    (path.parent / "other").write_text("new")
    assert path.stat().st_mode == (path.parent / "other").stat().st_mode


def test_loading_draws_no_random_numbers(path, network):
    save_network(network, path)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load_network(path)
    assert torch.equal(torch.rand(3), expected)


def test_shipped_names(tmp_path, monkeypatch, network):
    monkeypatch.setattr(network_files, "SHIPPED", tmp_path)
    assert shipped_weights() == ()
    save_network(network, tmp_path / "mixer.safetensors")
    assert shipped_weights() == ("mixer",)
    assert torch.equal(load_network("mixer").mix.weight, network.mix.weight)
    with pytest.raises(FileNotFoundError, match=r"shipped name \('mixer'\), got 'mixr'"):
        load_network("mixr")


def test_all_shipped_weights_load():
    for name in shipped_weights():
        assert isinstance(load_network(name), nn.Module)
        card = read_card(name)
        assert card.intended_use
        assert card.limits
        assert card.recipe
        assert card.commit


def test_shipped_weights_are_small():
    assert sum(file.stat().st_size for file in network_files.SHIPPED.iterdir()) <= 8 * 2**20


def resaved(path: Path, change) -> None:
    """The file with its tensors and texts changed."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(str(path), framework="pt") as file:
        texts = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, texts)
    save_file(tensors, str(path), texts)


def of_card(**changes):
    def change(tensors, texts):
        texts["card"] = json.dumps(json.loads(texts["card"]) | changes)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, _: t.pop("mix.bias"), "no mix.bias"),
        (lambda t, _: t.update(extra=torch.ones(1)), "also extra"),
        (lambda t, _: t.update({"mix.bias": torch.ones(5)}), r"mix.bias: expected shape \(4,\), got \(5,\)"),
        (
            lambda t, _: t.update({"mix.bias": torch.ones(4, dtype=torch.int32)}),
            "expected torch.float32, got torch.int32",
        ),
        (lambda t, _: t["mix.bias"].fill_(torch.nan), "expected finite weights"),
        (lambda _, m: m.pop("layout"), "got a safetensors file of something else"),
        (lambda _, m: m.update(layout="ddf_tomo network 9"), f"the layout '{LAYOUT}', got 'ddf_tomo network 9'"),
        (lambda _, m: m.pop("card"), "model card: expected the fields"),
        (lambda _, m: m.update(card="{"), "model card: expected the fields"),
        (of_card(architecture="gpt"), "expected one of the architectures .*got 'gpt'"),
        (of_card(options={"width": 3}), "options: expected what the architecture 'test-mixing' takes"),
        (of_card(options={"channels": -1}), "options: expected what the architecture 'test-mixing' takes"),
        (of_card(options={"channels": 5}), r"expected shape \(5, 5\), got \(4, 4\)"),
        (of_card(options=[1]), "options: expected a mapping"),
    ],
)
def test_foreign_and_mismatched_files_are_refused(path, network, change, words):
    save_network(network, path)
    resaved(path, change)
    with pytest.raises(FileFormatError, match=words) as refusal:
        load_network(path)
    assert "mixing.safetensors" in str(refusal.value)


def test_nothing_is_unpickled(path):
    class Bomb:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(FileFormatError, match="expected a safetensors file"):
        load_network(path)
    torch.save({"mix.bias": torch.ones(1)}, path)
    with pytest.raises(FileFormatError, match="expected a safetensors file"):
        load_network(path)


def test_half_a_file_is_refused(path, network):
    save_network(network, path)
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(FileFormatError, match=r"mixing.safetensors: expected a safetensors file"):
        load_network(path)


def test_infinite_weights_are_not_saved(path, network):
    with torch.no_grad():
        network.mix.weight[0, 0] = torch.inf
    with pytest.raises(FileFormatError, match=r"mix\.weight: expected finite"):
        save_network(network, path)
    assert not path.exists()


def test_architectures_by_name():
    assert "test-mixing" in architecture_names()
    assert options_of(make_network("test-mixing", {"channels": 3}))[1]["channels"] == 3
    with pytest.raises(ValueError, match="one that no other architecture has, got 'test-mixing'"):
        architecture("test-mixing")(nn.Linear)
    with pytest.raises(TypeError, match="a class of torch"):
        architecture("test-function")(len)
    with pytest.raises(TypeError, match="as JSON holds them"):
        Mixing(names=(object(),))
    with pytest.raises(TypeError, match=r"decorator @architecture\(\.\.\.\), got Linear"):
        save_network(nn.Linear(2, 2), "x.safetensors")


def test_a_class_derived_from_an_architecture_is_another_one():
    class Derived(Mixing):
        pass

    with pytest.raises(TypeError, match="got Derived"):
        options_of(Derived())


def test_cards_say_where_they_come_from():
    told = where_and_when("cpu", 90)
    assert "1.5 minutes" in told["machine"]
    assert ModelCard(**told).version
    with pytest.raises(TypeError, match="metrics: expected texts"):
        ModelCard(metrics={"loss": float("nan")})
    with pytest.raises(TypeError, match="limits: expected a text"):
        ModelCard(limits=3)
