"""Lag: does the prediction for slice z fit the truth of z + 1 better than that of z - 1? numpy only."""

import numpy as np
from numpy.typing import NDArray

from evenslice.labels.metrics import confusion, scores_of


def lag_parts(predictions: NDArray[np.uint8], truths: NDArray[np.uint8], classes: int) -> tuple[float, float] | None:
    """Measure one window's lag in slices, as a numerator and a denominator to be summed over windows.

    With d(k) the Dice of a prediction with the truth of slice z + k, the parabola through d(-1), d(0), d(1) has its top at
    (d(1) - d(-1)) / (2 (2 d(0) - d(1) - d(-1))) slices. The reversal of the window must lag to the other side as far if the
    model leans, and to the same side if the tissue itself moves: half of the difference is the model's.

    Parameters
    ----------
    predictions
        Classes (2, y, x) predicted for a window and for its reversal.
    truths
        Classes (3, y, x) of the slices before, at, and after the centre.
    classes
        Number of classes with background.

    Returns
    -------
    tuple or None
        Numerator and denominator; None where some slice holds no foreground.
    """
    tops, bottoms = [], []
    for prediction in predictions:
        fits = [scores_of(confusion(prediction, truth, classes)).dice for truth in truths]
        if any(fit is None for fit in fits):
            return None
        before, here, after = (float(fit) for fit in fits if fit is not None)
        tops.append(after - before)
        bottoms.append(2 * (2 * here - after - before))
    return (tops[0] - tops[1]) / 2, (bottoms[0] + bottoms[1]) / 2
