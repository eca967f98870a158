"""Sections as a network gets them: checked, normalised once, stacked into windows."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from evenslice.volume.array import Volume, Voxels
from evenslice.volume.normalisation import Normalisation, check_finite
from evenslice.volume.tiles import Area, Block
from evenslice.volume.windows import neighbours

GROUP = 16  # sections that are checked together
FARTHEST = 8
PROBES = (0.25, 0.5, 0.75)
PROBED = 8192  # pixels of a row
Plane = Voxels


class Sections:
    """The sections of a volume, and which are blank: one value everywhere, as of a lost section.

    All that is to be computed is checked (``area``, (y, x)), so that the answer does not depend on
    tiles; whole sections if it is None.
    """

    def __init__(self, volume: Volume, area: Area | None = None) -> None:
        self.volume = volume
        self._area = area or (slice(0, volume.shape[1]), slice(0, volume.shape[2]))
        self._blank = lru_cache(maxsize=1024)(self._blank_in)

    def blank(self, z: int) -> bool:
        """Whether section ``z`` holds one value only."""
        return z in self._blank(z // GROUP)

    def seen(self, z: int, slices: int) -> list[int]:
        """Return the S sections that the window around ``z`` shows, blank neighbours replaced.

        The nearest one on the far side comes before the one on the near side; both directions in z
        are treated alike. A section stays where no good one lies within 8, and so does a blank
        centre.
        """
        index = [int(n) for n in neighbours(z, slices, self.volume.shape[0], self.volume.source)]
        return [n if n == z or not self.blank(n) else self._nearest(n, n - z) for n in index]

    def _nearest(self, z: int, side: int) -> int:
        outward = 1 if side > 0 else -1
        steps = (z + sign * outward * n for n in range(1, FARTHEST + 1) for sign in (1, -1))
        return next((n for n in steps if 0 <= n < self.volume.shape[0] and not self.blank(n)), z)

    def _blank_in(self, group: int) -> frozenset[int]:
        """Look at a few rows of some sections, and at all of those that have one value there."""
        (top, bottom), (left, right) = ((part.start, part.stop) for part in self._area)
        low, high = group * GROUP, min(self.volume.shape[0], (group + 1) * GROUP)
        rows = [top + int(part * (bottom - top)) for part in PROBES]
        some = slice(left, min(right, left + PROBED))
        found = np.concatenate(
            [self.volume.read((slice(low, high), slice(y, y + 1), some)) for y in rows], axis=1
        )
        flat = found.reshape(high - low, -1)
        suspects = np.flatnonzero((flat == flat[:, :1]).all(1))
        return frozenset(
            low + int(n) for n in suspects if self._one_value(low + int(n), flat[n, 0])
        )

    def _one_value(self, z: int, value: object) -> bool:
        y, x = self._area
        step = max(1, 2**24 // (x.stop - x.start))
        spans = (slice(start, min(y.stop, start + step)) for start in range(y.start, y.stop, step))
        return all(
            bool((self.volume.read((slice(z, z + 1), rows, x)) == value).all()) for rows in spans
        )


class SectionReader:
    """Reads the windows of blocks: each section once while successive blocks have the same area.

    The normalisation is applied once to a section where it is the same for all slots, else to
    windows.
    """

    def __init__(self, sections: Sections, normalisation: Normalisation, slices: int) -> None:
        self._sections, self._slices = sections, slices
        self._normalisation, self._once = normalisation, normalisation.uniform
        self._area: Area | None = None
        self._held: dict[int, Plane] = {}

    def fetch_ahead(self, block: Block) -> None:
        """Begin to fetch what the windows of a block show, but for the slices around it."""
        self._sections.volume.fetch_ahead((block.core[0], *block.read))

    def windows(self, block: Block, batch: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (first z, normalised windows (B, S, y, x)), up to ``batch`` at a time.

        Raises ``BadInputError`` if a section holds NaN or infinity, or cannot be read.
        """
        zs = block.core[0]
        for first in range(zs.start, zs.stop, batch):
            numbers = [
                self._sections.seen(z, self._slices)
                for z in range(first, min(zs.stop, first + batch))
            ]
            self._hold(block.read, numbers)
            stacks = np.stack([np.stack([self._held[n] for n in row]) for row in numbers])
            apply = np.asarray if self._once else self._normalisation.apply
            yield first, apply(stacks)

    def _hold(self, area: Area, numbers: Sequence[Sequence[int]]) -> None:
        """Have the sections that are needed now, and forget those that are not."""
        needed = {n for row in numbers for n in row}
        if area != self._area:
            self._area, self._held = area, {}
        self._held = {n: plane for n, plane in self._held.items() if n in needed}
        for n in sorted(needed - set(self._held)):
            self._held[n] = self._plane(n, area)

    def _plane(self, z: int, area: Area) -> Plane:
        volume = self._sections.volume
        raw = volume.read((slice(z, z + 1), *area))
        check_finite(raw, f"{volume.source} slice {z}")
        if not self._once:
            return np.asarray(raw[0])
        scalar = Normalisation(
            self._normalisation.mean[:1], self._normalisation.std[:1], self._normalisation.source
        )
        return np.asarray(scalar.apply(raw)[0])
