"""Folders of images that people have."""

import struct
import zlib

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from inputs.case import Case

STACK = np.random.default_rng(0).integers(0, 255, (13, 9, 14), dtype=np.uint8)
LABELS = (STACK[:3] % 4).astype(np.uint8)
DEEP = STACK.astype(np.uint16)[:3] * 257 + 7
ORDER = "Folder of images: order and gaps"
NUMBERS = "Folder of images: stored numbers"
COLOURS = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]  # of PASCAL VOC, which label images share
TABLE = "a colour table"


def saved(*names, planes=STACK, write=None, extra=()):
    """Return what saves one image for each name, and the files that are no images."""

    def make(folder):
        for number, (name, plane) in enumerate(zip(names, planes, strict=False)):
            if write is None:
                Image.fromarray(plane).save(folder / name)
            else:
                write(folder / name, plane, number)
        for name in extra:
            (folder / name).write_bytes(b"no image")
        return folder

    return make


def ordered(found, answer, *names, **more):
    """Return the case of names in the order in which they are to be read."""
    pixels = None if "refused" in more else STACK[: len(names)]
    return Case(ORDER, found, answer, saved(*names, extra=more.pop("extra", ())), pixels, **more)


def three(found, answer, suffix, planes, write, pixels=None, **more):
    """Return the case of three slices that are written one way."""
    names = [f"s{z}{suffix}" for z in range(3)]
    pixels = None if "refused" in more else planes if pixels is None else pixels
    return Case(NUMBERS, found, answer, saved(*names, planes=planes, write=write), pixels, **more)


def png(depth):
    """Write grey PNG of 1, 2 or 4 bits, as optimisers do; Pillow writes no such files."""

    def write(path, plane, _):
        bits = np.unpackbits(plane.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        rows = np.packbits(bits.reshape(len(plane), -1), axis=1)
        data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
        size = struct.pack(">IIBBBBB", plane.shape[1], plane.shape[0], depth, 0, 0, 0, 0)
        chunks = [
            struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
            for name, part in ((b"IHDR", size), (b"IDAT", data), (b"IEND", b""))
        ]
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))

    return write


def deep_png(channels):
    """Write PNG of 16 bits a sample, grey in several channels."""

    def write(path, plane, _):
        alpha = [np.full_like(plane, 65535)] * (channels in (2, 4))
        image = np.stack([plane] * (channels - len(alpha)) + alpha, -1)
        path.write_bytes(imagecodecs.png_encode(image))

    return write


def palette(*tables):
    """Write numbers with a table of colours, another one for each slice."""

    def write(path, plane, number):
        image = Image.fromarray(plane, "P")
        image.putpalette(tables[min(number, len(tables) - 1)])
        image.save(path)

    return write


def pgm(kind, largest, comment=""):
    """Write PGM by hand: Pillow writes only the full range."""

    def write(path, plane, _):
        height, width = plane.shape
        numbers = (
            " ".join(map(str, plane.ravel())).encode()
            if kind == "P2"
            else plane.astype(">u2" if largest > 255 else "u1").tobytes()
        )
        path.write_bytes(f"{kind}\n{comment}{width} {height}\n{largest}\n".encode() + numbers)

    return write


def pillow(mode=None, orientation=None, **options):
    def write(path, plane, number):
        image = Image.fromarray(plane)
        exif = Image.Exif()
        if orientation is not None and number >= orientation[1]:
            exif[274] = orientation[0]
        image.convert(mode or image.mode).save(path, exif=exif, **options)

    return write


def tiff(photometric="minisblack", since=0, **options):
    """Write TIFF, from one slice on with this photometric interpretation."""

    def write(path, plane, number):
        kind = photometric if number >= since else "minisblack"
        tifffile.imwrite(path, plane, photometric=kind, **options)

    return write


def animated(path, plane, _):
    Image.fromarray(plane).save(path, save_all=True, append_images=[Image.fromarray(255 - plane)])


def part_of_ome(path, plane, number):
    """Write one file of an OME-TIFF of three."""
    uuid = [f"urn:uuid:00000000-0000-0000-0000-00000000000{z}" for z in range(3)]
    data = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="s{z}.tif">{uuid[z]}</UUID>'
        "</TiffData>"
        for z in range(3)
    )
    xml = (
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{uuid[number]}">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="14" '
        f'SizeY="9" SizeZ="3" SizeC="1" SizeT="1">{data}</Pixels></Image></OME>'
    )
    tifffile.imwrite(path, plane, description=xml, metadata=None, photometric="minisblack")


RGB = np.repeat(STACK[:3, ..., None], 3, -1)
GREY_ALPHA = np.stack([STACK[:3], 255 - STACK[:3]], -1)
CMYK = np.repeat(STACK[:3, ..., None], 4, -1)
COLOURED = RGB + np.array([0, 1, 0], np.uint8)

CASES = [
    ordered(
        "`slice2.png` and `slice10.png`",
        "numbers are compared as numbers: 2 comes before 10",
        *[f"slice{z}.png" for z in range(13)],
    ),
    ordered(
        "`z0`, `z0.25`, `z0.5`, `z1`",
        "decimals are compared as decimals",
        *[f"z{z / 4:g}.png" for z in range(9)],
    ),
    *[
        ordered(
            f"`z0{point}25`, `z0{point}5`, `z1{point}0`",
            f"`{point}` is a decimal point",
            *[f"z{number.replace('.', point)}.png" for number in ("0.25", "0.5", "0.75", "1.0")],
        )
        for point in ",p"
    ],
    ordered(
        "`z-10`, `z-5`, `z0`, `z5`",
        "a hyphen is a sign where only some names have it",
        *[f"z{z}.png" for z in (-10, -5, 0, 5)],
    ),
    ordered(
        "`z-1.50`, `z-1.25`, `z-1.00`",
        "a hyphen before decimals is a sign",
        *[f"z{z}.png" for z in ("-1.50", "-1.25", "-1.00")],
    ),
    ordered(
        "`slice-1`, `slice-2`, `slice-10`",
        "a hyphen before every whole number is none",
        *[f"slice-{z}.png" for z in range(1, 11)],
    ),
    ordered(
        "`stack1.8`, `stack1.9`, `stack1.10`",
        "two whole numbers, where decimals would leave gaps",
        *[f"stack1.{z}.png" for z in (8, 9, 10, 11)],
    ),
    ordered(
        "`1_raw`, `2_raw_v2`, `10_raw`",
        "what follows the number does not matter",
        *[f"{z}_raw{'_v2' * (z % 3 == 0)}.png" for z in range(1, 11)],
    ),
    ordered("`1of3`, `2of3`", "a number that never changes is no position", "1of3.png", "2of3.png"),
    ordered(
        "`r0-c1_s9`, `r0-c1_s10`",
        "the number that runs is the position",
        *[f"r0-c1_s{z}.png" for z in (8, 9, 10)],
    ),
    ordered(
        "`173059_s1`, `093000_s2` (time and section)",
        "of two numbers the one that runs with fewer gaps is the position",
        *[f"{t}_s{z}.png" for z, t in enumerate(("173059", "093000", "120102", "080000"))],
    ),
    ordered(
        "`left_1`, `right_2`, `left_3`",
        "the number is the position, not the text before it",
        *[f"{'left' if z % 2 else 'right'}_{z}.png" for z in range(1, 6)],
    ),
    ordered("`image (2).PNG`, `image (10).png`", "in any case", "image (2).PNG", "image (3).png"),
    ordered(
        "hidden files, `Thumbs.db`, text files",
        "left out",
        "s0.png",
        "s1.png",
        extra=("._s0.png", "Thumbs.db", "notes.txt"),
    ),
    ordered(
        "every second number: `s0`, `s2`, `s4`",
        "no gap: the distance is the same everywhere",
        *[f"s{z}.png" for z in (0, 2, 4)],
    ),
    ordered(
        "numbers 1 2 3 5 6 9",
        "read; warning: sections 4, 7 and 8 are missing",
        *[f"section_{z:04}.png" for z in (1, 2, 3, 5, 6, 9)],
        warns="sections 4, 7 and 8 are missing",
    ),
    ordered(
        "numbers 1 to 4 and 8 to 10",
        "read; warning: sections 5 to 7 are missing",
        *[f"{z}.png" for z in (1, 2, 3, 4, 8, 9, 10)],
        warns="sections 5 to 7 are missing",
    ),
    ordered(
        "positions 0.25, 0.5, 1, 1.25",
        "read; warning: section 0.75 is missing",
        *[f"z{z}.png" for z in (0.25, 0.5, 1, 1.25)],
        warns=r"section 0\.75 is missing",
    ),
    ordered(
        "numbers 1 2 3 500",
        "read; warning: 500 comes after 3",
        *[f"s{z}.png" for z in (1, 2, 3, 500)],
        warns="500 comes after 3",
    ),
    ordered(
        "`w1_s1` to `w1_s3`, `w2_s1` to `w2_s2`",
        "read in the order of both numbers; warning",
        *[f"w{w}_s{z}.png" for w, z in ((1, 1), (1, 2), (1, 3), (2, 1), (2, 2))],
        warns="counts in 2 places",
    ),
    ordered(
        "no numbers",
        "read in alphabetical order; warning",
        *[f"{name}.png" for name in ("a", "b", "c")],
        warns="alphabetical",
    ),
    ordered(
        "two series: `a_1`, `b_1`",
        "refused",
        *[f"{s}_{z}.png" for s in "ab" for z in range(3)],
        refused=r"a_0.png and b_0.png",
    ),
    ordered(
        "images and masks: `1.png`, `1_mask.png`",
        "refused",
        *[f"{z}{end}.png" for z in (1, 2) for end in ("", "_mask")],
        refused="several series",
    ),
    ordered(
        "channels: `z0_c0`, `z0_c1`, `z1_c0`",
        "refused: every combination is there",
        *[f"z{z}_c{c}.png" for z in range(3) for c in range(2)],
        refused="every combination of 3 and 2",
    ),
    ordered(
        "tiles: `r0-c0`, `r0-c1`, `r1-c0`, `r1-c1`",
        "refused: every combination is there",
        *[f"tile_r{r}-c{c}.png" for r in range(2) for c in range(2)],
        refused="channels or tiles",
    ),
    ordered(
        "`1.png` beside `01.png`", "refused", "01.png", "1.png", "2.png", refused="several series"
    ),
    ordered(
        "`overview.png` beside `s1`, `s2`",
        "refused",
        *["overview.png", "s1.png", "s2.png"],
        refused="overview.png has no number",
    ),
    ordered(
        "`t0_z3`, `t1_z2`, `t2_z1`",
        "refused: two numbers run against each other",
        *[f"t{t}_z{3 - t}.png" for t in range(3)],
        refused="different orders",
    ),
    ordered(
        "`0_z7`, `1_z4`, `2_z6`, `3_z3`",
        "refused: the position is not what the images were numbered by",
        *[f"{n}_z{z}.png" for n, z in enumerate((7, 4, 6, 3))],
        refused="different orders",
    ),
    ordered("`.png` beside `.bmp`", "refused", "s0.png", "s1.bmp", refused="several kinds"),
    three(
        "slices of other sizes",
        "refused before anything is read",
        ".png",
        [STACK[0], STACK[1], STACK[2][:, :-1]],
        None,
        refused="s2.png is 9 x 13 uint8, expected 9 x 14",
    ),
    three(
        "slices of other types",
        "refused before anything is read",
        ".png",
        [STACK[0], DEEP[1], STACK[2]],
        None,
        refused="s1.png is 9 x 14 uint16, expected 9 x 14 uint8",
    ),
    three("PNG of 1 bit", "0 and 1 (bool)", ".png", LABELS > 1, png(1)),
    three("PNG of 2 bits", "0 to 3, as stored", ".png", LABELS, png(2)),
    three("PNG of 4 bits", "0 to 15, as stored", ".png", STACK[:3] % 16, png(4)),
    three("PNG of 16 bits", "as stored", ".png", DEEP, None),
    *[
        three(f"PNG of 16 bits, {name}", "all 16 bits of the grey", ".png", DEEP, deep_png(count))
        for count, name in ((2, "grey and alpha"), (3, "RGB"), (4, "RGBA"))
    ],
    three(
        "8 bits, grey and alpha", "the grey", ".png", GREY_ALPHA, None, pixels=GREY_ALPHA[..., 0]
    ),
    three("8 bits, RGB with equal channels", "the grey", ".png", RGB, None, pixels=STACK[:3]),
    three("8 bits, RGB", "refused", ".png", COLOURED, None, refused="is a colour image"),
    three(
        "PNG with a colour table, as label tools write",
        "the numbers, not the colours; warning",
        ".png",
        LABELS,
        palette(COLOURS),
        warns=TABLE,
    ),
    three(
        "colour tables that only end earlier",
        "the numbers; warning",
        ".png",
        LABELS % 3,
        palette(COLOURS, COLOURS[:9]),
        warns=TABLE,
    ),
    three(
        "another colour table in each slice",
        "refused: the same number is not the same class",
        ".png",
        LABELS,
        palette(COLOURS, COLOURS[::-1]),
        refused="colour table of its own",
    ),
    three(
        "PNG with a table of all greys",
        "as stored",
        ".png",
        STACK[:3],
        palette(np.repeat(np.arange(256, dtype=np.uint8), 3).tolist()),
    ),
    three(
        "PNG with a table of some greys, as optimisers write",
        "the greys, as viewers show them; warning",
        ".png",
        LABELS,
        palette(np.repeat([9, 250, 0, 77], 3).tolist()),
        pixels=np.array([9, 250, 0, 77], np.uint8)[LABELS],
        warns="a table of greys",
    ),
    three("PGM, largest number 1000", "as stored", ".pgm", DEEP % 1000, pgm("P5", 1000)),
    three("PGM, largest number 15", "as stored", ".pgm", LABELS, pgm("P5", 15)),
    three("PGM in text, with a comment", "as stored", ".pgm", LABELS, pgm("P2", 3, "# CREATOR\n")),
    three("PGM, 16 bits", "as stored", ".pgm", DEEP, pgm("P5", 65535)),
    three("PPM that is named `.pgm`", "refused", ".pgm", LABELS, pgm("P6", 255), refused="as PGM"),
    three("BMP of 1 bit", "0 and 1 (bool)", ".bmp", LABELS > 1, pillow("1")),
    three("JPEG in CMYK", "refused", ".jpg", STACK, pillow("CMYK"), refused="1 x CMYK"),
    three("PNG with several frames", "refused", ".png", STACK, animated, refused="2 x L"),
    three(
        "EXIF orientation 6",
        "rows as they are stored; warning",
        ".png",
        STACK[:3],
        pillow(orientation=(6, 0)),
        warns=r"turned or mirrored \(orientation 6\)",
    ),
    three(
        "EXIF orientation of some slices",
        "refused",
        ".png",
        STACK,
        pillow(orientation=(3, 2)),
        refused="s2.png is .*orientation 3",
    ),
    *[
        three(f"TIFF, {dtype}", "as stored", ".tif", STACK[:3].astype(dtype), tiff())
        for dtype in ("int8", "uint32", "float16", "float64")
    ],
    three("TIFF of 12 bits", "as stored", ".tif", DEEP % 4096, tiff(bitspersample=12)),
    three(
        "TIFF, WhiteIsZero",
        "the stored numbers, not inverted; warning",
        ".tif",
        STACK[:3],
        tiff("miniswhite"),
        warns="0 is white",
    ),
    three(
        "TIFF of 1 bit, WhiteIsZero",
        "white is 1, as viewers show it; warning",
        ".tif",
        LABELS > 1,
        tiff("miniswhite"),
        pixels=LABELS <= 1,
        warns="zero bits are white",
    ),
    three(
        "TIFF, WhiteIsZero in some slices",
        "refused",
        ".tif",
        STACK,
        tiff("miniswhite", since=1),
        refused="s1.tif is .*0 is white .*expected .* like s0.tif",
    ),
    three(
        "TIFF with a colour table",
        "the numbers, not the colours; warning",
        ".tif",
        STACK[:3],
        tiff("palette", colormap=np.arange(768, dtype=np.uint16).reshape(3, 256)),
        warns=TABLE,
    ),
    three("TIFF in CMYK", "refused", ".tif", CMYK, tiff("separated"), refused="SEPARATED"),
    three("one file each of an OME-TIFF", "each its own slice", ".tif", STACK[:3], part_of_ome),
]
