"""What is made of the files of a data set: volumes with their voxel size, and labels with 1 for what is labelled."""

from pathlib import Path

import numpy as np

from evenslice.data.registry import Conversion
from evenslice.errors import BadInputError
from evenslice.volume.array import Volume
from evenslice.volume.files import open_volume, save_volume

WHOLE = (slice(None), slice(None), slice(None))


def convert(
    conversion: Conversion, folder: Path, voxel_nm: tuple[float, float, float] | None
) -> None:
    """Write the target of a conversion from its source, both below ``folder``.

    Raises
    ------
    BadInputError
        If the source cannot be read, or labels have one value only, or what is labelled would be the larger part.
    """
    source = open_volume(folder / conversion.source)
    voxels = source.read(WHOLE)
    if conversion.kind != "grey":
        middle = (float(voxels.min()) + float(voxels.max())) / 2
        dark = voxels < middle
        part = float(dark.mean())
        if conversion.kind == "dark" and not 0 < part < 0.5:
            raise BadInputError(
                f"{source.source} is dark in {100 * part:.0f} % of its pixels, expected less than half, as labels are dark there; check the archive"
            )
        if not 0 < part < 1:
            raise BadInputError(
                f"{source.source} holds one value only, expected two kinds of pixels; check the archive"
            )
        voxels = np.asarray(dark if part < 0.5 else ~dark, np.uint8)
    meaning = "intensity" if conversion.kind == "grey" else "labels"
    save_volume(folder / conversion.target, Volume(voxels, voxel_nm, source.source, meaning))
