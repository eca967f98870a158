"""The work of a run of ``segment``, piece by piece: whoever does a piece, it comes out the same."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evenslice.model.fusing import fused
from evenslice.model.predict import Runner, classes_of
from evenslice.model.spec import Model
from evenslice.model.streaming import predict_blocks
from evenslice.progress import Step
from evenslice.segmentation.options import Job
from evenslice.segmentation.plan import Plan
from evenslice.volume.array import Roi, Volume, reorder_axes, swap_axis
from evenslice.volume.atomic import fsync_box, fsync_tree, named
from evenslice.volume.run_state import RunState
from evenslice.volume.sections import SectionReader, Sections
from evenslice.volume.tiles import Block
from evenslice.volume.zarr_writer import create_image, create_labels

PREDICT = "predict"


class Work:
    """A run and what it needs: the model, the volume, the ledger.

    Parameters
    ----------
    ledger
        Of the run.
    model
        With the normalisation and the ensemble that the job asks for.
    volume
        As opened, axes (z, y, x).
    """

    def __init__(self, run_state: RunState, model: Model, volume: Volume) -> None:
        self.run_state = run_state
        self.job, self.plan = (
            Job.from_dict(run_state.manifest["asked"]),
            Plan.from_dict(run_state.manifest["chosen"]["plan"]),
        )
        self.model = fused(
            model.with_facts(normalisation=self.plan.normalisation).with_tta(self.job.tta)
        )
        self.volume = replace(volume, voxel_nm=self.job.voxel_nm)
        self.store = store_of(run_state.folder)

    @cached_property
    def blocks(self) -> list[Block]:
        """The blocks to predict, in the coordinates of the volume as it is sliced."""
        axis = self.job.axis
        return self.plan.blocks(
            reorder_axes(self.volume.shape, axis), reorder_axes(self.job.box, axis)
        )

    def predict(self, indices: Sequence[int], step: Step) -> None:
        """Predict and write some blocks; the next one is computed while the last one is written.

        Raises
        ------
        BadInputError
            If a section cannot be read or holds NaN; what was written before stays.
        """
        box = reorder_axes(self.job.box, self.job.axis)
        sections = Sections(swap_axis(self.volume, self.job.axis), (box[1], box[2]))
        feed = SectionReader(sections, self.plan.normalisation, self.model.slices)
        runner = Runner(self.model, self.plan.settings)
        chosen = [self.blocks[index] for index in indices]
        with ThreadPoolExecutor(1, "writing") as pool:
            writing: Future[None] | None = None
            for index, (block, found) in zip(
                indices, predict_blocks(runner, feed, chosen), strict=True
            ):
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
        place = self.place_of(block)
        order = [0, *(1 + n for n in reorder_axes((0, 1, 2), self.job.axis))]
        if self.job.keeps_probabilities:
            write_box(self.probabilities, (slice(0, len(found)), *place), found.transpose(order))
        if self.job.keeps_labels and self.job.instances == "none":
            classes = classes_of(torch.from_numpy(found.swapaxes(0, 1)), self.job.threshold).numpy()
            write_box(self.labels, place, classes.transpose(reorder_axes((0, 1, 2), self.job.axis)))
        self.run_state.done(PREDICT, index, {"blank": _blank(block, sections, self.model.slices)})

    def place_of(self, block: Block) -> Roi:
        """Return where a block lies in what is written."""
        core = reorder_axes(block.core, self.job.axis)
        z, y, x = (
            slice(c.start - b.start, c.stop - b.start)
            for c, b in zip(core, self.job.box, strict=True)
        )
        return z, y, x

    @cached_property
    def probabilities(self) -> Any:
        """The array (C, z, y, x) of probabilities, float32."""
        return opened(self.store / "0")

    @cached_property
    def labels(self) -> Any:
        """The array (z, y, x) of labels."""
        return opened(self.store / "labels" / "segmentation" / "0")

    def planes(self) -> Iterator[NDArray[Any]]:
        """Yield what a TIFF is to hold, slice by slice: labels, or probabilities as uint8."""
        depth, step = (
            self.job.shape[0],
            self.plan.chunks(*self._turned_box())[0] if self.job.axis == "z" else 1,
        )
        for start in range(0, depth, step):
            span = slice(start, min(depth, start + step))
            if self.job.keeps_labels:
                yield from self.labels[span]
            else:
                yield from np.rint(self.probabilities[0, span] * np.float32(255)).astype(np.uint8)

    def _turned_box(self) -> tuple[tuple[int, int, int], Roi]:
        return reorder_axes(self.volume.shape, self.job.axis), reorder_axes(
            self.job.box, self.job.axis
        )


def prepare(folder: Path, job: Job, plan: Plan, volume: Volume, classes: int) -> None:
    """Create the arrays that the blocks are written into."""
    store = store_of(folder)
    chunks = reorder_axes(
        plan.chunks(reorder_axes(volume.shape, job.axis), reorder_axes(job.box, job.axis)), job.axis
    )
    store.mkdir()
    create_image(
        store,
        (classes, *job.shape) if job.keeps_probabilities else (1, 1, 1, 1),
        "float32",
        "czyx",
        volume.voxel_nm,
        "probabilities",
        attributes={"meaning": "probabilities"},
        chunks=(1, *chunks),
    )
    if job.keeps_labels and job.instances == "none":
        create_labels(store, job.shape, "uint8", volume.voxel_nm, chunks)
    fsync_tree(store)


def store_of(folder: Path) -> Path:
    """Return the store that a run writes."""
    return folder / "store.zarr"


def opened(path: Path) -> Any:
    """Open an array of a store to read and write."""
    import zarr

    return zarr.open_array(str(path), mode="r+")


def write_box(array: Any, box: tuple[slice, ...], values: NDArray[Any]) -> None:
    """Write a part of an array, through to the disk: what is noted as done afterwards is done."""
    with named(Path(str(array.store.root), array.path)):
        array[box] = values
        fsync_box(array, box)


def _blank(block: Block, sections: Sections, slices: int) -> dict[str, list[int]]:
    """List the blank sections that the windows of a block show, and what stands in for them: {section: [stand-ins]}."""
    from evenslice.volume.windows import neighbours

    found: dict[str, set[int]] = {}
    depth = sections.volume.shape[0]
    for z in range(block.core[0].start, block.core[0].stop):
        for n, used in zip(neighbours(z, slices, depth), sections.seen(z, slices), strict=True):
            if sections.blank(int(n)):
                found.setdefault(str(int(n)), set()).update(set() if used == n else {used})
    return {n: sorted(used) for n, used in found.items()}
