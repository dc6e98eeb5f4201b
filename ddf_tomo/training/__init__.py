"""Training that others can repeat: samples from seeds, degradations, one loop, recipes, and learning without truth."""

from ddf_tomo.priors.learned.samples import FAMILIES, SPLITS, random_sample
from ddf_tomo.training._volume_task import order_errors
from ddf_tomo.training.adaptation import Adapted, adapt
from ddf_tomo.training.benchmark import SHIFTS, benchmark_scan
from ddf_tomo.training.deconvolving import Deconvolving
from ddf_tomo.training.denoising import Denoising
from ddf_tomo.training.frames import FRAME_FAMILIES, FRAME_SPLITS, Crop, random_crop
from ddf_tomo.training.loop import CollapseError, Trained, train
from ddf_tomo.training.pairs import brightness, random_geometry, random_scan, white_noise_pair
from ddf_tomo.training.recipe import Recipe, run_recipe, shipped_recipes
from ddf_tomo.training.retrieving import Retrieving
from ddf_tomo.training.schedule import Schedule
from ddf_tomo.training.self_supervised import equivariance_loss, split_counts, split_views, stein_risk
from ddf_tomo.training.statistics import training_statistics
from ddf_tomo.training.unrolling import Unrolling

__all__ = [
    "FAMILIES",
    "FRAME_FAMILIES",
    "FRAME_SPLITS",
    "SHIFTS",
    "SPLITS",
    "Adapted",
    "CollapseError",
    "Crop",
    "Deconvolving",
    "Denoising",
    "Recipe",
    "Retrieving",
    "Schedule",
    "Trained",
    "Unrolling",
    "adapt",
    "benchmark_scan",
    "brightness",
    "equivariance_loss",
    "order_errors",
    "random_crop",
    "random_geometry",
    "random_sample",
    "random_scan",
    "run_recipe",
    "shipped_recipes",
    "split_counts",
    "split_views",
    "stein_risk",
    "train",
    "training_statistics",
    "white_noise_pair",
]
