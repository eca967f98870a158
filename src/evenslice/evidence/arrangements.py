"""In which orders the raw slices of a window are shown to the model. numpy only."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Design = Literal["reversal", "latin"]
DESIGNS: tuple[Design, ...] = ("reversal", "latin")


def orders_of(slices: int, design: Design = "reversal") -> NDArray[np.intp]:
    """Return the orders in which a window's slices are arranged, the window itself and its reversal first.

    Parameters
    ----------
    slices
        S.
    design
        ``reversal``: the window and its reversal. ``latin``: the S cyclic shifts, each with its reversal; every slice then
        stands in every slot equally often.

    Returns
    -------
    array
        (arrangements, S): entry [a, s] is the number of the slice that stands in slot s.
    """
    shifts = range(slices if design == "latin" else 1)
    straight = [np.roll(np.arange(slices), shift) for shift in shifts]
    return np.stack([order for shift in straight for order in (shift, shift[::-1])])
