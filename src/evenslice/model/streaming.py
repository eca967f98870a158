"""Predicting a volume block after block: the next sections are read while the network computes."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.model.runner import Pending, Runner, Settings
from evenslice.model.spec import Model
from evenslice.volume.array import Roi, Volume
from evenslice.volume.normalisation import Normalisation
from evenslice.volume.sections import SectionReader, Sections
from evenslice.volume.tiles import Block, Tile, TileLayout, plan_blocks, within

T = TypeVar("T")
WHOLE = 2048
TILE = 1024
BLEND_SIDE = 4096
IN_FLIGHT = {"cpu": 0, "cuda": 2}


def predict_blocks(
    runner: Runner, feed: SectionReader, blocks: Iterable[Block]
) -> Iterator[tuple[Block, NDArray[np.float32]]]:
    """Predict blocks, one after the other.

    Parameters
    ----------
    runner
        The network.
    feed
        Where the windows come from.
    blocks
        What to predict.

    Yields
    ------
    Block, array
        Probabilities (C, z, y, x) of its core.
    """
    most = IN_FLIGHT[runner.settings.device]
    for block, windows in _grouped(_ahead(_jobs(feed, blocks, runner.settings.batch))):
        zs, ys, xs = block.core
        out = np.zeros(
            (runner.model.spec.classes, zs.stop - zs.start, ys.stop - ys.start, xs.stop - xs.start),
            np.float32,
        )
        pending: deque[tuple[int, Tile, Pending]] = deque()
        for first, stack in windows:
            for tile in block.tiles:
                pending.append(
                    (
                        first - zs.start,
                        tile,
                        runner.start(stack[(..., *within(tile.read, block.read))]),
                    )
                )
                while len(pending) > most:
                    _put(out, block, *pending.popleft())
        for one in pending:
            _put(out, block, *one)
        yield block, out


def _put(out: NDArray[np.float32], block: Block, first: int, tile: Tile, pending: Pending) -> None:
    found = pending.result()[(..., *tile.inside)].swapaxes(0, 1)
    place = (
        slice(None),
        slice(first, first + found.shape[1]),
        *within(tile.core, (block.core[1], block.core[2])),
    )
    if tile.weights is None:
        out[place] = found
    else:
        out[place] += found * (tile.weights[0][:, None] * tile.weights[1])


Job = tuple[Block, int, NDArray[np.float32]]


def _jobs(feed: SectionReader, blocks: Iterable[Block], batch: int) -> Iterator[Job]:
    for block in blocks:
        for first, windows in feed.windows(block, batch):
            yield block, first, windows


def _grouped(
    jobs: Iterator[Job],
) -> Iterator[tuple[Block, Iterator[tuple[int, NDArray[np.float32]]]]]:
    """Group the windows by their block; each group is used up before the next one begins."""
    held = next(jobs, None)

    def of(block: Block) -> Iterator[tuple[int, NDArray[np.float32]]]:
        nonlocal held
        while held is not None and held[0] is block:
            yield held[1], held[2]
            held = next(jobs, None)

    while held is not None:
        yield held[0], of(held[0])


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Take the next item in a thread while the last one is used."""
    with ThreadPoolExecutor(1, "reading") as pool:
        waiting = pool.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield item


def predict_slices(
    model: Model, volume: Volume, zs: Sequence[int], device: torch.device
) -> Iterator[NDArray[np.float32]]:
    """Predict some whole slices of a volume, one after the other, in float32: probabilities (C, y, x) each."""
    _, height, width = volume.shape
    side = WHOLE if max(height, width) <= WHOLE else TILE
    cut = TileLayout(
        (min(side, height), min(side, width)), 0, 0 if side == WHOLE else TILE // 4, model.stride
    )
    runner = Runner(model, Settings(device.type, threads=torch.get_num_threads()))
    feed = SectionReader(Sections(volume), normalisation_of(model), model.slices)
    blocks = [
        block
        for z in zs
        for block in plan_blocks(volume.shape, _slice_of(volume, z), cut, 1, max(height, width))
    ]
    for _, probability in predict_blocks(runner, feed, blocks):
        yield probability[:, 0]


def _slice_of(volume: Volume, z: int) -> Roi:
    return slice(z, z + 1), slice(0, volume.shape[1]), slice(0, volume.shape[2])


def normalisation_of(model: Model) -> Normalisation:
    """Return a model's normalisation, or raise ``BadInputError`` if it was never trained."""
    if model.normalisation is None:
        raise BadInputError(
            "the model has no normalisation yet, expected a trained model; train it, or give mean and std"
        )
    return model.normalisation
