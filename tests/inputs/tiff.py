"""TIFF, ImageJ TIFF and OME-TIFF that people have."""

import shutil

import numpy as np
import tifffile
from PIL import Image

from inputs.case import Case

TIFF, IMAGEJ, OME = "TIFF", "ImageJ TIFF", "OME-TIFF"
STACK = np.random.default_rng(1).integers(0, 255, (6, 9, 14), dtype=np.uint8)
MASK = STACK > 100
IMAGEJ_STACK = "images=6\nslices=6\n"
NANO = (50.0, 4.0, 4.0)


def stored(found, answer, planes=STACK, pixels=None, pages=False, section=TIFF, **options):
    """Return the case of a TIFF that tifffile writes with these options; at once, or by pages."""
    checks = {name: options.pop(name, None) for name in ("warns", "refused", "voxel_nm")}

    def make(folder):
        kinds = {"photometric": "minisblack", "metadata": None} | options
        with tifffile.TiffWriter(folder / "a.tif") as writer:
            for plane in planes if pages else [planes]:
                writer.write(np.asarray(plane), **kinds)
                kinds.pop("description", None)  # is that of the first page
        return folder / "a.tif"

    if checks["refused"] is None:
        pixels = planes if pixels is None else pixels
    return Case(section, found, answer, make, pixels, **checks)


def imagej(found, answer, lines, size=(0.25, 0.25), joined=False, **more):
    """Return the case of an ImageJ stack with these lines in its description."""
    description = f"ImageJ=1.54f\n{lines}"
    options = {"resolution": size}
    if joined:  # each page for itself, the description on the first
        options |= {"pages": True, "contiguous": False}
        more.setdefault("planes", STACK)
    return stored(found, answer, section=IMAGEJ, description=description, **options, **more)


def unit(found, lines, voxel_nm, answer=None, **more):
    """Return the case of what ImageJ states of the voxel size."""
    size = " x ".join(f"{n:g}" for n in voxel_nm or ())
    answer = answer or (f"{size} nm" if size else "not stated")
    return imagej(found, answer, IMAGEJ_STACK + lines, voxel_nm=voxel_nm, **more)


def ome_xml(attributes="", sizes=(6, 1, 1), data='<TiffData IFD="0" PlaneCount="6"/>', head=""):
    z, c, t = sizes
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME '
        f'xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" {head}><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="14" SizeY="9" '
        f'SizeZ="{z}" SizeC="{c}" SizeT="{t}" {attributes}>{data}</Pixels></Image></OME>'
    )


def ome(found, answer, xml, **more):
    return stored(found, answer, section=OME, description=xml.encode(), **more)


def physical(**sizes):
    """Return attributes such as PhysicalSizeZ="50" PhysicalSizeZUnit="nm"."""
    return " ".join(
        f'PhysicalSize{axis}="{size}"' + f' PhysicalSize{axis}Unit="{unit}"' * bool(unit)
        for axis, (size, unit) in sizes.items()
    )


def of_several_files(found, answer, change=None, given=0, planes=STACK, **more):
    """Return the case of an OME-TIFF of one file for each section."""
    uuid = [f"urn:uuid:00000000-0000-0000-0000-00000000000{z}" for z in range(6)]
    data = "".join(
        f'<TiffData FirstZ="{z}" IFD="0" PlaneCount="1"><UUID FileName="z{z}.ome.tif">{uuid[z]}'
        "</UUID></TiffData>"
        for z in range(6)
    )

    def make(folder):
        for z, plane in enumerate(planes):
            xml = ome_xml(data=data, head=f'UUID="{uuid[z]}"')
            tifffile.imwrite(
                folder / f"z{z}.ome.tif",
                plane,
                description=xml.encode(),
                metadata=None,
                photometric="minisblack",
                compression="zlib",
            )
        if change is not None:
            change(folder)
        return folder / f"z{given}.ome.tif"

    return Case(OME, found, answer, make, None if "refused" in more else planes, **more)


def with_image(found, answer, shape, first=False, **more):
    """Return the case of a stack with another image in the file."""

    def make(folder):
        with tifffile.TiffWriter(folder / "a.tif") as writer:
            images = [STACK, np.zeros(shape, np.uint8)]
            for image in reversed(images) if first else images:
                kind = "rgb" if image.shape[-1] == 3 else "minisblack"
                for page in image if image.ndim == 3 and kind != "rgb" else [image]:
                    writer.write(page, photometric=kind, metadata=None, contiguous=False)
        return folder / "a.tif"

    return Case(TIFF, found, answer, make, None if "refused" in more else STACK, **more)


def pyramid(folder):
    with tifffile.TiffWriter(folder / "a.tif") as writer:
        writer.write(STACK, photometric="minisblack", subifds=1, metadata=None)
        writer.write(STACK[:, ::2, ::2], photometric="minisblack", subfiletype=1, metadata=None)
    return folder / "a.tif"


def by_pillow(folder, planes=STACK, tags=None, **options):
    """Write a stack with Pillow, which states no size of pixels unless it is given one."""
    first, *others = [Image.fromarray(plane) for plane in planes]
    tags = tags or {270: f"ImageJ=1.54f\n{IMAGEJ_STACK}unit=nm\nspacing=50\n"}
    options |= {"save_all": True, "append_images": others, "tiffinfo": tags}
    first.save(folder / "a.tif", **options)
    return folder / "a.tif"


def fax(folder):
    """Write a stack of 1-bit images as libtiff does: zero bits are white."""
    return by_pillow(folder, MASK, {262: 0}, compression="group4")


def of_two_stacks(folder):
    """Write one stack after the other, as appending does."""
    for append in (False, True):
        tifffile.imwrite(folder / "a.tif", STACK, photometric="minisblack", append=append)
    return folder / "a.tif"


def mixed(folder):
    """Write ten pages of which the fourth was saved again with an inverted look-up table."""
    with tifffile.TiffWriter(folder / "a.tif") as writer:
        for z in range(10):
            kind = "miniswhite" if z == 3 else "minisblack"
            writer.write(STACK[z % 6], photometric=kind, metadata=None, contiguous=False)
    return folder / "a.tif"


def patched(found, answer, planes, tag, value, **more):
    """Return the case of a file in which a number of the header was changed."""

    def make(folder):
        tifffile.imwrite(folder / "a.tif", planes, photometric="minisblack", metadata=None)
        with tifffile.TiffFile(folder / "a.tif", mode="r+") as file:
            for page in file.pages:
                page.tags[tag].overwrite(value)
        return folder / "a.tif"

    return Case(TIFF, found, answer, make, **more)


def without(name):
    return lambda folder: (folder / name).unlink()


def renamed(folder):
    shutil.move(folder / "z3.ome.tif", folder / "section3.ome.tif")


NOT_NUMBERS = np.where(STACK > 200, np.nan, STACK).astype(np.float32)
DEEP = STACK.astype(np.uint16) * 257
TABLE = np.arange(768, dtype=np.uint16).reshape(3, 256)
ALL_SIZES = {"X": (4, "nm"), "Y": (0.005, "µm"), "Z": (300, "Å")}
NOT_STATED = "not stated"

CASES = [
    *[
        stored(f"{bits} bits a voxel, packed", "as stored", DEEP % 2**bits, bitspersample=bits)
        for bits in (10, 12, 14)
    ],
    *[
        stored(f"{bits} bits a voxel, packed", "as stored", STACK % 2**bits, bitspersample=bits)
        for bits in (2, 4)
    ],
    stored("1 bit a voxel", "0 and 1 (bool)", MASK),
    *[
        stored(dtype, "as stored", (STACK.astype(float) - 20 * (dtype != "uint32")).astype(dtype))
        for dtype in ("int8", "int16", "uint32", "float16", "float64")
    ],
    stored("float32 with NaN", "as stored", NOT_NUMBERS),
    stored(
        "WhiteIsZero (ImageJ: inverted look-up table)",
        "the stored numbers, not inverted; warning",
        photometric="miniswhite",
        warns="0 is white",
    ),
    stored(
        "1 bit a voxel, WhiteIsZero",
        "white is 1, as viewers show it; warning",
        MASK,
        pixels=~MASK,
        photometric="miniswhite",
        warns="zero bits are white",
    ),
    Case(
        TIFF,
        "1 bit a voxel, WhiteIsZero, fax compression (libtiff)",
        "white is 1, as viewers show it; warning",
        fax,
        MASK,
        warns="zero bits are white",
    ),
    Case(
        TIFF,
        "WhiteIsZero in some pages",
        "refused",
        mixed,
        refused="first has PhotometricInterpretation 1, page 4 has 0",
    ),
    stored(
        "a colour table (labels, ImageJ's look-up tables)",
        "the stored numbers, not the colours; warning",
        photometric="palette",
        colormap=TABLE,
        warns="a colour table",
    ),
    stored(
        "orientation 6",
        "rows as they are stored; warning",
        extratags=[(274, 3, 1, 6, True)],
        warns=r"turned or mirrored \(orientation 6\)",
    ),
    stored("RGB", "refused", np.stack([STACK] * 3, -1), photometric="rgb", refused="colour image"),
    stored(
        "grey and alpha",
        "refused",
        np.stack([STACK] * 2, -1),
        extrasamples=["unassalpha"],
        refused="colour image",
    ),
    stored(
        "grey and alpha, in planes",
        "refused",
        np.stack([STACK[0]] * 2),
        extrasamples=["unassalpha"],
        planarconfig="separate",
        metadata={},
        refused="colour image",
    ),
    stored(
        "3 slices that tifffile saved as RGB planes of one page",
        "3 slices; warning",
        STACK[:3],
        photometric="rgb",
        planarconfig="separate",
        metadata={},
        warns="one image of 3 colours",
    ),
    stored("72 pixels an inch", NOT_STATED, resolution=(72, 72), resolutionunit="inch"),
    stored(
        "pixels of 4 nm as pixels a cm, no distance of slices (Digital Micrograph)",
        NOT_STATED,
        resolution=(2.5e6, 2.5e6),
        resolutionunit="centimeter",
    ),
    with_image(
        "a smaller preview after the stack", "the stack; warning", (5, 7, 3), warns="smaller image"
    ),
    with_image(
        "a smaller preview before the stack",
        "the stack; warning",
        (5, 7, 3),
        first=True,
        warns=r"smaller image \(5 x 7 x 3\)",
    ),
    patched(
        "8 bits that are said to be floating point",
        "refused",
        STACK.astype(np.int8),
        "SampleFormat",
        3,
        refused="of 8 bits as IEEEFP",
    ),
    stored(
        "int16, largest number 65535 (unsigned numbers that are said to be signed)",
        "int16; warning",
        DEEP.view(np.int16),
        extratags=[(281, 3, 1, 65535, True)],
        warns="largest number is 65535, and that they are int16",
    ),
    stored(
        "fewer pages than tifffile's header counts",
        "refused",
        pages=True,
        contiguous=False,
        description='{"shape": [7, 9, 14]}',
        refused="holds 6 slices, expected 7",
    ),
    Case(TIFF, "a pyramid (SubIFDs)", "the full resolution", pyramid, STACK),
    with_image("a second stack of another size", "refused", (6, 8, 7), refused="2 separate images"),
    Case(TIFF, "a second stack of the same size", "refused", of_two_stacks, refused="2 separate"),
    stored(
        "frames (time), no z",
        "slices, without voxel size; warning",
        metadata={"axes": "TYX"},
        warns=r"frames \(time\)",
    ),
    stored(
        "time and z",
        "refused",
        np.stack([STACK] * 2),
        metadata={"axes": "TZYX"},
        refused="axes TZYX",
    ),
    stored("channels", "refused", STACK[:3], metadata={"axes": "CYX"}, refused="3 channels"),
    *[
        unit(f"`unit={name}`", f"unit={name}\nspacing=2\n", (2 * nm,) * 3, size=(0.5, 0.5))
        for name, nm in (
            ("nm", 1),
            ("um", 1e3),
            (r"\u00B5m", 1e3),
            ("micron", 1e3),
            ("microns", 1e3),
            ("mm", 1e6),
            ("cm", 1e7),
            ("Angstrom", 0.1),
        )
    ],
    *[
        unit(f"`unit={name}`", f"unit={name}\nspacing=1\n", None, size=(1, 1))
        for name in ("pixel", "inch", "", "Mm")
    ],
    unit("no `unit`", "spacing=50\n", None),
    unit("`unit=nm`, `zunit=micron`", "unit=nm\nzunit=micron\nspacing=0.05\n", NANO),
    unit("`unit=nm`, `yunit=um`", "unit=nm\nyunit=um\nspacing=50\n", NANO, size=(0.25, 250)),
    unit("`unit=nm`, `zunit=pixel`", "unit=nm\nzunit=pixel\nspacing=50\n", None),
    unit("pixels of 4 x 5 nm", "unit=nm\nspacing=50\n", (50, 5, 4), size=(0.25, 0.2)),
    unit(
        "no `spacing`",
        "unit=micron\n",
        (1000, 500, 500),
        answer="1 of the unit, as ImageJ takes it",
        size=(2, 2),
    ),
    unit(
        "no `spacing`, pixels of 4 nm and 1 um or 1 nm between slices",
        "unit=um\n",
        (1000, 4, 4),
        answer="1 of the unit, as ImageJ takes it; warning",
        size=(250, 250),
        warns="leaves the distance of its slices out",
    ),
    unit("`spacing=-50`", "unit=nm\nspacing=-50\n", NANO, answer="50 x 4 x 4 nm: its size"),
    *[
        unit(f"`spacing={word}`", f"unit=nm\nspacing={word}\n", None)
        for word in ("0", "nan", "0,05", "inf")
    ],
    unit(
        "`unit=nm`, pixels of 1/1 (writers that are given no size), no `spacing`",
        "unit=nm\n",
        None,
        size=(1, 1),
    ),
    unit(
        "`unit=nm`, pixels of 1/1, `spacing=50`",
        "unit=nm\nspacing=50\n",
        (50, 1, 1),
        answer="50 x 1 x 1 nm; warning",
        size=(1, 1),
        warns="pixels of 1 nm, as files do that do not state",
    ),
    Case(IMAGEJ, "`unit=nm`, no pixel size", NOT_STATED, by_pillow, STACK),
    unit("`unit=um`, pixel size in cm", "unit=um\nspacing=50\n", None, resolutionunit="centimeter"),
    imagej(
        "no `slices`, no `spacing` (single images that were joined)",
        "as many slices as pages, voxel size not stated",
        "unit=nm\n",
        joined=True,
    ),
    *[
        imagej(
            f"two stacks joined {how}: more pages than it says",
            "refused",
            "images=3\nslices=3\nunit=nm\nspacing=50\n",
            refused="says that it holds 3 slices and holds 6",
            **options,
        )
        for how, options in (("page by page", {"joined": True}), ("side by side", {}))
    ],
    imagej(
        "fewer pages than it says",
        "refused",
        "images=9\nslices=9\n",
        joined=True,
        refused="holds 6 slices, expected 9",
    ),
    imagej(
        "`frames=6`, no slices",
        "slices, without voxel size; warning",
        "images=6\nframes=6\nunit=nm\nspacing=50\n",
        warns=r"frames \(time\)",
    ),
    imagej(
        "more grey `channels` than ImageJ has (tifffile without axes)",
        "slices, without voxel size; warning",
        "images=8\nchannels=8\nmode=grayscale\nunit=nm\nspacing=50\n",
        planes=np.concatenate([STACK, STACK[:2]]),
        warns="holds channels",
    ),
    imagej("`channels=6`", "refused", "images=6\nchannels=6\n", refused="6 channels"),
    imagej(
        "hyperstack of z and time",
        "refused",
        "images=6\nslices=3\nframes=2\nhyperstack=true\n",
        refused="axes TZYX",
    ),
    imagej(
        "calibrated values (16-bit signed)",
        "the stored numbers; warning",
        IMAGEJ_STACK + "cf=0\nc0=-32768.0\nc1=1.0\n",
        planes=DEEP,
        warns=r"calibrates its values \(c0=-32768.0, c1=1.0\)",
    ),
    ome(
        "sizes in nm, µm and Å",
        "each axis in its own unit",
        ome_xml(physical(**ALL_SIZES)),
        voxel_nm=(30, 5, 4),
    ),
    ome(
        "sizes without units",
        "in µm, as the schema says",
        ome_xml(physical(X=(0.004, ""), Y=(0.004, ""), Z=(0.05, ""))),
        voxel_nm=NANO,
    ),
    ome("no `PhysicalSizeZ`", NOT_STATED, ome_xml(physical(X=(4, "nm"), Y=(4, "nm")))),
    *[
        ome(f"`PhysicalSizeZ` in {name}", NOT_STATED, ome_xml(physical(**ALL_SIZES | {"Z": size})))
        for name, size in (("pixels", (2, "pixel")), ("a reference frame", (2, "reference frame")))
    ],
    ome("`PhysicalSizeZ` of 0", NOT_STATED, ome_xml(physical(**ALL_SIZES | {"Z": (0, "nm")}))),
    ome(
        "another `Type` than is stored",
        "the stored numbers; warning",
        ome_xml().replace('Type="uint8"', 'Type="int8"'),
        warns="holds int8 and stores uint8",
    ),
    ome(
        "frames (time), no z",
        "slices, without voxel size; warning",
        ome_xml(physical(**ALL_SIZES), (1, 1, 6)),
        warns=r"frames \(time\)",
    ),
    ome("channels", "refused", ome_xml(sizes=(1, 6, 1)), refused="6 channels"),
    ome("z and channels", "refused", ome_xml(sizes=(3, 2, 1)), refused="2 channels"),
    ome("z and time", "refused", ome_xml(sizes=(3, 1, 2)), refused="axes TZYX"),
    ome(
        "more pages than it says (cropped or joined)",
        "refused",
        ome_xml(sizes=(3, 1, 1), data='<TiffData IFD="0" PlaneCount="3"/>'),
        refused="says that it holds 3 slices and holds 6",
    ),
    ome(
        "fewer pages than it says",
        "refused",
        ome_xml(sizes=(9, 1, 1), data='<TiffData IFD="0" PlaneCount="9"/>'),
        refused="holds 6 slices, expected 9",
    ),
    of_several_files("one file for each section", "all of them"),
    of_several_files("the fourth of such files", "all of them", given=3),
    of_several_files(
        "such files, packed, of several sizes",
        "all of them",
        planes=STACK * np.arange(6, dtype=np.uint8)[:, None, None],
    ),
    of_several_files(
        "one file for each section, one is missing",
        "refused",
        change=without("z2.ome.tif"),
        refused=r"OME-TIFF of 6 files, of which z2\.ome\.tif cannot be found",
    ),
    of_several_files(
        "one file for each section, one was renamed",
        "refused",
        change=renamed,
        refused=r"z3\.ome\.tif cannot be found",
    ),
    ome(
        "a file of a set that is described in another (BinaryOnly)",
        "refused",
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">'
        '<BinaryOnly MetadataFile="set.companion.ome" UUID="urn:uuid:2"/></OME>',
        refused=r"set\.companion\.ome describes",
    ),
]
