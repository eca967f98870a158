"""Deciding how a volume is segmented: once, before anything is written; kept in the manifest."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter

from evenslice.errors import BadInputError
from evenslice.model.predict import Runner, Settings, resolve_precision
from evenslice.model.spec import Model
from evenslice.model.streaming import predict_blocks
from evenslice.model.tile_limits import bytes_per_pixel, find_halo, free_memory, resident
from evenslice.options import SMALLEST_TILE, JsonObject, SegmentOptions
from evenslice.volume.array import Roi, Volume
from evenslice.volume.normalisation import Normalisation
from evenslice.volume.sections import SectionReader, Sections
from evenslice.volume.tiles import (
    Block,
    TileLayout,
    block_side,
    chunk_side,
    count_blocks,
    plan_blocks,
)

LARGEST_TILE = 4096
BLEND_SIDE = 4096
BLOCK_BYTES = 64 * 2**20
MOST_DEPTH = 16
MOST_BLOCKS = 2**20
FEWEST_BLOCKS = 8
COMPARED = 1.4  # side of the picture on which tiles are compared with a whole one, tiles
COMPARED_TILE = 640  # at most: what a halo gives does not depend on the tile
COMPARED_WHOLE = 512  # where there are no tiles to compare
GPU_PIXELS = 2**22


@dataclass(frozen=True)
class Plan:
    """How a volume is segmented; equal for every process that takes part.

    ``tiles_differ`` and ``bf16_differs`` are the largest and mean difference of probabilities,
    measured on a slice in the middle: of tiles to a whole picture, and of bfloat16 to float32; None
    where it does not apply.
    """

    cut: TileLayout
    depth: int  # slices of a block
    side: int  # largest of a block, see ``plan_blocks``
    settings: Settings
    normalisation: Normalisation
    tiles_differ: tuple[float, float] | None = None
    bf16_differs: tuple[float, float] | None = None
    exact_from: int | None = None  # smallest exact tile, where smaller ones are blended

    def blocks(self, shape: tuple[int, int, int], roi: Roi) -> list[Block]:
        """Return the blocks of a box of a volume."""
        return plan_blocks(shape, roi, self.cut, self.depth, self.side)

    def chunks(self, shape: tuple[int, int, int], roi: Roi) -> tuple[int, int, int]:
        """Return the chunks (z, y, x) of the output, so that no two blocks share one."""
        sides = []
        for size, span, tile in zip(shape[1:], roi[1:], self.cut.tile, strict=True):
            step = block_side(size, span, self.cut, tile, self.side)
            sides.append(chunk_side(step) if step < span.stop - span.start else min(step, 256))
        return self.depth, sides[0], sides[1]

    def to_dict(self) -> JsonObject:
        """Return it as JSON can hold it."""
        return asdict(self)

    @staticmethod
    def from_dict(found: Any) -> "Plan":
        """Return the plan that JSON holds; raises ``ValueError`` if it holds none."""
        return TypeAdapter(Plan).validate_python(found)


def make_plan(
    model: Model,
    volume: Volume,
    roi: Roi,
    normalisation: Normalisation,
    options: SegmentOptions,
    device: torch.device,
) -> Plan:
    """Decide how to segment a box ``roi`` of a volume (z, y, x), sliced along z.

    Raises ``BadInputError`` if the tile, precision or memory in the options cannot be met.
    """
    if options.tile is not None and model.size is not None and set(model.size) != {options.tile}:
        raise BadInputError(
            f"--tile is {options.tile}, expected {model.size[0]} x {model.size[1]} as the exported "
            "network takes; leave it out"
        )
    precision = resolve_precision(options.precision, model, device)
    threads = torch.get_num_threads()
    exact = Runner(model, Settings(device.type, "fp32", threads))
    pixels = _budget(options.memory, device) / bytes_per_pixel(model)
    cut, exact_from = _cut(exact, volume, roi, options.tile, pixels)
    size = math.prod(min(n, t) for n, t in zip(volume.shape[1:], cut.tile, strict=True))
    batch = 1
    if device.type == "cuda":
        batch = int(max(1, min(64, GPU_PIXELS // size, pixels // size)))
    depth = _depth(model, volume, roi, cut)
    blocks = count_blocks(volume.shape, roi, cut, depth, BLEND_SIDE)
    if blocks > MOST_BLOCKS:
        raise BadInputError(
            f"{volume.source} would be segmented in {blocks} blocks, expected at most "
            f"{MOST_BLOCKS} in one run; choose parts with --roi, or a larger --tile"
        )
    settings = Settings(device.type, precision, threads, batch)
    plan = Plan(cut, depth, BLEND_SIDE, settings, normalisation, exact_from=exact_from)
    return _measured(plan, exact, volume, roi, pixels)


def _budget(memory: float | None, device: torch.device) -> float:
    """Return how many bytes the network may take for its own work."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info()[0] * 0.7
    allowed = free_memory() / 2 if memory is None else memory * 1e9 - resident()
    return max(0.0, allowed - 3 * BLOCK_BYTES)


def _cut(
    exact: Runner, volume: Volume, roi: Roi, side: int | None, pixels: float
) -> tuple[TileLayout, int | None]:
    """Choose whole slices where they fit, else tiles: with a halo if exact, else blended."""
    model, (_, height, width) = exact.model, volume.shape
    whole = all(
        part.stop - part.start == n for part, n in zip(roi[1:], (height, width), strict=True)
    )
    if model.size is not None:
        return TileLayout(model.size, 0, min(model.size) // 4, 1), None
    if whole and (max(height, width) <= side if side else height * width <= pixels):
        return TileLayout((height, width), 0, 0, model.stride), None
    halo = find_halo(exact.logits, model.slices, model.stride, largest=int(pixels**0.5))
    tile = side or _tile(pixels, halo, model.stride)
    if halo is None or tile <= 2 * halo + model.stride:
        exact_from = None if halo is None else 2 * halo + 2 * model.stride
        return TileLayout((tile, tile), 0, tile // 4, model.stride), exact_from
    return TileLayout((tile, tile), halo, 0, model.stride), None


def _tile(pixels: float, halo: int | None, stride: int) -> int:
    side = int(min(pixels**0.5, LARGEST_TILE)) // stride * stride
    least = max(SMALLEST_TILE, 256 if halo is None else 2 * halo + 4 * stride)
    if side < least:
        raise BadInputError(
            f"the memory allowed is enough for tiles of {max(side, 0)} pixels, expected {least} or "
            "more; allow more GB with --memory"
        )
    return side


def _depth(model: Model, volume: Volume, roi: Roi, cut: TileLayout) -> int:
    """Choose how many slices a block has: few enough to be held, and to make a few blocks."""
    sides = [
        block_side(n, part, cut, tile, BLEND_SIDE)
        for n, part, tile in zip(volume.shape[1:], roi[1:], cut.tile, strict=True)
    ]
    fitting = BLOCK_BYTES // (4 * model.spec.classes * sides[0] * sides[1])
    slices = roi[0].stop - roi[0].start
    return max(1, min(MOST_DEPTH, fitting, -(-int(slices) // FEWEST_BLOCKS)))


def _measured(plan: Plan, exact: Runner, volume: Volume, roi: Roi, pixels: float) -> Plan:
    """Compare tiles with a whole picture, and bfloat16 with float32, in the middle slice."""
    model, cut = exact.model, plan.cut
    rough = plan.settings.precision != "fp32"
    area = (slice(roi[0].start, roi[0].start + 1), roi[1], roi[2])
    tiled = sum(len(block.tiles) for block in plan.blocks(volume.shape, area)) > 1
    if not (rough or tiled) or model.size is not None:
        return plan
    small = max(COMPARED_TILE, 2 * cut.halo + 8 * cut.stride) // cut.stride * cut.stride
    cut = replace(
        cut,
        tile=(min(small, cut.tile[0]), min(small, cut.tile[1])),
        overlap=min(cut.overlap, small // 4),
    )
    side = int(min(COMPARED * max(cut.tile) if tiled else COMPARED_WHOLE, pixels**0.5))
    if side < max(cut.stride, SMALLEST_TILE):  # no memory to measure in
        return plan
    picture = _middle(volume, roi, model.slices, side)
    _, height, width = picture.shape
    layout = TileLayout((height, width), 0, 0, cut.stride)
    everything = Plan(layout, 1, BLEND_SIDE, exact.settings, plan.normalisation)
    whole = _answer(exact, everything, picture)
    if tiled and (height > cut.tile[0] or width > cut.tile[1]):
        found = _answer(exact, replace(plan, cut=cut), picture)
        plan = replace(plan, tiles_differ=_difference(found, whole))
    if rough:
        found = _answer(Runner(model, plan.settings), everything, picture)
        plan = replace(plan, bf16_differs=_difference(found, whole))
    return plan


def _middle(volume: Volume, roi: Roi, slices: int, side: int) -> Volume:
    """Return the middle of a box as a small volume of S slices."""
    depth = volume.shape[0]
    centre = (roi[0].start + roi[0].stop) // 2
    low = max(0, min(depth - slices, centre - slices // 2))
    spans = [slice(low, min(depth, low + slices))]
    for part, size in zip(roi[1:], volume.shape[1:], strict=True):
        start = max(0, min(size - side, (part.start + part.stop - side) // 2))
        spans.append(slice(start, min(size, start + side)))
    return Volume(volume.read((spans[0], spans[1], spans[2])), source=volume.source)


def _answer(runner: Runner, plan: Plan, picture: Volume) -> NDArray[np.float32]:
    """Predict the middle slice of a small volume."""
    depth, height, width = picture.shape
    roi = (slice(depth // 2, depth // 2 + 1), slice(0, height), slice(0, width))
    out = np.zeros((runner.model.spec.classes, height, width), np.float32)
    reader = SectionReader(Sections(picture), plan.normalisation, runner.model.slices)
    for block, found in predict_blocks(runner, reader, plan.blocks(picture.shape, roi)):
        out[(slice(None), *block.core[1:])] = found[:, 0]
    return out


def _difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[float, float]:
    apart = np.abs(a - b)
    return float(apart.max()), float(apart.mean())
