"""Several volumes: drawn by their voxels, centred on classes, normalised as one."""

import numpy as np
import pytest

from evenslice.labels.targets import Target
from evenslice.learn.multi_volume import Mixture, combined, find_occurrences
from evenslice.learn.patches import PatchSource
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation, estimate

NORM = Normalisation((0.0,), (1.0,))


def source(value, shape, centres, labels=None, crop=(4, 4)):
    labels = np.zeros(shape, np.uint8) if labels is None else labels
    volume = Volume(np.full(shape, value, np.uint8))
    return PatchSource(volume, Volume(labels), centres, 3, crop, Target("classes", 3), NORM)


def drawn(mixture, count):
    return [mixture.draw(np.random.default_rng([1, i])) for i in range(count)]


def test_one_volume_is_drawn_from_as_if_alone():
    alone = source(1, (5, 9, 9), (0, 2))
    alone.volume.pixels[:] = np.random.default_rng(0).integers(0, 255, (5, 9, 9))
    for i in range(10):
        one, other = (s.draw(np.random.default_rng(i)) for s in (alone, Mixture((alone,))))
        np.testing.assert_array_equal(one[0], other[0])


def test_volumes_are_drawn_in_proportion_to_their_training_voxels():
    mixture = Mixture(
        (
            source(1, (9, 8, 8), (0, 1, 2)),
            source(2, (9, 8, 16), (3,)),
            source(3, (9, 16, 16), (4, 5)),
        )
    )
    counts = np.bincount([int(w[0, 0, 0]) for w, _ in drawn(mixture, 1500)], minlength=4)[1:]
    expected = 1500 * np.array([192, 128, 512]) / 832
    assert np.abs(counts - expected).max() < 4 * np.sqrt(1500 * 0.25)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_so_many_patches_are_centred_on_a_class_and_rare_ones_are_seen(balance):
    labels = np.zeros((5, 60, 60), np.uint8)
    labels[0, 30, 20] = 2
    labels[:3, 10:50, 10:50] += (labels[:3, 10:50, 10:50] == 0).astype(np.uint8)
    one = source(1, labels.shape, (0, 1, 2), labels, (5, 5))
    mixture = Mixture((one,), find_occurrences([one], 0) if balance else None, balance)
    centres = np.bincount([int(t[2, 2]) for _, t in drawn(mixture, 600)], minlength=3) / 600
    assert centres[2] == pytest.approx(balance / 2, abs=0.08)
    assert centres[0] == pytest.approx((1 - balance) * 0.5, abs=0.1)


def test_the_volume_of_a_place_is_the_one_that_is_read():
    labels = np.zeros((4, 20, 20), np.uint8)
    marked = labels.copy()
    marked[1, 7, 9] = 1
    both = (source(1, labels.shape, (0, 1), labels), source(2, labels.shape, (0, 1), marked))
    for window, target in drawn(Mixture(both, find_occurrences(both, 0), 1.0), 20):
        assert (window == 2).all()
        assert target.sum() == 1


@pytest.mark.parametrize("at", [(0, 0), (19, 22), (10, 11), (1, 20)])
def test_a_patch_lies_around_its_place_as_far_as_the_volume_allows(at):
    labels = np.zeros((3, 20, 23), np.uint8)
    labels[(1, *at)] = 1
    one = source(1, labels.shape, (1,), labels, (8, 6))
    _, target = one.draw_around(np.random.default_rng(0), 1, *at)
    assert target.shape == (8, 6)
    assert target.sum() == 1
    if at == (10, 11):
        assert {int(target[y, x]) for y in (3, 4) for x in (2, 3)} == {0, 1}


def test_the_normalisation_of_several_volumes_is_that_of_all_their_voxels():
    rng = np.random.default_rng(0)
    volumes = [
        rng.normal(mean, std, shape)
        for mean, std, shape in [(100, 20, (4, 9, 9)), (30, 5, (3, 5, 20))]
    ]
    parts = [estimate(Volume(v)) for v in volumes]
    found = combined(parts, [v.size for v in volumes])
    every = np.concatenate([v.ravel() for v in volumes])
    assert found.mean == pytest.approx((every.mean(),), rel=1e-12)
    assert found.std == pytest.approx((every.std(),), rel=1e-12)
    assert combined(parts[:1], [3]) is parts[0]
