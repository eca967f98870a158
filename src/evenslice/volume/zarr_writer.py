"""Writing OME-Zarr 0.5 images and labels (https://ngff.openmicroscopy.org/0.5)."""

import colorsys
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from yaozarrs import DimSpec, v05
from zarr.codecs import BloscCodec

from evenslice.options import JsonObject
from evenslice.volume.array import ORIGIN, UNITLESS, Place, Volume, Voxels, VoxelSize
from evenslice.volume.atomic import store_written_beside

CHUNK = (16, 256, 256)
STRIP_BYTES = 256 * 2**20
SMALL = 256
ANISOTROPY = 1.5
THREADS = 2
MOST_COLOURS = 4095
GOLDEN_RATIO = (5**0.5 - 1) / 2
WIDEST_INTENSITY = 4  # bytes of a whole number: detectors count to 65,535
Box = tuple[slice, ...]
Attributes = JsonObject


def build_pyramid(group: Path, labels: bool, step: Callable[[], None] | None = None) -> None:
    """Make levels 1, 2, ... of an OME-Zarr 0.5 image, until y and x are at most 256.

    Each level halves y and x, and z once the voxel is no more than 1.5 times as deep as it is wide.
    Images are averaged (in float32 or better, rounded for whole numbers); of labels, every second
    voxel is taken. A chunk and what it is made from are in memory at a time, for each of two
    threads. Levels that are there are made anew, so running it again after a kill gives the same
    store. ``step`` is called after each chunk; ``count_chunks`` says how many there are.
    """
    made = zarr.open_group(str(group), mode="a")
    ome: Attributes = dict(made.attrs["ome"])  # type: ignore[arg-type]
    multiscale = v05.Image.model_validate(ome).multiscales[0]
    axes = "".join(axis.name for axis in multiscale.axes)
    first = multiscale.datasets[0]
    source: Any = made[first.path]
    voxel = first.scale_transform.scale
    place = first.translation_transform
    origin = [0.0] * len(axes) if place is None else place.translation
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
        datasets.append(_dataset(str(number), voxel, origin, totals, labels))
        source = target
    multiscale = multiscale.model_copy(update={"datasets": datasets})
    made.attrs["ome"] = ome | {"multiscales": [_plain(multiscale)]}


def count_chunks(
    shape: tuple[int, ...], chunks: tuple[int, ...], voxel: list[float], axes: str
) -> int:
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
        if (
            "z" in at
            and shape[at["z"]] > 1
            and voxel[at["z"]] <= ANISOTROPY * min(voxel[at["y"]], voxel[at["x"]])
        ):
            factors[at["z"]] = 2
        plans.append(tuple(factors))
        shape = _halved(shape, plans[-1])
        voxel = [size * factor for size, factor in zip(voxel, factors, strict=True)]
    return plans


def _halved(shape: tuple[int, ...], factors: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(-(-size // factor) for size, factor in zip(shape, factors, strict=True))


def _dataset(
    path: str, voxel: list[float], origin: list[float], totals: list[int], labels: bool
) -> v05.Dataset:
    """Describe a level: a mean lies in the middle of its voxels, a label where it was taken."""
    scale = [v * f for v, f in zip(voxel, totals, strict=True)]
    shift = [0.0 if labels else (f - 1) / 2 * v for v, f in zip(voxel, totals, strict=True)]
    place = [start + by for start, by in zip(origin, shift, strict=True)]
    places: list[Any] = [v05.ScaleTransformation(scale=scale)]
    if any(place):
        places.append(v05.TranslationTransformation(translation=place))
    return v05.Dataset(path=path, coordinateTransformations=places)


def _plain(model: Any) -> Attributes:
    """Return a description as JSON can hold it."""
    return dict(model.model_dump(mode="json", exclude_none=True))


def _fill(
    target: Any,
    source: Any,
    factors: tuple[int, ...],
    labels: bool,
    step: Callable[[], None] | None,
) -> None:
    """Write every chunk (or shard) of a level from the level before it."""

    def make(box: Box) -> None:
        made = np.empty([part.stop - part.start for part in box], target.dtype)
        pieces = tuple(
            max(1, chunk // factor) for chunk, factor in zip(source.chunks, factors, strict=True)
        )
        for piece in _boxes(box, pieces):
            whole = tuple(
                slice(part.start * factor, min(part.stop * factor, size))
                for part, factor, size in zip(piece, factors, source.shape, strict=True)
            )
            inside = tuple(
                slice(p.start - b.start, p.stop - b.start) for p, b in zip(piece, box, strict=True)
            )
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
        yield tuple(
            slice(c, min(c + side, part.stop))
            for c, side, part in zip(corner, sides, whole, strict=True)
        )


def shrink(block: Voxels, factors: tuple[int, ...], labels: bool) -> Voxels:
    """Shrink a block by 1 or 2 along each axis: the mean, or for labels the first of each pair."""
    if labels:
        return block[tuple(slice(None, None, factor) for factor in factors)]
    exact: Any = np.float32 if block.dtype.itemsize < 4 or block.dtype == np.float32 else np.float64
    mean: Voxels = block.astype(exact)
    for axis, factor in enumerate(factors):
        if factor == 2:
            size = mean.shape[axis]
            odd = np.take(mean, [size - 1], axis) if size % 2 else None
            first = mean[(slice(None),) * axis + (slice(0, size - 1, 2),)]
            second = mean[(slice(None),) * axis + (slice(1, size, 2),)]
            mean = (first + second) / exact(2)
            mean = mean if odd is None else np.concatenate([mean, odd], axis)
    return (np.rint(mean) if block.dtype.kind in "iu" else mean).astype(block.dtype)


def create_image(
    group: Path,
    shape: Sequence[int],
    dtype: str,
    axes: str,
    voxel_nm: VoxelSize | None,
    name: str,
    channels: Sequence[str] = (),
    attributes: Attributes | None = None,
    chunks: Sequence[int] | None = None,
    origin: Place = ORIGIN,
    sides: Place = UNITLESS,
) -> Any:
    """Create an OME-Zarr image of one resolution in the folder ``group``; return its zarr array.

    ``axes`` is one letter per axis, of ``tczyx`` in this order. ``voxel_nm`` (z, y, x) is written
    as the scale with the unit; None as ``sides`` without unit. Viewers show the names of the
    ``channels``. ``attributes`` are noted under ``evenslice``; of these, ``open_volume`` reads
    ``meaning`` again. Chunks are planes (of the last two axes) unless their sizes are given.
    ``origin``, the place (z, y, x) of the first voxel in voxels, is written as the translation.
    """
    image = v05.Image(multiscales=[_multiscale(axes, voxel_nm, name, origin, sides)])
    if channels:
        window = v05.OmeroWindow(start=0.0, end=1.0, min=0.0, max=1.0)
        image.omero = v05.Omero(
            channels=[
                v05.OmeroChannel(label=label, color="FFFFFF", active=True, window=window)
                for label in channels
            ]
        )
    planes = (1,) * (len(shape) - 2) + tuple(shape[-2:])
    return _create(group, _plain(image), attributes, shape, dtype, axes, chunks or planes)


def create_labels(
    image_group: Path,
    shape: Sequence[int],
    dtype: str,
    voxel_nm: VoxelSize | None,
    chunks: Sequence[int] = CHUNK,
    name: str = "segmentation",
    attributes: Attributes | None = None,
    origin: Place = ORIGIN,
    sides: Place = UNITLESS,
    count: int = 0,
) -> Any:
    """Create the labels ``labels/NAME`` (z, y, x) inside an image; return their zarr array.

    All is as of ``create_image``. Other labels of the image stay. Where the largest label,
    ``count``, is at most 4095, labels have their colours in the metadata, as some readers want.
    """
    image = v05.Image(multiscales=[_multiscale("zyx", voxel_nm, name, origin, sides)])
    label = {
        "colors": _colours(count if count <= MOST_COLOURS else 0),
        "source": {"image": "../../"},
    }
    folder = image_group / "labels"
    group = zarr.open_group(str(folder), mode="a", zarr_format=3)
    known: Any = group.attrs.get("ome", {})
    names = sorted({*known.get("labels", ()), name})
    group.attrs["ome"] = _plain(v05.LabelsGroup(labels=names))
    noted = {"meaning": "labels"} | (attributes or {})
    described = _plain(image) | {"image-label": label}
    return _create(folder / name, described, noted, shape, dtype, "zyx", chunks)


def _colours(count: int) -> list[Attributes]:
    """Give each label its colour: a transparent background, then hues far from one to the next."""
    rgb = [colorsys.hsv_to_rgb(n * GOLDEN_RATIO % 1, 0.7, 1) for n in range(1, count + 1)]
    rgba = [[0, 0, 0, 0], *([round(255 * part) for part in colour] + [255] for colour in rgb)]
    return [{"label-value": label, "rgba": colour} for label, colour in enumerate(rgba)]


def default_compressor(dtype: Any) -> Any:
    """Return our compressor: Blosc, LZ4 for real numbers and Zstandard for whole ones.

    Probabilities in float32 hardly shrink whatever the effort, so speed decides; labels shrink
    twice as much with Zstandard.
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return BloscCodec(typesize=dtype.itemsize, cname="lz4", clevel=5, shuffle="shuffle")
    return BloscCodec(typesize=dtype.itemsize, cname="zstd", clevel=1, shuffle="shuffle")


def write_image(path: Path, volume: Volume, dtype: np.dtype[Any]) -> None:
    """Write a volume as a store with its pyramid, atomically."""
    with store_written_beside(path, force=True) as part:
        noted = {"meaning": volume.meaning}
        array = create_image(
            part,
            volume.shape,
            dtype.name,
            "zyx",
            volume.voxel_nm,
            path.stem,
            attributes=noted,
            chunks=CHUNK,
            origin=volume.origin,
            sides=volume.sides,
        )
        deep, high, _ = CHUNK
        depth, height, width = volume.shape
        rows = max(1, STRIP_BYTES // (deep * high * width * dtype.itemsize)) * high
        for z, y in product(range(0, depth, deep), range(0, height, rows)):
            box = slice(z, min(z + deep, depth)), slice(y, min(y + rows, height)), slice(0, width)
            array[box] = volume.read(box).astype(dtype, copy=False)
        build_pyramid(part, labels=volume.meaning == "labels" or _is_numbering(volume.dtype))


def _is_numbering(dtype: np.dtype[Any]) -> bool:
    """Whether voxels of a type are a mask or numbers of objects, which have no mean."""
    return dtype.kind == "b" or (dtype.kind in "iu" and dtype.itemsize >= WIDEST_INTENSITY)


def _multiscale(
    axes: str, voxel_nm: VoxelSize | None, name: str, origin: Place, unitless: Place
) -> v05.Multiscale:
    """Describe an image of one resolution."""
    sides = dict(zip("zyx", voxel_nm or unitless, strict=True))
    places = {a: round(place * sides[a], 9) for a, place in zip("zyx", origin, strict=True)}
    unit = None if voxel_nm is None else "nanometer"
    dims = [
        DimSpec(
            name=axis,
            scale=sides.get(axis, 1.0),
            unit=unit if axis in sides else None,
            translation=places.get(axis, 0.0) if any(origin) else None,
        )
        for axis in axes
    ]
    return v05.Multiscale.from_dims(dims, name)


def _create(
    group: Path,
    ome: Attributes,
    attributes: Attributes | None,
    shape: Sequence[int],
    dtype: str,
    axes: str,
    chunks: Sequence[int],
) -> Any:
    made = zarr.open_group(str(group), mode="a", zarr_format=3)
    made.attrs.update({"ome": ome} | ({"evenslice": attributes} if attributes else {}))
    return made.create_array(
        "0",
        shape=tuple(shape),
        dtype=dtype,
        chunks=tuple(min(chunk, max(1, size)) for chunk, size in zip(chunks, shape, strict=True)),
        compressors=default_compressor(dtype),
        dimension_names=list(axes),
    )
