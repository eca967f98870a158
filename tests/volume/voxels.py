"""Made voxels, and the check that a file gives them back however it is asked."""

import numpy as np
import pytest

from evenslice.errors import BadInputError
from evenslice.volume.array import Volume
from evenslice.volume.files import open_volume

ALL = (slice(None),) * 3
BOXES = (
    ALL,
    (slice(2, 5), slice(3, 9), slice(1, 13)),
    (slice(3, 3), *ALL[1:]),
    (slice(-2, None), *ALL[1:]),
)


def noise(dtype: str = "uint8", shape: tuple[int, ...] = (6, 17, 13)) -> np.ndarray:
    """Seeded whole numbers 0..99, or -50..49 where the type holds them."""
    values = np.random.default_rng(0).integers(0, 100, shape)
    kind = np.dtype(dtype).kind
    return values > 50 if kind == "b" else (values - 50 * (kind in "if")).astype(dtype)


def assert_reads(volume: Volume, pixels: np.ndarray) -> None:
    """Assert that boxes and slices are those voxels, in the byte order of the machine."""
    assert (volume.shape, volume.dtype) == (pixels.shape, pixels.dtype.newbyteorder("="))
    for box in BOXES:
        found = volume.read(box)
        np.testing.assert_array_equal(found, pixels[box])
        assert found.dtype == volume.dtype
        assert found.dtype.isnative
    np.testing.assert_array_equal(volume.slice_at(1), pixels[1])


def assert_refused(path, words: str = "expected") -> None:
    """Assert that a volume is refused in one line with these words, and what was expected."""
    with pytest.raises(BadInputError, match=words) as caught:
        open_volume(path).read(ALL)
    assert "\n" not in str(caught.value)
    assert "expected" in str(caught.value)
