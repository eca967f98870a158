"""Opening files in napari: the volumes that ``open_volume`` reads, and a made one to try things on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from evenslice.napari.layers import LayerData, layer_of
from evenslice.napari.stores import is_segmentation, layers_of_store
from evenslice.volume.array import Volume
from evenslice.volume.files import MRC, TIFF, open_volume, split_container
from evenslice.volume.images import SUFFIXES
from evenslice.volume.zarr_reader import attributes_of, in_store, levels_of

HDF5 = (".h5", ".hdf5", ".hdf", ".he5")


def get_reader(path: Any) -> Callable[[Any], list[LayerData]] | None:
    """Return what reads a path, or None for what evenslice does not read; nothing is opened yet."""
    if isinstance(path, (list, tuple)):
        if len(path) != 1:
            return None
        path = path[0]
    return read if reads(str(path)) else None


def reads(path: str) -> bool:
    """Whether a path is of a kind that ``open_volume`` reads, as far as its name and its neighbours tell."""
    file, _ = split_container(path)
    if file.is_dir():
        return (
            in_store(file)
            or file.suffix.lower() == ".zarr"
            or any(f.suffix.lower() in SUFFIXES for f in file.iterdir())
        )
    ending = file.suffix.lower()
    if ending == ".raw":
        return file.with_name(file.name + ".info").is_file()
    return file.is_file() and ending in (*TIFF, *MRC, *HDF5)


def read(path: Any) -> list[LayerData]:
    """Open a volume as a layer, lazily; what ``segment`` wrote as its layers.

    Raises
    ------
    BadInputError
        In one line, if it does not hold a greyscale volume.
    """
    path = str(path[0] if isinstance(path, (list, tuple)) else path)
    file = Path(path)
    if is_segmentation(file):
        return layers_of_store(file)
    volume = open_volume(path)
    smaller = (
        [open_volume(level.path) for level in levels_of(file)[1:]]
        if in_store(file) and attributes_of(file)
        else []
    )
    return [layer_of(volume, file.name, smaller)]


def sample() -> list[LayerData]:
    """Make a synthetic electron micrograph (24, 192, 192) with its membranes, voxels of 50 x 4 x 4 nm."""
    from evenslice.data.phantom import phantom

    made = phantom()
    raw = layer_of(Volume(made.raw, made.voxel_nm), "phantom")
    membranes = layer_of(
        Volume(made.membranes, made.voxel_nm, meaning="labels"), "phantom membranes"
    )
    return [(made.raw, *raw[1:]), (made.membranes, membranes[1] | {"visible": False}, "labels")]
