"""Deciding how a volume is segmented: once, before anything is written, and noted in the run's manifest."""

import hashlib
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.model.predict import Runner, Settings, resolve_precision
from evenslice.model.spec import Model
from evenslice.model.streaming import predict_blocks
from evenslice.model.tile_limits import bytes_per_pixel, find_halo, free_memory, resident
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

SMALLEST_TILE = 32
LARGEST_TILE = 4096
BLEND_SIDE = 4096
BLOCK_BYTES = 64 * 2**20
MOST_DEPTH = 16
MOST_BLOCKS = 2**20
FEWEST_BLOCKS = 8
LOOK = 1.4  # side of the picture on which tiles are compared with a whole one, tiles
LOOK_TILE = 640  # larger tiles are not compared: what a halo gives does not depend on the tile
SMALL_LOOK = 512  # where there are no tiles to compare
GPU_PIXELS = 2**22


@dataclass(frozen=True)
class Plan:
    """How a volume is segmented; equal for every process that takes part.

    Attributes
    ----------
    cut, depth, side
        Of the blocks; see ``plan_blocks``.
    settings
        How the network is run.
    normalisation
        Raw intensities to what the network expects.
    tiles_differ, bf16_differs
        Largest and mean difference of probabilities that was measured on a slice in the middle: of tiles to a whole picture, and
        of bfloat16 to float32; None where it does not apply or could not be measured.
    exact_from
        Side of the smallest tile that is exact, where smaller ones were asked for, which are blended; else None.
    """

    cut: TileLayout
    depth: int
    side: int
    settings: Settings
    normalisation: Normalisation
    tiles_differ: tuple[float, float] | None = None
    bf16_differs: tuple[float, float] | None = None
    exact_from: int | None = None

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

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @staticmethod
    def from_dict(found: dict[str, Any]) -> "Plan":
        """Return the plan that a manifest holds."""
        cut = TileLayout(**(found["cut"] | {"tile": tuple(found["cut"]["tile"])}))
        norm = found["normalisation"]
        return Plan(
            **(
                found
                | {
                    "cut": cut,
                    "settings": Settings(**found["settings"]),
                    "normalisation": Normalisation(
                        tuple(norm["mean"]), tuple(norm["std"]), norm["source"]
                    ),
                }
            )
        )


@dataclass(frozen=True)
class PlanRequest:
    """What was asked for and bears on the plan; None leaves it to us."""

    tile: int | None = None
    precision: str = "auto"
    memory: float | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))


def make_plan(
    model: Model, volume: Volume, roi: Roi, normalisation: Normalisation, wishes: PlanRequest
) -> Plan:
    """Decide how to segment a box of a volume.

    Parameters
    ----------
    model
        In eval mode, with its normalisation.
    volume
        Axes (z, y, x), sliced along z.
    roi
        The box.
    normalisation
        To be applied.
    wishes
        What was asked for.

    Raises
    ------
    BadInputError
        If a wish cannot be met.
    """
    _check(model, wishes)
    precision = resolve_precision(wishes.precision, model, wishes.device)
    settings = Settings(wishes.device.type, "fp32", torch.get_num_threads())
    exact = Runner(model, settings)
    pixel = bytes_per_pixel(model)
    budget = _budget(wishes)
    cut, exact_from = _cut(model, exact, volume, roi, wishes, budget / pixel)
    size = math.prod(min(n, t) for n, t in zip(volume.shape[1:], cut.tile, strict=True))
    batch = (
        int(max(1, min(64, GPU_PIXELS // size, budget / pixel // size)))
        if wishes.device.type == "cuda"
        else 1
    )
    depth = _depth(model, volume, roi, cut)
    blocks = count_blocks(volume.shape, roi, cut, depth, BLEND_SIDE)
    if blocks > MOST_BLOCKS:
        raise BadInputError(
            f"{volume.source} would be segmented in {blocks} blocks, expected at most {MOST_BLOCKS} in one run; choose parts with --roi, or a "
            "larger --tile"
        )
    plan = Plan(
        cut,
        depth,
        BLEND_SIDE,
        Settings(settings.device, precision, settings.threads, batch),
        normalisation,
        exact_from=exact_from,
    )
    return _measured(plan, exact, model, volume, roi, budget / pixel)


def identity_of(model: Model) -> str:
    """Return a short hash of a network's weights and of how its answers are made."""
    digest = hashlib.sha256(
        repr((model.spec.to_dict(), model.normalisation, model.tta, model.stride)).encode()
    )
    for name, value in sorted(model.network.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(name.encode())
            digest.update(
                value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
            )
    return digest.hexdigest()[:16]


def _check(model: Model, wishes: PlanRequest) -> None:
    if wishes.tile is not None and wishes.tile < SMALLEST_TILE:
        raise BadInputError(
            f"--tile is {wishes.tile}, expected {SMALLEST_TILE} pixels or more; leave it out for whole slices"
        )
    if wishes.tile is not None and model.size is not None and set(model.size) != {wishes.tile}:
        raise BadInputError(
            f"--tile is {wishes.tile}, expected {model.size[0]} x {model.size[1]} as the exported network takes; leave it out"
        )
    if wishes.memory is not None and not 0 < wishes.memory < math.inf:
        raise BadInputError(
            f"--memory is {wishes.memory}, expected a number of GB above 0; leave it out for half of what is free"
        )


def _budget(wishes: PlanRequest) -> float:
    """Return how many bytes the network may take for its own work."""
    if wishes.device.type == "cuda":
        return torch.cuda.mem_get_info()[0] * 0.7
    if wishes.memory is None:
        return max(0.0, free_memory() / 2 - 3 * BLOCK_BYTES)
    return max(0.0, wishes.memory * 1e9 - resident() - 3 * BLOCK_BYTES)


def _cut(
    model: Model, exact: Runner, volume: Volume, roi: Roi, wishes: PlanRequest, pixels: float
) -> tuple[TileLayout, int | None]:
    """Choose whole slices where they fit, else tiles: with a halo where that is exact, else blended; see ``Plan.exact_from``."""
    _, height, width = volume.shape
    whole = all(
        part.stop - part.start == n for part, n in zip(roi[1:], (height, width), strict=True)
    )
    if model.size is not None:
        return TileLayout(model.size, 0, min(model.size) // 4, 1), None
    if whole and (max(height, width) <= wishes.tile if wishes.tile else height * width <= pixels):
        return TileLayout((height, width), 0, 0, model.stride), None
    halo = find_halo(exact.logits, model.slices, model.stride, largest=int(pixels**0.5))
    tile = wishes.tile or _tile(pixels, halo, model.stride)
    if halo is None or tile <= 2 * halo + model.stride:
        return TileLayout(
            (tile, tile), 0, tile // 4, model.stride
        ), None if halo is None else 2 * halo + 2 * model.stride
    return TileLayout((tile, tile), halo, 0, model.stride), None


def _tile(pixels: float, halo: int | None, stride: int) -> int:
    side = int(min(pixels**0.5, LARGEST_TILE)) // stride * stride
    least = max(SMALLEST_TILE, 256 if halo is None else 2 * halo + 4 * stride)
    if side < least:
        raise BadInputError(
            f"the memory allowed is enough for tiles of {max(side, 0)} pixels, expected {least} or more; allow more GB with --memory"
        )
    return side


def _depth(model: Model, volume: Volume, roi: Roi, cut: TileLayout) -> int:
    """Choose how many slices a block has: few enough to be held, and to make a few blocks."""
    sides = [
        block_side(n, part, cut, tile, BLEND_SIDE)
        for n, part, tile in zip(volume.shape[1:], roi[1:], cut.tile, strict=True)
    ]
    held = BLOCK_BYTES // (4 * model.spec.classes * sides[0] * sides[1])
    slices = roi[0].stop - roi[0].start
    return max(1, min(MOST_DEPTH, held, -(-int(slices) // FEWEST_BLOCKS)))


def _measured(
    plan: Plan, exact: Runner, model: Model, volume: Volume, roi: Roi, pixels: float
) -> Plan:
    """Compare tiles with a whole picture, and bfloat16 with float32, on a part of the middle slice."""
    rough = plan.settings.precision != "fp32"
    cut = plan.cut
    area = (slice(roi[0].start, roi[0].start + 1), roi[1], roi[2])
    tiled = sum(len(block.tiles) for block in plan.blocks(volume.shape, area)) > 1
    if not (rough or tiled) or model.size is not None:
        return plan
    small = max(LOOK_TILE, 2 * cut.halo + 8 * cut.stride) // cut.stride * cut.stride
    cut = replace(
        cut,
        tile=(min(small, cut.tile[0]), min(small, cut.tile[1])),
        overlap=min(cut.overlap, small // 4),
    )
    side = int(min(LOOK * max(cut.tile) if tiled else SMALL_LOOK, pixels**0.5))
    if side < max(cut.stride, SMALLEST_TILE):  # no memory to measure in
        return plan
    picture = _middle(volume, roi, model.slices, side)
    _, height, width = picture.shape
    everything = Plan(
        TileLayout((height, width), 0, 0, plan.cut.stride),
        1,
        BLEND_SIDE,
        exact.settings,
        plan.normalisation,
    )
    whole = _answer(exact, everything, picture)
    values = plan.to_dict()
    if tiled and (height > cut.tile[0] or width > cut.tile[1]):
        values["tiles_differ"] = _difference(_answer(exact, replace(plan, cut=cut), picture), whole)
    if rough:
        values["bf16_differs"] = _difference(
            _answer(Runner(model, plan.settings), everything, picture), whole
        )
    return Plan.from_dict(values)


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
    feed = SectionReader(Sections(picture), plan.normalisation, runner.model.slices)
    for block, found in predict_blocks(runner, feed, plan.blocks(picture.shape, roi)):
        out[(slice(None), *block.core[1:])] = found[:, 0]
    return out


def _difference(a: NDArray[np.float32], b: NDArray[np.float32]) -> tuple[float, float]:
    apart = np.abs(a - b)
    return float(apart.max()), float(apart.mean())
