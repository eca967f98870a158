"""The lower resolutions of an OME-Zarr image, made chunk by chunk from the full one."""

import math
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALL = 256
ANISOTROPY = 1.5
THREADS = 2
Box = tuple[slice, ...]


def build_pyramid(group: Path, labels: bool, step: Callable[[], None] | None = None) -> None:
    """Make levels 1, 2, ... of an OME-Zarr 0.5 image from its level 0, until y and x are at most 256.

    Each level halves y and x, and z once the voxel is no more than 1.5 times as deep as it is wide. Images are averaged
    (in float32 or better, rounded for whole numbers); of labels, every second voxel is taken. A chunk and what it is made from are
    held at a time, for each of two threads. Levels that are there are made anew, so running it again after a kill gives
    the same store.

    Parameters
    ----------
    group
        Folder of the image; its axes end with z, y, x or y, x.
    labels
        Whether voxels are labels.
    step
        Called after each chunk; ``count_chunks`` says how many there are.
    """
    import zarr

    made = zarr.open_group(str(group), mode="a")
    ome: dict[str, Any] = dict(made.attrs["ome"])  # type: ignore[arg-type]
    scale = ome["multiscales"][0]
    axes = "".join(axis["name"] for axis in scale["axes"])
    first = scale["datasets"][0]
    source: Any = made[first["path"]]
    voxel = [float(v) for v in first["coordinateTransformations"][0]["scale"]]
    datasets = [first]
    totals = [1] * len(axes)
    for number, factors in enumerate(plan(source.shape, voxel, axes), 1):
        shutil.rmtree(group / str(number), ignore_errors=True)
        target = made.create_array(
            str(number),
            shape=_halved(source.shape, factors),
            dtype=source.dtype,
            chunks=source.chunks,
            shards=source.shards,
            compressors=source.compressors,
            dimension_names=list(axes),
        )
        _fill(target, source, factors, labels, step)
        totals = [total * factor for total, factor in zip(totals, factors, strict=True)]
        datasets.append({"path": str(number), "coordinateTransformations": _place(voxel, totals, labels)})
        source = target
    made.attrs["ome"] = ome | {"multiscales": [scale | {"datasets": datasets}, *ome["multiscales"][1:]]}


def count_chunks(shape: tuple[int, ...], chunks: tuple[int, ...], voxel: list[float], axes: str) -> int:
    """Return how many chunks ``build_pyramid`` writes for an image without shards."""
    total = 0
    for factors in plan(shape, voxel, axes):
        shape = _halved(shape, factors)
        total += math.prod(-(-size // chunk) for size, chunk in zip(shape, chunks, strict=True))
    return total


def plan(shape: tuple[int, ...], voxel: list[float], axes: str) -> list[tuple[int, ...]]:
    """Return by how much each level shrinks each axis of the one before: 1 or 2."""
    voxel, plans = list(voxel), []
    at = {name: axes.index(name) for name in axes}
    while max(shape[at["y"]], shape[at["x"]]) > SMALL:
        factors = [1] * len(shape)
        for name in "yx":
            factors[at[name]] = 2 if shape[at[name]] > 1 else 1
        if "z" in at and shape[at["z"]] > 1 and voxel[at["z"]] <= ANISOTROPY * min(voxel[at["y"]], voxel[at["x"]]):
            factors[at["z"]] = 2
        plans.append(tuple(factors))
        shape = _halved(shape, plans[-1])
        voxel = [size * factor for size, factor in zip(voxel, factors, strict=True)]
    return plans


def _halved(shape: tuple[int, ...], factors: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-size // factor) for size, factor in zip(shape, factors, strict=True))


def _place(voxel: list[float], totals: list[int], labels: bool) -> list[dict[str, Any]]:
    """Return the transformations of a level: a mean lies in the middle of its voxels, a label where it was taken."""
    scale = [v * f for v, f in zip(voxel, totals, strict=True)]
    changes: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if not labels:
        shift = [(f - 1) / 2 * v for v, f in zip(voxel, totals, strict=True)]
        changes.append({"type": "translation", "translation": shift})
    return changes


def _fill(target: Any, source: Any, factors: tuple[int, ...], labels: bool, step: Callable[[], None] | None) -> None:
    """Write every chunk (or shard) of a level from the level before it."""

    def make(box: Box) -> None:
        made = np.empty([part.stop - part.start for part in box], target.dtype)
        pieces = tuple(max(1, chunk // factor) for chunk, factor in zip(source.chunks, factors, strict=True))
        for piece in _boxes(box, pieces):
            whole = tuple(
                slice(part.start * factor, min(part.stop * factor, size))
                for part, factor, size in zip(piece, factors, source.shape, strict=True)
            )
            inside = tuple(slice(p.start - b.start, p.stop - b.start) for p, b in zip(piece, box, strict=True))
            made[inside] = shrink(np.asarray(source[whole]), factors, labels)
        target[box] = made

    boxes = _boxes(tuple(slice(0, size) for size in target.shape), target.shards or target.chunks)
    with ThreadPoolExecutor(THREADS) as pool:
        while batch := list(islice(boxes, THREADS)):
            for _ in pool.map(make, batch):
                if step is not None:
                    step()


def _boxes(whole: Box, sides: tuple[int, ...]) -> Iterator[Box]:
    """Cut a box into boxes of the given sides, from its start on."""
    starts = (range(part.start, part.stop, side) for part, side in zip(whole, sides, strict=True))
    for corner in product(*starts):
        yield tuple(slice(c, min(c + side, part.stop)) for c, side, part in zip(corner, sides, whole, strict=True))


def shrink(block: NDArray[Any], factors: tuple[int, ...], labels: bool) -> NDArray[Any]:
    """Shrink a block by 1 or 2 along each axis: the mean of what is there, or for labels the first of each pair."""
    if labels:
        return block[tuple(slice(None, None, factor) for factor in factors)]
    exact: Any = np.float32 if block.dtype.itemsize < 4 or block.dtype == np.float32 else np.float64
    mean: NDArray[Any] = block.astype(exact)
    for axis, factor in enumerate(factors):
        if factor == 2:
            size = mean.shape[axis]
            odd = np.take(mean, [size - 1], axis) if size % 2 else None
            first = mean[(slice(None),) * axis + (slice(0, size - 1, 2),)]
            second = mean[(slice(None),) * axis + (slice(1, size, 2),)]
            mean = (first + second) / exact(2)
            mean = mean if odd is None else np.concatenate([mean, odd], axis)
    return (np.rint(mean) if block.dtype.kind in "iu" else mean).astype(block.dtype)
