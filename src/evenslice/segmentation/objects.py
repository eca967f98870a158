"""The objects of a run of ``segment``: components or neurons, in stages of boxes that may be done in any order, by anyone."""

import shutil
from functools import cached_property
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
from evenslice.segmentation.blocks import Work, opened, write_box
from evenslice.volume.atomic import fsync_tree, written_beside
from evenslice.volume.zarr_writer import create_labels

STAGES = {
    "none": (),
    "components": ("label", "write"),
    "watershed": ("seed", "place", "flood", "write"),
}
DEEPEST = 32
SIDES = {"components": 512, "watershed": 256}


class Objects:
    """The stages that turn a run's probabilities into objects.

    A stage begins when the one before it is done in all boxes; ``begin`` joins what that one found.

    Parameters
    ----------
    work
        The run; its blocks are predicted.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._shape = work.job.shape
        self._folder = work.run_state.folder / "objects"
        self._voxel = work.volume.voxel_nm
        self._numberings: dict[str, Numbering] = {}

    @cached_property
    def boxes(self) -> list[Box]:
        """The boxes, each of whole chunks."""
        side = SIDES[self._work.job.instances]
        z, y, x = (
            chunk * max(1, wanted // chunk)
            for chunk, wanted in zip(self._chunks, (DEEPEST, side, side), strict=True)
        )
        return grid_of(self._shape, (z, y, x))

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, in order."""
        return STAGES[self._work.job.instances]

    def begin(self, stage: str) -> None:
        """Prepare a stage; done by one process, before any box of it."""
        self._folder.mkdir(exist_ok=True)
        if stage in ("label", "seed"):
            self._create("local", "uint32")
        elif stage == "place":
            numbering = self._joined("label", 1)
            self._create("seeds", numbering.table.dtype.name)
        elif stage == "flood":
            self._create("local", "uint32")
        else:
            last = "flood" if "flood" in self.stages else "label"
            numbering = self._joined(last, self._work.job.min_size)
            shutil.rmtree(
                self._work.store / "labels", ignore_errors=True
            )  # of a process that was killed here
            create_labels(
                self._work.store, self._shape, numbering.table.dtype.name, self._voxel, self._chunks
            )
            fsync_tree(self._work.store / "labels")

    def piece(self, stage: str, index: int) -> None:
        """Do one box of a stage and note it."""
        box = self.boxes[index]
        if stage == "label":
            self._keep("label", index, box, *label_box(self._classes(box), box, self._shape))
        elif stage == "seed":
            self._keep("label", index, box, *label_box(self._seeds(box), box, self._shape))
        elif stage == "flood":
            local, found, names = compact(self._flooded(box), box, self._shape)
            self._keep("flood", index, box, local, found, names=names)
        else:
            numbering = self._numbering("label" if stage == "place" else self.stages[-2])
            target = self._array("seeds") if stage == "place" else self._work.labels
            write_box(target, box, numbering.numbers_of(index)[self._array("local")[box]])
        self._work.run_state.done(stage, index)

    def count(self) -> int:
        """Return how many objects there are, when all stages are done."""
        return self._numbering(self.stages[-2]).count

    def _classes(self, box: Box) -> NDArray[np.uint8]:
        found = torch.from_numpy(self._work.probabilities[(slice(None), *box)])
        return classes_of(found.swapaxes(0, 1), self._work.job.threshold).numpy()

    def _seeds(self, box: Box) -> NDArray[np.bool_]:
        distance = seed_distance(self._voxel)
        read, inside = with_halo(box, seed_halo(self._voxel, distance), self._shape)
        return seeds_in(
            self._work.probabilities[(0, *read)],
            inside,
            self._work.job.threshold,
            self._voxel,
            distance,
        )

    def _flooded(self, box: Box) -> NDArray[Any]:
        read, inside = with_halo(box, FLOOD_HALO, self._shape)
        boundary, seeds = self._work.probabilities[(0, *read)], self._array("seeds")[read]
        return flood_box(
            boundary,
            seeds,
            inside,
            self._work.job.threshold,
            self._voxel,
            seed_distance(self._voxel),
            fill=True,
        )

    def _keep(
        self, name: str, index: int, box: Box, local: NDArray[np.uint32], found: Local, **more: Any
    ) -> None:
        write_box(self._array("local"), box, local)
        self._save(f"{name}-{index}", vars(found) | more)

    def _joined(self, name: str, min_size: int) -> Numbering:
        """Join the objects that all boxes found, and keep the numbering."""
        kept = [self._load(f"{name}-{index}") for index in range(len(self.boxes))]
        locals_ = [Local(arrays["sizes"], arrays["first"]) for arrays in kept]
        pairs = (
            same_names([arrays["names"] for arrays in kept])
            if name == "flood"
            else self._touching()
        )
        numbering = number(locals_, pairs, min_size)
        self._save(name, vars(numbering))
        return numbering

    def _touching(self) -> NDArray[np.int64]:
        local = self._array("local")
        classes = _Classes(self) if self._work.model.spec.classes > 1 else None
        found = [
            np.zeros((0, 4), np.int64),
            *(touching(local, face, classes) for face in faces_of(self.boxes)),
        ]
        return np.concatenate(found)

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

        zarr.create_array(
            str(self._folder / f"{name}.zarr"),
            shape=self._shape,
            dtype=dtype,
            chunks=self._chunks,
            overwrite=True,
        )
        fsync_tree(self._folder / f"{name}.zarr")

    def _array(self, name: str) -> Any:
        return opened(self._folder / f"{name}.zarr")

    def _save(self, name: str, arrays: dict[str, NDArray[Any]]) -> None:
        with written_beside(self._folder / f"{name}.npz") as part, part.open("wb") as file:
            np.savez(file, **cast(Any, arrays))

    def _load(self, name: str) -> dict[str, NDArray[Any]]:
        with np.load(self._folder / f"{name}.npz", allow_pickle=False) as file:
            return dict(file)


class _Classes:
    """The classes of a run's probabilities, read like an array (z, y, x)."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.shape = objects._shape
        self.dtype = np.dtype(np.uint8)

    def __getitem__(self, box: Any) -> NDArray[np.uint8]:
        return self._objects._classes(box)
