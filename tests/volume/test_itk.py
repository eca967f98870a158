"""What is written as NIfTI, NRRD and MetaImage lies where the raw lies, as SimpleITK sees it."""

import numpy as np
import pytest

from evenslice import segment
from evenslice.errors import BadInputError
from evenslice.volume.array import Volume
from evenslice.volume.files import open_volume, save_volume
from evenslice.volume.itk import WRITTEN
from inputs import itk
from verbs.scenes import identity
from volume.voxels import noise

sitk = pytest.importorskip("SimpleITK")


@pytest.mark.parametrize("ending", WRITTEN)
def test_a_prediction_lies_where_the_raw_lies(tmp_path, ending):
    made = itk.itk(f"raw{ending}", origin=(-1e-5, 8e-6, 4e-4), direction=itk.FLIPPED)(tmp_path)
    out = tmp_path / f"labels{ending}"
    segment(identity(), made, out, precision="fp32", roi="1:6,2:20,4:24")
    raw, labels = sitk.ReadImage(str(made)), sitk.ReadImage(str(out))
    for name in ("GetSpacing", "GetDirection"):
        np.testing.assert_allclose(getattr(labels, name)(), getattr(raw, name)(), rtol=1e-6)
    np.testing.assert_allclose(
        labels.TransformIndexToPhysicalPoint((0, 0, 0)),
        raw.TransformIndexToPhysicalPoint((4, 2, 1)),
        rtol=1e-6,
    )
    found = sitk.GetArrayFromImage(labels)
    assert (found.shape, found.max()) == ((5, 18, 20), 1)
    np.testing.assert_array_equal(found, open_volume(out).read((slice(None),) * 3))
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([made.name, out.name])


def test_a_volume_is_saved_with_its_size_and_meaning(tmp_path):
    save_volume(tmp_path / "a.nrrd", Volume(noise("uint16"), (30.0, 6.0, 5.0), "x", "labels"))
    volume = open_volume(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(volume.read((slice(None),) * 3), noise("uint16"))
    assert (volume.voxel_nm, volume.meaning) == ((30.0, 6.0, 5.0), "labels")
    with pytest.raises(BadInputError, match=r"expected .tif, .tiff, .zarr, .nii"):
        save_volume(tmp_path / "a.mhd", noise())
