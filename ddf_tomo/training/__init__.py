"""Training that others can repeat: samples from seeds, degradations, one loop, recipes, and learning without truth."""

from ddf_tomo.training.denoising import Denoising, order_errors
from ddf_tomo.training.loop import CollapseError, Task, Trained, train
from ddf_tomo.training.pairs import brightness, random_geometry, random_scan, reconstructed_pair, white_noise_pair
from ddf_tomo.training.recipe import Recipe, run_recipe, shipped_recipes
from ddf_tomo.training.samples import FAMILIES, SPLITS, random_sample
from ddf_tomo.training.schedule import Schedule

__all__ = [
    "FAMILIES",
    "SPLITS",
    "CollapseError",
    "Denoising",
    "Recipe",
    "Schedule",
    "Task",
    "Trained",
    "brightness",
    "order_errors",
    "random_geometry",
    "random_sample",
    "random_scan",
    "reconstructed_pair",
    "run_recipe",
    "shipped_recipes",
    "train",
    "white_noise_pair",
]
