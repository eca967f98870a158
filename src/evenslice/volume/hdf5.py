"""HDF5: one dataset of a file, FILE.h5:/dataset."""

import contextlib
import json
import weakref
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume, check_chunk, sizes
from evenslice.volume.cache import ChunkedPixels
from evenslice.volume.voxel_size import stated_size

_FILTERS = {
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32015: "zstd",
    32026: "blosc2",
    32000: "lzf",
    4: "szip",
}
MOST_NAMED, MOST_LINKS, MOST_OBJECTS = 8, 16, 100_000


def open_hdf5(path: Path, dataset: str | None = None) -> Volume:
    """Open a dataset of an HDF5 file lazily as a volume (z, y, x).

    Parameters
    ----------
    path
        The file.
    dataset
        Name of the dataset; None: the only one that can be a volume. Axes of size 1 beyond three are dropped.

    Raises
    ------
    BadInputError
        If the file is not whole HDF5, there is no such dataset or more than one, or it cannot be read as a volume.
    """
    with contextlib.suppress(ImportError):
        import hdf5plugin  # type: ignore[import-not-found]  # noqa: F401  # registers more compressions, where installed
    try:
        file = h5py.File(path, "r", locking="best-effort")
    except Exception as error:
        raise BadInputError(
            f"{path} cannot be read as HDF5 ({_first_line(error)}), expected a whole HDF5 file; copy or download it again"
        ) from error
    with contextlib.ExitStack() as stack:
        stack.callback(file.close)
        try:
            found = (
                _only_dataset(file, path)
                if not (dataset or "").strip("/")
                else _named(file, path, str(dataset))
            )
            volume = _volume_of(found, path)
        except BadInputError:
            raise
        except Exception as error:  # damaged metadata raises types of its own
            raise BadInputError(
                f"{path} is damaged ({_first_line(error)}), expected a whole HDF5 file; copy or download it again"
            ) from error
        weakref.finalize(volume.pixels, file.close)
        stack.pop_all()
    return volume


def _candidates(place: h5py.Group) -> list[Any]:
    """Return the datasets that can be volumes; links out of the file are not followed, and each is seen once."""
    return [
        item
        for item in _datasets(place)
        if item.dtype.kind in "buif" and _kept_axes(item.shape) is not None
    ]


def _datasets(place: h5py.Group) -> Iterator[Any]:
    """Yield every dataset below a group once, by its first name.

    ``visititems`` would ask for the sizes of what lies within, and never returns where a damaged file leads in a circle.

    Raises
    ------
    BadInputError
        If there are more than ``MOST_OBJECTS`` names.
    """
    seen, looked_at = set(), 0
    waiting: list[tuple[Any, str]] = [(place, name) for name in reversed(_names(place))]
    while waiting:
        group, name = waiting.pop()
        looked_at += 1
        if looked_at > MOST_OBJECTS:
            raise BadInputError(
                f"{place.file.filename} holds more than {MOST_OBJECTS} names, expected fewer to find the volume among; give the name of the "
                f"dataset: {place.file.filename}:/NAME"
            )
        if (
            group.id.links.get_info(name.encode("utf-8", "surrogateescape")).type
            != h5py.h5l.TYPE_HARD
        ):
            continue
        key = tuple(h5py.h5g.get_objinfo(group.id, name.encode("utf-8", "surrogateescape")).objno)
        if key in seen:
            continue
        seen.add(key)
        item = group[name]
        if isinstance(item, h5py.Dataset):
            yield item
        elif isinstance(item, h5py.Group):
            waiting += [(item, inner) for inner in reversed(_names(item))]


def _names(group: Any) -> list[str]:
    """Return the names in a group, in their order; no more than one above ``MOST_OBJECTS``."""
    found: list[str] = []

    def note(name: bytes) -> bool | None:
        found.append(name.decode("utf-8", "surrogateescape"))
        return True if len(found) > MOST_OBJECTS else None

    group.id.links.iterate(note)
    return found


def _kept_axes(shape: tuple[int, ...] | None) -> list[int] | None:
    """Return which three axes are left of a dataset when those of size 1 are dropped, None if it is no volume."""
    if shape is None or not 3 <= len(shape) <= 5 or 0 in shape:
        return None
    if len(shape) == 3:
        return [0, 1, 2]
    kept = [axis for axis, size in enumerate(shape) if size > 1]
    return kept if len(kept) == 3 else None


def _listed(datasets: list[Any]) -> str:
    names = [f"{item.name} ({sizes(item.shape)} {item.dtype})" for item in datasets[:MOST_NAMED]]
    return ", ".join(names) + (
        f" and {len(datasets) - MOST_NAMED} more" if len(datasets) > MOST_NAMED else ""
    )


def _others(file: h5py.File) -> str:
    """Name what a file holds that is no volume."""
    found = [
        f"{item.name} ({sizes(item.shape or ())} {item.dtype})"
        for item in islice(_datasets(file), MOST_NAMED)
    ]
    return f" but {', '.join(found)}" if found else ""


def _choice(place: h5py.Group) -> str:
    """Say what was expected and what to do, where something else was asked for."""
    try:
        datasets = _candidates(place)
    except BadInputError:
        return "expected a name that is there; list its names with h5ls"
    if not datasets:
        return "expected a dataset of three axes of numbers, of which none is there; check the file"
    return f"expected one of: {_listed(datasets)}; choose one of these"


def _outside(file: h5py.File, name: str, left: int = MOST_LINKS) -> str | None:
    """Return FILE:/NAME where the way to a name leads out of the file, None where it does not; nothing outside is opened."""
    place, parts = "/", [part for part in name.split("/") if part]
    for number, part in enumerate(parts):
        group = file[place]
        link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink):
            return f"{link.filename}:{link.path}"
        if isinstance(link, h5py.SoftLink):
            whole = "/".join(
                [
                    link.path if link.path.startswith("/") else f"{place}/{link.path}",
                    *parts[number + 1 :],
                ]
            )
            return _outside(file, whole, left - 1) if left else None
        if link is None:
            return None
        place = f"{place}/{part}".replace("//", "/")
    return None


def _only_dataset(file: h5py.File, path: Path) -> Any:
    found = _candidates(file)
    if not found:
        raise BadInputError(
            f"{path} holds no dataset of three axes of numbers{_others(file)}, expected a volume with axes z, y, x; check the file"
        )
    if len(found) > 1:
        raise BadInputError(
            f"{path} holds {len(found)} volumes: {_listed(found)}, expected one; choose it as {path}:{found[0].name}"
        )
    return found[0]


def _named(file: h5py.File, path: Path, name: str) -> Any:
    outside = _outside(file, name)
    if outside is not None:
        raise BadInputError(
            f"{path}:{name} is a link into another file ({outside}), expected a dataset in this one; give that file instead"
        )
    try:
        item = file[name]
    except (KeyError, OSError, RuntimeError, ValueError) as error:
        raise BadInputError(f"{path} holds no dataset {name}, {_choice(file)}") from error
    if isinstance(item, h5py.Group):
        inside = _candidates(item)
        if len(inside) == 1:
            return inside[0]
        raise BadInputError(f"{path}:{name} is a group, {_choice(item)}")
    if not isinstance(item, h5py.Dataset):
        raise BadInputError(f"{path}:{name} is no dataset, {_choice(file)}")
    return item


def _volume_of(item: Any, path: Path) -> Volume:
    source = f"{path}:{item.name}"
    axes = _kept_axes(item.shape)
    if axes is None:
        raise BadInputError(
            f"{source} has the shape {item.shape}, expected a volume with axes z, y, x; save one channel and time, or choose another dataset"
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

    def read(*box: slice) -> NDArray[Any]:
        key: list[Any] = [0] * len(item.shape)
        for axis, part in zip(axes, box, strict=True):
            key[axis] = part
        try:
            return np.asarray(item[tuple(key)])
        except Exception as error:
            where = ", ".join(f"{part.start}:{part.stop}" for part in box)
            raise BadInputError(
                f"{source} cannot be read at [{where}] ({_first_line(error)}), expected a whole file; copy or download it again"
            ) from error

    shape = tuple(item.shape[axis] for axis in axes)
    cells = None if chunk is None else (chunk[axes[0]], chunk[axes[1]], chunk[axes[2]])
    dtype = np.dtype(np.bool_) if item.dtype.kind == "b" else item.dtype
    return Volume(
        ChunkedPixels(shape, dtype, cells, read), stated_size(item.attrs), source, facts=facts
    )


def _check_stored(item: Any, source: str) -> None:
    """Raise unless the voxels lie in this file, in a form that can be decoded here."""
    if item.is_virtual or item.external:
        files = sorted(
            {v.file_name for v in item.virtual_sources()}
            if item.is_virtual
            else {e[0] for e in item.external}
        )
        kind = "a virtual dataset put together from" if item.is_virtual else "stored in"
        raise BadInputError(
            f"{source} is {kind} other files ({', '.join(files[:3])}), expected the voxels in the file itself; copy them into one dataset"
        )
    plist = item.id.get_create_plist()
    if plist.get_nfilters():
        check_chunk(item.chunks, item.dtype.itemsize, source)
    for number in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            name = _FILTERS.get(code, name.decode(errors="replace") or "unknown")
            raise BadInputError(
                f"{source} is compressed with {name} (HDF5 filter {code}), which is not installed; expected gzip, lzf or none: "
                "install the package hdf5plugin, or save the dataset with gzip"
            )


def _check_order(item: Any, axes: list[int], source: str) -> None:
    """Raise if the file names its axes (ilastik's ``axistags``, or dimension labels) in another order than z, y, x."""
    names = _labels(item)
    with contextlib.suppress(KeyError, TypeError, ValueError, RecursionError):
        names = [axis["key"] for axis in json.loads(item.attrs["axistags"])["axes"]]
    if len(names) != len(item.shape) or not all(isinstance(name, str) for name in names):
        return
    order = "".join(names[axis].lower() for axis in axes)
    if sorted(order) == ["x", "y", "z"] and order != "zyx":
        raise BadInputError(
            f"{source} has axes in the order {', '.join(order)}, expected z, y, x; transpose it and save it again"
        )


def _labels(item: Any) -> list[Any]:
    """Return the dimension labels; read as an attribute, for the library crashes on labels of another type (``item.dims``)."""
    with contextlib.suppress(KeyError, TypeError, ValueError, OSError, RuntimeError):
        found = item.attrs["DIMENSION_LABELS"]
        return [
            name.decode(errors="replace") if isinstance(name, bytes) else name
            for name in np.ravel(found).tolist()
        ]
    return []


def _first_line(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return (text.splitlines() or [type(error).__name__])[0]
