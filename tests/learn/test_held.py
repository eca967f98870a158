"""Volumes in memory where they fit, else guarded."""

import threading
import time

import numpy as np
import pytest
from evenslice.learn.preload import Guarded, held, held_sources

from counting import Counting
from evenslice.labels.targets import Target
from evenslice.learn.multi_volume import Mixture
from evenslice.learn.patches import Patches, PatchSource
from evenslice.options import TrainOptions
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation

RAW = np.random.default_rng(0).integers(0, 255, (4, 5, 6)).astype(np.uint16)


@pytest.mark.parametrize(
    ("wanted", "room", "whole"),
    [(240, 480, True), (239, 480, False), (240, 479, False), (10**9, 10**9, True)],
)
def test_volumes_are_read_once_if_they_fit_and_are_wanted(wanted, room, whole):
    files = [Volume(Counting(RAW), (3.0, 2.0, 1.0), "a.tif"), Volume(Counting(RAW + 1))]
    ready = held(files, wanted, room)
    for before, after in zip(files, ready, strict=True):
        assert isinstance(after.pixels, np.ndarray) == whole
        assert (after.voxel_nm, after.source, after.dtype) == (
            before.voxel_nm,
            before.source,
            before.dtype,
        )
        everywhere = (slice(None),) * 3
        np.testing.assert_array_equal(after.read(everywhere), before.read(everywhere))
    after.slice_at(2)
    assert len(files[1].pixels.reads) == (5 if whole else 3)


def test_what_lies_in_memory_stays():
    volume = Volume(RAW)
    assert held([volume], 0, 0)[0] is volume


def test_guarded_pixels_are_read_by_one_thread_at_a_time():
    class Fragile(Counting):
        inside = 0

        def __getitem__(self, key):
            Fragile.inside += 1
            assert Fragile.inside == 1
            time.sleep(0.002)
            Fragile.inside -= 1
            return super().__getitem__(key)

    pixels, failures = Guarded(Fragile(RAW)), []

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


def test_patches_are_the_same_from_memory_and_from_files():
    labels = (RAW > 128).astype(np.uint8)
    source = PatchSource(
        Volume(Counting(RAW)),
        Volume(Counting(labels)),
        (0, 1),
        3,
        (4, 4),
        Target("foreground", 1),
        Normalisation((9.0,), (2.0,)),
    )
    recipe = TrainOptions(steps=100)
    made = [held_sources(Mixture((source,)), recipe, free) for free in (0, 10**6)]
    assert [isinstance(m.sources[0].volume.pixels, np.ndarray) for m in made] == [False, True]
    for i in range(5):
        one, other = (Patches(m, 0, 0, 5)[i] for m in made)
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
