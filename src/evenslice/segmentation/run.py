"""Segment: decide how, predict block after block, make objects, and give the result its name; a killed run can be gone on with."""

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from evenslice.errors import BadInputError
from evenslice.model.checkpoint import save_model
from evenslice.model.inputs import (
    ModelLike,
    VolumeLike,
    check_apart,
    check_segments,
    device_of,
    fingerprint,
    model_of,
    normalised_by,
    parse_roi,
    spans_of,
    trained_slices,
    volume_of,
)
from evenslice.model.provenance import provenance_of
from evenslice.model.spec import ExternalSpec, Model
from evenslice.model.streaming import normalisation_of
from evenslice.options import Instances, Output, SegmentOptions
from evenslice.progress import Progress, silent
from evenslice.segmentation.blocks import PREDICT, Work, prepare
from evenslice.segmentation.cluster import cluster_run, do_pieces
from evenslice.segmentation.finish import FINISH, Run, finish
from evenslice.segmentation.manifest import check_sources, work_of
from evenslice.segmentation.options import (
    Job,
    blocks_of_shard,
    check_out,
    check_shard,
    check_unlike,
    is_complete,
    name_anywhere,
    voxel_size_of,
    work_folder,
)
from evenslice.segmentation.plan import Plan, PlanRequest, identity_of, make_plan
from evenslice.volume.array import Volume, reorder_axes, swap_axis
from evenslice.volume.atomic import DISK, named, remove_stale, wait_for_zarr_writes
from evenslice.volume.normalisation import estimate
from evenslice.volume.run_state import RunState, open_run_state

VOXEL_TOLERANCE = 0.02
WORTH_KEEPING_S = 60.0


@dataclass(frozen=True)
class Segmented:
    """What a run did.

    Attributes
    ----------
    path
        What was written.
    complete
        False for a shard that left work to others: nothing is there under ``path`` yet.
    blocks, blocks_left
        How many blocks there are, and how many others have still to do.
    plan
        How it was done; None for a run that was complete already.
    objects
        How many objects there are; None if none were asked for.
    blank
        Blank sections and those that stood in for them: {section: [stand-ins]}.
    trained_slices
        Slices of what was written that the model was trained on: [[start, stop], ...].
    warnings
        What the user should know.
    slices
        S of the model; 0 for a run that was complete already.
    provenance
        Command, seed, versions, and hashes of what was read.
    """

    path: Path
    complete: bool
    blocks: int
    blocks_left: int = 0
    plan: Plan | None = None
    objects: int | None = None
    blank: dict[str, list[int]] = field(default_factory=dict)
    trained_slices: list[list[int]] = field(default_factory=list)
    warnings: tuple[str, ...] = ()
    slices: int = 0
    provenance: dict[str, Any] = field(default_factory=dict)

    def __fspath__(self) -> str:
        """Return the path, so that the result can be opened."""
        return str(self.path)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it (schema evenslice.segment/1)."""
        return {
            "schema": "evenslice.segment/1",
            "path": str(self.path),
            "complete": self.complete,
            "blocks": self.blocks,
            "blocks_left": self.blocks_left,
            "plan": None if self.plan is None else self.plan.to_dict(),
            "objects": self.objects,
            "blank": self.blank,
            "trained_slices": self.trained_slices,
            "warnings": list(self.warnings),
            "provenance": self.provenance,
        }


def segment(
    model: ModelLike,
    volume: VolumeLike,
    out: str | Path,
    *,
    output: Output = "labels",
    threshold: float = 0.5,
    tile: int | None = None,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    memory: float | None = None,
    tta: Literal["none", "reversal"] | None = None,
    roi: str | None = None,
    axis: Literal["z", "y", "x"] = "z",
    normalisation: Literal["model", "volume"] = "model",
    instances: Instances = "none",
    min_size: int = 1,
    voxel_nm: Sequence[float] | None = None,
    scheduler: str | None = None,
    shard: str | tuple[int, int] | None = None,
    resume: bool = False,
    slices: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    trust: bool = False,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
    told: Callable[[Segmented], None] | None = None,
    progress: Progress = silent,
) -> Segmented:
    """Segment a volume of any size, and write it with its voxel size.

    Parameters
    ----------
    model
        A model or the name of one, in any form.
    volume
        A volume, an array (z, y, x) or a path.
    out
        ``OUT.zarr``: OME-Zarr with probabilities (c, z, y, x) and ``labels/segmentation``. ``OUT.tif``: one of them.
    output
        What a TIFF holds. ``labels``: class numbers, uint8, or objects. ``probabilities``: of the foreground, uint8, 255 for 1.
    threshold
        Probability above which a voxel is foreground, 0..1.
    tile
        Side of a tile with its halo, pixels; None for whole slices where they fit into ``memory``.
    precision
        ``fp32``, ``bf16``, or ``auto``: bfloat16 where the processor has matrix instructions for it.
    memory
        GB that the process may use; None for half of what is free.
    tta
        ``reversal``: average over each window and its reversal; ``none``: do not; None: as the model's record says.
    roi
        ``Z0:Z1,Y0:Y1,X0:X1``, None for all. What lies around it in the volume is seen.
    axis
        Slice along this axis; for isotropic volumes.
    normalisation
        ``model``: the model's own numbers. ``volume``: mean and std of this volume.
    instances
        ``components``: connected components of each class (faces touch). ``watershed``: the model predicts boundaries, labels
        are what they enclose.
    min_size
        Objects of fewer voxels are dropped.
    voxel_nm
        Voxel size (z, y, x) in nm, where the file does not state it or is wrong; watersheds measure distances by it.
    scheduler
        Address of a Dask scheduler whose workers see the same files; ``model`` and ``volume`` are names then.
    shard
        ``I/N`` or (I, N): do the I-th of N parts; whoever finishes last completes the result.
    resume
        Go on with a killed run of the same options.
    slices, mean, std
        Of a foreign model, as ``audit`` takes them.
    seed
        Of where mean and std of a volume are measured.
    device, force, progress
        ``auto``, ``cpu`` or ``cuda``; whether to overwrite; how to show the progress.
    told
        Called with the complete result before the run's state is removed: what it writes is written again by ``resume`` if that is cut
        short.

    Returns
    -------
    Segmented
        What was written (it can be opened like a path), and how.

    Raises
    ------
    BadInputError
        If something given cannot be used. What was done before it is kept for ``resume``; if that is less than a
        minute's work, nothing is left.
    """
    out = Path(out)
    check_out(out, force, resume or shard is not None)
    part = SegmentOptions.of(None, {"shard": shard}).shard
    check_shard(part, scheduler)
    check_apart(out, model, volume)
    sources = {"model": name_anywhere(model), "volume": name_anywhere(volume), "slices": slices}
    if scheduler is not None and sources["volume"] is None:
        raise BadInputError(
            "a volume in memory was given, expected a path that the workers can open; save it first"
        )
    model, volume = model_of(model, slices, mean, std, trust), volume_of(volume)
    if voxel_nm is not None:
        volume = replace(volume, voxel_nm=voxel_size_of(voxel_nm))
    job_options: dict[str, Any] = {
        "output": output,
        "threshold": threshold,
        "tile": tile,
        "precision": precision,
        "memory": memory,
    }
    job_options |= {
        "voxel_nm": volume.voxel_nm,
        "axis": axis,
        "normalisation": normalisation,
        "instances": instances,
        "min_size": min_size,
    }
    check_segments(model)
    made = provenance_of(seed, model=model, volume=volume)
    model = model.with_tta(model.tta if tta is None else tta)
    job = _job(model, volume, out, roi, job_options)
    for place in (out, work_folder(out)):
        remove_stale(place)
    if is_complete(out, job) and (resume or part) and not work_folder(out).exists():
        return Segmented(out, True, 0, provenance=made)
    if not work_folder(out).exists():
        check_unlike(out, job, force, resume or part is not None)

    def choose(folder: Path) -> dict[str, Any]:
        plan = _plan(model, volume, job, mean is not None, seed, device_of(device))
        with named(out, folder), wait_for_zarr_writes():
            prepare(folder, job, plan, volume, model.spec.classes)
        if scheduler is not None and sources["model"] is None:
            sources["model"] = str((folder / "model.safetensors").resolve())
            save_model(folder / "model.safetensors", model)
        return {"plan": plan.to_dict(), "sources": sources}

    run_state = open_run_state(
        work_folder(out), job.to_dict(), choose, resume or part is not None, force
    )
    if scheduler is not None:
        check_sources(run_state, sources)
    work = work_of(run_state, model, volume)
    warnings = _warnings(model, volume, job, normalisation, mean is not None)
    name = "run" if part is None else f"shard-{part[0]}-of-{part[1]}"
    with (
        run_state.holding(name, out),
        _kept(run_state, job, out, part is not None),
        _runs(work, scheduler, progress) as run,
    ):
        result = Segmented(
            out, True, len(work.blocks), 0, work.plan, warnings=warnings, provenance=made
        )
        left = run_state.left(PREDICT, blocks_of_shard(len(work.blocks), part))
        if left and run_state.folder.exists():
            run(PREDICT, left, "segmenting")
        others = len(run_state.left(PREDICT, range(len(work.blocks))))
        if not run_state.folder.exists():  # another shard has completed it in the meantime
            return result
        if others and part is None:
            raise BadInputError(
                f"{others} blocks were not done by the workers, expected all; go on with --resume"
            )
        if others:
            return replace(result, complete=False, blocks_left=others)
        return _finished(work, result, run, progress, told)


def _finished(
    work: Work,
    result: Segmented,
    run: Run,
    progress: Progress,
    told: Callable[[Segmented], None] | None,
) -> Segmented:
    """Complete a run, unless another shard is about it."""
    trained = _trained(work)
    noted = {
        "trained_slices": trained,
        "asked": work.job.to_dict(),
        "provenance": result.provenance,
    }
    with work.run_state.trying("finish") as held:
        if not held:
            return replace(result, complete=not work.run_state.folder.exists())
        if work.store.exists() and not (work.job.to == "tif" and work.run_state.is_done(FINISH, 0)):
            finish(work, result.path, noted, run, progress)
        found = next(work.run_state.records(FINISH, 1))
        facts = {"objects": found["objects"], "blank": found["blank"], "trained_slices": trained}
        result = replace(result, slices=work.model.slices, **facts)
        if told is not None:
            told(result)
        work.run_state.remove()
    return result


@contextmanager
def _runs(work: Work, scheduler: str | None, progress: Progress) -> Iterator[Run]:
    """Give what does pieces of work: this process, or a cluster."""
    if scheduler is not None:
        with cluster_run(scheduler, work.run_state.folder, progress) as run:
            yield run
        return

    def here(stage: str, left: list[int], label: str) -> None:
        with progress(label, len(left)) as step:
            do_pieces(work, stage, left, step)

    yield here


@contextmanager
def _kept(run_state: RunState, job: Job, out: Path, shared: bool) -> Iterator[None]:
    """Keep what is done when something fails, and say so; a run that has only begun is removed, unless others take part."""
    try:
        with wait_for_zarr_writes():
            yield
    except Exception as error:
        what = _failure(error, out)
        there = run_state.folder.exists() and not shared and not run_state.is_done(FINISH, 0)
        if there and not is_complete(out, job) and run_state.age_s() < WORTH_KEEPING_S:
            with suppress(OSError):  # what is wrong is said below
                run_state.remove()
        if what is not None and run_state.folder.exists():
            what += f"; what is done is kept in {run_state.folder}: then go on with --resume"
        elif what is None or isinstance(error, BadInputError):
            raise
        raise BadInputError(what) from error


def _failure(error: Exception, out: Path) -> str | None:
    """Say what the user can do something about; None for other errors."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left for {out}, expected more; free some"
    if isinstance(error, OSError) and error.errno in DISK:
        return f"{out} cannot be written ({error.strerror}), expected a disk that works and takes files of this size; mend it, or choose another"
    return str(error) if isinstance(error, BadInputError | OSError) else None


def _job(model: Model, volume: Volume, out: Path, roi: str | None, options: dict[str, Any]) -> Job:
    z, y, x = ((part.start, part.stop) for part in parse_roi(roi, volume.shape))
    to: Literal["zarr", "tif"] = "zarr" if out.suffix.lower() == ".zarr" else "tif"
    job = Job(identity_of(model), fingerprint(volume), to, (z, y, x), tta=model.tta, **options)
    job.check_model(model)
    swap_axis(volume, job.axis)
    return job


def _plan(
    model: Model, volume: Volume, job: Job, given: bool, seed: int, device: torch.device
) -> Plan:
    if job.normalisation == "volume" and not given:
        model = model.with_facts(normalisation=estimate(volume, seed)).with_tta(job.tta)
    elif isinstance(model.spec, ExternalSpec):
        model = normalised_by(model, volume, seed)
    wishes = PlanRequest(job.tile, job.precision, job.memory, device)
    return make_plan(
        model,
        swap_axis(volume, job.axis),
        reorder_axes(job.box, job.axis),
        normalisation_of(model),
        wishes,
    )


def _trained(work: Work) -> list[list[int]]:
    """Return the slices of what is written that the model was trained on."""
    box = work.job.box[0]
    return spans_of(
        sorted(
            z - box.start
            for z in trained_slices(work.model, work.volume)
            if box.start <= z < box.stop
        )
    )


def _warnings(
    model: Model, volume: Volume, job: Job, normalisation: str, given: bool
) -> tuple[str, ...]:
    found = []
    trained, here = (
        model.training.get("voxel_nm"),
        reorder_axes(volume.voxel_nm, job.axis) if volume.voxel_nm else None,
    )
    if (
        trained
        and here
        and any(abs(a - b) > VOXEL_TOLERANCE * a for a, b in zip(trained, here, strict=True))
    ):
        sizes = [" x ".join(f"{side:g}" for side in voxel) for voxel in (here, trained)]
        found.append(
            f"the voxels of {volume.source} are {sizes[0]} nm (z, y, x as sliced), the model was trained on {sizes[1]} nm: "
            "resample one of them if this is more than a detail"
        )
    if (
        isinstance(model.spec, ExternalSpec)
        and model.normalisation is None
        and normalisation == "model"
    ):
        found.append(
            "the model has no normalisation, so the mean and std of the volume were used; give --mean and --std if you know them"
        )
    return tuple(found)
