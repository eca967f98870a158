"""Batches made ahead by threads, while the network computes: the same in every run, whatever the number of threads."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from evenslice.learn.patches import Patches

Batch = tuple[Tensor, Tensor]


class Batches:
    """The batches of a stretch of patches, or the part of each that one of several devices takes.

    Parameters
    ----------
    patches
        The stretch, a multiple of ``batch`` long.
    batch
        Patches a step, of all devices together.
    share
        Number of this device, and how many there are: of every batch it takes as many patches as the others, in a row.
    threads
        How many make batches; at most one more than these are waiting.
    pinned
        Whether to put them into memory from which a GPU takes them without waiting.
    """

    def __init__(
        self, patches: Patches, batch: int, share: tuple[int, int] = (0, 1), threads: int = 1, pinned: bool = False
    ) -> None:
        self._patches, self._batch, self._share = patches, batch, share
        self._threads, self._pinned = threads, pinned

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self._patches) // self._batch

    def __iter__(self) -> Iterator[Batch]:
        """Give windows (B, S, y, x) and targets (B, y, x), step by step."""
        waiting: deque[Future[Batch]] = deque()
        with ThreadPoolExecutor(self._threads, "patches") as pool:
            try:
                for step in range(len(self)):
                    waiting.append(pool.submit(self._made, step))
                    if len(waiting) > self._threads:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def _made(self, step: int) -> Batch:
        rank, ranks = self._share
        part = self._batch // ranks
        first = step * self._batch + rank * part
        drawn = [self._patches.drawn(first + i) for i in range(part)]
        windows, targets = self._room(part, drawn[0][0]), self._room(part, drawn[0][1])
        for i, (window, target) in enumerate(drawn):
            windows.numpy()[i], targets.numpy()[i] = window, target
        return windows, targets

    def _room(self, part: int, one: np.ndarray) -> Tensor:
        kind = torch.from_numpy(one).dtype
        return torch.empty((part, *one.shape), dtype=kind, pin_memory=self._pinned)
