"""What a TIFF says of itself: ImageJ's and OME's descriptions, and where they contradict it."""

import contextlib
import json
import warnings
from pathlib import Path
from xml.etree import ElementTree

import tifffile

from evenslice.errors import BadInputError, InputWarning
from evenslice.options import JsonObject
from evenslice.volume.array import ORIGIN, Place, VoxelSize, sizes
from evenslice.volume.voxel_size import checked, nm_of

MOST_ANISOTROPIC = 100  # no section is thicker than so many pixels
NO_SLICES = {"T": "frames (time)", "C": "channels"}
OME_TYPES = {"float": "float32", "double": "float64", "bit": "bool"}
WHITE_IS_ZERO, PALETTE = 0, 3  # PhotometricInterpretation
CENTIMETRE = 3  # ResolutionUnit
SIGNED = 2  # SampleFormat


def warn_of(source: object, remarks: dict[str, str]) -> None:
    """Warn of facts of a file that its user may not expect, each with what is read instead."""
    for fact, read in remarks.items():
        warnings.warn(f"{source} {fact}; {read}", InputWarning, stacklevel=4)


def remarks_on_page(page: tifffile.TiffPage) -> dict[str, str]:
    """Return where the picture that viewers show is not the stored numbers, and what is read."""
    remarks = {}
    if page.photometric == WHITE_IS_ZERO and page.bitspersample == 1:
        fact = "says that zero bits are white (WhiteIsZero)"
        remarks[fact] = "white is read as 1 and black as 0, as viewers show it"
    elif page.photometric == WHITE_IS_ZERO:
        fact = "says that 0 is white (WhiteIsZero, an inverted look-up table)"
        remarks[fact] = "the stored numbers are read, not inverted"
    elif page.photometric == PALETTE:
        remarks["has a colour table"] = "the stored numbers are read, not the colours"
    largest = page.tags.valueof("MaxSampleValue", 0)
    if page.sampleformat == SIGNED and largest >= 2 ** (page.bitspersample - 1):
        fact = (
            f"says that its largest number is {largest}, and that they are int{page.bitspersample}"
        )
        remarks[fact] = "they are read so, large ones as negative numbers"
    return remarks | turned(page.tags.valueof("Orientation", 1))


def turned(orientation: int) -> dict[str, str]:
    """Return the remark on an orientation of TIFF or EXIF, if it is another than 1."""
    if orientation in (0, 1):
        return {}
    fact = f"is marked as turned or mirrored (orientation {int(orientation)})"
    return {fact: "its rows and columns are read as they are stored"}


def remarks_on_file(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries, voxel_nm: VoxelSize | None
) -> dict[str, str]:
    """Return where the description of a stack and what is stored are not the same."""
    stored = "the stored numbers are read"
    remarks = {
        f"holds a smaller image ({sizes(other.shape)}) too": "the stack is read"
        for other in images_beside(file, series)
    }
    if series.axes == "SYX":
        fact = f"holds one image of {series.shape[0]} colours (axes SYX)"
        remarks[fact] = "they are read as slices: tifffile writes 3 or 4 slices so"
    axis = NO_SLICES.get(_stacked_axis(series))
    if axis is not None:
        remarks[f"holds {axis}"] = "they are read as slices, without voxel size"
    meta = file.imagej_metadata or {}
    line = (meta.get("c0", 0), meta.get("c1", 1))
    if line != (0, 1):
        remarks[f"calibrates its values (c0={line[0]}, c1={line[1]})"] = stored
    if voxel_nm and meta and "evenslice" not in meta:
        z, y, x = voxel_nm
        if "spacing" not in meta and not x <= z <= MOST_ANISOTROPIC * x:
            fact = f"leaves the distance of its slices out, with pixels of {x:g} nm"
            remarks[fact] = f"it is taken for 1 {meta['unit']}, as ImageJ does"
        elif _has_default_pixels(file.pages.first) and not z == y == x:
            fact = f"has pixels of 1 {meta['unit']}, as files do that do not state their size"
            remarks[fact] = "they are taken for it, as ImageJ does"
    if file.is_ome:
        kind = str(_ome_pixels(file).get("Type", series.dtype))
        if OME_TYPES.get(kind, kind) != series.dtype.name:
            remarks[f"says that it holds {kind} and stores {series.dtype}"] = stored
    return remarks


def images_beside(
    file: tifffile.TiffFile, series: tifffile.TiffPageSeries
) -> list[tifffile.TiffPageSeries]:
    """Return what a file holds beside its stack and does not mark as a smaller copy of it."""
    return [one for one in file.series if one is not series and not one.keyframe.is_reduced]


def _stacked_axis(series: tifffile.TiffPageSeries) -> str:
    """Return the name of the axis that is read as z; empty for a single image."""
    axes = zip(series.axes, series.shape, strict=True)
    return next((name for name, size in axes if size > 1 and name not in "YX"), "")


def check_ome(file: tifffile.TiffFile, path: Path) -> None:
    """Raise unless the description of an OME-TIFF and all files that it names are there."""
    root = ElementTree.fromstring(file.ome_metadata or "")
    for element in root:
        if element.tag.endswith("BinaryOnly"):
            raise BadInputError(
                f"{path} is one of several files of an OME-TIFF that {element.get('MetadataFile')} "
                "describes, expected a file with the description in it; save the set as one TIFF, "
                "for example with Bio-Formats"
            )
    own = root.get("UUID")
    parts = [part for part in root.iter() if part.tag.endswith("UUID") and part.text != own]
    names = {str(part.get("FileName", path.name)) for part in parts}
    missing = sorted(name for name in names if not (path.parent / name).is_file())
    if missing:
        raise BadInputError(
            f"{path} belongs to an OME-TIFF of {len(names) + (own is not None)} files, of which "
            f"{', '.join(missing)} cannot be found, expected all of them beside it; copy them "
            "there under these names"
        )


def voxel_size(file: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> VoxelSize | None:
    """Return the voxel size in nm from ImageJ or OME metadata, None where it is not all stated."""
    if _stacked_axis(series) in NO_SLICES:
        return None
    with contextlib.suppress(KeyError, TypeError, ValueError, ZeroDivisionError):
        if file.is_ome:
            stated = _ome_pixels(file)
            names = [f"PhysicalSize{axis}" for axis in "ZYX"]
            units = [nm_of(stated.get(f"{name}Unit", "um")) for name in names]
            return checked(float(stated[n]) * unit for n, unit in zip(names, units, strict=True))
        if file.imagej_metadata:
            return _imagej_size(file.imagej_metadata, file.pages.first)
    return None


def _imagej_size(meta: JsonObject, page: tifffile.TiffPage) -> VoxelSize | None:
    """Return the voxel size as ImageJ understands its own description.

    An axis has the unit of x unless it has one of its own; the sign of ``spacing`` has no meaning;
    it is left out where it is 1.
    """
    y, x = (page.tags[name].value for name in ("YResolution", "XResolution"))
    units = [nm_of(meta.get(name, meta["unit"])) for name in ("zunit", "yunit", "unit")]
    if page.resolutionunit == CENTIMETRE and units[2] != nm_of("cm"):
        return None  # two units for one number
    if "spacing" not in meta and _has_default_pixels(page):
        return None  # nothing but the unit is stated
    depth = meta["spacing"] if meta.get("slices", 1) == 1 else meta.get("spacing", 1.0)
    sides = (abs(float(depth)), y[1] / y[0], x[1] / x[0])
    return checked(side * unit for side, unit in zip(sides, units, strict=True))


def _has_default_pixels(page: tifffile.TiffPage) -> bool:
    """Whether the size of pixels is that of writers that are given none, not ImageJ's 10^6/10^6."""
    return all(page.tags.valueof(name) == (1, 1) for name in ("YResolution", "XResolution"))


def _ome_pixels(file: tifffile.TiffFile) -> JsonObject:
    return dict(_ome_image(file)["Pixels"])


def _ome_image(file: tifffile.TiffFile) -> JsonObject:
    image = tifffile.xml2dict(file.ome_metadata or "")["OME"]["Image"]
    return dict(image[0] if isinstance(image, list) else image)


def facts_of(file: tifffile.TiffFile) -> dict[str, str]:
    """Say in words what kind of TIFF it is."""
    page = file.pages.first
    packed = tifffile.COMPRESSION(page.compression)
    kind = "OME-TIFF" if file.is_ome else "ImageJ TIFF" if file.is_imagej else "TIFF"
    facts = {
        "format": f"{kind}, BigTIFF" if file.is_bigtiff else kind,
        "compression": packed.name.lower() if packed != 1 else "none",
    }
    if page.is_tiled:
        facts["chunks"] = f"tiles of {sizes(page.chunks[-2:])}"
    return facts


def notes(file: tifffile.TiffFile) -> dict[str, str]:
    """Return what ``write_tiff`` noted, meaning and provenance; empty for files not ours."""
    if file.imagej_metadata:
        return {key: str(value) for key, value in file.imagej_metadata.items()}
    with contextlib.suppress(KeyError, TypeError, SyntaxError):
        lines = str(_ome_image(file)["Description"]).splitlines()
        return {key: value for key, _, value in (line.partition("=") for line in lines)}
    return {}


def noted_origin(stated: dict[str, str]) -> Place:
    """Return the place of the first voxel that ``write_tiff`` noted; 0 where it noted none."""
    with contextlib.suppress(ValueError):
        z, y, x = map(float, stated.get("origin", "").split(","))
        return z, y, x
    return ORIGIN


def noted_provenance(path: Path) -> JsonObject:
    """Return how a TIFF was made as ``write_tiff`` noted it; empty for a file that does not say."""
    try:
        with tifffile.TiffFile(path) as file:
            found = json.loads(notes(file).get("provenance", "{}"))
    except (tifffile.TiffFileError, OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
