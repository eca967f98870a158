"""One window to look at: its raw slices, what the model made of them, and where each slot mattered."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Look:
    """What a person sees of one window.

    Attributes
    ----------
    label
        Which model this is, for example ``"green"``.
    origin
        (z, y, x) of the centre slice's first pixel in the volume.
    slices
        Raw intensities, (S, y, x), in slot order.
    attribution
        Importance per slot and pixel, (S, y, x), float32, never negative.
    prediction
        Probability of the foreground, or the class number, (y, x).
    truth
        Label of the centre slice, (y, x), or None.
    voxel_nm
        Voxel size (z, y, x) in nm, or None when the file did not say.
    """

    label: str
    origin: tuple[int, int, int]
    slices: NDArray[np.generic]
    attribution: NDArray[np.float32]
    prediction: NDArray[np.float32]
    truth: NDArray[np.generic] | None
    voxel_nm: tuple[float, float, float] | None
