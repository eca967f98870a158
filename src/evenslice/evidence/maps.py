"""Attribution maps as a store to look at: one OME-Zarr image over windows and slots, beside the raw slices."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evenslice.evidence.window_view import WindowView
from evenslice.volume.array import VoxelSize
from evenslice.volume.atomic import store_written_beside
from evenslice.volume.zarr_writer import create_image


@contextmanager
def writing_maps(
    path: Path, most: int, voxel_nm: VoxelSize | None, force: bool, provenance: Mapping[str, Any]
) -> Iterator[Callable[[WindowView], None]]:
    """Write the attribution of windows, as they come, to an OME-Zarr store that appears when it is complete.

    The store is an image (t, c, y, x): windows and slots; ``raw`` in it holds the slices in the same place, and the
    attribute ``evenslice`` of both the (z, y, x) of each window's first pixel in the volume (``windows``).

    Parameters
    ----------
    path
        The store.
    most
        How many windows there may be.
    voxel_nm
        (z, y, x) in nm, or None.
    force
        Whether to replace a store that is there.
    provenance
        To note in the store.

    Yields
    ------
    callable
        Takes one window.

    Raises
    ------
    BadInputError
        If the store exists.
    """
    with store_written_beside(path, force) as part:
        arrays: list[Any] = []
        origins: list[list[int]] = []

        def keep(look: WindowView) -> None:
            if not arrays:
                shape = (most, *look.slices.shape)
                names = _slot_names(shape[1])
                arrays.append(
                    create_image(part, shape, "float32", "tcyx", voxel_nm, "attribution", names)
                )
                dtype = str(look.slices.dtype)
                arrays.append(
                    create_image(part / "raw", shape, dtype, "tcyx", voxel_nm, "raw", names)
                )
            arrays[0][len(origins)] = 0.0 if look.attribution is None else look.attribution
            arrays[1][len(origins)] = look.slices
            origins.append(list(look.origin))

        yield keep
        for array, folder in zip(arrays, (part, part / "raw"), strict=True):
            array.resize((len(origins), *array.shape[1:]))
            _note(folder, {"windows": origins, "provenance": dict(provenance)})


def _slot_names(slices: int) -> list[str]:
    """Name slots by their place: -1, centre, +1."""
    return [f"{s:+d}" if s else "centre" for s in range(-(slices // 2), slices // 2 + 1)]


def _note(folder: Path, facts: dict[str, Any]) -> None:
    import zarr

    zarr.open_group(str(folder), mode="a").attrs["evenslice"] = facts
