"""A window as a person sees it: raw slices, prediction, importance; and many of them in a store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evenslice.options import JsonObject
from evenslice.volume.array import VoxelSize
from evenslice.volume.atomic import store_written_beside
from evenslice.volume.zarr_writer import create_image

MISSED, TOO_MUCH, ANOTHER = 1, 2, 3


@dataclass(frozen=True)
class WindowView:
    """What a person sees of one window."""

    label: str  # which model this is, for example ``"green"``
    origin: tuple[int, int, int]  # (z, y, x) of the centre slice's first pixel in the volume
    slices: NDArray[np.generic]  # raw intensities (S, y, x), in slot order
    attribution: NDArray[np.float32] | None  # importance (S, y, x), never negative; if measured
    prediction: NDArray[np.float32]  # probability of the foreground, or class or object (y, x)
    truth: NDArray[np.generic] | None  # class (y, x) of the centre slice, negative where ignored
    voxel_nm: VoxelSize | None  # (z, y, x) in nm, if known

    @property
    def numbered(self) -> bool:
        """Whether the prediction holds class or object numbers, not a probability."""
        whole = bool(np.all(self.prediction == np.round(self.prediction)))
        return whole and float(self.prediction.max(initial=0.0)) > 1

    def wrong(self) -> NDArray[np.uint8] | None:
        """Compare prediction and ground truth pixel by pixel, (y, x); None without ground truth.

        0 right or ignored, 1 missed foreground, 2 background taken for foreground, 3 one foreground
        class taken for another. A probability counts as foreground above 0.5.
        """
        if self.truth is None:
            return None
        truth = np.asarray(self.truth, np.int64)
        if self.numbered:
            predicted = np.round(self.prediction).astype(np.int64)
        else:
            predicted, truth = (self.prediction > 0.5).astype(np.int64), np.minimum(truth, 1)
        found = np.where(predicted == truth, 0, ANOTHER)
        found[(predicted == 0) & (truth > 0)] = MISSED
        found[(predicted > 0) & (truth == 0)] = TOO_MUCH
        found[truth < 0] = 0
        return found.astype(np.uint8)


@contextmanager
def writing_maps(
    path: Path, most: int, voxel_nm: VoxelSize | None, force: bool, provenance: JsonObject
) -> Iterator[Callable[[WindowView], None]]:
    """Yield a function that writes attribution maps to an OME-Zarr store, at most ``most`` windows.

    The store appears when it is complete; an existing one is replaced by ``force`` only. It is an
    image (t, c, y, x): windows and slots; ``raw`` in it holds the slices in the same place. The
    attribute ``evenslice`` of both holds the (z, y, x) of each window's first pixel in the volume
    (``windows``) and the ``provenance``.
    """
    import zarr

    with store_written_beside(path, force) as part:
        arrays: list[Any] = []
        origins: list[list[int]] = []

        def write(view: WindowView) -> None:
            slots = len(view.slices)
            if not arrays:
                shape = (most, *view.slices.shape)
                names = [f"{s:+d}" if s else "centre" for s in range(-(slots // 2), slots // 2 + 1)]
                for folder, dtype, name in (
                    (part, "float32", "attribution"),
                    (part / "raw", str(view.slices.dtype), "raw"),
                ):
                    arrays.append(create_image(folder, shape, dtype, "tcyx", voxel_nm, name, names))
            arrays[0][len(origins)] = 0.0 if view.attribution is None else view.attribution
            arrays[1][len(origins)] = view.slices
            origins.append(list(view.origin))

        yield write
        record: JsonObject = {"windows": origins, "provenance": dict(provenance)}
        for array, folder in zip(arrays, (part, part / "raw"), strict=True):
            array.resize((len(origins), *array.shape[1:]))
            zarr.open_group(str(folder), mode="a").attrs["evenslice"] = record
