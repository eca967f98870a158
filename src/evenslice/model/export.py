"""Networks for other programs, traced by torch.export, and ``.pt2`` files of them."""

import io
import logging
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from evenslice.errors import BadInputError
from evenslice.model.checkpoint import dump_metadata, parse_metadata
from evenslice.model.logits import LogitsAdapter, duplicate
from evenslice.model.spec import Model
from evenslice.model.stem.probe import image_shape
from evenslice.options import JsonObject
from evenslice.volume.atomic import written_beside

METADATA = "evenslice.json"  # the extra file that holds what evenslice says of the model
AXES = ("batch", "channel", "y", "x")
OPSET = 18  # what torch writes by itself
SMALLEST = 64
IMAGE, ANSWER = "slices", "logits"


@dataclass(frozen=True)
class Trace:
    """A network as torch.export traced it."""

    program: ExportedProgram  # normalised slices (B, S, y, x) to logits (B, classes, y, x), float32
    dynamic: tuple[str, ...]  # axes whose length may differ: of batch, y, x, or none
    shapes: tuple[tuple[int, int, int, int], ...]  # to run on: the tile, the smallest window
    step: int  # height and width are multiples of it where they may differ


def traces(model: Model, tile: int) -> Iterator[Trace]:
    """Yield traces of a network, from the one with the most free axes to the one with none.

    What it answers with, the mean over the reversal included, is what is traced. ``tile`` is height
    and width where they are fixed, rounded up to what it takes. ``BadInputError`` if it cannot be
    traced even with all sizes fixed.
    """
    module = duplicate(model.module).float().cpu().eval()
    stated = image_shape(model.network)
    # an adapter of one batch size fills up and cuts off by itself
    one_batch = isinstance(module, LogitsAdapter) and module.batch is not None
    step = model.stride
    full = -(-tile // step) * step
    size = model.size or (full, full)
    least = max(2 * step, -(-SMALLEST // step) * step)
    free: list[tuple[str, ...]] = [()]
    if not one_batch and stated[0] is None:
        free.insert(0, ("batch",))
        if model.size is None and stated[2] is None and stated[3] is None:
            free.insert(0, ("batch", "y", "x"))
    reason = ""
    for dynamic in free:
        shapes = [(2 if dynamic else 1, model.slices, *size)]
        if "y" in dynamic:
            shapes.append((1, model.slices, least, least + step))
        elif dynamic:
            shapes.append((1, model.slices, *size))
        try:
            program = _traced(module, dynamic, shapes[0], step)
        except Exception as error:  # networks refuse to be traced in ways of their own
            reason = first_line(error)
            continue
        yield Trace(program, dynamic, tuple(shapes), step)
    if reason:
        raise BadInputError(
            f"torch.export cannot trace the network ({reason}), expected one without branches on "
            "the pixels; give a plain network"
        )


def _traced(
    module: nn.Module, dynamic: tuple[str, ...], shape: tuple[int, ...], step: int
) -> ExportedProgram:
    sides: dict[int, Any] = {0: Dim("batch", min=1)} if dynamic else {}
    if "y" in dynamic:
        # not square, or the trace would take height and width for one number
        shape = (*shape[:2], 4 * step, 5 * step) if step > 8 else (*shape[:2], 64, 80)
        for axis, name in ((2, "height"), (3, "width")):
            sides[axis] = Dim(name, min=1) if step == 1 else step * Dim(name, min=1)
    with torch.no_grad(), quiet_torch():
        program = torch.export.export(
            module, (torch.zeros(shape),), dynamic_shapes=(sides,) if sides else None
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names files of this machine
    return program


def first_line(error: Exception) -> str:
    """Return the first line of an error of torch."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def example(shape: tuple[int, ...], seed: int) -> Tensor:
    """Draw normalised slices of a shape: noise of mean 0 and std 1."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def read_exported(path: Path, trust: bool) -> tuple[nn.Module, JsonObject]:
    """Read a ``.pt2`` file: a graph of operations, and evenslice's metadata, if there is any.

    ``BadInputError`` without ``trust``, before the file is opened; or if torch cannot load it.
    """
    if not trust:
        raise BadInputError(
            f"{path} is a program of torch.export, which can run code when it is opened, expected "
            "--trust with it (in Python trust=True); add that if you trust where the file is from"
        )
    program, extra = _load(path)
    return program.module(), parse_metadata(extra.get(METADATA, "{}"), path.name)


def write_exported(
    path: Path, module: nn.Module, source: Path, metadata: JsonObject, force: bool = True
) -> None:
    """Write a ``.pt2`` file like the trusted file ``source``, with the weights a network has now.

    The graph, the shapes and other extra files stay as they are.
    """
    program, extra = _load(source)
    state = module.state_dict()
    with torch.no_grad():
        for name, value in program.state_dict.items():
            value.copy_(state[name])
    data = archive_of(program, metadata, extra)
    with written_beside(path, force) as part:
        part.write_bytes(data)


def archive_of(
    program: ExportedProgram,
    metadata: JsonObject | None = None,
    extra: Mapping[str, str] | None = None,
) -> bytes:
    """Return a ``.pt2`` archive of a program, with evenslice's metadata and other extra files."""
    files = dict(extra or {})
    if metadata is not None:
        files[METADATA] = dump_metadata(metadata)
    buffer = io.BytesIO()
    with quiet_torch():
        torch.export.save(program, buffer, extra_files=files)
    return buffer.getvalue()


def _load(path: Path) -> tuple[ExportedProgram, dict[str, str]]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if "/extra/" in name]
            extra = {name.partition("/extra/")[2]: archive.read(name).decode() for name in names}
        with quiet_torch():
            return torch.export.load(path), extra
    except Exception as error:  # what torch does not know fails in any way
        reason = (str(error).splitlines() or [""])[-1][:200]
        raise BadInputError(
            f"torch {torch.__version__} cannot load {path.name} ({type(error).__name__}: {reason}),"
            " expected a file of torch.export.save of this version or an older one; export it "
            "again, or give package.module:callable"
        ) from error


@contextmanager
def quiet_torch() -> Iterator[None]:
    """Silence what exporters print, warn of and log; their errors say enough."""
    nowhere, before = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
