import math

import pytest
import torch

from evenslice.learn.module import cosine_part, schedule_of
from evenslice.options import TrainOptions


def rates(recipe):
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    schedule = schedule_of(optimiser, recipe)
    found = []
    for _ in range(recipe.steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return found


def test_cosine_rises_in_a_line_and_falls_along_half_a_cosine():
    found = rates(TrainOptions(steps=20, lr=0.4, schedule="cosine", warmup=0.2))
    assert found[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert found[4:] == pytest.approx([0.2 * (1 + math.cos(math.pi * t / 16)) for t in range(16)])
    assert found[4 + 8] == pytest.approx(0.2)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.1), (1, 1.0), (3, 0.0), (10, 1.0), (7, 0.5)])
def test_every_step_has_a_rate(steps, warmup):
    parts = [cosine_part(step, steps, warmup) for step in range(steps)]
    assert all(0 < part <= 1 for part in parts)
    assert max(parts) == 1
    assert 0 <= cosine_part(steps, steps, warmup) <= 1


def test_constant_is_constant_and_one_cycle_is_torchs():
    assert rates(TrainOptions(steps=5, lr=0.3, schedule="constant")) == [0.3] * 5
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.3, total_steps=5)
    found = rates(TrainOptions(steps=5, lr=0.3))
    assert found[0] == optimiser.param_groups[0]["lr"]
    assert max(found) == pytest.approx(0.3, rel=0.1)
