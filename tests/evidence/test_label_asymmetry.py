"""Whether labels fit the slice before or after: shifts come back, the reversal negates."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from evenslice.errors import BadInputError
from evenslice.evidence.label_asymmetry import label_asymmetry
from evenslice.labels.targets import Target
from evenslice.volume.array import Volume

MASK = Target("foreground", 1)
FINE = 4  # samples per slice
SIDES = "asymmetric toward previous", "asymmetric toward next"
OPPOSITE = dict(zip(SIDES, SIDES[::-1], strict=True))


def tissue(depth, seed=0, side=64):
    """Return noise, smooth along z: raw slices, and masks at a quarter of a slice from each."""
    rng = np.random.default_rng(seed)
    fine = gaussian_filter(rng.normal(size=(depth * FINE, side, side)), (FINE, 4, 4))
    fine /= fine.std()
    noisy = fine[::FINE] + 0.5 * rng.normal(size=(depth, side, side))
    return noisy, fine > 0.5


def shifted(masks, quarters):
    """Return the masks of slices that lie some quarters of a slice earlier."""
    return masks[np.clip(np.arange(0, len(masks), FINE) - quarters, 0, None)]


def measured(raw, labels, target=MASK, **options):
    return label_asymmetry(Volume(raw), Volume(labels.astype(np.uint8)), target, **options)


@pytest.mark.parametrize("quarters", range(5))
def test_a_shift_comes_back(quarters):
    raw, masks = tissue(84)
    found = measured(raw, shifted(masks, quarters))
    true = -quarters / FINE
    assert found.asymmetry.low <= true <= found.asymmetry.high
    assert found.lag == found.asymmetry.value == pytest.approx(true, abs=0.04)
    assert found.verdict == (SIDES[0] if quarters else "symmetric")
    assert (found.sections, found.blocks) == (80, 16)


def test_a_part_of_copied_slices_comes_back():
    raw, masks = tissue(80)
    labels = shifted(masks, 0)
    labels[1::4] = labels[:-1:4]
    found = measured(raw, labels).asymmetry
    assert found.low <= -0.25 <= found.high
    assert found.value == pytest.approx(-0.25, abs=0.05)


@pytest.mark.parametrize("depth", [13, 14, 37, 101])
@pytest.mark.parametrize("target", [MASK, Target("boundary", 1), Target("classes", 3, 9)])
def test_the_reversal_negates_it_exactly(depth, target):
    raw, masks = tissue(depth, seed=3, side=32)
    labels = shifted(masks, 1).astype(np.uint8)
    labels[:, :16] += raw[:, :16] > 1
    labels[:, 0] = 9
    one, two = measured(raw, labels, target), measured(raw[::-1], labels[::-1], target)
    for a, b in [(one, two), *((one.per_class[n], two.per_class[n]) for n in one.per_class)]:
        assert a.fits == b.fits[::-1]
        assert (a.sections, a.blocks) == (b.sections, b.blocks)
        assert a.verdict == OPPOSITE.get(b.verdict, b.verdict)
        if a.asymmetry is not None:
            x, y = a.asymmetry, b.asymmetry
            assert (x.value, x.low, x.high) == (-y.value, -y.high, -y.low)
    assert set(one.per_class) == ({1, 2} if target.kind == "classes" else set())


def test_the_contrast_by_hand():
    """A square of a quarter of the slice, above or below the rest, has (in - out) / std = +-1/b."""
    signs = np.array([1, 1, 1, -1, 1, 1, -1.0])
    raw = np.zeros((7, 40, 40))
    raw[:, 10:30, 10:30] = (np.arange(1, 8) * signs)[:, None, None]
    found = measured(raw, raw[3:4].repeat(7, 0) != 0)
    hand = [signs[z : z + 3].mean() / np.sqrt(0.25 * 0.75) for z in range(5)]
    assert found.fits == pytest.approx(hand, rel=1e-12)
    assert (found.sections, found.verdict) == (3, "inconclusive")


def test_noise_blank_slices_and_few_labels_are_inconclusive():
    raw, masks = tissue(24)
    labels = shifted(masks, 0)
    noise = np.random.default_rng(1).normal(size=raw.shape)
    assert measured(noise, labels).asymmetry is None
    few = np.zeros_like(labels)
    few[10:14] = labels[10:14]
    blank = raw.copy()
    blank[3::4] = 7.0
    for one in (measured(raw, few), measured(blank, labels), measured(raw[:9], labels[:9])):
        assert (one.verdict, one.asymmetry, one.lag) == ("inconclusive", None, None)
    assert measured(raw, few).sections == 4
    assert measured(blank, labels).fits == ()
    assert measured(raw[:4], labels[:4]).to_dict()["asymmetry"] is None


def test_ignored_pixels_do_not_count():
    raw, masks = tissue(16)
    labels = shifted(masks, 0).astype(np.uint8)
    labels[:, 20:30] = 9
    wild = raw.copy()
    # the spread of a slice is of all its pixels: exchange them, so that it stays
    wild[:, 20:30] = raw[:, 20:30][:, ::-1]
    ignoring = replace(MASK, ignore=9)
    assert measured(wild, labels, ignoring).fits == pytest.approx(
        measured(raw, labels, ignoring).fits, rel=1e-12
    )
    assert measured(wild, labels > 0).fits != pytest.approx(measured(raw, labels > 0).fits)


def test_labels_two_slices_off_have_no_lag():
    raw, masks = tissue(40)
    found = measured(raw, shifted(masks, 2 * FINE))
    assert found.lag is None
    assert np.argmax(found.fits) == 0


def test_shapes_and_numbers_are_checked():
    raw, masks = tissue(10, side=16)
    with pytest.raises(BadInputError, match="expected \\(10, 16, 16\\)"):
        measured(raw, shifted(masks, 0)[1:])
    raw[4, 3, 3] = np.nan
    with pytest.raises(BadInputError, match="1 voxels that are NaN"):
        measured(raw, shifted(masks, 0))


def test_reading_is_bounded():
    class Huge:
        shape, dtype = (5000, 30000, 20000), np.dtype("uint8")
        read = 0

        def __getitem__(self, key):
            sizes = [part.stop - part.start for part in key]
            Huge.read += np.prod(sizes)
            z = np.arange(key[0].start, key[0].stop)[:, None, None]
            return np.broadcast_to((z + np.arange(sizes[2]) // 20) % 2, sizes).astype(np.uint8)

    found = label_asymmetry(Volume(Huge()), Volume(Huge()), MASK)
    assert (found.sections, found.blocks) == (80, 16)
    assert Huge.read < 4 * 2**24
