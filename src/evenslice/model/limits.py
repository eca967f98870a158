"""The limits of what a record or a repository may ask to be built: plain values of sensible size, and no way to fetch or read more."""

import math
from numbers import Integral
from typing import Any

from evenslice.errors import BadInputError

MOST_CLASSES = 4096
LONGEST_NAME = 200
LONGEST_PATH = 4096
LARGEST_VALUE = 2**16
MOST_VALUES = 64
LARGEST_SIDE = 2**14
LARGEST_BATCH = 256
DEEPEST = 12
LOADING = frozenset(  # what timm and segmentation-models-pytorch would fetch, read, or build otherwise than evenslice does
    [
        "model_name",
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "checkpoint_path",
        "cache_dir",
        "scriptable",
        "exportable",
        "no_jit",
        "pretrained_strict",
        "pretrained_filter_fn",
        "pretrained_custom_load",
        "features_only",
        "feature_cfg",
        "feature_cls",
        "out_indices",
        "output_stride",
        "in_chans",
        "in_channels",
        "num_classes",
        "classes",
        "arch",
        "encoder_name",
        "encoder_weights",
        "encoder_depth",
        "decoder_channels",
        "aux_params",
        "model_cfg",
        "model_cls",
        "variant",
        "kwargs",
    ]
)


def check_network(
    arch: Any, encoder: Any, depth: Any, slices: Any, classes: Any, options: Any
) -> None:
    """Raise ``BadInputError`` for fields of a network that are of another kind than they should be, or absurd."""
    for name, value in (("architecture", arch), ("encoder", encoder)):
        if not isinstance(value, str) or len(value) > LONGEST_NAME:
            raise _unfit(name, value, "a name")
    if depth is not None and not (_is_whole(depth) and 1 <= depth <= DEEPEST):
        raise _unfit("encoder depth", depth, "a whole number from 1 to 5")
    if not _is_whole(slices):
        raise _unfit("number of slices", slices, "an odd number from 1 to 9")
    if not _is_whole(classes) or classes > MOST_CLASSES:
        raise _unfit("number of classes", classes, f"a whole number from 1 to {MOST_CLASSES}")
    if not isinstance(options, dict):
        raise _unfit("options", options, "a table")
    for name, value in options.items():
        if not isinstance(name, str) or not name.isidentifier() or name in LOADING:
            raise _unfit("option", name, "one that describes an encoder")
        many = value if isinstance(value, list | tuple) else [value]
        if len(many) > MOST_VALUES or not all(map(_is_plain, many)):
            raise _unfit(f"option {name}", value, f"names, and numbers up to {LARGEST_VALUE}")


def check_image(shape: tuple[int | None, ...], source: str) -> None:
    """Raise ``BadInputError`` for the shape (B, S, y, x) of an exported network that would take absurd memory to run."""
    batch, _, *sides = (n or 1 for n in shape)
    if batch > LARGEST_BATCH or max(sides) > LARGEST_SIDE:
        raise BadInputError(
            f"{source} takes images of the shape {shape}, expected at most {LARGEST_BATCH} at once of {LARGEST_SIDE} pixels a side; "
            "export it for smaller ones"
        )


def _unfit(name: str, value: Any, expected: str) -> BadInputError:
    return BadInputError(
        f"the {name} is {str(value)[:60]!r}, expected {expected}; give another, or have the model written again"
    )


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_plain(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int | float):
        return math.isfinite(value) and abs(value) <= LARGEST_VALUE
    return isinstance(value, str) and len(value) <= LONGEST_NAME
