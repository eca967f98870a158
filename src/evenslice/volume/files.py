"""Opening and saving volumes: which reader for which path."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume, as_volume
from evenslice.volume.writing import check_writable

TIFF = (".tif", ".tiff")


def open_volume(path: str | Path) -> Volume:
    """Open a volume lazily: a TIFF stack, or a folder of images (natural sort).

    Parameters
    ----------
    path
        The file or folder.

    Returns
    -------
    Volume
        Axes (z, y, x), of the file's own type, with its voxel size in nm where the file states it.

    Raises
    ------
    BadInputError
        If there is no such file, the format is unknown, or it does not hold a greyscale volume.
    """
    path = Path(path)
    if not path.exists():
        raise BadInputError(f"{path} does not exist, expected a TIFF stack or a folder of images; check the path")
    if path.is_dir():
        from evenslice.volume.images import open_images

        return open_images(path)
    if path.suffix.lower() in TIFF:
        from evenslice.volume.tiff import open_tiff

        return open_tiff(path)
    raise BadInputError(
        f"{path} has the unknown ending {path.suffix or '(none)'!r}, expected .tif, .tiff or a folder of images; convert it"
    )


def check_volume_name(path: Path) -> None:
    """Raise ``BadInputError`` unless a volume can be saved under this name."""
    if path.suffix.lower() not in TIFF:
        raise BadInputError(
            f"{path} has the unknown ending {path.suffix or '(none)'!r}, expected .tif or .tiff to write to; rename it"
        )


def save_volume(
    path: str | Path, volume: Volume | NDArray[Any], voxel_nm: tuple[float, float, float] | None = None
) -> None:
    """Save a volume (z, y, x) as a TIFF stack, slice by slice, with its voxel size.

    The file appears under its name only when it is complete; an existing one is replaced.

    Raises
    ------
    BadInputError
        If the name does not end in ``.tif`` or ``.tiff``, or its folder does not exist.
    """
    from evenslice.volume.tiff import write_tiff

    volume, path = as_volume(volume), Path(path)
    if voxel_nm is not None:
        volume = replace(volume, voxel_nm=voxel_nm)
    check_volume_name(path)
    check_writable(path, force=True)
    slices = (volume.slice_at(z) for z in range(volume.shape[0]))
    dtype = np.dtype(np.uint8) if volume.dtype == np.bool_ else volume.dtype
    write_tiff(path, slices, volume.shape, dtype, volume.voxel_nm, volume.meaning)
