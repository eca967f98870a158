"""Batches made ahead: the same as without threads; the schedule of the learning rate."""

import math
import threading
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from evenslice.errors import BadInputError
from evenslice.learn.module import Batches, cosine_factor, schedule_of
from evenslice.options import TrainOptions


class Numbers:
    """A source whose patches are their first random number."""

    def __init__(self, slow=0.0, broken=None):
        self.slow, self.broken, self.count = slow, broken, 0

    def patch(self, seed, number):
        self.count += 1
        value = np.random.default_rng([seed, number]).random()
        time.sleep(self.slow * value)
        if self.broken is not None and self.count > self.broken:
            raise BadInputError("broken")
        return np.full((1, 2, 3), value, np.float32), np.full((2, 3), int(100 * value), np.int64)


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_are_those_of_torch_whatever_the_threads(threads):
    source = Numbers(0.003)
    made = list(Batches(source, 3, 8, 6, 4, threads=threads))
    plain = DataLoader([source.patch(3, 8 + i) for i in range(24)], batch_size=4)
    for one, other in zip(made, plain, strict=True):
        assert all(
            torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True)
        )


def test_devices_share_every_batch():
    whole = [w for w, _ in Batches(Numbers(), 3, 0, 2, 6)]
    parts = [[w for w, _ in Batches(Numbers(), 3, 0, 2, 6, (rank, 3))] for rank in range(3)]
    for step, batch in enumerate(whole):
        assert torch.equal(batch, torch.cat([part[step] for part in parts]))


def test_an_error_in_a_thread_arrives_and_the_threads_end():
    with pytest.raises(BadInputError, match="broken"):
        list(Batches(Numbers(broken=5), 0, 0, 20, 2, threads=2))
    assert not [t for t in threading.enumerate() if t.name.startswith("patches")]


def test_at_most_one_batch_more_than_threads_is_made_ahead():
    source = Numbers()
    batches = iter(Batches(source, 0, 0, 500, 2, threads=2))
    next(batches)
    time.sleep(0.1)
    assert source.count <= 2 * 4
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("patches")]


def rates(options):
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=options.lr)
    schedule = schedule_of(optimiser, options)
    found = []
    for _ in range(options.steps):
        found.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return found


def test_cosine_rises_in_a_line_and_falls_along_half_a_cosine():
    found = rates(TrainOptions(steps=20, lr=0.4, schedule="cosine", warmup=0.2))
    assert found[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert found[4:] == pytest.approx([0.2 * (1 + math.cos(math.pi * t / 16)) for t in range(16)])


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.1), (1, 1.0), (3, 0.0), (10, 1.0), (7, 0.5)])
def test_every_step_has_a_rate(steps, warmup):
    factors = [cosine_factor(step, steps, warmup) for step in range(steps)]
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == 1
    assert 0 <= cosine_factor(steps, steps, warmup) <= 1


def test_constant_is_constant_and_one_cycle_is_torchs():
    assert rates(TrainOptions(steps=5, lr=0.3, schedule="constant")) == [0.3] * 5
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.3, total_steps=5)
    found = rates(TrainOptions(steps=5, lr=0.3))
    assert found[0] == optimiser.param_groups[0]["lr"]
    assert max(found) == pytest.approx(0.3, rel=0.1)
