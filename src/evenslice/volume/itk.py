"""NIfTI, NRRD and MetaImage by SimpleITK: axes x, y, z in millimetres, turned to z, y, x in nm."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evenslice.errors import BadInputError
from evenslice.volume.array import MEANINGS, ORIGIN, Place, Volume, Voxels, VoxelSize, first_line
from evenslice.volume.atomic import written_beside
from evenslice.volume.attributes import kept_axes
from evenslice.volume.voxel_size import checked

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
WRITTEN = (".nii", ".nii.gz", ".nrrd", ".mha")
NM_OF_MM = 1e6
DIGITS = 6  # NIfTI keeps float32
ORIENTATION = "orientation"


def is_itk(path: Path, endings: tuple[str, ...] = ENDINGS) -> bool:
    """Whether a name is that of one of these formats."""
    return path.name.lower().endswith(endings)


def open_itk(path: Path) -> Volume:
    """Open a NIfTI, NRRD or MetaImage file as a volume (z, y, x), read whole when first asked for.

    A spacing of 1 mm each way is that of programs that do not know it: not stated. Signs of the
    axes and the place of the first voxel are kept for what is written.

    Raises
    ------
    BadInputError
        If SimpleITK is not installed or cannot read the file, or it holds several channels or
        times, or axes that are not those of the image.
    """
    reader = _itk().ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        dtype = _itk().GetArrayFromImage(_itk().Image([1] * 3, reader.GetPixelID(), 1)).dtype
    except Exception as error:  # of many kinds
        raise _unreadable(path, error) from error
    count = reader.GetNumberOfComponents()
    if count != 1:
        raise BadInputError(
            f"{path} has {count} values per voxel (a vector or colour image), expected one; save "
            "one channel"
        )
    shape = tuple(reader.GetSize()[::-1])
    named = ("t", "z", "y", "x")[-len(shape) :] if 2 < len(shape) < 5 else None
    axes = kept_axes(named, shape, path)
    number = len(shape)
    direction = np.reshape(reader.GetDirection(), (number, number))[:3, :3]
    signs = np.rint(np.diag(direction))
    if not np.allclose(direction, np.diag(signs), atol=1e-4) or not signs.all():
        raise BadInputError(
            f"{path} has an orientation that is not along its axes (direction "
            f"{', '.join(f'{c:.3g}' for c in direction.ravel())}), expected x, y, z, in either "
            "direction; resample it, for example with 3D Slicer"
        )
    spacing = np.array([float(f"{side:.{DIGITS}g}") for side in reader.GetSpacing()[:3]])
    x, y, z = (float(f"{p:.{DIGITS}g}") for p in signs * reader.GetOrigin()[:3] / spacing)
    known = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    meaning = known.get("evenslice", "intensity")
    facts = {
        "format": {".n": "NRRD", ".m": "MetaImage"}[path.suffix.lower()[:2]]
        if not is_itk(path, (".nii", ".nii.gz"))
        else "NIfTI",
        ORIENTATION: ", ".join(f"{sign:+.0f}" for sign in signs),
    }
    return Volume(
        _Image(path, tuple(shape[axis] for axis in axes), dtype),
        None if (spacing == 1).all() else checked(spacing[::-1] * NM_OF_MM),
        str(path),
        meaning if meaning in MEANINGS else "intensity",
        facts,
        (z, y, x),
    )


class _Image:
    """The voxels of a file, read whole: what is packed cannot be read in part."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._path, self.shape, self.dtype = path, shape, dtype

    @cached_property
    def _voxels(self) -> Voxels:
        try:
            image = _itk().ReadImage(str(self._path))
            return np.asarray(_itk().GetArrayFromImage(image)).reshape(self.shape)
        except Exception as error:  # of many kinds
            raise _unreadable(self._path, error) from error

    def __getitem__(self, key: Any) -> Voxels:
        return np.array(self._voxels[key])


def write_itk(
    path: Path,
    planes: Iterable[Voxels],
    voxel_nm: VoxelSize | None,
    meaning: str,
    origin: Place = ORIGIN,
    orientation: str = "+1, +1, +1",
) -> None:
    """Write slices (y, x), held in memory, as NIfTI, NRRD or MetaImage, compressed.

    The file appears under its name only when it is complete. ``origin`` is the place of the first
    voxel (z, y, x), in voxels; ``orientation`` the signs of x, y and z as ``open_itk`` states them.
    """
    itk = _itk()
    image = itk.GetImageFromArray(np.stack(list(planes)))
    signs = np.array([float(sign) for sign in orientation.split(",")])
    spacing = np.ones(3) if voxel_nm is None else np.array(voxel_nm[::-1]) / NM_OF_MM
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((signs * spacing * origin[::-1]).tolist())
    image.SetDirection(np.diag(signs).ravel().tolist())
    image.SetMetaData("evenslice", meaning)
    with written_beside(path) as part:
        itk.WriteImage(image, str(part), True)


def _itk() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise BadInputError(
            "NIfTI, NRRD and MetaImage need the package SimpleITK, expected it to be installed; "
            "pip install 'evenslice[itk]'"
        ) from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    return SimpleITK


def _unreadable(path: Path, error: Exception) -> BadInputError:
    said = [line.strip() for line in str(error).splitlines() if line.strip()]
    return BadInputError(
        f"{path} cannot be read as NIfTI, NRRD or MetaImage ({first_line(said[-1] if said else '')}"
        "), expected a whole file; copy or export it again"
    )
