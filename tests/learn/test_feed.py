"""Batches made ahead: the same as without threads, each once, in order; errors arrive."""

import threading
import time

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from evenslice.errors import BadInputError
from evenslice.learn.module import Batches
from evenslice.learn.patches import Patches


class Numbers:
    """A source whose patches are their first random number."""

    crop = (2, 3)

    def __init__(self, slow=0.0, broken=None):
        self.slow, self.broken, self.count = slow, broken, 0

    def draw(self, rng):
        self.count += 1
        value = rng.random()
        time.sleep(self.slow * value)
        if self.broken is not None and self.count > self.broken:
            raise BadInputError("broken")
        return np.full((1, 2, 3), value, np.float32), np.full((2, 3), int(100 * value), np.int64)


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_are_those_of_torch_whatever_the_threads(threads):
    patches = Patches(Numbers(0.003), 3, 8, 24)
    made = list(Batches(patches, 4, threads=threads))
    assert len(made) == len(Batches(patches, 4)) == 6
    for one, other in zip(made, DataLoader(patches, batch_size=4), strict=True):
        assert all(
            torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True)
        )


def test_devices_share_every_batch():
    patches = Patches(Numbers(), 3, 0, 12)
    whole = [w for w, _ in Batches(patches, 6)]
    parts = [[w for w, _ in Batches(patches, 6, (rank, 3))] for rank in range(3)]
    for step, batch in enumerate(whole):
        assert torch.equal(batch, torch.cat([part[step] for part in parts]))


def test_an_error_in_a_thread_arrives_and_the_threads_end():
    with pytest.raises(BadInputError, match="broken"):
        list(Batches(Patches(Numbers(broken=5), 0, 0, 40), 2, threads=2))
    assert not [t for t in threading.enumerate() if t.name.startswith("patches")]


def test_no_more_is_made_ahead_than_said_and_what_is_left_lying_ends():
    source = Numbers()
    batches = iter(Batches(Patches(source, 0, 0, 1000), 2, threads=2))
    next(batches)
    time.sleep(0.1)
    assert source.count <= 2 * 4
    batches.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("patches")]
