"""Where classes occur: all of it, only in training slices, evenly, within bounds."""

import numpy as np
import pytest

from evenslice.errors import BadInputError
from evenslice.labels.targets import Target
from evenslice.learn.multi_volume import find_occurrences
from evenslice.learn.patches import PatchSource
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation

NORM = Normalisation((0.0,), (1.0,))
FOUR = Target("classes", 4)


def source(labels, centres=(0, 1, 4), target=FOUR, **changes):
    volume = Volume(np.zeros(labels.shape, np.uint8), source="raw.tif")
    return PatchSource(volume, Volume(labels), centres, 3, (4, 4), target, NORM, **changes)


@pytest.fixture
def labels():
    return np.random.default_rng(0).choice(4, (6, 9, 11), p=[0.5, 0.4, 0.09, 0.01]).astype(np.int16)


def expected(labels, kind, centres):
    return {tuple(at) for at in np.argwhere(labels == kind).tolist() if at[0] in centres}


@pytest.mark.parametrize("voxels", [5, 30, 99, 250, 10**6])
def test_all_voxels_of_the_training_slices_are_found_however_they_are_read(labels, voxels):
    found = find_occurrences([source(labels)], 0, voxels=voxels)
    for kind, places in enumerate(found.places, 1):
        assert {tuple(at[1:]) for at in places.tolist()} == expected(labels, kind, (0, 1, 4))
        assert not places[:, 0].any()
        assert len(set(map(tuple, places.tolist()))) == len(places)


def test_several_sources_are_told_apart(labels):
    found = find_occurrences([source(labels), source(labels[:, :5], (2,))], 0)
    for kind, places in enumerate(found.places, 1):
        both = [{tuple(at[1:]) for at in places.tolist() if at[0] == n} for n in (0, 1)]
        assert both == [expected(labels, kind, (0, 1, 4)), expected(labels[:, :5], kind, (2,))]


def test_a_sample_is_bounded_and_even():
    found = find_occurrences(
        [source(np.ones((6, 40, 50), np.uint8), (0, 1, 2, 3), Target("foreground", 1))],
        3,
        most=600,
        voxels=700,
    )
    (places,) = found.places
    assert places.shape == (600, 4)
    assert len(set(map(tuple, places.tolist()))) == 600
    assert np.abs(np.bincount(places[:, 1], minlength=4) - 150).max() < 45  # 4 standard deviations
    assert np.abs(places[:, 2:].mean(0) - (19.5, 24.5)).max() < 2.5


def test_labels_to_ignore_and_boundaries_are_seen_as_they_are_learnt():
    labels = np.full((3, 6, 6), 7, np.uint32)
    labels[:, 3:] = 100_000
    labels[:, :, 5] = 0
    (places,) = find_occurrences(
        [source(labels, (1,), Target("boundary", 1), ignore=0)], 0, voxels=6
    ).places
    assert {tuple(at) for at in places.tolist()} == {(0, 1, y, x) for y in (2, 3) for x in range(5)}


def test_classes_are_drawn_evenly_and_places_of_each_too(labels):
    found = find_occurrences([source(labels)], 0)
    rng = np.random.default_rng(1)
    drawn = [found.draw(rng) for _ in range(3000)]
    kinds = np.bincount([labels[z, y, x] for _, z, y, x in drawn], minlength=4)
    assert kinds[0] == 0
    assert np.abs(kinds[1:] - 1000).max() < 110
    assert {at[1:] for at in drawn if labels[at[1:]] == 3} == expected(labels, 3, (0, 1, 4))


def test_a_class_that_does_not_occur_is_left_out_and_nothing_at_all_is_said(labels):
    labels[labels == 2] = 0
    assert len(find_occurrences([source(labels)], 0).places) == 2
    with pytest.raises(BadInputError, match=r"raw.tif hold no foreground.*leave --balance out"):
        find_occurrences([source(labels * 0)], 0)


def test_the_same_seed_finds_the_same(labels):
    one, two, other = (
        find_occurrences([source(labels)], seed, most=50).places for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
