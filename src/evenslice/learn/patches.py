"""Patches: random crops of windows with their targets."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from evenslice.errors import BadInputError
from evenslice.labels.targets import Target
from evenslice.options import EM
from evenslice.volume.array import Volume, Voxels
from evenslice.volume.normalisation import Normalisation, check_finite
from evenslice.volume.windows import read_window

Lost = Literal["", "blank", "copy"]
TRUNCATE = 3.0  # sigmas of the blur


@dataclass(frozen=True)
class Section:
    """The artefacts of one slice of a window."""

    shift: tuple[int, int] = (0, 0)  # (y, x), pixels
    blur: float = 0.0  # sigma, pixels
    gain: float = 1.0  # factor on the distance from the mean
    offset: float = 0.0  # constant added, in standard deviations of the volume
    noise: float = 0.0  # its standard deviation, in those of the volume
    lost: Lost = ""  # ``blank``: it becomes the mean grey value; ``copy``: a copy of the centre


def draw_sections(rng: np.random.Generator, slices: int, em: EM) -> tuple[Section, ...]:
    """Draw the artefacts of each of the S slices of a window."""
    return tuple(_section(rng, em, centre=slot == slices // 2) for slot in range(slices))


def _section(rng: np.random.Generator, em: EM, centre: bool) -> Section:
    far = em.shift.size
    section = Section(
        (int(rng.integers(-far, far + 1)), int(rng.integers(-far, far + 1)))
        if _hit(rng, em.shift)
        else (0, 0),
        em.blur.size * rng.random() if _hit(rng, em.blur) else 0.0,
        1.0 + em.contrast.size * rng.uniform(-1, 1) if _hit(rng, em.contrast) else 1.0,
        em.brightness.size * rng.uniform(-1, 1) if _hit(rng, em.brightness) else 0.0,
        em.noise.size * rng.random() if _hit(rng, em.noise) else 0.0,
        ("blank" if rng.random() < em.missing.blank else "copy") if _hit(rng, em.missing) else "",
    )
    return replace(section, shift=(0, 0), lost="") if centre else section


def _hit(rng: np.random.Generator, change: Any) -> bool:
    return bool(rng.random() < change.probability)


def read_sections(
    volume: Volume, z: int, y: slice, x: slice, sections: tuple[Section, ...]
) -> NDArray[np.generic]:
    """Read a window (S, y, x) around slice ``z``, slices shifted, mirrored beyond the edge."""
    far = max(abs(step) for section in sections for step in section.shift)
    if not far:
        return read_window(volume, z, len(sections), y, x)
    spans, beyond = [], [(0, 0)]
    for part, size in zip((y, x), volume.shape[1:], strict=True):
        low, high = part.start - far, part.stop + far
        spans.append(slice(max(0, low), min(size, high)))
        beyond.append((max(0, -low), max(0, high - size)))
    wide = np.pad(read_window(volume, z, len(sections), *spans), beyond, mode="symmetric")
    tall, broad = y.stop - y.start, x.stop - x.start
    corners = [(far + section.shift[0], far + section.shift[1]) for section in sections]
    return np.stack(
        [plane[a : a + tall, b : b + broad] for plane, (a, b) in zip(wide, corners, strict=True)]
    )


def apply_sections(
    window: Voxels, sections: tuple[Section, ...], mean: float, std: float, rng: np.random.Generator
) -> Voxels:
    """Apply all artefacts but the shifts, which were made when the window (S, y, x) was read.

    ``mean`` and ``std`` are those of the training slices, in raw intensities. Return floats: whole
    numbers within the range of the dtype of the window where that is integer.
    """
    out = window.astype(np.result_type(window.dtype, np.float32))
    for slot, section in enumerate(sections):
        out[slot] = _degraded(out[slot], section, mean, std, rng)
    for slot, section in enumerate(sections):
        if section.lost:
            out[slot] = mean if section.lost == "blank" else out[len(out) // 2]
    return _within(out, window.dtype)


def _degraded(
    plane: Voxels, section: Section, mean: float, std: float, rng: np.random.Generator
) -> Voxels:
    if section.blur:
        plane = gaussian_filter(plane, section.blur, mode="nearest", truncate=TRUNCATE)
    if section.gain != 1 or section.offset:
        plane = (plane - mean) * section.gain + (mean + section.offset * std)
    if section.noise:
        plane = plane + section.noise * std * rng.standard_normal(plane.shape, np.float32)
    return plane


def _within(values: Voxels, dtype: np.dtype[Any]) -> Voxels:
    """Round and clip to what an integer dtype can hold."""
    if dtype.kind == "f":
        return values
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return np.asarray(np.clip(np.rint(values), low, high))


VALIDATION_FRACTION = 0.2
Patch = tuple[NDArray[np.float32], NDArray[np.int64]]


def split_slices(
    depth: int, slices: int, validation: range | None = None, source: str = "the volume"
) -> tuple[list[int], list[int]]:
    """Split the slices of a volume into centre slices for training and for validation.

    Those for validation are given, or the last 20 %. S slices are left out between the two, so
    that their windows share none. Raises ``BadInputError`` if the volume is too small for both.
    """
    if validation is None:
        validation = range(depth - max(1, round(VALIDATION_FRACTION * depth)), depth)
    if not validation or validation[0] < 0 or validation[-1] >= depth:
        raise BadInputError(
            f"validation slices {validation.start}:{validation.stop} were asked for, expected some "
            f"of 0:{depth}; change --validation"
        )
    train = [z for z in range(depth) if z < validation[0] - slices or z > validation[-1] + slices]
    if not train:
        raise BadInputError(
            f"{source} has {depth} slices, which leaves none to train on beside {len(validation)} "
            f"for validation and a gap of {slices}, expected more; use a deeper volume or fewer "
            "--validation slices"
        )
    return train, list(validation)


@dataclass(frozen=True)
class PatchSource:
    """A volume, its labels (z, y, x), and how a patch is cut from them."""

    volume: Volume
    labels: Volume
    centres: tuple[int, ...]  # slices to draw from
    slices: int  # S
    crop: tuple[int, int]  # sides (y, x) of a patch, pixels
    target: Target
    normalisation: Normalisation  # scalar
    augment_reversal: bool = False  # whether half of the windows are reversed, not normalised yet
    reversed_order: bool = False  # whether all are, as those of a volume stored from its other end
    turns: bool = True  # whether patches are flipped and turned
    em: EM | None = None  # strengths of the section artefacts

    @property
    def training_voxels(self) -> int:
        """Number of voxels in the training slices."""
        return len(self.centres) * self.volume.shape[1] * self.volume.shape[2]

    def draw(self, rng: np.random.Generator) -> Patch:
        """Draw a patch: window (S, y, x) normalised, target (y, x) with -1 where it is ignored."""
        z = int(rng.choice(self.centres))
        (_, height, width), (tall, wide) = self.volume.shape, self.crop
        y, x = int(rng.integers(height - tall + 1)), int(rng.integers(width - wide + 1))
        return self._cut(rng, z, y, x)

    def draw_around(self, rng: np.random.Generator, z: int, y: int, x: int) -> Patch:
        """Draw the patch centred on a voxel, or as near to that as the volume allows."""
        sizes = zip((y, x), self.crop, self.volume.shape[1:], strict=True)
        corner = [min(max(0, at - side // 2), size - side) for at, side, size in sizes]
        return self._cut(rng, z, *corner)

    def target_at(self, z: slice, y: slice, x: slice) -> NDArray[np.int64]:
        """Return the targets of a box (z, y, x) as they are in whole slices, -1 where ignored."""
        margin, (_, height, width) = self.target.halo, self.volume.shape
        rows = slice(max(0, y.start - margin), min(height, y.stop + margin))
        columns = slice(max(0, x.start - margin), min(width, x.stop + margin))
        labels = self.labels.read((z, rows, columns))
        target = self.target.known(labels)
        top, left = y.start - rows.start, x.start - columns.start
        return target[:, top : top + y.stop - y.start, left : left + x.stop - x.start]

    def _cut(self, rng: np.random.Generator, z: int, y: int, x: int) -> Patch:
        place = slice(y, y + self.crop[0]), slice(x, x + self.crop[1])
        window = self._window(rng, z, *place)
        target = self.target_at(slice(z, z + 1), *place)[0]
        half = self.augment_reversal and rng.random() < 0.5
        if half != self.reversed_order:
            window = window[::-1]
        if self.turns:
            window, target = turn(window, target, int(rng.integers(8)))
        return self.normalisation.apply(window.copy()), target.copy()  # torch takes no turned views

    def _window(self, rng: np.random.Generator, z: int, y: slice, x: slice) -> Voxels:
        where = f"{self.volume.source} around slice {z}"
        sections = (Section(),) * self.slices
        if self.em is not None:
            sections = draw_sections(rng, self.slices, self.em)
        window = read_sections(self.volume, z, y, x, sections)
        check_finite(window, where)
        if self.em is None:
            return window
        norm = self.normalisation
        return apply_sections(window, sections, norm.mean[0], norm.std[0], rng)


def turn(
    window: NDArray[np.generic], target: NDArray[np.int64], which: int
) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Apply one of the eight flips and quarter turns in the plane; four if it is not square."""
    if which & 1:
        window, target = window[..., ::-1, :], target[::-1, :]
    if which & 2:
        window, target = window[..., ::-1], target[:, ::-1]
    if which & 4 and target.shape[0] == target.shape[1]:
        window, target = np.rot90(window, axes=(-2, -1)), np.rot90(target)
    return window, target
