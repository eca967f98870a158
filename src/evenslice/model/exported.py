"""Exported models: ``.pt2`` files of torch.export, read without trusting them, and written with new weights."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from evenslice.errors import BadInputError
from evenslice.model.archive import (
    ADVICE,
    MODEL,
    SETS,
    Records,
    checked_archive,
    view_of,
    without_traces,
)
from evenslice.model.metadata import as_note, corrupt_metadata, parsed_note
from evenslice.volume.atomic import written_beside

NOTE = "extra/evenslice.json"
OWN = (".data/", ".format_version")


def read_exported(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Read a ``.pt2`` file.

    Parameters
    ----------
    path
        A file of ``torch.export.save``. Nothing in it is run or unpickled before it was checked.

    Returns
    -------
    tuple
        The network, a graph of operations whose weights can be changed in place; and what evenslice noted in the file,
        empty if nothing.

    Raises
    ------
    BadInputError
        If the file is no such archive, holds anything that would run code, or torch cannot load it.
    """
    records = checked_archive(path)
    plain = {name: data for name, data in records.items() if not name.startswith("extra/")}
    try:
        plain[MODEL] = without_traces(records[MODEL])
        with quietly():
            module = torch.export.load(io.BytesIO(_zipped(plain))).module()
    except Exception as error:  # what a version of torch does not know, it tells in ways of its own
        reason = (str(error).splitlines() or [""])[-1][:200]
        raise BadInputError(
            f"torch {torch.__version__} cannot load {path.name} ({type(error).__name__}: {reason}), expected an exported model "
            f"of a torch as old or older; {ADVICE}"
        ) from error
    return module, _noted(records, path)


def write_exported(
    path: Path, module: nn.Module, source: Path, about: dict[str, Any], force: bool = True
) -> None:
    """Write a ``.pt2`` file like another one, with the weights a network has now.

    Parameters
    ----------
    path
        The file to write; it appears complete or not at all.
    module
        The network that was read from ``source``.
    source
        The file whose graph, shapes and other files are kept as they are.
    about
        What to note in the extra file ``evenslice.json``.
    force
        Whether a file of that name is replaced.

    Raises
    ------
    BadInputError
        If ``source`` cannot be read, or its weights are not those of the network.
    """
    records = checked_archive(source)
    state = module.state_dict()
    for folder, _ in SETS:
        _fill(records, folder, state, source)
    records[NOTE] = as_note(about).encode()
    data = _zipped(records)
    with written_beside(path, force) as part:
        part.write_bytes(data)


def is_exported(module: nn.Module) -> bool:
    """Whether a network is a graph of fixed operations, as torch.export makes it."""
    return isinstance(module, fx.GraphModule) and any(
        isinstance(node.target, torch._ops.OpOverload) for node in module.graph.nodes
    )


def is_fixed(module: nn.Module) -> bool:
    """Whether the operations of a network and its number of slices stay as they are: exported, or run outside of torch."""
    return is_exported(module) or callable(getattr(module, "image_shape", None))


def image_shape(module: nn.Module) -> tuple[int | None, ...]:
    """Return the shape of the image that a network takes, (B, S, y, x), None for what may differ.

    Exported graphs state it, and networks that run outside of torch, by a method of this name; others take anything.
    """
    own = getattr(module, "image_shape", None)
    if callable(own):
        stated: tuple[int | None, ...] = own()
        return stated
    for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
        value = node.meta.get("val")
        if (
            node.op == "placeholder"
            and isinstance(value, Tensor)
            and value.ndim == 4
            and value.is_floating_point()
        ):
            return tuple(size if isinstance(size, int) else None for size in value.shape)
    return (None,) * 4


def _fill(records: Records, folder: str, state: dict[str, Tensor], source: Path) -> None:
    """Put the present values of weights into the records that hold them."""
    entries = json.loads(records[f"{folder}model_{folder.split('/')[1]}_config.json"])["config"]
    for name, entry in entries.items():
        view, record = view_of(entry["tensor_meta"]), folder + entry["path_name"]
        if view is None or not view.count or name not in state:
            continue
        if list(state[name].shape) != view.size:
            raise BadInputError(
                f"{source.name} holds {name!r} of shape {tuple(view.size)} and the network {tuple(state[name].shape)}, expected "
                "the same; an exported model keeps its number of slices, so change it before the export"
            )
        held = bytearray(records[record])
        values = torch.frombuffer(held, dtype=view.dtype).as_strided(
            view.size, view.stride, view.offset
        )
        now = state[name].detach().to("cpu", view.dtype)
        if not torch.equal(values, now):
            values.copy_(now)
            records[record] = bytes(held)


def _zipped(records: Records) -> bytes:
    """Make an archive as torch writes it: aligned, not compressed."""
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    writer.set_min_version(6)
    for name, data in records.items():
        if not name.startswith(OWN):
            writer.write_record(name, data, len(data))
    writer.write_end_of_file()
    return buffer.getvalue()


def _noted(records: Records, path: Path) -> dict[str, Any]:
    try:
        about = parsed_note(records.get(NOTE, b"{}"))
    except ValueError as error:
        raise corrupt_metadata(f"the evenslice.json in {path.name}", error) from error
    return about if isinstance(about, dict) else {}


@contextmanager
def quietly() -> Iterator[None]:
    """Keep what torch warns of and logs while it loads to itself; errors tell enough."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch.export", "torch._export", "torch.export.pt2_archive._package")
    ]
    before = [logger.disabled for logger in loggers]
    try:
        for logger in loggers:
            logger.disabled = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
