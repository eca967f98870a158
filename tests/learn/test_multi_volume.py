"""Several volumes: drawn by their voxels, centred on classes, normalised as one, kept in memory."""

import pickle
import threading
import time

import numpy as np
import pytest

from counting import Counting
from evenslice import save_volume
from evenslice.errors import BadInputError
from evenslice.labels.targets import Target
from evenslice.learn.multi_volume import (
    Locked,
    MultiVolume,
    Reopened,
    combined,
    find_class_locations,
)
from evenslice.learn.patches import PatchSource
from evenslice.options import TrainOptions
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation, estimate

NORM = Normalisation((0.0,), (1.0,))
FOUR = Target("classes", 4)


def constant(value, shape, centres, labels=None, crop=(4, 4)):
    labels = np.zeros(shape, np.uint8) if labels is None else labels
    volume = Volume(np.full(shape, value, np.uint8))
    return PatchSource(volume, Volume(labels), centres, 3, crop, Target("classes", 3), NORM)


def drawn(source, count):
    return [source.patch(1, i) for i in range(count)]


def test_one_volume_is_drawn_from_as_if_alone():
    alone = constant(1, (5, 9, 9), (0, 2))
    alone.volume.pixels[:] = np.random.default_rng(0).integers(0, 255, (5, 9, 9))
    for i in range(10):
        one, other = (s.draw(np.random.default_rng(i)) for s in (alone, MultiVolume((alone,))))
        np.testing.assert_array_equal(one[0], other[0])


def test_volumes_are_drawn_in_proportion_to_their_training_voxels():
    shapes = [((9, 8, 8), (0, 1, 2)), ((9, 8, 16), (3,)), ((9, 16, 16), (4, 5))]
    source = MultiVolume(tuple(constant(n, *one) for n, one in enumerate(shapes, 1)))
    counts = np.bincount([int(w[0, 0, 0]) for w, _ in drawn(source, 1500)], minlength=4)[1:]
    expected = 1500 * np.array([192, 128, 512]) / 832
    assert np.abs(counts - expected).max() < 4 * np.sqrt(1500 * 0.25)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_so_many_patches_are_centred_on_a_class_and_rare_ones_are_seen(balance):
    labels = np.zeros((5, 60, 60), np.uint8)
    labels[0, 30, 20] = 2
    labels[:3, 10:50, 10:50] += (labels[:3, 10:50, 10:50] == 0).astype(np.uint8)
    one = constant(1, labels.shape, (0, 1, 2), labels, (5, 5))
    source = MultiVolume((one,), find_class_locations([one], 0) if balance else None, balance)
    centres = np.bincount([int(t[2, 2]) for _, t in drawn(source, 600)], minlength=3) / 600
    assert centres[2] == pytest.approx(balance / 2, abs=0.08)
    assert centres[0] == pytest.approx((1 - balance) * 0.5, abs=0.1)


def test_a_location_is_read_from_its_own_volume():
    labels = np.zeros((4, 20, 20), np.uint8)
    marked = labels.copy()
    marked[1, 7, 9] = 1
    both = (constant(1, labels.shape, (0, 1), labels), constant(2, labels.shape, (0, 1), marked))
    for window, target in drawn(MultiVolume(both, find_class_locations(both, 0), 1.0), 20):
        assert (window == 2).all()
        assert target.sum() == 1


def test_the_normalisation_of_several_volumes_is_that_of_all_their_voxels():
    rng = np.random.default_rng(0)
    volumes = [rng.normal(100, 20, (4, 9, 9)), rng.normal(30, 5, (3, 5, 20))]
    parts = [estimate(Volume(v)) for v in volumes]
    found = combined(parts, [v.size for v in volumes])
    every = np.concatenate([v.ravel() for v in volumes])
    assert found.mean == pytest.approx((every.mean(),), rel=1e-12)
    assert found.std == pytest.approx((every.std(),), rel=1e-12)
    assert combined(parts[:1], [3]) is parts[0]


def labelled(labels, centres=(0, 1, 4), target=FOUR, **changes):
    volume = Volume(np.zeros(labels.shape, np.uint8), source="raw.tif")
    return PatchSource(volume, Volume(labels), centres, 3, (4, 4), target, NORM, **changes)


@pytest.fixture
def labels():
    return np.random.default_rng(0).choice(4, (6, 9, 11), p=[0.5, 0.4, 0.09, 0.01]).astype(np.int16)


def expected(labels, kind, centres):
    return {tuple(at) for at in np.argwhere(labels == kind).tolist() if at[0] in centres}


@pytest.mark.parametrize("block", [5, 30, 99, 250, 10**6])
def test_all_voxels_of_the_training_slices_are_found_however_they_are_read(labels, block):
    found = find_class_locations([labelled(labels)], 0, block=block)
    for kind, voxels in enumerate(found.voxels, 1):
        assert {tuple(at[1:]) for at in voxels.tolist()} == expected(labels, kind, (0, 1, 4))
        assert not voxels[:, 0].any()
        assert len(set(map(tuple, voxels.tolist()))) == len(voxels)


def test_locations_name_their_source(labels):
    found = find_class_locations([labelled(labels), labelled(labels[:, :5], (2,))], 0)
    for kind, voxels in enumerate(found.voxels, 1):
        both = [{tuple(at[1:]) for at in voxels.tolist() if at[0] == n} for n in (0, 1)]
        assert both == [expected(labels, kind, (0, 1, 4)), expected(labels[:, :5], kind, (2,))]


def test_a_sample_is_bounded_and_even():
    ones = labelled(np.ones((6, 40, 50), np.uint8), (0, 1, 2, 3), Target("foreground", 1))
    (voxels,) = find_class_locations([ones], 3, most=600, block=700).voxels
    assert voxels.shape == (600, 4)
    assert len(set(map(tuple, voxels.tolist()))) == 600
    assert np.abs(np.bincount(voxels[:, 1], minlength=4) - 150).max() < 45  # 4 standard deviations
    assert abs(voxels[:, 2].mean() - 19.5) < 4 * 11.5 / np.sqrt(600)


def test_ignored_labels_are_no_locations():
    labels = np.full((3, 6, 6), 7, np.uint32)
    labels[:, 3:] = 100_000
    labels[:, :, 5] = 0
    source = labelled(labels, (1,), Target("boundary", 1, 0))
    (voxels,) = find_class_locations([source], 0, block=6).voxels
    assert {tuple(at) for at in voxels.tolist()} == {(0, 1, y, x) for y in (2, 3) for x in range(5)}


def test_classes_are_drawn_evenly_and_voxels_of_each_too(labels):
    found = find_class_locations([labelled(labels)], 0)
    rng = np.random.default_rng(1)
    draws = [found.draw(rng) for _ in range(3000)]
    kinds = np.bincount([labels[z, y, x] for _, z, y, x in draws], minlength=4)
    assert kinds[0] == 0
    assert np.abs(kinds[1:] - 1000).max() < 110
    assert {at[1:] for at in draws if labels[at[1:]] == 3} == expected(labels, 3, (0, 1, 4))


def test_a_class_that_does_not_occur_is_left_out_and_no_foreground_is_refused(labels):
    labels[labels == 2] = 0
    assert len(find_class_locations([labelled(labels)], 0).voxels) == 2
    with pytest.raises(BadInputError, match=r"raw.tif hold no foreground.*leave --balance out"):
        find_class_locations([labelled(labels * 0)], 0)


def test_the_same_seed_finds_the_same(labels):
    one, two, other = (
        find_class_locations([labelled(labels)], seed, most=50).voxels for seed in (1, 1, 2)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


RAW = np.random.default_rng(0).integers(0, 255, (4, 5, 6)).astype(np.uint16)


def on_files():
    return PatchSource(
        Volume(Counting(RAW), (3.0, 2.0, 1.0), "a.tif"),
        Volume(Counting((RAW > 128).astype(np.uint8))),
        (0, 1),
        3,
        (4, 4),
        Target("foreground", 1),
        Normalisation((9.0,), (2.0,)),
    )


# Volume and labels have 240 voxels and 360 bytes; training reads 48 voxels a patch.
@pytest.mark.parametrize(
    ("patches", "free", "whole"),
    [(5, 4 * 360, True), (4, 4 * 360, False), (5, 4 * 360 - 1, False), (500, 10**9, True)],
)
def test_volumes_are_read_once_if_they_fit_and_are_needed(patches, free, whole):
    source = MultiVolume((on_files(),))
    ready = source.preloaded(TrainOptions(steps=patches, batch=1), free)
    before, after = source.sources[0].volume, ready.sources[0].volume
    assert isinstance(after.pixels, np.ndarray) == whole
    assert (after.voxel_nm, after.source, after.dtype) == ((3, 2, 1), "a.tif", np.uint16)
    reads = len(before.pixels.reads)
    for i in range(5):
        for one, other in zip(source.patch(0, i), ready.patch(0, i), strict=True):
            np.testing.assert_array_equal(one, other)
    assert len(before.pixels.reads) - reads == (5 if whole else 10)
    again = ready.preloaded(TrainOptions(steps=patches, batch=1), 0)
    assert (again.sources[0].volume is after) == whole


def test_locked_pixels_are_read_by_one_thread_at_a_time():
    class Fragile(Counting):
        inside = 0

        def __getitem__(self, key):
            Fragile.inside += 1
            assert Fragile.inside == 1
            time.sleep(0.002)
            Fragile.inside -= 1
            return super().__getitem__(key)

    pixels, failures = Locked(Fragile(RAW)), []

    def read():
        try:
            np.testing.assert_array_equal(pixels[0:2], RAW[0:2])
        except AssertionError as error:
            failures.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_another_process_opens_a_file_for_itself(tmp_path):
    save_volume(tmp_path / "a.tif", RAW)
    pixels = Reopened(str(tmp_path / "a.tif"), RAW.shape, RAW.dtype)
    assert (pixels[2:3] == RAW[2:3]).all()
    sent = pickle.loads(pickle.dumps(pixels))
    assert (sent.shape, sent.dtype) == (RAW.shape, RAW.dtype)
    assert (sent[2:3] == RAW[2:3]).all()
