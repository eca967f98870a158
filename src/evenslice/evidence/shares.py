"""Shares of importance, mirror pairs and mirror index: from the importance per slot."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def shares_of(importance: NDArray[np.floating]) -> Floats:
    """Turn importance (windows, arrangements, S), not negative, into shares (windows, S).

    Each arrangement is normalised to sum to 1, then the arrangements of a window are averaged, so
    that content which is merely reordered cancels. A window of zero importance has NaN.
    """
    values = np.asarray(importance, np.float64)
    total = values.sum(axis=2, keepdims=True)
    with np.errstate(invalid="ignore"):
        normal: Floats = np.where(total > 0, values / total, np.nan)
    return np.asarray(normal.mean(axis=1))


def pair_parts(shares: Floats) -> tuple[Floats, Floats]:
    """Return, for each mirror pair j = 1.., share(+j) - share(-j) and share(+j) + share(-j).

    From shares (windows, S), two arrays (windows, (S - 1) / 2); the ratio of their means is the
    mirror pair, -1..1.
    """
    centre = shares.shape[1] // 2
    later, earlier = shares[:, centre + 1 :], shares[:, :centre][:, ::-1]
    return later - earlier, later + earlier


def index_parts(shares: Floats) -> tuple[Floats, Floats]:
    """Return top and bottom of the mirror index: the sums over all pairs, each (windows,)."""
    top, bottom = pair_parts(shares)
    return top.sum(axis=1), bottom.sum(axis=1)


def ratio(top: Floats, bottom: Floats) -> Floats:
    """Divide, with 0 / 0 = 0: a pair of slots that do not count at all is symmetric."""
    return np.divide(
        top,
        bottom,
        out=np.zeros(np.broadcast_shapes(np.shape(top), np.shape(bottom))),
        where=bottom != 0,
    )
