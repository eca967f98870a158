"""The dry run of a study: does every cell resolve, sizes, missing data, and measured time."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from evenslice.data.registry import dataset
from evenslice.errors import BadInputError
from evenslice.learn.losses import segmentation_loss
from evenslice.model.build import build_model
from evenslice.model.encoders import with_tag
from evenslice.model.predict import device_named, logits_of
from evenslice.options import NAMED_WEIGHTS, JsonObject, TrainOptions
from evenslice.progress import Progress, silent
from evenslice.study.data import SHAPE as PHANTOM_SHAPE
from evenslice.study.data import advice, data_of, is_made, missing_files
from evenslice.study.plan import Cell, DatasetTable, Plan, read_study
from evenslice.volume.files import open_volume

SIDE, BATCH, ROUNDS = 128, 2, 2
FORWARD = 1 / 3  # of a training step


@dataclass(frozen=True)
class NetworkEstimate:
    """A network of a study: its size, and how long a training step takes on this machine.

    ``weights`` says where they come from; ``problem`` is empty: one that cannot be built is an
    error.
    """

    network: str
    cells: int
    parameters: int
    step_seconds: float
    weights: str
    problem: str = ""


@dataclass(frozen=True)
class DataEstimate:
    """A dataset of a study: shapes (z, y, x), missing files, and how to get them."""

    name: str
    cells: int
    shapes: tuple[tuple[int, int, int], ...]
    missing: tuple[str, ...]
    advice: str


@dataclass(frozen=True)
class Estimate:
    """What a study will take: ``seconds`` of one process on ``device``, for all cells."""

    name: str
    cells: int
    device: str
    seconds: float
    networks: tuple[NetworkEstimate, ...]
    data: tuple[DataEstimate, ...]

    def to_dict(self) -> JsonObject:
        """Return it as JSON can hold it."""
        return asdict(self)


def estimate_study(
    file: str | Path, out: str | Path, device: str = "auto", progress: Progress = silent
) -> Estimate:
    """Resolve every cell of a study, and estimate what it takes.

    Each network is built without weights and takes two training steps of 2 x 128 x 128, scaled to
    the pixels of its batches. To the training come two audits and the scored slices.

    Raises
    ------
    BadInputError
        If the file cannot be used, or a cell cannot be resolved; missing data are no error here.
    """
    plan = read_study(file)
    where = device_named(device)
    data = {name: data_of(plan, name, Path(out)) for name in plan.datasets}
    groups: dict[str, list[Cell]] = {}
    for cell in plan.cells:
        groups.setdefault(cell.network, []).append(cell)
    networks = []
    with progress(f"study {plan.table.name}", len(groups)) as step:
        for name, cells in groups.items():
            networks.append(_network(f"{name} of {file}", cells, where))
            step(name)
    known = tuple(_data(plan, name, found) for name, found in data.items())
    pixels = {one.name: _scored_pixels(data[one.name], one) for one in known}
    per_step = {one.network: one.step_seconds for one in networks}
    seconds = sum(_seconds(one, per_step[one.network], pixels[one.dataset]) for one in plan.cells)
    return Estimate(plan.table.name, len(plan.cells), where.type, seconds, tuple(networks), known)


def _network(where: str, cells: Sequence[Cell], device: torch.device) -> NetworkEstimate:
    """Build a network for all slices and inits that the cells ask for, and time it once."""
    options = cells[0].options
    weights = sorted({cell.options.weights for cell in cells})
    try:
        for one in weights:
            _check_weights(options.encoder, one)
        kinds = {(one.options.slices, one.options.init, one.options.tie): one for one in cells}
        for kind in kinds.values():
            built = kind.options.model_dump(
                include={"arch", "encoder", "slices", "init", "tie", "encoder_depth"}
            )
            model = build_model(**built, weights="none")
        seconds = _timed(model.module.to(device), model.stride, options, device)
    except Exception as error:  # networks raise kinds of their own
        prefix = "" if isinstance(error, BadInputError) else f"{type(error).__name__}: "
        raise BadInputError(f"the network {where} does not resolve: {prefix}{error}") from error
    parameters = sum(p.numel() for p in model.module.parameters())
    named = ", ".join(Path(w).name for w in weights)
    return NetworkEstimate(cells[0].network, len(cells), parameters, seconds, named)


def _check_weights(encoder: str, weights: str) -> None:
    named = weights in NAMED_WEIGHTS or weights.startswith("hf-hub:")
    if weights == "imagenet" and ":" not in encoder:
        with_tag(encoder)
    elif not named and not Path(weights).is_file():
        raise BadInputError(
            f"the weights {weights} do not exist, expected a file, imagenet or none; check the path"
        )


def _timed(
    network: torch.nn.Module, stride: int, options: TrainOptions, where: torch.device
) -> float:
    """Return the seconds of a training step, scaled from a small one."""
    x = torch.zeros(BATCH, options.slices, SIDE, SIDE, device=where)
    truth = torch.zeros(BATCH, SIDE, SIDE, dtype=torch.int64, device=where)
    best = float("inf")
    half = torch.autocast(where.type, torch.bfloat16, enabled=options.precision in ("bf16", "fp16"))
    for _ in range(ROUNDS):
        began = time.perf_counter()
        with half:
            loss = segmentation_loss(logits_of(network, x, stride).float(), truth)
        loss.backward()  # type: ignore[no-untyped-call]
        if where.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return best * options.batch * options.crop**2 / (BATCH * SIDE**2)


def _data(plan: Plan, name: str, found: DatasetTable) -> DataEstimate:
    missing = () if is_made(plan, name) else tuple(missing_files(found))
    if is_made(plan, name):
        shapes: tuple[tuple[int, int, int], ...] = (PHANTOM_SHAPE,)
    elif missing:
        shapes = () if name in plan.table.datasets else (dataset(name).shape,)
    else:
        shapes = tuple(open_volume(path).shape for path in (found.raw, found.test_raw) if path)
    cells = sum(cell.dataset == name for cell in plan.cells)
    return DataEstimate(name, cells, shapes, missing, advice(plan, name) if missing else "")


def _scored_pixels(found: DatasetTable, known: DataEstimate) -> int:
    """Return the pixels that are scored in a cell."""
    if not known.shapes:
        return 0
    depth, height, width = known.shapes[-1]
    part = 1.0 if found.test_raw is not None else 0.2
    if found.test is not None:
        start, _, stop = found.test.partition(":")
        part = (int(stop or depth) - int(start or 0)) / depth
    return round(part * depth) * height * width


def _seconds(cell: Cell, step: float, pixels: int) -> float:
    options, table = cell.options, cell.audit
    per_pixel = step / (options.batch * options.crop**2)
    audits = 2 * table.windows + options.validation_runs * table.watch_windows
    return options.steps * step + per_pixel * (
        2 * audits * table.tile**2 + FORWARD * (options.validation_runs + 1) * pixels
    )
