"""When to stop looking: a few planned looks, each with an interval narrow enough that all of them hold together.

Repeated confidence intervals (Jennison and Turnbull 1989, J. R. Statist. Soc. B 51, 305-361) with the error shared
equally over the looks (Bonferroni): with K looks each interval has confidence 1 - alpha / K, so the chance that any of
them misses is at most alpha, however and whenever one stops.
"""

from collections.abc import Sequence

LOOKS = (12, 16, 24, 32, 48, 64)
MOST_WINDOWS = LOOKS[-1]


def planned_looks(available: int, windows: int | None) -> tuple[int, ...]:
    """Return after how many windows the results are looked at.

    Parameters
    ----------
    available
        How many windows the volume holds.
    windows
        A fixed number, or None for looks at 12, 16, 24, 32, 48 and 64 windows, as far as there are so many.
    """
    if windows is not None:
        return (min(windows, available),)
    looks = [look for look in LOOKS if look <= available]
    return tuple(looks) if looks else (available,)


def confidence_each(confidence: float, looks: int) -> float:
    """Return the confidence of each look's interval so that all looks hold together with ``confidence``."""
    return 1.0 - (1.0 - confidence) / looks


def is_decided(verdicts: Sequence[str]) -> bool:
    """Whether there is nothing left to wait for: some method found a lean, or every one has spoken or abstained."""
    return "asymmetric" in verdicts or all(verdict in ("symmetric", "abstained") for verdict in verdicts)
