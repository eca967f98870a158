"""HDF5: one dataset of a file, FILE.h5:/dataset."""

import contextlib
import json
import weakref
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume, first_line, sizes
from evenslice.volume.cache import ChunkedPixels, box_reader
from evenslice.volume.voxel_size import stated_size

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
    return [
        item
        for item in _datasets(place)
        if item.dtype.kind in "buif" and _kept_axes(item.shape) is not None
    ]


def _kept_axes(shape: tuple[int, ...] | None) -> list[int] | None:
    """Return which three axes are left without those of size 1, None if it is no volume."""
    if shape is None or not 3 <= len(shape) <= 5 or 0 in shape:
        return None
    if len(shape) == 3:
        return [0, 1, 2]
    kept = [axis for axis, size in enumerate(shape) if size > 1]
    return kept if len(kept) == 3 else None


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
    axes = _kept_axes(item.shape)
    if axes is None:
        raise BadInputError(
            f"{source} has the shape {item.shape}, expected a volume with axes z, y, x; save one "
            "channel and time, or choose another dataset"
        )
    _check_stored(item, source)
    _check_order(item, axes, source)
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
    pixels = ChunkedPixels(shape, item.dtype, cells, box_reader(item, axes, source))
    return Volume(pixels, stated_size(item.attrs), source, facts=facts)


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


def _check_order(item: Any, axes: list[int], source: str) -> None:
    """Raise if the file names its axes (ilastik's ``axistags``, or labels) in another order."""
    if "axistags" in item.attrs:
        names = [axis["key"] for axis in json.loads(item.attrs["axistags"])["axes"]]
    else:  # h5py's item.dims crashes on labels of another type
        labels = np.ravel(item.attrs.get("DIMENSION_LABELS", []))
        names = [n.decode() if isinstance(n, bytes) else str(n) for n in labels]
    if len(names) != len(item.shape):
        return
    order = "".join(names[axis].lower() for axis in axes)
    if sorted(order) == ["x", "y", "z"] and order != "zyx":
        raise BadInputError(
            f"{source} has axes in the order {', '.join(order)}, expected z, y, x; transpose it "
            "and save it again"
        )
