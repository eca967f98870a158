"""What is looked at of a segmentation is what lies in its file, with the raw slices around it."""

import numpy as np
import pytest

from evenslice import open_volume, segment
from evenslice.segmentation.views import segmentation_looks
from evenslice.volume.array import Volume
from verbs.scenes import identity

WHOLE = (slice(None),) * 3


@pytest.mark.parametrize("axis", ["z", "x"])
def test_windows_hold_what_was_written_there(tmp_path, axis):
    grey = np.random.default_rng(0).integers(0, 255, (9, 40, 48), np.uint8)
    volume = Volume(grey, (40.0, 4.0, 8.0), "raw")
    roi = "2:8,4:40,0:48"
    result = segment(
        identity(),
        volume,
        tmp_path / "s.tif",
        roi=roi,
        axis=axis,
        output="probabilities",
        precision="fp32",
    )
    looks = segmentation_looks(volume, result, roi=roi, axis=axis, count=2, side=20)
    written = open_volume(tmp_path / "s.tif").read(WHOLE)
    raw, box = (grey, (2, 4, 0)) if axis == "z" else (grey.transpose(2, 1, 0), (0, 4, 2))
    made = written if axis == "z" else written.transpose(2, 1, 0)
    assert len(looks) == 2
    for look in looks:
        z, y, x = look.origin
        height, width = look.prediction.shape
        assert look.slices.shape == (result.slices, height, width)
        assert max(height, width) <= 20
        np.testing.assert_array_equal(
            look.slices[result.slices // 2], raw[z, y : y + height, x : x + width]
        )
        there = made[z - box[0], y - box[1] : y - box[1] + height, x - box[2] : x - box[2] + width]
        np.testing.assert_allclose(look.prediction, there / 255, atol=1e-6)
        assert look.voxel_nm == ((40.0, 4.0, 8.0) if axis == "z" else (8.0, 4.0, 40.0))


def test_objects_are_shown_where_there_are_any(tmp_path):
    grey = np.zeros((5, 32, 32), np.uint8)
    grey[:, 4:8, 4:8] = grey[:, 20:28, 20:28] = 255
    result = segment(
        identity(), grey, tmp_path / "s.zarr", instances="components", precision="fp32"
    )
    looks = segmentation_looks(grey, result, count=9)
    assert len(looks) == 5
    assert all(look.numbered for look in looks)
    assert set(np.unique(looks[0].prediction)) == {0, 1, 2}
