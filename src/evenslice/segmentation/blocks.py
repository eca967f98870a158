"""A run of ``segment``: what it reads and keeps, and its blocks, the same whoever predicts them."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evenslice.labels.blocks import grid_of
from evenslice.model.opening import ModelLike, check_segments, model_of
from evenslice.model.predict import Runner, classes_of, fused
from evenslice.model.spec import Model
from evenslice.model.streaming import predict_blocks
from evenslice.options import JsonObject, SegmentOptions
from evenslice.progress import Step
from evenslice.segmentation.plan import Plan
from evenslice.volume.array import Roi, Volume, Voxels, reorder_axes, shifted, swap_axis
from evenslice.volume.atomic import fsync_box, fsync_tree, named
from evenslice.volume.inputs import VolumeLike, fingerprint, parse_roi, volume_of
from evenslice.volume.run_state import RunState, corrupt_metadata
from evenslice.volume.sections import SectionReader, Sections
from evenslice.volume.tiles import Block
from evenslice.volume.windows import neighbours
from evenslice.volume.zarr_writer import create_image, create_labels

PREDICT, AVERAGE = "predict", "average"
AVERAGED = (128, 256, 256)  # voxels (z, y, x) that are averaged at once
OF_A_PROCESS = {"shard", "scheduler", "device"}  # options in which those who take part may differ


def open_inputs(
    model: ModelLike, volume: VolumeLike, options: SegmentOptions
) -> tuple[Model, Volume, SegmentOptions]:
    """Open what a run reads, and fill in what its options leave open: tta, box, voxel size."""
    opened = model_of(model, options)
    check_segments(opened)
    opened = opened.with_tta(options.tta or opened.tta)
    source = volume_of(volume)
    if options.voxel_nm is not None:
        source = replace(source, voxel_nm=options.voxel_nm)
    box = parse_roi(options.roi, source.shape)
    found = {
        "tta": opened.tta,
        "roi": ",".join(f"{part.start}:{part.stop}" for part in box),
        "voxel_nm": source.voxel_nm,
    }
    return opened, source, options.model_copy(update=found)


def request_of(model: Model, volume: Volume, options: SegmentOptions) -> JsonObject:
    """Return what all who take part in a run must agree on, as its manifest holds it."""
    shared = options.model_dump(mode="json", exclude=OF_A_PROCESS)
    return {"model": identity_of(model), "volume": fingerprint(volume), **shared}


def options_in(request: JsonObject, source: Path) -> SegmentOptions:
    """Return the options that a manifest holds."""
    known = {name: request[name] for name in request if name in SegmentOptions.model_fields}
    return SegmentOptions.read(known, source)


def identity_of(model: Model) -> str:
    """Return a short hash of a network's weights and of how its answers are made."""
    facts = (model.spec.to_dict(), model.normalisation, model.tta, model.stride)
    digest = hashlib.sha256(repr(facts).encode())
    for name, value in sorted(model.network.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(name.encode())
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def work_folder(out: Path) -> Path:
    """Return where a run keeps its state until it ends."""
    return out.with_name(out.name + ".run")


def is_store(out: Path) -> bool:
    """Whether a result is an OME-Zarr store; else it is a TIFF."""
    return out.suffix.lower() == ".zarr"


class Work:
    """A run and what it needs, its inputs as ``open_inputs`` gives them."""

    def __init__(
        self, run_state: RunState, model: Model, volume: Volume, options: SegmentOptions
    ) -> None:
        self.run_state, self.volume, self.options = run_state, volume, options
        try:
            plans = run_state.manifest["chosen"]["plans"]
            self.plans = {axis: Plan.from_dict(plans[axis]) for axis in axes_of(options)}
        except (KeyError, TypeError, ValueError) as error:
            raise corrupt_metadata(run_state.folder / "manifest.json", error) from error
        self.plan = next(iter(self.plans.values()))
        normalised = replace(model, normalisation=self.plan.normalisation)
        self.model = fused(normalised.with_tta(options.tta or model.tta))
        self.store = _store_of(run_state.folder)
        self.in_store = is_store(run_state.folder.with_suffix(""))
        self.keeps_probabilities, self.keeps_labels = _kept(self.in_store, options)
        self.box = parse_roi(options.roi, volume.shape)
        self.origin = shifted(volume.origin, self.box)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Sizes (z, y, x) of what is written."""
        z, y, x = (part.stop - part.start for part in self.box)
        return z, y, x

    @cached_property
    def blocks(self) -> list[tuple[str, Block]]:
        """The blocks to predict and their axes, in the coordinates of the volume so sliced."""
        return [
            (axis, block)
            for axis, plan in self.plans.items()
            for block in plan.blocks(
                reorder_axes(self.volume.shape, axis), reorder_axes(self.box, axis)
            )
        ]

    @cached_property
    def boxes(self) -> list[Roi]:
        """The boxes (z, y, x) of what is written, each of whole chunks, that are averaged."""
        z, y, x = (
            chunk * max(1, wanted // chunk)
            for chunk, wanted in zip(
                self.plan.chunks(self.volume.shape, self.box), AVERAGED, strict=True
            )
        )
        return grid_of(self.shape, (z, y, x)) if len(self.plans) > 1 else []

    def predict(self, indices: Sequence[int], step: Step) -> None:
        """Predict and write some blocks; the next one is computed while the last one is written.

        Raises ``BadInputError`` if a section cannot be read or holds NaN; what was written before
        stays.
        """
        for axis, group in groupby(indices, key=lambda index: self.blocks[index][0]):
            self._predict_along(axis, list(group), step)

    def _predict_along(self, axis: str, indices: Sequence[int], step: Step) -> None:
        _, y, x = reorder_axes(self.box, axis)
        sections = Sections(swap_axis(self.volume, axis), (y, x))
        reader = SectionReader(sections, self.plan.normalisation, self.model.slices)
        runner = Runner(self.model, self.plans[axis].settings)
        predicted = predict_blocks(runner, reader, [self.blocks[n][1] for n in indices])
        with ThreadPoolExecutor(1, "writing") as pool:
            writing: Future[None] | None = None
            for index, (block, found) in zip(indices, predicted, strict=True):
                if writing is not None:
                    writing.result()
                    step()
                writing = pool.submit(self._write, index, block, found, sections)
            if writing is not None:
                writing.result()
                step()

    def _write(
        self, index: int, block: Block, found: NDArray[np.float32], sections: Sections
    ) -> None:
        axis = self.blocks[index][0]
        core = reorder_axes(block.core, axis)
        z, y, x = (
            slice(c.start - b.start, c.stop - b.start) for c, b in zip(core, self.box, strict=True)
        )
        found = found.transpose(0, *(1 + n for n in reorder_axes((0, 1, 2), axis)))
        if self.boxes:
            write_box(self._along(axis), (slice(0, len(found)), z, y, x), found)
        else:
            self._keep((z, y, x), found)
        blank = _blank(block, sections, self.model.slices) if axis in self.options.axis else {}
        self.run_state.done(PREDICT, index, {"blank": blank})

    def average(self, index: int) -> None:
        """Write the mean of what was predicted along the axes, of one box; all are predicted."""
        box = self.boxes[index]
        total = sum(self._along(axis)[(slice(None), *box)] for axis in self.plans)
        self._keep(box, np.asarray(total / np.float32(len(self.plans)), np.float32))
        self.run_state.done(AVERAGE, index)

    def _keep(self, box: Roi, found: NDArray[np.float32]) -> None:
        """Write the probabilities (C, z, y, x) of a box, and its classes, where they are kept."""
        if self.keeps_probabilities:
            write_box(self.probabilities, (slice(0, len(found)), *box), found)
        if self.keeps_labels and self.options.instances == "none":
            classes = classes_of(torch.from_numpy(found.swapaxes(0, 1)), self.options.threshold)
            write_box(self.labels, box, classes.numpy())

    def _along(self, axis: str) -> Any:
        """Return the array (C, z, y, x) of what is predicted along one of several axes."""
        return open_array(_along_of(self.run_state.folder, axis))

    @cached_property
    def probabilities(self) -> Any:
        """The array (C, z, y, x) of probabilities, float32."""
        return open_array(self.store / "0")

    @cached_property
    def labels(self) -> Any:
        """The array (z, y, x) of labels."""
        return open_array(self.store / "labels" / "segmentation" / "0")

    def planes(self) -> Iterator[Voxels]:
        """Yield what a TIFF is to hold, slice by slice: labels, or probabilities as uint8."""
        step = self.plan.depth if "z" in self.plans else 1
        for start in range(0, self.shape[0], step):
            span = slice(start, min(self.shape[0], start + step))
            if self.keeps_labels:
                yield from self.labels[span]
            else:
                yield from np.rint(self.probabilities[0, span] * np.float32(255)).astype(np.uint8)


def _kept(in_store: bool, options: SegmentOptions) -> tuple[bool, bool]:
    """Whether a run keeps probabilities (asked for, or objects are made of them), and labels."""
    probabilities = options.output == "probabilities" or options.instances != "none"
    return in_store or probabilities, in_store or options.output == "labels"


def prepare(
    folder: Path, model: Model, volume: Volume, options: SegmentOptions, plans: dict[str, Plan]
) -> None:
    """Create the arrays that the blocks are written into."""
    store, box = _store_of(folder), parse_roi(options.roi, volume.shape)
    chunks_along = {
        axis: reorder_axes(
            plan.chunks(reorder_axes(volume.shape, axis), reorder_axes(box, axis)), axis
        )
        for axis, plan in plans.items()
    }
    chunks = next(iter(chunks_along.values()))
    shape = tuple(part.stop - part.start for part in box)
    probabilities, labels = _kept(is_store(folder.with_suffix("")), options)
    origin = shifted(volume.origin, box)
    store.mkdir()
    create_image(
        store,
        (model.spec.classes, *shape) if probabilities else (1, 1, 1, 1),
        "float32",
        "czyx",
        volume.voxel_nm,
        "probabilities",
        attributes={"meaning": "probabilities"},
        chunks=(1, *chunks),
        origin=origin,
        sides=volume.sides,
    )
    if labels and options.instances == "none":
        most = max(1, model.spec.classes - 1)
        create_labels(
            store,
            shape,
            "uint8",
            volume.voxel_nm,
            chunks,
            origin=origin,
            sides=volume.sides,
            count=most,
        )
    fsync_tree(store)
    for axis in chunks_along if len(plans) > 1 else ():
        import zarr

        zarr.create_array(
            str(_along_of(folder, axis)),
            shape=(model.spec.classes, *shape),
            dtype="float32",
            chunks=(1, *chunks_along[axis]),
        )


def axes_of(options: SegmentOptions) -> str:
    """Return the axes to slice along."""
    return "zyx" if options.axis == "all" else options.axis


def _along_of(folder: Path, axis: str) -> Path:
    return folder / f"along-{axis}.zarr"


def _store_of(folder: Path) -> Path:
    return folder / "store.zarr"


def open_array(path: Path) -> Any:
    """Open an array of a store to read and write."""
    import zarr

    return zarr.open_array(str(path), mode="r+")


def write_box(array: Any, box: tuple[slice, ...], values: Voxels) -> None:
    """Write a part of an array, through to the disk: what is noted as done afterwards is done."""
    with named(Path(str(array.store.root), array.path)):
        array[box] = values
        fsync_box(array, box)


def _blank(block: Block, sections: Sections, slices: int) -> dict[str, list[int]]:
    """List the blank sections in the windows of a block, and what is shown for each."""
    found: dict[str, set[int]] = {}
    depth = sections.volume.shape[0]
    for z in range(block.core[0].start, block.core[0].stop):
        for n, used in zip(neighbours(z, slices, depth), sections.seen(z, slices), strict=True):
            if sections.blank(int(n)):
                found.setdefault(str(int(n)), set()).update(set() if used == n else {used})
    return {n: sorted(used) for n, used in found.items()}
