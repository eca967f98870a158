"""How the learning rate changes over the steps of a run."""

import math
from typing import Any

import torch

from evenslice.learn.recipe import Recipe


def schedule_of(optimiser: torch.optim.Optimizer, recipe: Recipe) -> Any:
    """Return the schedule of a recipe, to be stepped once a step.

    ``one-cycle`` is torch's (Smith & Topin 2018, arXiv:1708.07120); ``cosine`` is ``cosine_part`` of ``recipe.lr``.
    """
    schedules = torch.optim.lr_scheduler
    if recipe.schedule == "one-cycle":
        return schedules.OneCycleLR(optimiser, recipe.lr, total_steps=max(2, recipe.steps))
    if recipe.schedule == "constant":
        return schedules.LambdaLR(optimiser, lambda _: 1.0)
    return schedules.LambdaLR(optimiser, lambda step: cosine_part(step, recipe.steps, recipe.warmup))


def cosine_part(step: int, steps: int, warmup: float) -> float:
    """Return the part of the largest rate that step 0, 1, ... is taken with.

    It rises linearly over the first ``warmup`` part of the steps, reaches 1 with the last of them, and falls along half a
    cosine (Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts) to 0 after the last step.
    """
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))
