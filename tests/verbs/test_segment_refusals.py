"""What segment refuses, and what must not cost more than it should."""

import os

import numpy as np
import pytest
import zarr

from evenslice import evaluate, open_volume, save_volume, segment
from evenslice.errors import BadInputError
from evenslice.model.external import form_of
from evenslice.report.tables import print_segmented
from evenslice.verbs.inspect import inspect
from evenslice.volume.array import Volume
from verbs.scenes import blurring


@pytest.mark.parametrize("name", ["v.tif", "v.zarr", "v.zarr/in.zarr"])
def test_what_is_read_is_not_written_over(tmp_path, grey, name):
    for ending in ("tif", "zarr"):
        save_volume(tmp_path / f"v.{ending}", grey)
    source = tmp_path / name.split("/")[0]
    with pytest.raises(BadInputError, match="is read by this command"):
        segment(blurring(), source, tmp_path / name, force=True)
    np.testing.assert_array_equal(open_volume(source).read((slice(None),) * 3), grey)
    with pytest.raises(BadInputError, match="is read by this command"):
        segment(blurring(), tmp_path / "v.zarr" / "0", tmp_path / "v.zarr", force=True)


def test_an_ending_counts_in_any_case(tmp_path, grey):
    segment(blurring(), grey, tmp_path / "s.ZARR")
    assert (tmp_path / "s.ZARR" / "zarr.json").is_file()


def test_a_pipe_is_no_volume(tmp_path):
    os.mkfifo(tmp_path / "f.tif")
    with pytest.raises(BadInputError, match="is a device or pipe"):
        open_volume(tmp_path / "f.tif")
    with pytest.raises(BadInputError, match="the name of a volume is empty"):
        open_volume(" ")


def test_a_file_is_not_taken_for_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert form_of("one.h5:a") == "callable"
    (tmp_path / "one.h5").touch()
    assert form_of("one.h5:a") is None


@pytest.fixture
def huge(tmp_path):
    """A volume of 10^18 voxels, of which nothing is written."""
    path = tmp_path / "huge.zarr"
    zarr.create_array(str(path), shape=(10**6,) * 3, chunks=(1, 64, 64), dtype="uint8")
    return path


@pytest.mark.timeout(60)
@pytest.mark.slow
def test_a_box_of_a_huge_volume_costs_what_a_box_costs(tmp_path, huge):
    made = inspect(huge)
    assert made.to_dict()["size_bytes"] == 10**18
    box = "5:7,0:64,0:64"
    done = segment(blurring(), huge, tmp_path / "o.zarr", roi=box, precision="fp32")
    assert open_volume(done).shape == (2, 64, 64)
    assert sorted(done.blank) == ["4", "5", "6", "7"]
    assert evaluate(huge, huge, roi=box).voxels == 2 * 64 * 64


@pytest.mark.slow
def test_a_tile_too_small_to_be_exact_is_told(tmp_path, grey, make_model, capsys):
    done = segment(
        make_model(), np.tile(grey, (1, 3, 2)), tmp_path / "s.zarr", tile=33, precision="fp32"
    )
    assert done.plan.exact_from is not None
    assert done.plan.exact_from > 33
    print_segmented(done)
    told = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"tiles of {done.plan.exact_from} pixels and more are" in told
    wide = segment(
        make_model(),
        np.tile(grey, (1, 3, 2)),
        tmp_path / "e.zarr",
        tile=done.plan.exact_from,
        precision="fp32",
    )
    assert wide.plan.exact_from is None
    assert wide.plan.cut.overlap == 0


@pytest.mark.parametrize("voxel", [(0, 0, 0), (1e-300, 1, 1), (4, 4), (np.nan, 4, 4)])
def test_an_absurd_voxel_size_is_refused(tmp_path, grey, voxel):
    with pytest.raises(BadInputError, match="expected three numbers of nm"):
        segment(blurring(), Volume(grey), tmp_path / "s.zarr", voxel_nm=voxel)
    assert list(tmp_path.iterdir()) == []


def test_any_error_leaves_nothing(tmp_path, grey, monkeypatch):
    monkeypatch.setattr("evenslice.segmentation.blocks.Work._write", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        segment(blurring(), grey, tmp_path / "s.zarr")
    assert list(tmp_path.iterdir()) == []
