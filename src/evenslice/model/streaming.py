"""Predicting a volume block after block: the next sections are read while the network computes."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from operator import itemgetter
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.model.predict import Pending, Runner, Settings
from evenslice.model.spec import Model
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation
from evenslice.volume.sections import SectionReader, Sections
from evenslice.volume.tiles import Block, Tile, TileLayout, plan_blocks, within

T = TypeVar("T")
WHOLE = 2048
TILE = 1024
IN_FLIGHT = {"cpu": 0, "cuda": 2}


def predict_blocks(
    runner: Runner, reader: SectionReader, blocks: Iterable[Block]
) -> Iterator[tuple[Block, NDArray[np.float32]]]:
    """Predict blocks, one after the other, with windows from ``reader``.

    Yield each with the probabilities (C, z, y, x) of its core.
    """
    most = IN_FLIGHT[runner.settings.device]
    windows_by_block = (
        (block, first, windows)
        for block in _fetched_ahead(reader, blocks)
        for first, windows in reader.windows(block, runner.settings.batch)
    )
    for block, group in groupby(_read_ahead(windows_by_block), key=itemgetter(0)):
        sides = (part.stop - part.start for part in block.core)
        out = np.zeros((runner.model.spec.classes, *sides), np.float32)
        pending: deque[tuple[int, Tile, Pending]] = deque()
        for _, first, windows in group:
            for tile in block.tiles:
                window = windows[(..., *within(tile.read, block.read))]
                pending.append((first, tile, runner.start(window)))
                while len(pending) > most:
                    _add(out, block, *pending.popleft())
        for late in pending:
            _add(out, block, *late)
        yield block, out


def _fetched_ahead(reader: SectionReader, blocks: Iterable[Block]) -> Iterator[Block]:
    """Yield each block when the fetch of the next one has begun."""
    last: Block | None = None
    for block in blocks:
        reader.fetch_ahead(block)
        if last is not None:
            yield last
        last = block
    if last is not None:
        yield last


def _read_ahead(items: Iterator[T]) -> Iterator[T]:
    """Take the next item in a thread while the last one is used."""
    with ThreadPoolExecutor(1, "reading") as pool:
        waiting = pool.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield item


def _add(out: NDArray[np.float32], block: Block, first: int, tile: Tile, pending: Pending) -> None:
    """Write a tile's probabilities of the slices from ``first`` on; blended tiles are added up."""
    zs, ys, xs = block.core
    found = pending.result()[(..., *tile.inside)].swapaxes(0, 1)
    depth = slice(first - zs.start, first - zs.start + found.shape[1])
    place = (slice(None), depth, *within(tile.core, (ys, xs)))
    if tile.weights is None:
        out[place] = found
    else:
        out[place] += found * (tile.weights[0][:, None] * tile.weights[1])


def predict_slices(
    model: Model, volume: Volume, zs: Sequence[int], device: torch.device
) -> Iterator[NDArray[np.float32]]:
    """Predict whole slices of a volume one by one, in float32: probabilities (C, y, x) each."""
    _, height, width = volume.shape
    side, overlap = (WHOLE, 0) if max(height, width) <= WHOLE else (TILE, TILE // 4)
    layout = TileLayout((min(side, height), min(side, width)), 0, overlap, model.stride)
    runner = Runner(model, Settings(device.type, threads=torch.get_num_threads()))
    reader = SectionReader(Sections(volume), normalisation_of(model), model.slices)
    blocks: list[Block] = []
    for z in zs:
        box = slice(z, z + 1), slice(0, height), slice(0, width)
        blocks.extend(plan_blocks(volume.shape, box, layout, 1, max(height, width)))
    for _, probability in predict_blocks(runner, reader, blocks):
        yield probability[:, 0]


def normalisation_of(model: Model) -> Normalisation:
    """Return a model's normalisation, or raise ``BadInputError`` if it was never trained."""
    if model.normalisation is None:
        raise BadInputError(
            "the model has no normalisation yet, expected a trained model; "
            "train it, or give mean and std"
        )
    return model.normalisation
