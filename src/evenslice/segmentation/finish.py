"""The end of a run of ``segment``: when all blocks are predicted, objects, pyramid, and the name it was asked to have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from evenslice.progress import Progress
from evenslice.segmentation.blocks import PREDICT, Work
from evenslice.segmentation.objects import Objects
from evenslice.volume.atomic import rename_into_place
from evenslice.volume.tiff import write_tiff
from evenslice.volume.zarr_writer import build_pyramid, count_chunks

FINISH = "finish"
Run = Callable[[str, list[int], str], None]  # stage, pieces, label


def finish(work: Work, out: Path, attributes: dict[str, Any], run: Run, progress: Progress) -> None:
    """Do what comes after the last block, note what was found, and give the result its name.

    Parameters
    ----------
    work
        The run.
    out
        What to write; replaced if it exists.
    attributes
        To note in an OME-Zarr store; ``provenance`` and ``asked`` in a TIFF too.
    run
        Does pieces of a stage.
    progress
        How to show the progress.
    """
    found = {"objects": make_objects(work, run), "blank": _blanks(work)}
    if work.job.to == "tif":
        dtype = work.labels.dtype if work.job.keeps_labels else np.dtype(np.uint8)
        meaning = "intensity" if work.job.keeps_labels else "probabilities"
        with progress("writing", work.job.shape[0]) as step:
            planes, made = (
                _told(work.planes(), step),
                attributes["provenance"] | {"asked": attributes["asked"]},
            )
            write_tiff(
                out, planes, work.job.shape, np.dtype(dtype), work.volume.voxel_nm, meaning, made
            )
    else:
        _make_pyramids(work, attributes, progress)
    work.run_state.done(
        FINISH, 0, found
    )  # before the store has its name: a kill in between loses nothing
    if work.job.to == "zarr":
        _give_name(work.store, out)


def make_objects(work: Work, run: Run) -> int | None:
    """Go through the stages of the objects that are left; return how many objects there are, None if none were asked for."""
    objects = Objects(work)
    every = range(len(objects.boxes)) if objects.stages else range(0)
    for number, stage in enumerate(objects.stages):
        if not work.run_state.is_done("begin", number):
            objects.begin(stage)
            work.run_state.done("begin", number)
        left = work.run_state.left(stage, every)
        if left:
            run(stage, left, f"objects: {stage}")
    return objects.count() if objects.stages else None


def _make_pyramids(work: Work, attributes: dict[str, Any], progress: Progress) -> None:
    import zarr

    voxel = list(work.volume.voxel_nm or (1.0, 1.0, 1.0))
    kinds = ((work.probabilities, [1.0, *voxel], "czyx"), (work.labels, voxel, "zyx"))
    total = sum(count_chunks(array.shape, array.chunks, size, axes) for array, size, axes in kinds)
    with progress("pyramid", total) as step:
        for group, labels in ((work.store, False), (work.store / "labels" / "segmentation", True)):
            build_pyramid(group, labels, step)
    noted = zarr.open_group(str(work.store), mode="r+").attrs
    noted["evenslice"] = {"meaning": "probabilities"} | attributes


def _give_name(store: Path, out: Path) -> None:
    for part in store.rglob("*.partial"):  # zarr's own, of chunks that a killed process was writing
        part.unlink()
    rename_into_place(store, out, force=True)


def _blanks(work: Work) -> dict[str, list[int]]:
    found: dict[int, set[int]] = {}
    for record in work.run_state.records(PREDICT, len(work.blocks)):
        for n, used in record["blank"].items():
            found.setdefault(int(n), set()).update(used)
    return {str(n): sorted(found[n]) for n in sorted(found)}


def _told(items: Any, step: Any) -> Any:
    for item in items:
        yield item
        step()
