"""``ddf-tomo train``: a recipe to weights, or weights adapted to one scan."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ddf_tomo.cli._app import Angles, AsJson, app, auto_or, check_folder, given, tell
from ddf_tomo.cli._measured import read_measured

MINUTE_S = 60.0


@app.command(short_help="Train the weights of a prior, or adapt them to a scan.")
def train(
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="File for the weights, .safetensors, with a model card. Metrics stand beside it (.jsonl), and the"
            " state of what was interrupted (.state).",
            show_default=False,
        ),
    ],
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="[RECIPE.toml]",
            help="What to train on what, or the name of a recipe that comes with the package.",
            show_default=False,
        ),
    ] = None,
    self_supervised: Annotated[
        Path | None,
        typer.Option(
            metavar="SCAN.h5",
            help="Adapt weights to this scan (or these maps) instead, without a truth. Views that are kept aside decide"
            " whether the adapted weights are better; if not, the ones that were there are written.",
            show_default=False,
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="Weights to begin with, a file or a name of those shipped.",
            show_default="fresh ones; residual-unet with --self-supervised",
        ),
    ] = None,
    ell_max: Annotated[
        str, typer.Option(help="With --self-supervised: highest order of the harmonics, or 'auto'.")
    ] = "auto",
    angles: Angles = "auto",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was interrupted; the result is the same.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(help="Of everything that is drawn.", show_default="the recipe's, or 0", min=0)
    ] = None,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda.")] = "cpu",
    time_limit: Annotated[
        float | None,
        typer.Option(
            help="Minutes after which to stop. A recipe can go on later, with --resume.",
            min=0.0,
            show_default="none; 15 with --self-supervised",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train the weights of a learned prior as a recipe says, or adapt some to one scan.

    A recipe makes the same weights every time; those that ship with the package were made by the ones that do:
    residual-unet and from there residual-unet-longer, retrieval-network, deconvolution-unrolled. Others, longer ones
    for a CUDA device among them (with -gpu behind the name), have not been run to their end.
    """
    from ddf_tomo._checks import message

    if (recipe is None) == (self_supervised is None):
        found = "neither" if recipe is None else "both"
        raise ValueError(message("recipe", "a recipe, or --self-supervised with a scan", found))
    check_folder("output", output)
    limits = given(time_limit_s=None if time_limit is None else time_limit * MINUTE_S)
    if recipe is not None:
        from ddf_tomo.training import Recipe, run_recipe

        plan = Recipe.read(recipe) if seed is None else Recipe.read(recipe).with_seed(seed)
        trained = run_recipe(plan, output, start=start, resume=resume, device=device, **limits)
        told: dict[str, Any] = {**trained.figures, "steps": trained.step, "stopped by": trained.stopped}
        tell(told | {"seconds": trained.seconds, "output": str(output)}, as_json)
        return
    assert self_supervised is not None
    if resume:
        raise ValueError(message("resume", "a recipe to go on with", "--self-supervised"))
    order = auto_or("ell_max", ell_max, int, "an even number")
    how = {"device": device, "seed": seed or 0} | limits
    _adapt(self_supervised, output, start or "residual-unet", order, angles, how, as_json)


def _adapt(
    path: Path, output: Path, start: str, order: Any, angles: str, options: dict[str, Any], as_json: bool
) -> None:
    from ddf_tomo import Scan
    from ddf_tomo.training import adapt
    from ddf_tomo.training.adaptation import adapted_card
    from ddf_tomo.weights import load_network, read_card, save_network

    network, card = load_network(start), read_card(start)
    measured = read_measured(path, angles, mask=False)
    scan = measured if isinstance(measured, Scan) else measured.scan("scattering")
    found = adapt(scan, network, ell_max=order, **options)
    save_network(found.network, output, adapted_card(card, found, start, path.name, options["device"]))
    residuals = {f"residual {name}": value for name, value in found.residuals.items()}
    told = {"decision": str(found), "adapted": found.better, **residuals, "steps": found.steps}
    tell(told | {"seconds": found.seconds, "output": str(output)}, as_json)
