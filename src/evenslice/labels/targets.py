"""What a network is trained to predict, made from a volume of labels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from evenslice.errors import BadInputError, give_warnings
from evenslice.labels.blocks import Labels, bands
from evenslice.options import TargetKind
from evenslice.volume.array import Volume

TARGETS: tuple[TargetKind, ...] = ("auto", "foreground", "boundary", "classes")
FEWEST_CLASSES, MOST_CLASSES = 3, 8
MOST_VALUES = 256
MASKS = [0, 1], [0, 255]
IGNORED = 255  # what often marks voxels that are not annotated


@dataclass(frozen=True)
class Target:
    """How labels become targets.

    ``foreground``: label > 0. ``boundary``: between instances, and label 0. ``classes``: as is.
    """

    kind: Literal["foreground", "boundary", "classes"]
    classes: int  # output channels of the network: 1, or the number of classes with background
    ignore: int | None = None  # label of what is not known

    @property
    def halo(self) -> int:
        """How many pixels beyond a part of a slice decide about its targets."""
        return 1 if self.kind == "boundary" else 0

    def apply(self, labels: Labels) -> NDArray[np.uint8]:
        """Turn labels (..., y, x) into targets 0..classes-1 (or 0/1), same shape; ignored: 0."""
        if self.kind == "boundary":
            return boundaries(labels, self.ignore)
        found = labels > 0 if self.kind == "foreground" else labels
        if self.ignore is not None:
            found = np.where(labels == self.ignore, 0, found)
        return found.astype(np.uint8)

    def known(self, labels: Labels) -> NDArray[np.int64]:
        """Turn labels into targets as ``apply`` does, -1 where they are ignored."""
        found = self.apply(labels).astype(np.int64)
        if self.ignore is not None:
            found[labels == self.ignore] = -1
        return found


def boundaries(labels: Labels, ignore: int | None = None) -> NDArray[np.uint8]:
    """Mark in-plane boundaries of instances (..., y, x) by 1: label 0, and where two labels touch.

    The label ``ignore`` is what is not known: no boundary, and none beside it.
    """
    edge, plain = labels == 0, labels != 0
    if ignore is not None:
        edge, plain = edge & (labels != ignore), plain & (labels != ignore)
    down = labels[..., 1:, :] != labels[..., :-1, :]
    right = labels[..., :, 1:] != labels[..., :, :-1]
    # A step next to label 0 is marked by the 0 itself; marking it again would widen membranes.
    down &= plain[..., 1:, :] & plain[..., :-1, :]
    right &= plain[..., :, 1:] & plain[..., :, :-1]
    edge[..., 1:, :] |= down
    edge[..., :-1, :] |= down
    edge[..., :, 1:] |= right
    edge[..., :, :-1] |= right
    return np.asarray(edge, np.uint8)


def resolve_target(
    labels: Volume | Sequence[Volume], kind: TargetKind, ignore: int | None = None
) -> Target:
    """Decide what the labels of one or several volumes mean, apart from the label to ignore.

    ``auto``: 0/1 or 0/255 is foreground, 3 to 8 contiguous values from 0 are classes. Raises
    ``BadInputError`` of others, and if the labels are not whole numbers or hold nothing to learn.
    """
    volumes = [labels] if isinstance(labels, Volume) else list(labels)
    values = sorted({v for one in volumes for v in unique_values(one, ignore)} - {ignore})
    source = volumes[0].source + (f" (with {len(volumes) - 1} more)" if len(volumes) > 1 else "")
    if len(values) < 2:
        raise BadInputError(
            f"{source} holds only the value {values[0] if values else ignore}, expected background "
            "and foreground; check the labels"
        )
    contiguous, hint = values == list(range(len(values))), ""
    if IGNORED in values and 1 in values:
        hint = f", and {IGNORED} with --ignore-label {IGNORED} if it marks what is not annotated"
    if kind == "auto":
        if values in MASKS:
            kind = "foreground"
        elif contiguous and FEWEST_CLASSES <= len(values) <= MOST_CLASSES:
            kind = "classes"
        else:
            raise BadInputError(
                f"{source} holds {len(values)} values ({values[0]} to {values[-1]}), expected 0/1, "
                "0/255 or 3 to 8 contiguous classes; say what they mean with --target foreground, "
                f"boundary or classes{hint}"
            )
    if kind == "foreground" and values[0] != 0:
        raise BadInputError(
            f"{source} holds no label 0 (values {values[0]} to {values[-1]}), expected background "
            "and foreground; check the labels"
        )
    if kind == "classes" and len(values) > MOST_VALUES:
        raise BadInputError(
            f"{source} holds {len(values)} values, expected at most {MOST_VALUES} classes; for "
            "instances use --target boundary"
        )
    if kind == "classes" and not contiguous:
        raise BadInputError(
            f"{source} holds the values {values[:8]}, expected classes 0, 1, 2, ... without gaps; "
            f"renumber them{hint}"
        )
    if kind == "foreground" and hint:
        taken = f"{source} holds {IGNORED} beside 0 and 1, which is taken as foreground"
        give_warnings([f"{taken}; ignore it {hint[10:]}"])
    return Target(kind, len(values) if kind == "classes" and len(values) > 2 else 1, ignore)


def unique_values(labels: Volume, ignore: int | None = None, most: int | None = None) -> list[int]:
    """Return the sorted values of a volume of labels, read in boxes of bounded size.

    Reading stops when there are more than ``most``. Raises ``BadInputError`` if there are fractions
    or negative numbers; only ``ignore`` may be negative.
    """
    found: set[int] = set()
    for band in bands(labels.shape):
        values = _distinct(labels.read(band.box))
        where = f"slices {band.z.start}:{band.z.stop}"
        _check_whole(values, labels.source, where)
        if any(v < 0 and v != ignore for v in values[:2]):
            raise BadInputError(
                f"{labels.source} holds the negative label {values.min()} ({where}), expected 0 or "
                "more; renumber it, or name it as the label to ignore"
            )
        found.update(int(v) for v in values)
        if most is not None and len(found) > most:
            break
    return sorted(found)


def whole(labels: Volume) -> Volume:
    """Return labels that are refused when a part of them is read that holds fractions."""
    return replace(labels, pixels=_Whole(labels)) if labels.dtype.kind == "f" else labels


class _Whole:
    """Pixels of labels that are stored as real numbers."""

    def __init__(self, labels: Volume) -> None:
        self._labels = labels
        self.shape, self.dtype = labels.shape, labels.dtype

    def __getitem__(self, key: Any) -> Labels:
        values = self._labels.read(key)
        _check_whole(values, self._labels.source, f"slice {key[0].start}")
        return values


def _check_whole(values: Labels, source: str, where: str) -> None:
    if not (np.isfinite(values).all() and np.all(values == np.floor(values))):
        raise BadInputError(
            f"{source} holds fractions ({where}), expected labels as whole numbers; threshold it "
            "first"
        )


def _distinct(values: Labels) -> Labels:
    """Return the sorted distinct values; labels come in runs, so only changes are compared."""
    flat = values.ravel()
    new = np.ones(len(flat), bool)
    np.not_equal(flat[1:], flat[:-1], out=new[1:])
    return np.unique(flat[new])
