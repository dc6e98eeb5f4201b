"""Training that others can repeat: samples from seeds, degradations, one loop, recipes, and learning without truth."""

from ddf_tomo.training.loop import CollapseError, Task, Trained, train
from ddf_tomo.training.pairs import brightness, random_geometry, random_scan, reconstructed_pair, white_noise_pair
from ddf_tomo.training.samples import FAMILIES, SPLITS, random_sample
from ddf_tomo.training.schedule import Schedule

__all__ = [
    "FAMILIES",
    "SPLITS",
    "CollapseError",
    "Schedule",
    "Task",
    "Trained",
    "brightness",
    "random_geometry",
    "random_sample",
    "random_scan",
    "reconstructed_pair",
    "train",
    "white_noise_pair",
]
