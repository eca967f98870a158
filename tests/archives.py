"""Small archives of the same layouts as the public ones."""

import io
import zipfile

import h5py
import numpy as np
import tifffile
from PIL import Image

SHAPE = (6, 8, 10)


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive of files by name."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, body in files.items():
            archive.writestr(name, body)
    return buffer.getvalue()


def grey(seed: int = 0, shape=SHAPE) -> np.ndarray:
    """A volume of noise."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def instances(seed: int = 0, shape=SHAPE) -> np.ndarray:
    """Labels 0 to 9."""
    return np.random.default_rng(seed).integers(0, 10, shape, np.uint16)


def tiff(voxels: np.ndarray) -> bytes:
    """A TIFF stack."""
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, voxels, photometric="minisblack")
    return buffer.getvalue()


def png(plane: np.ndarray) -> bytes:
    """A grey picture."""
    buffer = io.BytesIO()
    Image.fromarray(plane).save(buffer, "PNG")
    return buffer.getvalue()


def hdf5(voxels: np.ndarray, name: str = "main") -> bytes:
    """An HDF5 file of one dataset."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset(name, data=voxels, compression="gzip")
    return buffer.getvalue()


def snemi3d(shape=SHAPE) -> dict[str, bytes]:
    """As in snemi.zip of PyTorch Connectomics: flat TIFF stacks, the test labels as HDF5."""
    return {
        "train-input.tif": tiff(grey(1, shape)),
        "train-labels.tif": tiff(instances(1, shape)),
        "test-input.tif": tiff(grey(2, shape)),
        "test-labels.h5": hdf5(instances(2, shape)),
    }


def lucchi() -> dict[str, bytes]:
    """As in lucchi++.zip: four HDF5 files, labels 0 and 255."""
    names = {"train_im.h5": grey(1), "test_im.h5": grey(2)}
    masks = {"train_mito.h5": grey(3), "test_mito.h5": grey(4)}
    return {
        **{name: hdf5(voxels) for name, voxels in names.items()},
        **{name: hdf5(np.uint8(255 * (voxels > 200))) for name, voxels in masks.items()},
    }


def gf_pa66() -> dict[str, bytes]:
    """As in pa66.zip: raw voxels, x fastest, with text files beside them; classes 0, 1, 2."""
    z, y, x = SHAPE
    info = f"! PyHST_SLAVE VOLUME INFO FILE\nNUM_X = {x}\nNUM_Y = {y}\nNUM_Z = {z}\n".encode()
    return {
        "pa66.raw": grey(1).tobytes(),
        "pa66.raw.info": info,
        "pa66.ground_truth.raw": np.uint8(grey(2) // 100).tobytes(),
        "pa66.ground_truth.raw.info": info,
    }


def membranes(seed: int = 5, shape=SHAPE) -> np.ndarray:
    """A thin part of a volume, 1 on it."""
    return np.uint8(grey(seed, shape) > 200)


def isbi() -> dict[str, bytes]:
    """As in ISBI-2012-challenge.zip: a folder, membranes black, cells white."""
    return {
        "ISBI-2012-challenge/train-volume.tif": tiff(grey(1)),
        "ISBI-2012-challenge/train-labels.tif": tiff(255 * (1 - membranes())),
        "ISBI-2012-challenge/test-volume.tif": tiff(grey(2)),
    }


def vnc(membrane_is: int = 255) -> dict[str, bytes]:
    """As in master.zip of groundtruth-drosophila-vnc: a folder per kind, a picture per slice."""
    top = "groundtruth-drosophila-vnc-master"
    files = {f"{top}/README.md": b"Segmented anisotropic ssTEM dataset of neural tissue"}
    for z in range(SHAPE[0]):
        files[f"{top}/stack1/raw/{z:02d}.tif"] = tiff(grey(1)[z])
        edge = 255 * membranes()[z]
        files[f"{top}/stack1/membranes/{z:02d}.png"] = png(
            edge if membrane_is == 255 else 255 - edge
        )
        files[f"{top}/stack1/mitochondria/{z:02d}.png"] = png(255 * membranes(6)[z])
        files[f"{top}/stack2/raw/{z:02d}.tif"] = tiff(grey(3)[z])
    return files
