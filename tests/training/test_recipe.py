"""Recipes make weights, the same ones every time; what is wrong with one is said with line and key."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ddf_tomo._checks import FileFormatError
from ddf_tomo.training import Denoising, Recipe, Schedule, order_errors, run_recipe, shipped_recipes, train
from ddf_tomo.training._volume_task import Ahead
from ddf_tomo.weights import load_network, make_network, read_card

SMALL = """
[network]
architecture = "residual-unet"
widths = [3, 3, 3]

[data]
families = ["grains", "smooth"]
validation = ["crossing"]
shape = [6, 6, 6]
orders = [2]
batch = 2
level = [0.3, 0.5]
reconstructed = 0.0
validation_volumes = 2
seed = 5

[training]
steps = 40
learning_rate = 1e-2
average = 0.9
validate_every = 20

[card]
intended_use = "a test"
limits = "useless"
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return Recipe.read(path)


def test_a_recipe_makes_weights_with_a_card(recipe, tmp_path):
    output = tmp_path / "weights.safetensors"
    trained = run_recipe(recipe, output)
    assert trained.figures["loss"] < trained.figures["input"]
    found = load_network(output)
    states = found.state_dict(), trained.network.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    card = read_card(output)
    assert card.recipe == SMALL
    assert card.intended_use == "a test"
    assert card.options == {"widths": [3, 3, 3]}
    assert card.metrics["loss"] == trained.figures["loss"]
    assert card.data["families"] == ["grains", "smooth"]
    assert "cpu" in card.machine
    assert {path.name for path in tmp_path.iterdir()} >= {"weights.safetensors", "weights.jsonl"}
    assert not (tmp_path / "weights.state").exists()
    lines = [json.loads(line) for line in (tmp_path / "weights.jsonl").read_text().splitlines()]
    assert {"loss", "input", "l0", "l2", "input l0", "input l2", "rate", "train", "step"} <= lines[0].keys()


def test_it_makes_the_same_weights_again_with_an_interruption_too(recipe, tmp_path):
    first = run_recipe(recipe, tmp_path / "a.safetensors").network.state_dict()
    output = tmp_path / "b.safetensors"
    assert run_recipe(recipe, output, time_limit_s=0).stopped == "time"
    assert load_network(output)
    with pytest.raises(ValueError, match=r"no state of a training that was interrupted.*Resume \(--resume\)"):
        run_recipe(recipe, output)
    other = replace(recipe, task=replace(recipe.task, batch=1))
    with pytest.raises(FileFormatError, match="that of another recipe"):
        run_recipe(other, output, resume=True)
    found = run_recipe(recipe, output, resume=True)
    assert found.stopped == "steps"
    state = found.network.state_dict()
    assert all(torch.equal(state[name], first[name]) for name in first)
    assert not (tmp_path / "b.state").exists()


def test_another_seed_is_another_training(recipe, tmp_path):
    other = recipe.with_seed(6)
    assert not torch.equal(other.task.examples(0)[0].truth, recipe.task.examples(0)[0].truth)
    weights = [made.network().state_dict() for made in (recipe, other, recipe.with_seed(5))]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    assert other.data()["seed"] == 6


def test_a_training_begins_with_given_weights(recipe, tmp_path):
    before, after = tmp_path / "before.safetensors", tmp_path / "after.safetensors"
    first = run_recipe(recipe, before).network.state_dict()
    slow = replace(recipe, schedule=replace(recipe.schedule, steps=20, learning_rate=1e-9, average=0.0))
    found = run_recipe(slow.with_seed(6), after, start=before).network.state_dict()
    assert all(torch.allclose(found[name], first[name], atol=1e-6) for name in first)
    told = read_card(after).data["start"]
    assert told == {"weights": "before.safetensors", "commit": read_card(before).commit, "recipe": SMALL}
    with pytest.raises(ValueError, match=r"start: expected weights of the recipe's network, got .*\[3, 3, 3\]"):
        run_recipe(replace(recipe, options={"widths": [2, 3, 3]}), after, start=before)


def test_a_state_belongs_to_its_start(recipe, tmp_path):
    output = tmp_path / "weights.safetensors"
    run_recipe(recipe, output, time_limit_s=0)
    other = tmp_path / "other.safetensors"
    run_recipe(recipe.with_seed(6), other, time_limit_s=0)
    with pytest.raises(FileFormatError, match="that of another recipe"):
        run_recipe(recipe, output, start=other, resume=True)


def test_examples_made_ahead_are_the_same(recipe):
    ahead = Ahead(recipe.task.examples, 3)
    for step in (0, 1, 2, 7, 3):
        for example, same in zip(ahead(step), recipe.task.examples(step), strict=True):
            assert example.jitter == same.jitter
            assert all(torch.equal(a, b) for a, b in zip(example[:3], same[:3], strict=True))
    assert set(ahead.under_way) == {4, 5, 6}


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_complete(name):
    recipe = Recipe.read(name)
    assert recipe.intended_use
    assert recipe.limits
    assert recipe.text.startswith(f"# ddf-tomo train {name} ")
    assert set(recipe.architecture.split("-")) <= set(name.split("-"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("steps = 40", "steps = 0", r"line 18, \[training\] steps: expected an integer in"),
        ("steps = 40", "", r"line 17, \[training\] steps: expected the number of steps, got nothing"),
        ("batch = 2", "batches = 2", r"line 11, \[data\] batches: expected one of .* Did you mean 'batch'\?"),
        ('"grains"', '"wood"', r"line 7, \[data\] families: expected one of 'fibrous'"),
        ('"grains"', '"helicoidal"', r"line 7, \[data\] families: .*'helicoidal', kept for tests"),
        ('"crossing"', '"grains"', r"line 8, \[data\] validation: expected families that do not train, got 'grains'"),
        ("orders = [2]", "orders = [3]", r"line 10, \[data\] orders: expected an even order"),
        ("level = [0.3, 0.5]", "level = [0.5, 0.3]", r"line 12, \[data\] level: expected a finite number in"),
        ('"residual-unet"', '"transformer"', r"line 3, \[network\] architecture: expected one of .*got 'transformer'"),
        ("widths = [3, 3, 3]", "depth = 3", r"options: expected what the architecture 'residual-unet' takes"),
        ("[card]", "[cards]", r"line 23, \[cards\] cards: expected one of the tables \[network\]"),
        ("[card]", "[card", r"path: expected a recipe in TOML"),
    ],
)
def test_what_is_wrong_is_said_with_line_and_key(tmp_path, old, new, words):
    path = tmp_path / "wrong.toml"
    assert SMALL.count(old) == 1
    path.write_text(SMALL.replace(old, new))
    with pytest.raises(FileFormatError, match=words) as refusal:
        Recipe.read(path)
    assert "wrong.toml" in str(refusal.value) or "options" in str(refusal.value)


def test_neither_a_file_nor_a_shipped_recipe():
    with pytest.raises(FileNotFoundError, match=r"a shipped recipe \('deconvolution-unrolled', 'equivariant-denoiser'"):
        Recipe.read("nowhere")


def test_a_device_that_is_not_there(recipe, tmp_path):
    with pytest.raises(ValueError, match="device: expected a device that torch can use"):
        run_recipe(recipe, tmp_path / "a.safetensors", device="abacus")


def test_batches_depend_on_the_step_alone(recipe):
    task, again = recipe.task, replace(recipe.task)
    for step in (3, 0, 3):
        for example, same in zip(task.examples(step), again.examples(step), strict=True):
            assert example.jitter == same.jitter
            assert all(torch.equal(a, b) for a, b in zip(example[:3], same[:3], strict=True))
    assert not torch.equal(task.examples(1)[0].noisy, task.examples(2)[0].noisy)
    assert not torch.equal(task.examples(1)[0].noisy, task.examples(1)[1].noisy)
    other = replace(task, seed=6)
    assert not torch.equal(task.examples(1)[0].noisy, other.examples(1)[0].noisy)


def test_levels_are_those_of_each_order():
    task = Denoising(shape=(8, 8, 8), orders=(4,), batch=3, reconstructed=1.0)
    for noisy, truth, level, *_ in task.examples(0):
        errors = (noisy - truth).double()
        for order, part in enumerate(errors.split([1, 5, 9], -1)):
            assert level[order].item() == pytest.approx(part.square().mean().sqrt().item(), rel=1e-5)
    for noisy, truth, level, *_ in replace(task, reconstructed=0.0, level=(0.1, 0.1)).examples(0):
        assert torch.allclose(level, (noisy - truth).std().expand(3), rtol=0.05)


def test_reconstructions_are_asked_for_their_data_again():
    """From the truth itself the next round starts near it, with the level that it has there."""
    task = Denoising(shape=(8, 8, 8), orders=(2,), batch=1, reconstructed=1.0, rounds=2)
    example = task.examples(0)[0]
    told = []

    def to_the_truth(noisy, level):
        told.append((noisy[0], level[0] / example.jitter))
        return example.truth[None]

    assert task.errors(to_the_truth, [example]).max() < 1e-5
    assert torch.equal(told[0][0], example.noisy)
    torch.testing.assert_close(told[0][1], example.level)
    assert order_errors(told[1][0], example.truth).max() < 0.05 * order_errors(example.noisy, example.truth).min()


def test_figures_are_geometric_means_over_validation_samples():
    task = Denoising(shape=(6, 6, 6), orders=(2, 4), reconstructed=0.5, rounds=1, validation_volumes=2)
    figures = task.validate(lambda noisy, level: 0.5 * noisy)
    errors = [order_errors(0.5 * each.noisy, each.truth).numpy() for each in task._validation]
    assert len(errors) == 4
    assert figures["loss"] == pytest.approx(np.exp(np.mean([np.log(each).mean() for each in errors])), rel=1e-5)
    assert figures["l4"] == pytest.approx(np.sqrt(errors[2][2] * errors[3][2]), rel=1e-5)
    plain = [order_errors(each.noisy, each.truth).numpy() for each in task._validation]
    assert figures["input l2"] == pytest.approx(np.prod([each[1] for each in plain]) ** 0.25, rel=1e-5)
    # Half of them have the errors of a reconstruction, which differ from order to order.
    kinds = [len(set(each.level.tolist())) > 1 for each in task._validation]
    assert kinds == [True, False, True, False]


def test_unrolled_networks_learn_through_the_physics(tmp_path):
    path = tmp_path / "unrolled.toml"
    path.write_text(
        "[network]\narchitecture = 'unrolled'\noptions = { widths = [3, 3, 3] }\niterations = 2\n"
        "[data]\ntask = 'unrolling'\nshape = [5, 5, 5]\norders = [2]\nbatch = 1\nvalidation_volumes = 1\nseed = 2\n"
        "[training]\nsteps = 3\nvalidate_every = 3\n"
    )
    recipe = Recipe.read(path)
    before = recipe.network().state_dict()
    found = run_recipe(recipe, tmp_path / "unrolled.safetensors", progress=False)
    after = load_network(tmp_path / "unrolled.safetensors").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"log_levels", "log_strengths"} <= changed
    assert any(name.startswith("denoiser.") for name in changed)
    assert 0 < found.figures["loss"] < 3
    assert 0 < found.figures["input"] < 3
    assert read_card(tmp_path / "unrolled.safetensors").data["task"] == "unrolling"
    path.write_text(path.read_text().replace("batch = 1", "batch = 1\nlevel = [0.1, 0.2]"))
    with pytest.raises(FileFormatError, match=r"\[data\] level: expected a key of the task 'unrolling'"):
        Recipe.read(path)


def test_errors_of_orders_against_sums():
    generator = np.random.default_rng(0)
    truth = generator.normal(size=(2, 4, 5, 6, 15)).astype(np.float32)
    truth[..., 6:] *= 1e-3
    found = truth + generator.normal(size=truth.shape).astype(np.float32)
    errors = order_errors(torch.tensor(found), torch.tensor(truth))
    for sample in range(2):
        norms = [np.linalg.norm(truth[sample, ..., a:b]) for a, b in ((0, 1), (1, 6), (6, 15))]
        wrong = [np.linalg.norm((found - truth)[sample, ..., a:b]) for a, b in ((0, 1), (1, 6), (6, 15))]
        expected = [wrong[0] / norms[0], wrong[1] / norms[1], wrong[2] / (0.1 * norms[0])]
        assert np.allclose(errors[sample], expected, rtol=1e-4)
    with pytest.raises(ValueError, match="found: expected shape"):
        order_errors(torch.ones(2, 2, 2, 6), torch.ones(2, 2, 2, 15))


def test_one_batch_can_be_learned_by_heart():
    """Gradients reach what they must through the loss of all orders."""

    class OneBatch(Denoising):
        def examples(self, step):
            return super().examples(0)

        def validate(self, network):
            examples = self.examples(0)
            return {"loss": self.errors(network, examples).mean(), "input": self.input_errors(examples).mean()}

    task = OneBatch(shape=(6, 6, 6), orders=(2,), batch=1, level=(0.3, 0.3), reconstructed=0.0)
    torch.manual_seed(0)
    network = make_network("residual-unet", {"widths": [16, 16, 16]})
    found = train(network, task, Schedule(steps=120, learning_rate=0.005, average=0.5, validate_every=60))
    assert found.figures["loss"] < 0.35 * found.figures["input"]
