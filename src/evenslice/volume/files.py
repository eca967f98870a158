"""Opening and saving volumes: which reader for which path."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evenslice.errors import BadInputError
from evenslice.options import JsonObject
from evenslice.volume.address import Folder, Remote, parse_address
from evenslice.volume.array import Volume, Voxels, as_volume
from evenslice.volume.atomic import check_store_writable, check_writable
from evenslice.volume.itk import WRITTEN, is_itk
from evenslice.volume.zarr_reader import store_of

TIFF = (".tif", ".tiff")
MRC = (".mrc", ".rec", ".map", ".st", ".mrcs")
PACKED = (".gz", ".bz2", ".xz", ".zip", ".zst", ".7z")
READ = (
    "a TIFF stack, a folder of images, HDF5 (FILE.h5:/dataset), Zarr, N5, neuroglancer "
    "precomputed, MRC, NIfTI, NRRD, MetaImage or raw with its .info"
)
_HDF5 = re.compile(r"(.+?\.(?:h5|hdf5|hdf|he5))(?::(.*))?", re.IGNORECASE)


def open_volume(path: str | Folder) -> Volume:
    """Open a volume lazily.

    A TIFF stack, a folder of images (in the order of the positions in their names), HDF5, Zarr v2
    and v3, OME-Zarr 0.4 and 0.5, N5, neuroglancer precomputed, MRC, NIfTI, NRRD, MetaImage, or
    raw with a text file ``.info`` beside it.

    Parameters
    ----------
    path
        The file or folder. ``FILE.h5:/dataset`` and ``STORE.zarr/array`` choose inside a container.
        Zarr, N5 and precomputed also at ``s3://``, ``gs://`` and ``https://``, and with a prefix as
        neuroglancer has it: ``precomputed://gs://BUCKET/PATH``.

    Returns
    -------
    Volume
        Axes (z, y, x), of the file's own type, with its voxel size in nm where the file states it.

    Raises
    ------
    BadInputError
        If there is no such file, the format is unknown, or it does not hold a greyscale volume.

    Examples
    --------
    >>> _ = save_volume("raw.tif", np.zeros((4, 32, 32), np.uint8), (30.0, 4.0, 4.0))
    >>> volume = open_volume("raw.tif")
    >>> volume.shape, volume.voxel_nm
    ((4, 32, 32), (30.0, 4.0, 4.0))
    """
    path = str(path) if isinstance(path, Remote) else os.fspath(path)
    if not str(path).strip():
        raise BadInputError(f"the name of a volume is empty, expected {READ}; give a path")
    kind, place = parse_address(path)
    if kind is not None or isinstance(place, Remote):
        return _open_store(kind or store_of(place), place)
    file, dataset = split_container(path)
    if not file.is_file():
        kind = store_of(file)
        if kind is None and _is_bare_store(file):
            kind = file.suffix.lower()[1:]
        if kind is not None:
            return _open_store(kind, file)
    if not file.exists():
        raise BadInputError(f"{file} does not exist, expected {READ}; check the path")
    if file.is_dir():
        from evenslice.volume.images import open_images

        return open_images(file)
    if not file.is_file():
        raise BadInputError(f"{file} is a device or pipe, expected {READ}; save it as a file first")
    return _open_file(file, dataset)


def _open_store(kind: str | None, folder: Folder) -> Volume:
    if kind == "zarr":
        from evenslice.volume.zarr_reader import open_zarr

        return open_zarr(folder)
    if kind == "n5":
        from evenslice.volume.n5 import open_n5

        return open_n5(folder)
    if kind == "precomputed":
        from evenslice.volume.precomputed import open_precomputed

        return open_precomputed(folder)
    raise BadInputError(
        f"{folder} holds no metadata of a volume (zarr.json, .zarray, attributes.json, info) that "
        "can be read, expected Zarr, N5 or neuroglancer precomputed; check the address, or give "
        "credentials in the environment"
    )


def split_container(path: str | Path) -> tuple[Path, str | None]:
    """Split ``FILE.h5:/dataset`` into file and dataset; any other path stays whole."""
    found = _HDF5.fullmatch(str(path))
    if found is None or Path(path).exists():
        return Path(path), None
    return Path(found[1]), found[2]


def _open_file(file: Path, dataset: str | None) -> Volume:
    ending = file.suffix.lower()
    if ending in TIFF:
        from evenslice.volume.tiff import open_tiff

        return open_tiff(file)
    if _HDF5.fullmatch(file.name):
        from evenslice.volume.hdf5 import open_hdf5

        return open_hdf5(file, dataset)
    if ending in MRC:
        from evenslice.volume.mrc import open_mrc

        return open_mrc(file)
    if ending == ".raw":
        from evenslice.volume.raw import open_raw

        return open_raw(file)
    if is_itk(file):
        from evenslice.volume.itk import open_itk

        return open_itk(file)
    if ending in PACKED:
        raise BadInputError(
            f"{file} is packed ({ending}), expected the volume itself; decompress it first"
        )
    raise BadInputError(
        f"{file} has the unknown ending {file.suffix or '(none)'!r}, expected {READ}; convert it"
    )


def _is_bare_store(folder: Path) -> bool:
    """Whether a folder named .zarr or .n5 holds only folders, as a store without metadata does."""
    named = folder.suffix.lower() in (".zarr", ".n5")
    return named and folder.is_dir() and not any(inner.is_file() for inner in folder.iterdir())


def check_volume_name(path: Path) -> None:
    """Raise ``BadInputError`` unless a volume can be saved under this name."""
    if path.suffix.lower() not in (*TIFF, ".zarr") and not is_itk(path, WRITTEN):
        raise BadInputError(
            f"{path} has the unknown ending {path.suffix or '(none)'!r}, expected .tif, .tiff, "
            f".zarr, {', '.join(WRITTEN)} to write to; rename it"
        )


def save_volume(
    path: str | Path, volume: Volume | Voxels, voxel_nm: tuple[float, float, float] | None = None
) -> None:
    """Save a volume (z, y, x) with its voxel size: OME-Zarr with pyramid, or one file.

    A TIFF stack, or NIfTI, NRRD and MetaImage where SimpleITK is installed.

    The file or store appears under its name only when it is complete; an existing one is replaced.

    Raises
    ------
    BadInputError
        If the name ends in none of ``.zarr``, ``.tif``, ``.tiff``, ``.nii``, ``.nii.gz``,
        ``.nrrd``, ``.mha``, or its folder does not exist.

    Examples
    --------
    >>> _ = save_volume("raw.zarr", np.zeros((4, 32, 32), np.uint8), (30.0, 4.0, 4.0))
    >>> open_volume("raw.zarr").dtype
    dtype('uint8')
    """
    volume, path = as_volume(volume), Path(path)
    if voxel_nm is not None:
        volume = replace(volume, voxel_nm=voxel_nm)
    if volume.dtype == np.bool_:
        volume = replace(volume, meaning="labels")
    check_volume_name(path)
    dtype = np.dtype(np.uint8) if volume.dtype == np.bool_ else volume.dtype.newbyteorder("=")
    if path.suffix.lower() == ".zarr":
        from evenslice.volume.zarr_writer import write_image

        check_store_writable(path, force=True)
        write_image(path, volume, dtype)
        return
    check_writable(path, force=True)
    slices = (volume.slice_at(z).astype(dtype, copy=False) for z in range(volume.shape[0]))
    write_slices(path, slices, dtype, volume)


def write_slices(
    path: Path,
    slices: Iterator[Voxels],
    dtype: np.dtype[Any],
    like: Volume,
    provenance: JsonObject | None = None,
) -> None:
    """Write slices (y, x) as one file that lies where the volume ``like`` lies, with its meaning.

    Only a TIFF notes the ``provenance``.
    """
    if is_itk(path):
        from evenslice.volume.itk import ORIENTATION, write_itk

        signs = like.facts.get(ORIENTATION, "1, 1, 1")
        write_itk(path, slices, like.voxel_nm, like.meaning, like.origin, signs)
        return
    from evenslice.volume.tiff_writer import write_tiff

    voxel, meaning, origin = like.voxel_nm, like.meaning, like.origin
    write_tiff(path, slices, like.shape, dtype, voxel, meaning, provenance, origin)
