"""HDF5: one dataset of a file, FILE.h5:/dataset."""

import contextlib
import json
import re
import weakref
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from evenslice.errors import BadInputError
from evenslice.options import JsonObject
from evenslice.volume.array import Volume, Voxels, VoxelSize, first_line, sizes
from evenslice.volume.attributes import (
    agreed_axes,
    kept_axes,
    named_axes,
    stated_origin,
    stated_size,
    text_of,
    warn_of_scaling,
)
from evenslice.volume.cache import ChunkedPixels, box_reader
from evenslice.volume.voxel_size import checked, nm_of

FILTERS = {
    4: "szip",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32015: "zstd",
    32026: "blosc2",
}
MOST_NAMED = 8
BIG_DATA_VIEWER = re.compile(r"/t\d+/(s\d+)/\d+/cells")


def open_hdf5(path: Path, dataset: str | None = None) -> Volume:
    """Open a dataset of an HDF5 file lazily as a volume (z, y, x).

    Parameters
    ----------
    path
        The file.
    dataset
        Name of the dataset; None: the only one that can be a volume. Axes of size 1 beyond three
        are dropped.

    Raises
    ------
    BadInputError
        If the file is not whole HDF5, there is no such dataset or more than one, or it cannot be
        read as a volume.
    """
    with contextlib.suppress(ImportError):
        import hdf5plugin  # type: ignore[import-not-found]  # noqa: F401  # more compressions
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(h5py.File(path, "r", locking="best-effort"))
            found = _named(file, path, dataset) if dataset else _only_dataset(file, path)
            volume = _volume_of(found, path)
        except BadInputError:
            raise
        except Exception as error:  # damaged metadata raises types of its own
            raise BadInputError(
                f"{path} cannot be read as HDF5 ({first_line(error)}), expected a whole HDF5 file; "
                "copy or download it again"
            ) from error
        weakref.finalize(volume.pixels, file.close)
        stack.pop_all()
    return volume


def _datasets(place: h5py.Group) -> list[Any]:
    """Return every dataset below a group once; links are not followed."""
    found: list[Any] = []

    def note(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(item)

    place.visititems(note)
    return found


def _candidates(place: h5py.Group) -> list[Any]:
    """Return the datasets that can be volumes."""
    found = []
    for item in _datasets(place):
        if item.dtype.kind in "buif" and item.shape and 0 not in item.shape:
            with contextlib.suppress(BadInputError):
                _axes(item, item.name)
                found.append(item)
    return found


def _listed(datasets: list[Any]) -> str:
    names = [
        f"{item.name} ({sizes(item.shape or ())} {item.dtype})" for item in datasets[:MOST_NAMED]
    ]
    more = f" and {len(datasets) - MOST_NAMED} more" if len(datasets) > MOST_NAMED else ""
    return ", ".join(names) + more


def _only_dataset(file: h5py.File, path: Path) -> Any:
    found = _candidates(file)
    if not found:
        others = _datasets(file)
        if len(others) == 1 and len(others[0].shape or ()) > 2:
            return others[0]  # is refused with the reason
        raise BadInputError(
            f"{path} holds no dataset of three axes of "
            f"numbers{' but ' + _listed(others) if others else ''}, expected a volume with axes z, "
            "y, x; check the file"
        )
    if len(found) > 1:
        raise BadInputError(
            f"{path} holds {len(found)} volumes: {_listed(found)}, expected one; choose it as "
            f"{path}:{found[0].name}"
        )
    return found[0]


def _named(file: h5py.File, path: Path, name: str) -> Any:
    item = file.get(name)
    if isinstance(item, h5py.Dataset):
        return item
    inside = _candidates(item if isinstance(item, h5py.Group) else file)
    if isinstance(item, h5py.Group) and len(inside) == 1:
        return inside[0]
    what = f"{name} is a group" if isinstance(item, h5py.Group) else f"there is no dataset {name}"
    raise BadInputError(
        f"{path}: {what}, expected one of: {_listed(inside) or 'none is a volume'}; choose one"
    )


def _volume_of(item: Any, path: Path) -> Volume:
    source = f"{path}:{item.name}"
    axes = _axes(item, source)
    _check_stored(item, source)
    warn_of_scaling(item.attrs, source)
    plist, chunk = item.id.get_create_plist(), item.chunks
    names = [plist.get_filter(n)[3].decode() for n in range(plist.get_nfilters())]
    facts = {
        "format": "HDF5",
        "dataset": item.name,
        "chunks": "none (contiguous)" if chunk is None else sizes(chunk),
        "compression": ", ".join(names) or "none",
    }
    shape = tuple(item.shape[axis] for axis in axes)
    cells = None if chunk is None else (chunk[axes[0]], chunk[axes[1]], chunk[axes[2]])
    stored, dtype = box_reader(item, axes, source), _stored_type(item, source)

    def read(*box: slice) -> Voxels:
        return stored(*box).view(dtype)

    voxel = stated_size(item.attrs, axes, source, {"axistags": _tagged_size(item, axes)})
    origin = stated_origin(item.attrs, axes, voxel)
    return Volume(
        ChunkedPixels(shape, dtype, cells, read), voxel, source, facts=facts, origin=origin
    )


def _stored_type(item: Any, source: str) -> np.dtype[Any]:
    """Return the type of the voxels: BigDataViewer stores uint16 as int16 unless it says so."""
    dtype: np.dtype[Any] = item.dtype
    cells = BIG_DATA_VIEWER.fullmatch(item.name)
    if cells is None or dtype.kind not in "iu":
        return dtype
    short = "uint16" if dtype.kind == "i" and dtype.itemsize == 2 else dtype.name
    setup = item.file[cells[1]].attrs if cells[1] in item.file else {}
    stated = text_of(setup.get("dataType", short))
    if np.dtype(stated).itemsize != dtype.itemsize:
        raise BadInputError(
            f"{source} has voxels of type {dtype} but the attribute dataType of {cells[1]} states "
            f"{stated}, expected the same; correct the attribute"
        )
    return np.dtype(stated).newbyteorder(dtype.byteorder)


def _check_stored(item: Any, source: str) -> None:
    """Raise unless the voxels lie in this file, in a form that can be decoded here."""
    if item.is_virtual or item.external:  # where the other files are missing, all would be 0
        raise BadInputError(
            f"{source} is put together from other files, expected the voxels in the file itself; "
            "copy them into one dataset"
        )
    plist = item.id.get_create_plist()
    for number in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            raise BadInputError(
                f"{source} is compressed with {FILTERS.get(code, name.decode() or 'unknown')} "
                f"(HDF5 filter {code}), which is not installed, expected gzip, lzf or none; "
                "install the package hdf5plugin, or save the dataset with gzip"
            )


def _axes(item: Any, source: str) -> tuple[int, int, int]:
    """Return which axes are z, y and x, as ilastik, HDF5 itself or others name them."""
    tags = _tags(item, source)
    stated = {
        "axistags": None if tags is None else [str(axis.get("key", "")) for axis in tags],
        "DIMENSION_LABELS": [text_of(n) for n in np.ravel(item.attrs.get("DIMENSION_LABELS", []))],
        "dimension scales": _scales(item),
        **named_axes(item.attrs),
    }
    shape = item.shape or ()
    return kept_axes(agreed_axes(stated, shape, source), shape, source)


def _tags(item: Any, source: str) -> list[JsonObject] | None:
    """Return ilastik's description of the axes, None where there is none."""
    if "axistags" not in item.attrs:
        return None
    try:
        return list(json.loads(item.attrs["axistags"])["axes"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInputError(
            f"{source} has axistags that cannot be read ({first_line(error)}), expected those of "
            "ilastik; delete the attribute, or export the dataset again"
        ) from error


def _scales(item: Any) -> list[str] | None:
    """Return the names of the dimension scales of netCDF; None where an axis has none."""
    references = item.attrs.get("DIMENSION_LIST")
    if references is None:
        return None
    return [item.file[axis[0]].name.rsplit("/", 1)[-1] if len(axis) else "" for axis in references]


def _tagged_size(item: Any, axes: tuple[int, int, int]) -> VoxelSize | None:
    """Return the voxel size that axistags state; a resolution without unit states none."""
    tags = _tags(item, item.name)
    if tags is None:
        return None
    sides = [tags[axis] for axis in axes]
    return checked(tag.get("resolution", 0) * nm_of(tag.get("unit")) for tag in sides)
