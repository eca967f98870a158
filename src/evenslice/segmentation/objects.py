"""The objects of a run of ``segment``: stages of boxes that may be done in any order, by anyone."""

import shutil
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from evenslice.labels.blocks import Box, faces_of, grid_of, with_halo
from evenslice.labels.components import (
    Local,
    Numbering,
    compact,
    label_box,
    number,
    same_names,
    touching,
)
from evenslice.labels.watershed import FLOOD_HALO, flood_box, seed_distance, seed_halo, seeds_in
from evenslice.model.predict import classes_of
from evenslice.progress import Step
from evenslice.segmentation.blocks import AVERAGE, PREDICT, Work, open_array, write_box
from evenslice.volume.array import Voxels
from evenslice.volume.atomic import fsync_tree, written_beside
from evenslice.volume.zarr_writer import create_labels

Run = Callable[[str, list[int], str], None]  # stage, pieces, label
STAGES = {
    "none": (),
    "components": ("label", "write"),
    "watershed": ("seed", "place", "flood", "write"),
}
DEEPEST = 32
SIDES = {"components": 512, "watershed": 256}


def do_pieces(work: Work, stage: str, indices: list[int], step: Step) -> None:
    """Do pieces of a stage in this process."""
    if stage == PREDICT:
        work.predict(indices, step)
        return
    piece = work.average if stage == AVERAGE else partial(Objects(work).piece, stage)
    for index in indices:
        piece(index)
        step()


def make_objects(work: Work, run: Run) -> int | None:
    """Do the stages that are left; return the number of objects, None if none were asked for."""
    objects = Objects(work)
    if not objects.stages:
        return None
    for index, stage in enumerate(objects.stages):
        if not work.run_state.is_done("begin", index):
            objects.begin(stage)
            work.run_state.done("begin", index)
        left = work.run_state.left(stage, range(len(objects.boxes)))
        if left:
            run(stage, left, f"objects: {stage}")
    return objects.count()


class Objects:
    """The stages that turn the probabilities of a run, all predicted, into objects.

    A stage begins when the one before it is done in all boxes; ``begin`` joins what that one found.
    """

    def __init__(self, work: Work) -> None:
        self._work, self._options = work, work.options
        self._shape, self._voxel = work.shape, work.volume.voxel_nm
        self._folder = work.run_state.folder / "objects"
        self._numberings: dict[str, Numbering] = {}

    @cached_property
    def boxes(self) -> list[Box]:
        """The boxes, each of whole chunks."""
        side = SIDES[self._options.instances]
        z, y, x = (
            chunk * max(1, wanted // chunk)
            for chunk, wanted in zip(self._chunks, (DEEPEST, side, side), strict=True)
        )
        return grid_of(self._shape, (z, y, x))

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, in order."""
        return STAGES[self._options.instances]

    def begin(self, stage: str) -> None:
        """Prepare a stage; done by one process, before any box of it."""
        self._folder.mkdir(exist_ok=True)
        if stage in ("label", "seed", "flood"):
            self._create("local", "uint32")
        elif stage == "place":
            self._create("seeds", self._joined("label", 1).table.dtype.name)
        else:
            numbering = self._joined(self._last, self._options.min_size)
            store = self._work.store  # its labels are those of a process that was killed here
            shutil.rmtree(store / "labels", ignore_errors=True)
            create_labels(
                store,
                self._shape,
                numbering.table.dtype.name,
                self._voxel,
                self._chunks,
                origin=self._work.origin,
                sides=self._work.volume.sides,
                count=numbering.count,
            )
            fsync_tree(store / "labels")

    def piece(self, stage: str, index: int) -> None:
        """Do one box of a stage and note it."""
        box = self.boxes[index]
        if stage == "label":
            self._keep("label", index, box, *label_box(self.classes(box), box, self._shape))
        elif stage == "seed":
            self._keep("label", index, box, *label_box(self._seeds(box), box, self._shape))
        elif stage == "flood":
            local, found, names = compact(self._flooded(box), box, self._shape)
            self._keep("flood", index, box, local, found, names=names)
        else:
            numbering = self._numbering("label" if stage == "place" else self._last)
            target = self._array("seeds") if stage == "place" else self._work.labels
            write_box(target, box, numbering.numbers_of(index)[self._array("local")[box]])
        self._work.run_state.done(stage, index)

    def count(self) -> int:
        """Return how many objects there are, when all stages are done."""
        return self._numbering(self._last).count

    def classes(self, box: Box) -> NDArray[np.uint8]:
        """Return the classes (z, y, x) of a box."""
        found = torch.from_numpy(self._work.probabilities[(slice(None), *box)])
        return classes_of(found.swapaxes(0, 1), self._options.threshold).numpy()

    def _seeds(self, box: Box) -> NDArray[np.bool_]:
        distance = seed_distance(self._voxel)
        read, inside = with_halo(box, seed_halo(self._voxel, distance), self._shape)
        boundary = self._work.probabilities[(0, *read)]
        return seeds_in(boundary, inside, self._options.threshold, self._voxel, distance)

    def _flooded(self, box: Box) -> Voxels:
        read, inside = with_halo(box, FLOOD_HALO, self._shape)
        boundary, seeds = self._work.probabilities[(0, *read)], self._array("seeds")[read]
        distance = seed_distance(self._voxel)
        threshold = self._options.threshold
        return flood_box(boundary, seeds, inside, threshold, self._voxel, distance, fill=True)

    def _keep(
        self, name: str, index: int, box: Box, local: NDArray[np.uint32], found: Local, **more: Any
    ) -> None:
        write_box(self._array("local"), box, local)
        self._save(f"{name}-{index}", vars(found) | more)

    @property
    def _last(self) -> str:
        """The stage whose objects are written."""
        return "flood" if "flood" in self.stages else "label"

    def _joined(self, name: str, min_size: int) -> Numbering:
        """Join the objects that all boxes found, and keep the numbering."""
        kept = [self._load(f"{name}-{index}") for index in range(len(self.boxes))]
        if name == "flood":
            pairs = same_names([arrays["names"] for arrays in kept])
        else:
            pairs = self._touching()
        numbering = number(
            [Local(arrays["sizes"], arrays["first"]) for arrays in kept], pairs, min_size
        )
        self._save(name, vars(numbering))
        return numbering

    def _touching(self) -> NDArray[np.int64]:
        local = self._array("local")
        classes = self.classes if self._work.model.spec.classes > 1 else None
        found: Sequence[NDArray[np.int64]] = [
            touching(local, face, classes) for face in faces_of(self.boxes)
        ]
        return np.concatenate([np.zeros((0, 4), np.int64), *found])

    def _numbering(self, name: str) -> Numbering:
        if name not in self._numberings:
            self._numberings[name] = Numbering(**self._load(name))
        return self._numberings[name]

    @property
    def _chunks(self) -> tuple[int, int, int]:
        z, y, x = self._work.probabilities.chunks[1:]
        return z, y, x

    def _create(self, name: str, dtype: str) -> None:
        import zarr

        path = self._folder / f"{name}.zarr"
        zarr.create_array(
            str(path), shape=self._shape, dtype=dtype, chunks=self._chunks, overwrite=True
        )
        fsync_tree(path)

    def _array(self, name: str) -> Any:
        return open_array(self._folder / f"{name}.zarr")

    def _save(self, name: str, arrays: dict[str, Voxels]) -> None:
        with written_beside(self._folder / f"{name}.npz") as part, part.open("wb") as file:
            np.savez(file, **cast(Any, arrays))

    def _load(self, name: str) -> dict[str, Voxels]:
        with np.load(self._folder / f"{name}.npz", allow_pickle=False) as file:
            return dict(file)
