"""MRC files that people have: IMOD, SerialEM, mrcfile, and old programs."""

import struct

import mrcfile
import numpy as np

from inputs.case import Case

MRC = "MRC"
BYTES = np.random.default_rng(0).integers(-128, 128, (7, 20, 24)).astype(np.int8)
UNSIGNED = BYTES.view(np.uint8)
SHORTS = BYTES.astype(np.int16) * 200
IMOD = struct.pack("<i", 1146047817)


def file(data=BYTES, angstrom=None, more=b"", extended=b"", **header):
    """What makes a file of these voxels with other numbers in its header, and more at its end."""

    def make(folder):
        with mrcfile.new(folder / "a.mrc") as made:
            made.set_data(data)
            if angstrom:
                made.voxel_size = angstrom
            if extended:
                made.set_extended_header(np.frombuffer(extended, "u1"))
            for name, value in header.items():
                made.header[name] = value
        content = (folder / "a.mrc").read_bytes() + more
        (folder / "a.mrc").write_bytes(content)
        return folder / "a.mrc"

    return make


def imod(flags):
    """The part of the header with the stamp of IMOD, and its flags: 1 for signed bytes."""
    return np.void(bytes(40) + IMOD + struct.pack("<i", flags) + bytes(36))


def read(found, answer, make, pixels=BYTES, voxel_nm=None, warns=None):
    return Case(MRC, found, answer, make, pixels, voxel_nm, warns)


def refused(found, make, words, answer="refused"):
    return Case(MRC, found, answer, make, refused=words)


UNKNOWN = {"dmin": 0.0, "dmax": -1.0}
CASES = [
    read("mode 0, statistics of signed bytes", "int8", file()),
    read("mode 0, flags of IMOD: unsigned", "uint8", file(extra2=imod(0), **UNKNOWN), UNSIGNED),
    read("mode 0, flags of IMOD: signed", "int8", file(extra2=imod(1), **UNKNOWN)),
    read(
        "mode 0 without flags of IMOD, values up to 255 in the statistics",
        "uint8, and warned of",
        file(dmin=0.0, dmax=255.0),
        UNSIGNED,
        warns="numbers are int8, but its header states values from 0 to 255: read as uint8",
    ),
    read(
        "mode 0 without flags of IMOD or statistics",
        "int8 as MRC2014 has it, and warned of",
        file(**UNKNOWN),
        warns="nothing says whether its bytes are signed",
    ),
    read(
        "mode 0, flags of IMOD: unsigned, negative values in the statistics",
        "uint8, and warned of",
        file(extra2=imod(0)),
        UNSIGNED,
        warns="flags of IMOD, whose numbers are uint8, but .* from -12[0-9] to 127",
    ),
    read("mode 1", "int16", file(SHORTS), SHORTS),
    read(
        "mode 1, values up to 60000 in the statistics",
        "int16, and warned of",
        file(SHORTS, dmin=0.0, dmax=60000.0),
        SHORTS,
        warns="numbers are int16, but its header states values from 0 to 60000",
    ),
    read("mode 6", "uint16", file(SHORTS.view(np.uint16)), SHORTS.view(np.uint16)),
    read("mode 12 (float16)", "float32", file(BYTES.astype(np.float16)), BYTES.astype(np.float32)),
    refused("mode 101 (4 bits)", file(mode=101), "MRC mode 101, expected 0, 1, 2, 6 or 12"),
    refused(
        "mode 0, flags of IMOD: two values of 4 bits in a byte",
        file(extra2=imod(16)),
        "two values of 4 bits in each byte",
    ),
    refused("modes 3, 4 (complex)", file(BYTES.astype("c8")), "MRC mode 4, expected 0, 1, 2"),
    refused("mode 16 (colour)", file(mode=16), "MRC mode 16, expected"),
    read("big-endian numbers", "the same numbers", file(SHORTS.astype(">i2")), SHORTS),
    read(
        "a machine stamp that is unknown",
        "the byte order in which the header makes sense",
        file(SHORTS, machst=(1, 2, 3, 4)),
        SHORTS,
    ),
    read(
        "a machine stamp of the other byte order",
        "the byte order in which the header makes sense, and warned of",
        file(SHORTS, machst=(0x11, 0x11, 0, 0)),
        SHORTS,
        warns="machine stamp of big-endian numbers, but .* only as little-endian",
    ),
    read(
        "no word MAP and no machine stamp (before 2000)",
        "read",
        file(SHORTS, map=b"", machst=(0, 0, 0, 0)),
        SHORTS,
    ),
    refused(
        "a stack of volumes (space group 401, mz below nz)",
        file(np.stack([BYTES, BYTES])),
        r"stack of volumes \(space group 401\): 14 sections, 7 per volume",
    ),
    read("space group 401 with one volume", "read", file(ispg=401)),
    read(
        "sections that are a multiple of those of the cell (mz), space group 1",
        "one volume, and warned of",
        file(BYTES[:6], mz=3),
        BYTES[:6],
        warns="has 6 sections but states a cell of 3: if these are several volumes",
    ),
    read("a stack of images (space group 0, mz 1)", "a volume", file(ispg=0, mz=1)),
    refused(
        "axes in another order than 1, 2, 3",
        file(mapc=3, maps=1),
        r"axes in the order \(3, 2, 1\) \(columns, rows, sections\)",
    ),
    refused(
        "more sections than nz states",
        file(nz=5, mz=5),
        "has 4384 bytes, expected 3424 for the 5 x 20 x 24 voxels.* more sections",
    ),
    refused("fewer sections than nz states", file(nz=8), "the 8 x 20 x 24 .* cut off or damaged"),
    read(
        "some bytes more than the header states",
        "not read, and warned of",
        file(more=bytes(100)),
        warns="the last 100 are not read; the slices are shifted if",
    ),
    read("an extended header", "skipped", file(extended=bytes(range(200)))),
    read("a cell in Angstrom", "in nm", file(angstrom=(30.0, 40.0, 500.0)), voxel_nm=(50, 4, 3)),
    read(
        "a cell of other samples (mx) than columns (nx)",
        "the cell over its samples",
        file(angstrom=(40.0, 40.0, 50.0), mx=12, my=10),
        voxel_nm=(5, 8, 8),
    ),
    read("a cell of 0 or negative sides", "voxel size not stated", file(cella=(-96.0, 80.0, 70.0))),
    read("samples (mx) of 0", "voxel size not stated", file(angstrom=40.0, mx=0)),
    read(
        "a cell with oblique angles",
        "voxel size not stated",
        file(angstrom=40.0, cellb=(90, 90, 120)),
    ),
    read(
        "voxels of 1 Angstrom each way",
        "not stated, and warned of: programs write it that do not know",
        file(angstrom=1.0),
        warns="1 Angstrom each way",
    ),
    read(
        "mz 1 and a cell as deep as all sections",
        "voxel size not stated, and warned of",
        file(angstrom=(40.0, 40.0, 280.0), ispg=0, mz=1, cella=(960.0, 800.0, 280.0)),
        warns="280 Angstrom deep for 1 section but has 7",
    ),
    read(
        "mz 1 and a cell as deep as one section",
        "the depth of a section",
        file(ispg=0, mz=1, cella=(960.0, 800.0, 500.0)),
        voxel_nm=(50, 4, 4),
    ),
]
