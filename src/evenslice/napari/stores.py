"""What ``segment`` wrote, as layers: probabilities and labels, read from the store as they are looked at."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenslice.napari.layers import RESULT, LayerData, layer_of
from evenslice.volume.array import Volume, spans
from evenslice.volume.files import open_volume
from evenslice.volume.zarr_reader import levels_of

SEGMENTATION = Path("labels", "segmentation")


class _Channel:
    """One channel of an array (c, z, y, x)."""

    def __init__(self, array: Any, channel: int) -> None:
        self._array, self._channel = array, channel
        self.shape, self.dtype = tuple(array.shape[1:]), np.dtype(array.dtype)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        return np.asarray(self._array[(self._channel, *spans(key, self.shape))])


def is_segmentation(path: Path) -> bool:
    """Whether a store holds labels beside what they were made of, as ``segment`` writes it."""
    return (path / SEGMENTATION).is_dir()


def layers_of_store(path: Path) -> list[LayerData]:
    """Return the layers of a store that ``segment`` wrote: probabilities, hidden at first, a layer each class, and labels.

    Raises
    ------
    BadInputError
        If it cannot be read.
    """
    labels, *smaller = [open_volume(level.path) for level in levels_of(path / SEGMENTATION)]
    found = []
    for number, levels in enumerate(_channels(path, labels)):
        name = f"{path.stem} probabilities" + (
            f" of class {number}" if levels[0].source.endswith("]") else ""
        )
        data, facts, kind = layer_of(levels[0], name, levels[1:])
        look = {
            "colormap": "magma",
            "blending": "additive",
            "visible": False,
            "metadata": {RESULT: "probabilities"},
        }
        found.append((data, facts | look, kind))
    data, facts, _ = layer_of(labels, f"{path.stem} labels", smaller)
    found.append((data, facts | {"metadata": {RESULT: "labels"}}, "labels"))
    return found


def _channels(path: Path, labels: Volume) -> list[list[Volume]]:
    """Return every channel of the probabilities, each at its sizes."""
    import zarr

    arrays = [zarr.open_array(str(level.path), mode="r") for level in levels_of(path)]
    count = int(arrays[0].shape[0])
    if arrays[0].shape[1:] != labels.shape:  # labels alone were kept
        return []
    return [
        [
            Volume(
                _Channel(array, channel),
                labels.voxel_nm,
                f"{path}[{channel}]" if count > 1 else str(path),
                "probabilities",
            )
            for array in arrays
        ]
        for channel in range(count)
    ]
