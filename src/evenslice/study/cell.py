"""One cell of a study: train, audit, segment the test slices, score them; one row."""

import json
import time
from functools import partial
from pathlib import Path

import torch

from evenslice.errors import BadInputError
from evenslice.evidence.result import Audit
from evenslice.labels.targets import resolve_target
from evenslice.model.checkpoint import load_model
from evenslice.model.predict import device_named
from evenslice.model.spec import Model
from evenslice.options import JsonObject
from evenslice.progress import Progress, silent
from evenslice.study.plan import METHOD, Cell, DatasetTable
from evenslice.verbs.audit import audit
from evenslice.verbs.train import train
from evenslice.verbs.train_data import score_slices
from evenslice.volume.array import Volume
from evenslice.volume.atomic import DISK, written_beside
from evenslice.volume.files import open_volume
from evenslice.volume.inputs import check_same_shape
from evenslice.volume.run_state import stored_rows, stored_table

HEADLINE = "gradient"
Row = JsonObject


def run_cell(
    cell: Cell, data: DatasetTable, folder: Path, device: str, progress: Progress = silent
) -> Row:
    """Run one cell to its row, resuming what a killed process left in its own folder.

    The row holds ``facts_of`` and ``measured``; a failure is a row with its reason.

    Raises
    ------
    OSError, BadInputError
        If the disk is full or fails.
    """
    began = time.monotonic()
    try:
        found = _run(cell, data, folder, device, progress)
        failure = ""
    except Exception as error:  # what a network or a file raises is a row, and the study goes on
        if _is_of_the_disk(error):
            raise  # that is no finding: every other cell would fail too
        found, failure = {}, _reason(error)
    seconds = round(time.monotonic() - began, 1)
    return facts_of(cell, data) | found | {"seconds": seconds, "failure": failure}


def _is_of_the_disk(error: BaseException | None) -> bool:
    """Whether an error, or what it was made from, is that the disk is full or fails."""
    if isinstance(error, OSError) and error.errno in DISK:
        return True
    return error is not None and _is_of_the_disk(error.__cause__)


def drop_models(folder: Path) -> None:
    """Remove the models of a cell whose row is kept."""
    for file in folder.glob("model*.safetensors"):
        file.unlink()


def facts_of(cell: Cell, data: DatasetTable) -> Row:
    """Return what identifies a cell, and what is known of it before it runs."""
    options = cell.options
    return {
        "cell": cell.name,
        "arch": options.arch,
        "encoder": options.encoder,
        "weights": cell.weights,
        "init": options.init,
        "tie": options.tie,
        "dataset": cell.dataset,
        "target": options.target if options.target != "auto" else data.target,
        "seed": options.seed,
        "reverse_z": options.augment_reversal,
        "z_order": options.z_order,
        "slices": options.slices,
        "steps": options.steps,
        "treatment": cell.treatment,
        "network": cell.network,
        **{key: getattr(options, key) for key in cell.varied},
    } | {"weights": cell.weights, "context": cell.context}


def _run(cell: Cell, data: DatasetTable, folder: Path, device: str, progress: Progress) -> Row:
    volume = open_volume(data.raw)
    out, runs_file = folder / "model.safetensors", folder / "validation.json"
    if out.exists() and runs_file.exists():  # trained by a process that was killed later
        model, runs = load_model(out), stored_rows(runs_file, "steps")
    else:
        resume = (folder / "model.safetensors.run" / "state.ckpt").exists() and not out.exists()
        trained = train(
            data.raw,
            data.labels,
            out,
            cell.options.model_copy(update=_target_of(data)),
            device=device,
            resume=resume,
            force=not resume,
            on_validation=partial(_watch, cell, data.raw, folder, device),
            progress=progress,
        )
        model, runs = trained.model, list(trained.validations)
        _write(runs_file, runs)
    after = _audit(cell, model, volume, device, progress=progress)
    _write(folder / "after.json", after.to_dict())
    before = stored_table(folder / "before.json")
    scores = (
        model.scores["validation"]
        if data.test_raw is None
        else _scored(model, data, device, progress)
    )
    kind = {"target": model.training["target"], "dice": scores["dice"], "iou": scores["iou"]}
    for key, name in (("asymmetry", ""), ("low", "_low"), ("high", "_high"), ("text", "_text")):
        kind[f"label_asymmetry{name}"] = model.training["label_asymmetry"][key]
    _write(folder / "curve.json", [*runs[:-1], runs[-1] | measured(after.to_dict())])
    return kind | measured(after.to_dict()) | measured(before, "_before")


def _target_of(data: DatasetTable) -> JsonObject:
    known: JsonObject = {"validation": data.test, "ignore_label": data.ignore_label}
    return known if data.target == "auto" else known | {"target": data.target}


def measured(found: JsonObject, end: str = "") -> Row:
    """Return the part of a row from an audit: shares, index, verdict (gradient first)."""
    methods = found["methods"]
    method = methods.get(HEADLINE) or next(iter(methods.values()))
    row = {f"share_{slot}{end}": share for slot, share in enumerate(method["shares"])}
    row |= {f"{key}{end}": method[key] for key in ("mirror_index", "mirror_low", "mirror_high")}
    row[f"verdict{end}"] = found["verdict"]
    row[f"probability_change{end}"] = found["reversal"]["probability_change"]
    return row | {f"{METHOD}{name}{end}": one["mirror_index"] for name, one in methods.items()}


def _watch(cell: Cell, raw: str, folder: Path, device: str, model: Model, steps: int) -> Row:
    """Audit before the first step, and at each validation run if asked, on the final windows."""
    if steps == 0:
        found = _audit(cell, model, open_volume(raw), device).to_dict()
        _write(folder / "before.json", found)
        return measured(found)
    windows = cell.audit.watch_windows
    if windows == 0 or steps >= cell.options.steps:
        return {}
    return measured(_audit(cell, model, open_volume(raw), device, windows).to_dict())


def _audit(
    cell: Cell,
    model: Model,
    volume: Volume,
    device: str,
    windows: int | None = None,
    progress: Progress = silent,
) -> Audit:
    table = cell.audit
    return audit(
        model,
        volume,
        methods=table.methods,
        windows=windows or table.windows,
        tile=table.tile,
        margin=table.margin,
        seed=cell.options.seed,
        device=device,
        progress=progress,
    )


def _scored(model: Model, data: DatasetTable, device: str, progress: Progress) -> JsonObject:
    """Segment and score a test volume of its own."""
    assert data.test_raw is not None
    assert data.test_labels is not None
    volume, labels = open_volume(data.test_raw), open_volume(data.test_labels)
    check_same_shape(volume, labels)
    target = resolve_target(labels, model.training["target"], data.ignore_label)
    where = device_named(device)
    model.module.to(where)
    parts = [(volume, labels, target, range(volume.shape[0]))]
    return score_slices(model, parts, where, progress).to_dict()


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, torch.cuda.OutOfMemoryError):
        text = "out of GPU memory; use a smaller batch or crop"
    return (text if isinstance(error, BadInputError) else f"{type(error).__name__}: {text}")[:500]


def _write(path: Path, values: object) -> None:
    with written_beside(path) as part:
        part.write_text(json.dumps(values) + "\n")
