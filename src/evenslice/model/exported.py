"""Exported models: ``.pt2`` files of torch.export, which can run code when they are opened."""

import io
import logging
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from evenslice.errors import BadInputError
from evenslice.model.metadata import dump_metadata, parse_metadata
from evenslice.options import JsonObject
from evenslice.volume.atomic import written_beside

METADATA = "evenslice.json"  # the extra file that holds what evenslice says of the model


def read_exported(path: Path, trust: bool) -> tuple[nn.Module, JsonObject]:
    """Read a ``.pt2`` file.

    Returns
    -------
    tuple
        The network, a graph of operations whose weights can be changed in place; and evenslice's
        metadata in the file, empty if there is none.

    Raises
    ------
    BadInputError
        Without ``trust``, before the file is opened; or if torch cannot load it.
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


def is_exported(module: nn.Module) -> bool:
    """Whether a network is a graph of fixed operations, as torch.export makes it."""
    return isinstance(module, fx.GraphModule) and any(
        isinstance(node.target, torch._ops.OpOverload) for node in module.graph.nodes
    )


def is_fixed(module: nn.Module) -> bool:
    """Whether a network keeps its number of slices: exported, or run outside of torch."""
    return is_exported(module) or callable(getattr(module, "image_shape", None))


def image_shape(module: nn.Module) -> tuple[int | None, ...]:
    """Return the shape (B, S, y, x) that a network states, None for what may be any number."""
    own = getattr(module, "image_shape", None)
    if callable(own):
        stated: tuple[int | None, ...] = own()
        return stated
    for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
        value = node.meta.get("val")
        image = isinstance(value, Tensor) and value.ndim == 4 and value.is_floating_point()
        if node.op == "placeholder" and image:
            return tuple(size if isinstance(size, int) else None for size in value.shape)
    return (None,) * 4


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
