"""Raw files with a text file beside them: PyHST, GF-PA66, written by hand."""

import numpy as np

from inputs.case import Case

RAW = "Raw with .info"
STACK = np.random.default_rng(0).integers(0, 255, (7, 20, 24), dtype=np.uint8)
SHORTS = STACK.astype(np.int16) * 100 - 9000
SIZES = "! PyHST_SLAVE VOLUME INFO FILE\nNUM_X = 24\nNUM_Y = 20\nNUM_Z = 7\n"


def file(data=STACK, lines="", sizes=SIZES, header=b""):
    def make(folder):
        (folder / "a.raw").write_bytes(header + data.tobytes())
        (folder / "a.raw.info").write_text(sizes + lines, encoding="utf-8")
        return folder / "a.raw"

    return make


def read(found, answer, make, pixels=STACK, voxel_nm=None, warns=None):
    return Case(RAW, found, answer, make, pixels, voxel_nm, warns)


def refused(found, make, words, answer="refused"):
    return Case(RAW, found, answer, make, refused=words)


CASES = [
    read("no data type, 1 byte per voxel", "uint8", file()),
    read(
        "no data type, 2 bytes per voxel",
        "uint16, and warned of",
        file(SHORTS.view("<u2")),
        SHORTS.view(np.uint16),
        warns="the 2 bytes of a voxel are read as uint16; add a line such as DATA_TYPE",
    ),
    read(
        "no data type, 4 bytes per voxel",
        "float32 as PyHST writes, and warned of",
        file(STACK.astype("<f4")),
        STACK.astype(np.float32),
        warns="the 4 bytes of a voxel are read as float32",
    ),
    read(
        "`DATA_TYPE = int16`, `short`, `16-bit signed`",
        "int16",
        file(SHORTS, "DATA_TYPE = short"),
        SHORTS,
    ),
    read("`DATA_TYPE = int8`", "int8", file(STACK, "data_type = int8"), STACK.view(np.int8)),
    refused(
        "a data type that is unknown", file(lines="DATA_TYPE = rgb"), "states the data type 'rgb'"
    ),
    read(
        "`BYTEORDER = HIGHBYTEFIRST`, `big endian`, `MSB`",
        "the same numbers",
        file(SHORTS.astype(">i2"), "DATA_TYPE = int16\nBYTEORDER = big-endian"),
        SHORTS,
    ),
    refused(
        "a byte order that is unknown",
        file(SHORTS, "DATA_TYPE = int16\nBYTEORDER = 4321"),
        "byte order '4321', expected LOWBYTEFIRST or HIGHBYTEFIRST",
    ),
    read(
        "`HEADER_SIZE = 512`",
        "so many bytes are skipped",
        file(lines="HEADER_SIZE = 512", header=bytes(512)),
    ),
    refused(
        "more or fewer bytes than the sizes state",
        file(header=bytes(512)),
        "has 3872 bytes but a.raw.info states 7 x 20 x 24 voxels",
    ),
    refused(
        "another length than the data type states",
        file(lines="DATA_TYPE = uint16"),
        "has 3360 bytes .* expected 6720 bytes of uint16",
    ),
    refused(
        "a size that is 0 or no whole number",
        file(sizes="NUM_X = 24\nNUM_Y = ?\nNUM_Z = 7\n"),
        "whole number for NUM_Y",
    ),
    refused(
        "a line twice with two values", file(lines="NUM_X = 12"), "states NUM_X twice, 24 and 12"
    ),
    refused("`NUM_C = 2` (channels)", file(SHORTS, "NUM_C = 2"), "more than one channel or time"),
    read(
        "`voxelSize = 1.4`",
        "µm, as PyHST has it",
        file(lines="voxelSize = 1.4"),
        voxel_nm=(1400, 1400, 1400),
    ),
    read(
        "`voxelSize = 4, 5, 50 nm`",
        "x, y, z in that unit",
        file(lines="voxelSize = 4, 5, 50 nm"),
        voxel_nm=(50, 5, 4),
    ),
    read(
        "`unit = nm` on a line of its own",
        "in that unit",
        file(lines="voxelSize = 5\nunit = nm"),
        voxel_nm=(5, 5, 5),
    ),
    read("a voxel size that is negative or 0", "not stated", file(lines="voxelSize = -1.4")),
    read("a voxel size in an unknown unit", "not stated", file(lines="voxelSize = 1 cubit")),
    read(
        "`voxelSize` and `pixelSize` that differ",
        "voxel size not stated, and warned of",
        file(lines="voxelSize = 1\npixelSize = 2"),
        warns="voxelsize 1000 x 1000 x 1000 nm but pixelsize 2000",
    ),
]
