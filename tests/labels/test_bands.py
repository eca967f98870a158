"""Boxes of bounded size."""

import numpy as np
import pytest

from evenslice.labels.blocks import bands


@pytest.mark.parametrize("most", [1, 6, 7, 13, 29, 30, 31, 60, 61, 1000])
@pytest.mark.parametrize("halo", [0, 2])
def test_every_voxel_is_in_one_box_and_boxes_are_small(most, halo):
    shape = (4, 5, 6)
    seen = np.zeros(shape, int)
    for band in bands(shape, halo, most):
        assert seen[band.z, band.rows].size <= max(most, 6)
        core = seen[band.box][:, band.inside]
        assert (
            np.shares_memory(core, seen[band.z, band.rows])
            and core.shape == seen[band.z, band.rows].shape
        )
        core += 1
        assert band.read.start == max(0, band.rows.start - halo) and band.read.stop == min(
            5, band.rows.stop + halo
        )
    assert (seen == 1).all()


def test_whole_slices_go_together_where_they_fit():
    assert [b.z for b in bands((5, 4, 4), most=40)] == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert [(b.z, b.rows) for b in bands((1, 4, 4), most=8)] == [
        (slice(0, 1), slice(0, 2)),
        (slice(0, 1), slice(2, 4)),
    ]
