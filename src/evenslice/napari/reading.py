"""Opening files in napari: volumes, what ``segment`` wrote, and a made one to try things on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from evenslice.napari.layers import RESULT, LayerData, layer_of
from evenslice.volume.address import Remote, parse_address
from evenslice.volume.array import Volume, Voxels, spans
from evenslice.volume.files import MRC, TIFF, open_volume, split_container
from evenslice.volume.images import SUFFIXES
from evenslice.volume.itk import is_itk
from evenslice.volume.zarr_reader import in_store, levels_of

HDF5 = (".h5", ".hdf5", ".hdf", ".he5")
SEGMENTATION = Path("labels", "segmentation")


def get_reader(path: Any) -> Callable[[Any], list[LayerData]] | None:
    """Return what reads a path, or None for what evenslice does not read; nothing is opened yet."""
    if isinstance(path, (list, tuple)):
        if len(path) != 1:
            return None
        path = path[0]
    return read if _is_readable(str(path)) else None


def _is_readable(path: str) -> bool:
    """Whether ``open_volume`` reads a path, as far as names tell."""
    kind, place = parse_address(path)
    if kind is not None or isinstance(place, Remote):
        return True
    file, _ = split_container(path)
    if file.is_dir():
        is_store = in_store(file) or file.suffix.lower() == ".zarr"
        return is_store or any(one.suffix.lower() in SUFFIXES for one in file.iterdir())
    ending = file.suffix.lower()
    if ending == ".raw":
        return file.with_name(f"{file.name}.info").is_file()
    return file.is_file() and (ending in (*TIFF, *MRC, *HDF5) or is_itk(file))


def read(path: Any) -> list[LayerData]:
    """Open a volume as a layer, lazily; what ``segment`` wrote as its layers.

    ``BadInputError``, in one line, if it does not hold a greyscale volume.
    """
    source = str(path[0] if isinstance(path, (list, tuple)) else path)
    file = Path(source)
    if (file / SEGMENTATION).is_dir():
        return layers_of_store(file)
    volume = open_volume(source)
    names = [level.partition(":")[0] for level in volume.facts.get("levels", "").split("; ")]
    more = [] if file.name in names else names[1:]
    levels = [open_volume(f"{volume.source}/{name}") for name in more]
    return [layer_of(volume, file.name, levels)]


def layers_of_store(path: Path) -> list[LayerData]:
    """Return the layers of a store that ``segment`` wrote: labels, and probabilities, hidden."""
    labels, *smaller = [open_volume(level.path) for level in levels_of(path / SEGMENTATION)]
    found = []
    channels = _channels(path, labels)
    for number, levels in enumerate(channels):
        suffix = f" of class {number}" if len(channels) > 1 else ""
        data, attributes, kind = layer_of(
            levels[0], f"{path.stem} probabilities{suffix}", levels[1:]
        )
        attributes |= {"colormap": "magma", "blending": "additive", "visible": False}
        found.append((data, attributes | {"metadata": {RESULT: "probabilities"}}, kind))
    data, attributes, _ = layer_of(labels, f"{path.stem} labels", smaller)
    found.append((data, attributes | {"metadata": {RESULT: "labels"}}, "labels"))
    return found


def _channels(path: Path, labels: Volume) -> list[list[Volume]]:
    """Return every channel of the probabilities, each at its sizes."""
    import zarr

    arrays = [zarr.open_array(str(level.path), mode="r") for level in levels_of(path)]
    if arrays[0].shape[1:] != labels.shape:  # labels alone were kept
        return []
    base = replace(labels, source=str(path), meaning="probabilities")
    return [
        [replace(base, pixels=_Channel(array, channel)) for array in arrays]
        for channel in range(arrays[0].shape[0])
    ]


class _Channel:
    """One channel of an array (c, z, y, x)."""

    def __init__(self, array: Any, channel: int) -> None:
        self._array, self._channel = array, channel
        self.shape, self.dtype = tuple(array.shape[1:]), np.dtype(array.dtype)

    def __getitem__(self, key: Any) -> Voxels:
        return np.asarray(self._array[(self._channel, *spans(key, self.shape))])


def sample() -> list[LayerData]:
    """Make a synthetic electron micrograph (24, 192, 192) of 50 x 4 x 4 nm with its membranes."""
    from evenslice.data.phantom import phantom

    made = phantom()
    raw = layer_of(Volume(made.raw, made.voxel_nm), "phantom")
    membranes = Volume(made.membranes, made.voxel_nm, meaning="labels")
    _, attributes, kind = layer_of(membranes, "phantom membranes")
    return [(made.raw, *raw[1:]), (made.membranes, attributes | {"visible": False}, kind)]
