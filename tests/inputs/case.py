"""A file that people have, and what is made of it: one row of docs/inputs.md, checked."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from evenslice.errors import BadInputError, InputWarning
from evenslice.volume.files import open_volume

ALL = (slice(None),) * 3


@dataclass(frozen=True)
class Case:
    """What a file holds, and what is read from it, refused or warned of.

    Attributes
    ----------
    format
        The section of the page.
    found
        What the file holds, in words: the first column, unique in its section.
    answer
        What is made of it, in words: the second column.
    make
        Writes the file into an empty folder and returns its address.
    pixels
        The voxels (z, y, x) that are read, in their own type; None if the volume is refused.
    voxel_nm
        The voxel size (z, y, x) in nm that is read; None for "not stated".
    warns, refused
        A regular expression for the warning, or for the refusal; None if there is none.
    meaning
        ``intensity``, ``labels`` or ``probabilities``.
    origin
        The place of the first voxel (z, y, x), in voxels.
    """

    format: str
    found: str
    answer: str
    make: Callable[[Path], str | Path]
    pixels: np.ndarray | None = None
    voxel_nm: tuple[float, float, float] | None = None
    warns: str | None = None
    refused: str | None = None
    meaning: str = "intensity"
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def check(self, folder: Path) -> None:
        """Assert that it is so."""
        address = self.make(folder)
        if self.refused is not None:
            with pytest.raises(BadInputError, match=self.refused) as caught:
                open_volume(address).read(ALL)
            assert "\n" not in str(caught.value)
            assert "expected" in str(caught.value)
            return
        warned = (
            nullcontext() if self.warns is None else pytest.warns(InputWarning, match=self.warns)
        )
        with warned:
            volume = open_volume(address)
        found = volume.read(ALL)
        np.testing.assert_array_equal(found, self.pixels)
        assert found.dtype == volume.dtype == self.pixels.dtype
        assert volume.meaning == self.meaning
        assert volume.origin == pytest.approx(self.origin)
        if self.voxel_nm is None:
            assert volume.voxel_nm is None
        else:
            assert volume.voxel_nm == pytest.approx(self.voxel_nm)
