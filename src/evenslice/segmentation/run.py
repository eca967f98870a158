"""Segment: decide how, predict block after block, make objects, and give the result its name."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evenslice.errors import BadInputError, give_warnings, keeps_warnings, says_what_is_kept
from evenslice.model.checkpoint import save_model
from evenslice.model.opening import ModelLike, intensity_warning, normalised_by, trained_slices
from evenslice.model.predict import device_named
from evenslice.model.provenance import provenance_of
from evenslice.model.spec import ExternalSpec, Model
from evenslice.model.streaming import normalisation_of
from evenslice.options import JsonObject, SegmentOptions
from evenslice.progress import Progress, silent
from evenslice.segmentation.blocks import (
    AVERAGE,
    PREDICT,
    Work,
    axes_of,
    is_store,
    open_inputs,
    prepare,
    request_of,
    work_folder,
)
from evenslice.segmentation.cluster import cluster_run
from evenslice.segmentation.objects import Run, do_pieces, make_objects
from evenslice.segmentation.plan import Plan, make_plan
from evenslice.segmentation.result import Segmented, read_result
from evenslice.volume.address import is_remote
from evenslice.volume.array import Volume, crop, reorder_axes, swap_axis
from evenslice.volume.atomic import (
    DISK,
    check_store_writable,
    check_writable,
    named,
    remove_stale,
    rename_into_place,
)
from evenslice.volume.files import check_volume_name, write_slices
from evenslice.volume.inputs import VolumeLike, check_apart, parse_roi, spans_of
from evenslice.volume.normalisation import estimate
from evenslice.volume.run_state import RunState, open_run_state
from evenslice.volume.zarr_writer import build_pyramid, count_chunks

WRITTEN = "written"
VOXEL_TOLERANCE = 0.02
MOST_ANISOTROPIC = 2
WORTH_KEEPING_S = 60.0


@keeps_warnings
def segment(
    model: ModelLike,
    volume: VolumeLike,
    out: str | Path,
    options: SegmentOptions | None = None,
    *,
    resume: bool = False,
    force: bool = False,
    progress: Progress = silent,
    **changes: Any,
) -> Segmented:
    """Segment a volume of any size; an interrupted run can be resumed, and several can share one.

    Parameters
    ----------
    model
        A model or the name of one, in any form; a name where a scheduler is given and it is code.
    volume
        A volume, an array (z, y, x) or a path; a path where a scheduler is given.
    out
        ``OUT.zarr``: OME-Zarr with probabilities (c, z, y, x), float32, and ``labels/segmentation``
        (z, y, x). ``OUT.tif``: labels, or probabilities of the foreground as uint8, 255 for 1.
    options, changes
        The options of ``SegmentOptions``, as an object, as keyword arguments, or both.
    resume, force
        Whether to resume an interrupted run of the same options; whether to overwrite.
    progress
        How to show the progress.

    Returns
    -------
    Segmented
        What was written (it can be opened like a path), and how.

    Raises
    ------
    BadInputError
        If something given cannot be used. What was done before it is kept for ``resume``; if that
        is less than a minute's work, nothing is left.

    Examples
    --------
    >>> from evenslice import build_model, open_volume
    >>> model = build_model(weights="none", encoder_depth=3)
    >>> volume = np.random.default_rng(0).integers(0, 255, (4, 64, 64)).astype(np.uint8)
    >>> result = segment(model, volume, "labels.tif", mean=128.0, std=40.0)
    >>> open_volume(result).shape
    (4, 64, 64)
    """
    out, options = Path(out), SegmentOptions.of(options, changes)
    shard, scheduler = options.shard, options.scheduler
    join = resume or shard is not None
    check_volume_name(out)
    check = check_store_writable if is_store(out) else check_writable
    check(out, force or join)
    check_apart(out, model, volume)
    if scheduler is not None and not isinstance(volume, (str, Path)):
        raise BadInputError(
            "a volume in memory was given, expected a path that the workers can open; save it first"
        )
    with progress("reading", 0):
        network, source, options = open_inputs(model, volume, options)
    _check_fits(network, options, out)
    if options.axis == "all":
        _check_isotropic(source)
    request, folder = request_of(network, source, options), work_folder(out)
    for place in (out, folder):
        remove_stale(place)
    if join and not force and out.exists() and not folder.exists():
        finished = read_result(out, request)
        if finished is None:
            raise BadInputError(
                f"{out} exists and is not known as the result of these options, expected an "
                "unfinished run or none; choose another name, or add --force to start over"
            )
        return finished

    def choose(folder: Path) -> JsonObject:
        plans = _plans(network, source, options)
        with named(out, folder):
            prepare(folder, network, source, options, plans)
        return {"plans": {axis: plan.to_dict() for axis, plan in plans.items()}}

    with progress("planning", 0):
        run_state = open_run_state(folder, request, choose, join, force)
        work = Work(run_state, network, source, options)
        notes = _warnings(network, source, options)
    give_warnings(notes)
    result = Segmented(
        out,
        True,
        len(work.blocks),
        plan=work.plan,
        trained_slices=_trained(work),
        warnings=notes,
        slices=network.slices,
        provenance=provenance_of(options.seed, model=network, volume=source),
    )
    name = "run" if shard is None else f"shard-{shard[0]}-of-{shard[1]}"
    with (
        run_state.holding(name, out),
        says_what_is_kept(partial(_kept, work)),
        _keep_or_remove(run_state, out, shared=shard is not None),
        _pieces(work, model, volume, progress) as run,
    ):
        left = run_state.left(PREDICT, _blocks_of(len(work.blocks), shard))
        if left and folder.exists():
            run(PREDICT, left, "segmenting")
        others = len(run_state.left(PREDICT, range(len(work.blocks))))
        if not folder.exists():  # another shard has written OUT in the meantime
            return read_result(out, request) or result
        if others and shard is None:
            raise BadInputError(
                f"{others} blocks were not done by the workers, expected all; resume with --resume"
            )
        if others:
            return replace(result, complete=False, blocks_left=others)
        return _finish(work, result, request, run, progress)


def _check_fits(model: Model, options: SegmentOptions, out: Path) -> None:
    """Raise ``BadInputError`` unless model and name of the result fit the options."""
    classes, tiff = model.spec.classes, not is_store(out)
    if tiff and options.output == "probabilities" and options.instances != "none":
        raise BadInputError(
            "objects and --output probabilities were asked for in one TIFF, expected one of them; "
            "write OUT.zarr, which holds both"
        )
    if classes > 1 and tiff and options.output == "probabilities":
        raise BadInputError(
            f"the model has {classes} classes, expected one for probabilities in a TIFF; "
            "write OUT.zarr, or use --output labels"
        )
    if classes > 1 and options.instances == "watershed":
        raise BadInputError(
            f"the model has {classes} classes, expected one, the boundary, for a watershed; "
            "use --instances components"
        )


def _plans(model: Model, volume: Volume, options: SegmentOptions) -> dict[str, Plan]:
    """Decide how to segment along each axis."""
    if options.normalisation == "volume" and options.mean is None:
        model = replace(model, normalisation=estimate(volume, options.seed)).with_tta(model.tta)
    elif isinstance(model.spec, ExternalSpec):
        model = normalised_by(model, volume, options.seed)
    box, device = parse_roi(options.roi, volume.shape), device_named(options.device)
    return {
        axis: make_plan(
            model,
            swap_axis(volume, axis),
            reorder_axes(box, axis),
            normalisation_of(model),
            options,
            device,
        )
        for axis in axes_of(options)
    }


def _check_isotropic(volume: Volume) -> None:
    """Raise ``BadInputError`` unless the sides of a voxel are alike enough for all axes."""
    sides = volume.voxel_nm or volume.sides
    if max(sides) > MOST_ANISOTROPIC * min(sides):
        raise BadInputError(
            f"{volume.source} has voxels of {' x '.join(f'{side:g}' for side in sides)} nm, "
            f"expected sides that differ by a factor of {MOST_ANISOTROPIC} at most for --axis all; "
            "use --axis z, or resample it"
        )
    if volume.voxel_nm is None:
        give_warnings(
            [
                f"{volume.source} does not state its voxel size: --axis all takes it for "
                "isotropic; give --voxel-size"
            ]
        )


def _blocks_of(count: int, shard: tuple[int, int] | None) -> range:
    """Return the blocks of a shard: neighbours in reading order."""
    index, shards = shard or (1, 1)
    return range(count * (index - 1) // shards, count * index // shards)


@contextmanager
def _pieces(work: Work, model: ModelLike, volume: VolumeLike, progress: Progress) -> Iterator[Run]:
    """Give what does pieces of work: this process, or a cluster."""
    if work.options.scheduler is not None:
        folder = work.run_state.folder.resolve()
        if isinstance(model, Model):
            saved = folder / "model.safetensors"
            save_model(saved, model, force=True)
            model = saved
        sources = (str(folder), _absolute(model), _absolute(volume))
        with cluster_run(work.options.scheduler, sources, progress) as run:
            yield run
        return

    def here(stage: str, left: list[int], label: str) -> None:
        with progress(label, len(left)) as step:
            do_pieces(work, stage, left, step)

    yield here


def _absolute(source: Any) -> str:
    """Return a name that means the same in another process."""
    name, at, file = str(source).partition("@")
    if is_remote(name):
        return name
    if at:  # PACKAGE.MODULE:CALLABLE@FILE
        return f"{name}@{Path(file).absolute()}"
    return os.path.abspath(name) if ":" not in name or "/" in name else name  # noqa: PTH100 (a URL is no Path)


def _finish(
    work: Work, result: Segmented, request: JsonObject, run: Run, progress: Progress
) -> Segmented:
    """Make objects, write OUT and remove the run, unless another shard does."""
    run_state = work.run_state
    with run_state.trying("finish") as free:
        if not free:
            return replace(result, complete=False)
        if work.store.exists() and not run_state.is_done(WRITTEN, 0):
            if left := run_state.left(AVERAGE, range(len(work.boxes))):
                run(AVERAGE, left, "averaging")
            result = replace(result, objects=make_objects(work, run), blank=_blanks(work))
            metadata = {"request": request, **result.metadata()}
            write = _write_store if work.in_store else _write_file
            write(work, result.path, metadata, progress)
            run_state.done(WRITTEN, 0)
        else:  # a process was killed between OUT and the end
            result = read_result(result.path, request) or result
        run_state.remove()
    return result


def _write_file(work: Work, out: Path, metadata: JsonObject, progress: Progress) -> None:
    dtype = np.dtype(work.labels.dtype if work.keeps_labels else np.uint8)
    meaning = "labels" if work.keeps_labels else "probabilities"
    provenance = metadata.pop("provenance") | {"result": metadata}
    with progress("writing", work.shape[0]) as step:

        def planes() -> Iterator[Any]:
            for plane in work.planes():
                yield plane
                step()

        like = replace(crop(work.volume, work.box), meaning=meaning)
        write_slices(out, planes(), dtype, like, provenance)


def _write_store(work: Work, out: Path, metadata: JsonObject, progress: Progress) -> None:
    import zarr

    voxel = list(work.volume.voxel_nm or work.volume.sides)
    kinds = ((work.probabilities, [1.0, *voxel], "czyx"), (work.labels, voxel, "zyx"))
    total = sum(count_chunks(array.shape, array.chunks, size, axes) for array, size, axes in kinds)
    with progress("writing", total) as step:
        build_pyramid(work.store, False, step)
        build_pyramid(work.store / "labels" / "segmentation", True, step)
    attributes = zarr.open_group(str(work.store), mode="r+").attrs
    attributes["evenslice"] = {"meaning": "probabilities", **metadata}
    for part in work.store.rglob("*.partial"):  # zarr's own, of a process that was killed
        part.unlink()
    rename_into_place(work.store, out, force=True)


def _blanks(work: Work) -> dict[str, list[int]]:
    found: dict[int, set[int]] = {}
    for record in work.run_state.records(PREDICT, len(work.blocks)):
        for n, used in record["blank"].items():
            found.setdefault(int(n), set()).update(used)
    return {str(n): sorted(found[n]) for n in sorted(found)}


def _kept(work: Work) -> str:
    blocks, folder = range(len(work.blocks)), work.run_state.folder
    done = len(blocks) - len(work.run_state.left(PREDICT, blocks))
    return f"{done} of {len(blocks)} blocks are kept in {folder}; add --resume to go on"


@contextmanager
def _keep_or_remove(run_state: RunState, out: Path, shared: bool) -> Iterator[None]:
    """Keep what is done when something fails, and say so; remove a run that has only begun."""
    try:
        yield
    except Exception as error:
        folder = run_state.folder
        if folder.exists() and not shared and run_state.age_s() < WORTH_KEEPING_S:
            with suppress(OSError):  # what is wrong is said below
                run_state.remove()
        failure = _failure(error, out)
        if failure is not None and folder.exists():
            failure += f"; what is done is kept in {folder}: resume with --resume"
        elif failure is None or isinstance(error, BadInputError):
            raise
        raise BadInputError(failure) from error


def _failure(error: Exception, out: Path) -> str | None:
    """Say what the user can do something about; None for other errors."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space is left for {out}, expected more; free some"
    if isinstance(error, OSError) and error.errno in DISK:
        return (
            f"{out} cannot be written ({error.strerror}), expected a disk that works and takes "
            "files of this size; fix it, or choose another"
        )
    return str(error) if isinstance(error, BadInputError | OSError) else None


def _trained(work: Work) -> list[list[int]]:
    """Return the slices of what is written that the model was trained on."""
    box = work.box[0]
    trained = trained_slices(work.model, work.volume)
    return spans_of(sorted(z - box.start for z in trained if box.start <= z < box.stop))


def _warnings(model: Model, volume: Volume, options: SegmentOptions) -> tuple[str, ...]:
    found = []
    trained = model.training.get("voxel_nm")
    here = reorder_axes(volume.voxel_nm, options.axis) if volume.voxel_nm else None
    if trained and here:
        apart = [abs(a - b) > VOXEL_TOLERANCE * a for a, b in zip(trained, here, strict=True)]
        sizes = [" x ".join(f"{side:g}" for side in voxel) for voxel in (here, trained)]
        if any(apart):
            found.append(
                f"the voxels of {volume.source} are {sizes[0]} nm (z, y, x as sliced), the model "
                f"was trained on {sizes[1]} nm: resample one of them if this is more than a detail"
            )
    external = isinstance(model.spec, ExternalSpec) and model.normalisation is None
    if external and options.normalisation == "model":
        found.append(
            "the model has no normalisation, so the mean and std of the volume were used; "
            "give --mean and --std if you know them"
        )
    if options.normalisation == "model":
        found += intensity_warning(model, crop(volume, parse_roi(options.roi, volume.shape)))
    return tuple(found)
