"""Boxes of bounded size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenslice.labels.blocks import bands, faces_of, grid_of, with_halo

law = settings(derandomize=True, deadline=None, max_examples=40)
side = st.integers(1, 6)


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


@law
@given(st.tuples(side, side, side), st.tuples(side, side, side), st.tuples(side, side, side))
def test_boxes_cover_every_voxel_once_and_meet_at_every_inner_face(shape, block, halo):
    boxes = grid_of(shape, block)
    owner = np.full(shape, -1)
    for i, box in enumerate(boxes):
        assert (owner[box] == -1).all()
        owner[box] = i
        read, inside = with_halo(box, halo, shape)
        np.testing.assert_array_equal(
            np.arange(np.prod(shape)).reshape(shape)[read][inside],
            np.arange(np.prod(shape)).reshape(shape)[box],
        )
        for span, core, wide, size in zip(read, box, halo, shape, strict=True):
            assert (span.start, span.stop) == (
                max(0, core.start - wide),
                min(size, core.stop + wide),
            )
    assert (owner >= 0).all()
    met = [(f.box, f.other) for f in faces_of(boxes)]
    for f in faces_of(boxes):
        assert (owner[f.plane] == f.box).all() and (owner[f.facing] == f.other).all()
        assert owner[f.plane].shape == owner[f.facing].shape
    expected = set()
    for axis in range(3):
        a, b = np.moveaxis(owner, axis, 0)[:-1], np.moveaxis(owner, axis, 0)[1:]
        expected |= set(zip(a[a != b].tolist(), b[a != b].tolist(), strict=True))
    assert len(met) == len(set(met))
    assert set(met) == expected
