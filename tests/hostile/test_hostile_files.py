"""MRC files, raw voxels and folders of pictures that are broken, absurd or mixed."""

import bad_files as made
import bad_tiff
import numpy as np
import pytest
from bad_files import both, bytes_in
from checking import Case, listed

PLANE = made.GREY[0]
COLOUR = np.random.default_rng(0).integers(0, 200, (48, 64, 3), np.uint8)
WIDE = np.uint16(PLANE) * 256

MRC = [
    Case("truncated: mrc", "segment model.safetensors v.mrc out.zarr", "v.mrc is cut off or damaged", bytes_in("v.mrc", made.mrc()[:9000])),
    Case("truncated: mrc header", "inspect v.mrc", "v.mrc", bytes_in("v.mrc", made.mrc()[:500])),
    Case("zero-byte: mrc", "train v.mrc labels.tif o.safetensors", "v.mrc", bytes_in("v.mrc", b"")),
    Case("wrong magic: mrc", "inspect v.mrc", ("v.mrc", "MRC"), bytes_in("v.mrc", made.mrc(magic=b"PAM "))),
    Case("wrong magic: mrc of another machine", "inspect v.mrc", "v.mrc", bytes_in("v.mrc", made.mrc(stamp=b"\x77\x77\0\0"))),
    Case("bad header: mrc mode 99", "inspect v.mrc", "v.mrc", bytes_in("v.mrc", made.mrc(mode=99))),
    Case("bad header: mrc of complex numbers", "audit model.safetensors v.mrc", "v.mrc has MRC mode 4", bytes_in("v.mrc", made.mrc(mode=4))),
    Case("bad header: mrc mode -1", "segment model.safetensors v.mrc out.tif", "v.mrc", bytes_in("v.mrc", made.mrc(mode=-1))),
    Case("bad header: mrc of negative sizes", "inspect v.mrc", "v.mrc is cut off or damaged", bytes_in("v.mrc", made.mrc(nx=-64, ny=-48))),
    Case("bad header: mrc of no sizes", "evaluate v.mrc v.mrc", "v.mrc is cut off or damaged", bytes_in("v.mrc", made.mrc(nz=0))),
    Case("bad header: mrc with 2 GB before its data", "inspect v.mrc", "v.mrc", bytes_in("v.mrc", made.mrc(nsymbt=2**31 - 1))),
    Case("bad header: mrc with fewer than no bytes before its data", "inspect v.mrc", "v.mrc", bytes_in("v.mrc", made.mrc(nsymbt=-2))),
    Case("bad header: mrc of turned axes", "segment model.safetensors v.mrc out.zarr", ("v.mrc", "(2, 1, 3)"), bytes_in("v.mrc", made.mrc(axes=(2, 1, 3)))),
    Case("bad header: mrc of odd axes", "inspect v.mrc", ("v.mrc", "(7, -1, 7)"), bytes_in("v.mrc", made.mrc(axes=(7, -1, 7)))),
    Case("absurd size: mrc", "segment model.safetensors v.mrc out.zarr", "v.mrc is cut off or damaged", bytes_in("v.mrc", made.mrc(nx=10**4, ny=10**4, nz=10**4))),
    Case("absurd size: mrc of the largest sides", "audit model.safetensors v.mrc", "v.mrc is cut off or damaged", bytes_in("v.mrc", made.mrc(nx=2**31 - 1, ny=2**31 - 1, nz=2**31 - 1))),
    Case("absurd size: mrc in a file of holes", "inspect v.mrc", "2000000 x 1000 x 1000", made.sparse("v.mrc", 1024 + 2 * 10**12, made.mrc(1000, 1000, 2 * 10**6, data=b"")), code=0),
]  # fmt: skip
RAW = [
    Case("truncated: raw", "segment model.safetensors v.raw out.zarr", ("v.raw has 18000 bytes", "18432 bytes of uint8"), made.raw(made.sizes(64, more="DATA_TYPE = uint8"), made.GREY.tobytes()[:18000])),
    Case("zero-byte: raw", "inspect v.raw", "v.raw has 0 bytes", made.raw(made.sizes(64), b"")),
    Case("zero-byte: raw.info", "inspect v.raw", "v.raw.info does not state whole numbers", made.raw("")),
    Case("bad header: no raw.info", "train v.raw labels.tif o.safetensors", "v.raw has no v.raw.info beside it", made.raw(None)),
    Case("bad header: raw.info of words", "inspect v.raw", "v.raw.info does not state whole numbers", made.raw(made.sizes("many"))),
    Case("bad header: raw.info of fractions", "inspect v.raw", "v.raw.info does not state whole numbers", made.raw(made.sizes("64.5"))),
    Case("bad header: raw.info of negative sizes", "evaluate v.raw v.raw", "v.raw", made.raw(made.sizes(-64, -48))),
    Case("bad header: raw.info of no size", "inspect v.raw", "v.raw", made.raw(made.sizes(0))),
    Case("bad header: raw.info without a size", "inspect v.raw", "v.raw.info does not state whole numbers", made.raw("NUM_X = 64\nNUM_Y = 48\n")),
    Case("bad header: raw.info of bytes", "inspect v.raw", "v.raw.info", made.raw(bytes(range(256)) * 9)),
    Case("bad header: raw.info of an unknown type", "inspect v.raw", ("v.raw.info", "'complex'"), made.raw(made.sizes(64, more="DATA_TYPE = complex"))),
    Case("bad header: raw.info of nan as voxel size", "inspect v.raw", "not stated", made.raw(made.sizes(64, more="voxelSize = nan")), code=0),
    Case("bad header: raw.info of 6000 digits", "inspect v.raw", "v.raw.info does not state whole numbers", made.raw(made.sizes("9" * 6000))),
    Case("bad header: raw.info that is a folder", "inspect v.raw", "v.raw has no v.raw.info", both(made.raw(None), lambda place: (place / "v.raw.info").mkdir())),
    Case("absurd size: raw.info", "segment model.safetensors v.raw out.zarr", ("v.raw has 18432 bytes", "1000000 x 1000 x 1000"), made.raw(made.sizes(1000, 1000, 10**6))),
    Case("absurd size: raw.info of 2^200 voxels", "inspect v.raw", "v.raw has 18432 bytes", made.raw(made.sizes(2**70, 2**70, 2**60))),
    Case("absurd size: raw.info of 1 GB", "inspect v.raw", "v.raw.info", both(made.raw(None), made.sparse("v.raw.info", 10**9))),
    Case("absurd size: raw in a file of holes", "inspect v.raw", "1000000 x 1000 x 1000", both(made.raw(made.sizes(1000, 1000, 10**6)), made.sparse("v.raw", 10**12)), code=0),
    Case("absurd size: raw in a file of holes in audit", "audit model.safetensors v.raw --tile 32 --mean 1 --std 1", "v.raw is constant", both(made.raw(made.sizes(1000, 1000, 10**6)), made.sparse("v.raw", 10**12))),
]  # fmt: skip
FOLDERS = [
    Case("folder: none", "segment model.safetensors none out.zarr", "the folder none holds no images", made.pictures("none")),
    Case("folder: two sizes", "segment model.safetensors two out.zarr", ("003.png", "like 000.png"), made.pictures("two", PLANE, PLANE, PLANE, PLANE[:40], PLANE)),
    Case("folder: two sizes in audit", "audit model.safetensors two --tile 32", ("003.png", "like 000.png"), made.pictures("two", PLANE, PLANE, PLANE, PLANE[:, :40], PLANE)),
    Case("folder: two depths of bits", "train two labels.tif o.safetensors --weights none", ("001.png", "like 000.png"), made.pictures("two", WIDE, *[PLANE] * 8)),
    Case("folder: two depths of bits in evaluate", "evaluate two two", ("002.png", "uint16"), made.pictures("two", PLANE, PLANE, WIDE)),
    Case("folder: one in colour", "segment model.safetensors one out.tif", ("002.png", "colour"), made.pictures("one", PLANE, PLANE, COLOUR, PLANE)),
    Case("folder: all in colour", "inspect all", ("000.png", "colour image"), made.pictures("all", COLOUR, COLOUR)),
    Case("folder: a stray text", "inspect stray", "2 x 48 x 64", made.pictures("stray", PLANE, PLANE, notes_txt=b"mine", Thumbs_db=b"\0"), code=0),
    Case("folder: two kinds", "inspect kinds", ("the folder kinds", ".jpg, .png"), made.pictures("kinds", PLANE, PLANE, x_jpg=b"")),
    Case("folder: text named png", "segment model.safetensors text out.zarr", ("zz.png", "cannot be read as an image"), made.pictures("text", PLANE, PLANE, PLANE, zz_png=b"not an image")),
    Case("folder: folder of folders", "inspect outer", "the folder outer holds no images", lambda place: (place / "outer" / "inner.png").mkdir(parents=True)),
    Case("zero-byte: png", "inspect zero", ("000.png", "cannot be read as an image"), made.pictures("zero", **{"000_png": b""})),
    Case("truncated: png", "evaluate cut cut", ("9.png", "cannot be read as an image"), made.pictures("cut", **{"9_png": made.png_header(64, 48)[:60]})),
    Case("absurd size: png", "inspect huge", ("9.png",), made.pictures("huge", **{"9_png": made.png_header(10**6, 10**6)})),
    Case("absurd size: png in segment", "segment model.safetensors huge out.zarr", ("9.png",), made.pictures("huge", **{"9_png": made.png_header(2 * 10**5, 2 * 10**5)})),
    Case("absurd size: tiff in a folder", "inspect huge", "9.tif", made.pictures("huge", **{"9_tif": bad_tiff.plain(10**6, 10**6, b"\0" * 64, t259=(3, 8))})),
    Case("names: numbers past ten", "inspect many", "12 x 48 x 64", made.pictures("many", *[PLANE] * 12), code=0),
]  # fmt: skip


@pytest.mark.parametrize("case", listed(MRC))
def test_mrc(checked, case):
    checked(case)


@pytest.mark.parametrize("case", listed(RAW))
def test_raw(checked, case):
    checked(case)


@pytest.mark.parametrize("case", listed(FOLDERS))
def test_folders(checked, case):
    checked(case)
