"""The page docs/inputs.md, made from the cases: python tests/inputs/page.py > docs/inputs.md."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from inputs import chunked, hdf5, images, itk, mrc, raw, tiff, zarr_stores
from inputs.case import Case

MODULES = (tiff, images, hdf5, mrc, zarr_stores, chunked, itk, raw)
CASES = [case for module in MODULES for case in module.CASES]
HEAD = """# What is read from a file, and what is written

Each row is a test (`tests/inputs`). A warning is one line; a refusal is one line and exit code 2.
A voxel size that a file does not state, or states in a way that contradicts itself, is "not
stated": `--voxel-size` states it.
"""
WRITTEN = (
    (
        "volume/test_zarr_writer.py::test_saved_and_opened_a_volume_is_the_same",
        "OME-Zarr",
        "0.5, with the voxel size in nm; without one, a scale of 1 without unit",
    ),
    (
        "volume/test_zarr_writer.py::test_every_level_is_made_from_the_one_before",
        "pyramids",
        "means of 2 x 2 (x 2) voxels; of labels every second voxel",
    ),
    (
        "volume/test_zarr_writer.py::test_numbers_of_objects_have_no_mean_whatever_is_said_of_them",
        "pyramids of masks and of whole numbers of 32 bits or more",
        "every second voxel, whatever is said of them",
    ),
    (
        "volume/test_zarr_writer.py::test_voxels_and_places_of_the_levels",
        "a level of means",
        "translated by the half voxels that its means are apart",
    ),
    (
        "volume/test_zarr_writer.py::test_labels_inside_an_image",
        "labels in OME-Zarr",
        "`image-label` with `source`, and `colors` of up to 4095 labels",
    ),
    (
        "volume/test_zarr_writer.py::test_ome_zarr_models_accepts_what_we_write",
        "images and labels in OME-Zarr",
        "valid for yaozarrs and ome-zarr-models",
    ),
    (
        "volume/test_tiff.py::test_written_and_read_again_nothing_is_lost",
        "TIFF in uint8, uint16, float32 below 4 GB; other types",
        "ImageJ hyperstack in µm; OME-TIFF in nm",
    ),
    (
        "volume/test_tiff.py::test_labels_are_shown_from_0_to_the_largest",
        "labels in an ImageJ TIFF",
        "shown from 0 to the largest label",
    ),
    (
        "segmentation/test_segment.py::test_what_is_written_as_labels_is_labels",
        "labels of `segment` in a TIFF",
        "noted as labels",
    ),
    (
        "segmentation/test_segment.py::test_a_box_lies_where_it_was_taken",
        "a box (`--roi`), in every level and in labels",
        "the translation in OME-Zarr, added to one that the volume states",
    ),
    (
        "segmentation/test_segment.py::test_a_scale_without_unit_is_kept",
        "the result of an OME-Zarr whose scale has no unit",
        "the same scale, without unit",
    ),
    (
        "volume/test_tiff.py::test_a_part_says_where_it_lies_in_the_whole",
        "a box (`--roi`) in a TIFF",
        "ImageJ's origin, or the positions of OME's planes",
    ),
    (
        "segmentation/test_segment.py::test_a_box_is_compared_where_it_lies",
        "`evaluate` of a box and the ground truth of the whole",
        "compared where the box lies, and said",
    ),
)


def page(cases: list[Case]) -> str:
    """Write the cases as one table for each format."""
    lines = [HEAD]
    for name in dict.fromkeys(case.format for case in cases):
        lines += [f"## {name}", "", "| in the file | what is made of it |", "|---|---|"]
        lines += [f"| {case.found} | {case.answer} |" for case in cases if case.format == name]
        lines.append("")
    lines += ["## What is written", "", "| what | how |", "|---|---|"]
    lines += [f"| {what} | {how} |" for _, what, how in WRITTEN]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(CASES), end="")
