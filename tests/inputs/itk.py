"""NIfTI, NRRD and MetaImage as SimpleITK writes them: nnU-Net, 3D Slicer, elastix."""

import numpy as np
import pytest

from inputs.case import Case

ITK = "NIfTI, NRRD, MetaImage"
STACK = np.random.default_rng(0).integers(0, 255, (7, 20, 24), dtype=np.uint8)
SIZE = (40.0, 4.0, 5.0)
FLIPPED = np.diag([-1.0, -1, 1])


def itk(name, data=STACK, spacing=(5e-6, 4e-6, 4e-5), origin=(0, 0, 0), direction=None):
    """What makes a file; ``direction`` is a matrix of the axes x, y, z."""

    def make(folder):
        sitk = pytest.importorskip("SimpleITK")
        image = sitk.GetImageFromArray(data, isVector=data.shape[-1] == 3)
        count = image.GetDimension()
        image.SetSpacing([*spacing, 1.0][:count])
        image.SetOrigin([*origin, 0.0][:count])
        whole = np.eye(count)
        whole[:3, :3] = np.eye(3) if direction is None else direction
        image.SetDirection(whole.ravel().tolist())
        sitk.WriteImage(image, str(folder / name))
        return folder / name

    return make


def read(found, answer, make, pixels=STACK, voxel_nm=SIZE, **more):
    return Case(ITK, found, answer, make, pixels, voxel_nm, **more)


def refused(found, make, words):
    return Case(ITK, found, "refused", make, refused=words)


def cut(make):
    def made(folder):
        path = make(folder)
        path.write_bytes(path.read_bytes()[:-2000])
        return path

    return made


TURNED = [[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]
CASES = [
    *(
        read(f"`{ending}`, x, y, z in millimetres", "z, y, x in nm", itk(f"a{ending}"))
        for ending in (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
    ),
    read(
        "int16, float32",
        "the same numbers",
        itk("a.nrrd", STACK.astype(np.float32) / 3),
        STACK.astype(np.float32) / 3,
    ),
    read(
        "an origin, and axes in either direction",
        "the place of the first voxel; written again, it lies there",
        itk("a.nii.gz", origin=(-1e-5, 8e-6, 4e-4), direction=FLIPPED),
        origin=(10, -2, 2),
    ),
    read("a spacing of 1, 1, 1", "not stated", itk("a.nii", spacing=(1, 1, 1)), voxel_nm=None),
    read("a time of size 1", "dropped", itk("a.nii", STACK[None])),
    refused("several times", itk("a.nii", np.stack([STACK] * 2)), "more than one value along t"),
    refused("a vector or colour image", itk("a.nrrd", np.stack([STACK] * 3, -1)), "3 values per"),
    refused("oblique axes", itk("a.mha", direction=TURNED), "not along its axes .*0.8, -0.6"),
    refused("axes exchanged", itk("a.mha", direction=np.eye(3)[[2, 1, 0]]), "not along its axes"),
    refused("a file that is cut off", cut(itk("a.mha")), "expected a whole file"),
]
