"""HDF5 files that are broken, huge by their header, or whose links lead nowhere, elsewhere or in circles."""

import bad_hdf5 as made
import h5py
import numpy as np
import pytest
from checking import Case, listed


def bytes_in(name, body):
    return lambda place: (place / name).write_bytes(body)


def structured(file):
    file["v"] = np.zeros((4, 8, 8), [("a", "u1"), ("b", "f4")])


def texts(file):
    file.create_dataset("v", (4, 8, 8), h5py.string_dtype())


def two(file):
    file["a"], file["b"] = made.GREY, made.GREY


CASES = [
    Case("truncated: hdf5", "inspect cut.h5", ("cut.h5", "HDF5"), made.cut("cut.h5", 0.5)),
    Case("truncated: hdf5 of a header alone", "segment model.safetensors cut.h5 out.zarr", "cut.h5", bytes_in("cut.h5", b"\x89HDF\r\n\x1a\n")),
    Case("links: hdf5 whose names go on in a circle", "inspect v.h5", (), made.circular("v.h5"), code=0),
    Case("zero-byte: hdf5", "audit model.safetensors none.h5", "none.h5 cannot be read as HDF5", bytes_in("none.h5", b"")),
    Case("wrong magic: text named h5", "train text.h5 labels.tif o.safetensors", "text.h5 cannot be read as HDF5", bytes_in("text.h5", b"not an image\n" * 99)),
    Case("wrong magic: tiff named h5", "inspect raw.h5", "raw.h5 cannot be read as HDF5", lambda place: (place / "raw.h5").write_bytes((place / "raw.tif").read_bytes())),
    Case("corrupt: chunk of hdf5", "segment model.safetensors spoilt.h5 out.zarr", ("spoilt.h5:/v", "cannot be read at"), made.spoilt("spoilt.h5")),
    Case("corrupt: chunk of hdf5 in audit", "audit model.safetensors spoilt.h5 --mean 1 --std 1 --tile 32", ("spoilt.h5:/v", "cannot be read at"), made.spoilt("spoilt.h5")),
    Case("absurd size: hdf5 in one piece", "inspect huge.h5", "10000 x 10000 x 10000", made.file_of("huge.h5", made.contiguous), code=0),
    Case("absurd size: hdf5 in segment", "segment model.safetensors huge.h5 out.zarr", ("huge.h5", "--roi"), made.absurd("huge.h5", 10**6)),
    Case("absurd size: hdf5 in segment --output", "segment model.safetensors huge.h5 out.tif --output probabilities", ("huge.h5", "--roi"), made.absurd("huge.h5", 10**6)),
    Case("absurd size: hdf5 in evaluate", "evaluate huge.h5 huge.h5", ("huge.h5", "--roi"), made.absurd("huge.h5", 10**6)),
    Case("absurd size: hdf5 in evaluate as objects", "evaluate huge.h5 huge.h5 --as instances", ("huge.h5", "--roi"), made.absurd("huge.h5", 10**6)),
    Case("absurd size: hdf5 in train", "train huge.h5 huge.h5 o.safetensors", "huge.h5", made.absurd("huge.h5", 10**6)),
    Case("absurd size: hdf5 in audit", "audit model.safetensors huge.h5 --tile 32 --mean 1 --std 1", "huge.h5", made.absurd("huge.h5", 10**6)),
    Case("absurd size: chunk of hdf5", "inspect bomb.h5", "bomb.h5", made.file_of("bomb.h5", made.bomb)),
    Case("absurd size: empty hdf5", "inspect none.h5:/v", "none.h5:/v", made.file_of("none.h5", lambda file: file.create_dataset("v", (0, 8, 8), "u1"))),
    Case("links: dangling soft link", "inspect l.h5:/v", ("l.h5", "/v"), made.file_of("l.h5", made.linked(h5py.SoftLink, "/nowhere"))),
    Case("links: dangling soft link alone", "segment model.safetensors l.h5 out.zarr", "l.h5 holds no dataset", made.file_of("l.h5", made.linked(h5py.SoftLink, "/nowhere"))),
    Case("links: soft link to itself", "inspect l.h5:/v", ("l.h5", "/v"), made.file_of("l.h5", made.linked(h5py.SoftLink, "/v"))),
    Case("links: into another file", "train out.h5:/v labels.tif o.safetensors", ("out.h5:/v", "other.h5", "link into another file"), made.outside),
    Case("links: into a file that is not there", "evaluate l.h5:/v labels.tif", ("l.h5", "/v"), made.file_of("l.h5", made.linked(h5py.ExternalLink, "no.h5", "/v"))),
    Case("links: two files in a circle", "inspect one.h5:/v", "one.h5", made.circle),
    Case("links: virtual dataset", "segment model.safetensors virtual.h5 out.zarr", ("virtual.h5:/v", "virtual dataset", "other.h5"), made.virtual),
    Case("links: bytes of another file", "inspect out.h5", ("out.h5:/v", "/etc/passwd"), made.raw_outside),
    Case("links: group that holds itself", "inspect ring.h5", "6 x 48 x 64", made.file_of("ring.h5", made.ring), code=0),
    Case("links: group that holds itself, by name", "inspect ring.h5:/a/b/up/b/up/b", "ring.h5:/a/b/up/b/up/b is a group", made.file_of("ring.h5", made.ring)),
    Case("nested: 500 groups", "inspect deep.h5", "6 x 48 x 64", made.file_of("deep.h5", made.nested(500)), code=0),
    Case("nested: name of 20000 groups", "inspect raw.h5:" + "/g" * 20000, "raw.h5", made.holding("raw.h5")),
    Case("no volume: group", "inspect g.h5:/g", "g.h5:/g is a group", made.file_of("g.h5", lambda file: file.create_group("g"))),
    Case("no volume: two datasets", "inspect two.h5", ("two.h5 holds 2 volumes", "two.h5:/a"), made.file_of("two.h5", two)),
    Case("no volume: scalar", "inspect s.h5:/v", "s.h5:/v", made.file_of("s.h5", lambda file: file.__setitem__("v", 3))),
    Case("dtype: structured hdf5", "inspect s.h5:/v", ("s.h5:/v", "expected whole or real numbers"), made.file_of("s.h5", structured)),
    Case("dtype: strings in hdf5", "segment model.safetensors t.h5:/v out.zarr", ("t.h5:/v", "expected whole or real numbers"), made.file_of("t.h5", texts)),
    Case("dtype: complex hdf5", "audit model.safetensors c.h5:/v", ("c.h5:/v", "expected whole or real numbers"), made.holding("c.h5", np.complex128)),
    Case("dtype: float64 hdf5", "inspect d.h5", "float64", made.holding("d.h5", np.float64), code=0),
    Case("dtype: bool hdf5", "evaluate b.h5 b.h5", "Dice", made.holding("b.h5", bool), code=0),
    Case("dtype: big-endian hdf5", "inspect e.h5", "uint16", made.holding("e.h5", ">u2"), code=0),
]  # fmt: skip


@pytest.mark.parametrize("case", listed(CASES))
def test_hdf5(checked, case):
    checked(case)
