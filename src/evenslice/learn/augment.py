"""EM section artefacts, first drawn, then applied to raw windows.

Every slot draws for itself and by the same law, apart from the centre, which is never lost nor
shifted: both sides of the centre suffer alike.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from evenslice.options import EM
from evenslice.volume.array import Volume, Voxels
from evenslice.volume.windows import read_window

Lost = Literal["", "blank", "copy"]
TRUNCATE = 3.0  # sigmas of the blur


@dataclass(frozen=True)
class Section:
    """The artefacts of one slice of a window.

    Attributes
    ----------
    shift
        (y, x) in pixels.
    blur
        Sigma in pixels.
    gain, offset
        Factor on the distance from the mean; constant added, in standard deviations.
    noise
        Standard deviation of the noise, in those of the volume.
    lost
        ``blank``: it becomes the mean grey value; ``copy``: a copy of the centre.
    """

    shift: tuple[int, int] = (0, 0)
    blur: float = 0.0
    gain: float = 1.0
    offset: float = 0.0
    noise: float = 0.0
    lost: Lost = ""


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
    """Apply all artefacts but the shifts, which were made when the window was read.

    Parameters
    ----------
    window
        (S, y, x), of the type of its volume.
    sections
        Artefacts of its slices.
    mean, std
        Of the training slices, in raw intensities.
    rng
        Draws the noise.

    Returns
    -------
    array
        (S, y, x) as floats; whole numbers within the range of the dtype where that is integer.
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
