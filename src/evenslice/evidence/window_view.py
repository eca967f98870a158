"""One window to look at: its raw slices, what the model made of them, and where each slot mattered."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MISSED, TOO_MUCH, ANOTHER = 1, 2, 3


@dataclass(frozen=True)
class WindowView:
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
        Importance per slot and pixel, (S, y, x), float32, never negative; None where it was not measured.
    prediction
        Probability of the foreground, or the class or object number, (y, x).
    truth
        What the label of the centre slice means to the model, (y, x): 0/1 or the class number, negative where it is ignored; or
        None.
    voxel_nm
        Voxel size (z, y, x) in nm, or None when the file did not say.
    """

    label: str
    origin: tuple[int, int, int]
    slices: NDArray[np.generic]
    attribution: NDArray[np.float32] | None
    prediction: NDArray[np.float32]
    truth: NDArray[np.generic] | None
    voxel_nm: tuple[float, float, float] | None

    @property
    def numbered(self) -> bool:
        """Whether the prediction holds class or object numbers, not a probability."""
        whole = bool(np.all(self.prediction == np.round(self.prediction)))
        return whole and float(self.prediction.max(initial=0.0)) > 1

    def wrong(self) -> NDArray[np.uint8] | None:
        """Compare the prediction with the truth, pixel by pixel.

        Returns
        -------
        ndarray of uint8, (y, x), or None without truth
            0 right or ignored, 1 foreground that was missed, 2 background taken for foreground, 3 one foreground class taken for
            another. A probability counts as foreground above 0.5.
        """
        if self.truth is None:
            return None
        truth = np.asarray(self.truth, np.int64)
        guess = (
            np.round(self.prediction).astype(np.int64)
            if self.numbered
            else (self.prediction > 0.5).astype(np.int64)
        )
        if not self.numbered:
            truth = np.minimum(truth, 1)
        found = np.where(guess == truth, 0, ANOTHER)
        found[(guess == 0) & (truth > 0)] = MISSED
        found[(guess > 0) & (truth == 0)] = TOO_MUCH
        found[truth < 0] = 0
        return found.astype(np.uint8)
