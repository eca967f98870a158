"""A synthetic serial-section electron micrograph with its ground truth, free to pass on.

Neurites are cells of a power diagram whose centres wander through z inside a medium that flows and
folds. Everything that changes with z is a stationary Gaussian process with a symmetric kernel, so
the volume read backwards is as likely as the volume itself: a model that is asymmetric did not
learn it here. All lengths below are in nm.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree
from scipy.special import erf

Floats = NDArray[np.float64]

SMALLEST = (1, 32, 32)
CYTOPLASM = 160.0  # grey value
MEMBRANE_SIGMA = 7.5
HALF_WIDTH = 8.2  # of a membrane in the ground truth
MARGIN = 600.0  # beyond the field of view
SIZES = ((150.0, 0.45), (92.0, 0.6), (54.0, 1.0))  # radius of neurites, chance of a place
NEIGHBOURS = 6


@dataclass(frozen=True)
class _Section:
    """The geometry of one section; every array has shape (y, x), lengths are in nm."""

    gap: Floats  # distance to the middle line of the nearest membrane, 0 or more
    smear: Floats  # half the distance by which that membrane shifts within the section
    strength: Floats  # darkness of the membrane, around 1
    density: Floats  # postsynaptic density beside the membrane, 0 (none) to 1
    tone: Floats  # brightness of the cytoplasm relative to the mean, in grey values
    crowd: Floats  # vesicles per square micrometre
    mito: Floats  # depth below the surface of a mitochondrion, negative outside of it
    stripe: Floats  # coordinate across its cristae
    shade: Floats  # slow change of brightness over the section, in grey values
    voxel_nm: tuple[float, float]  # size of a pixel along y and x


def smooth(rng: np.random.Generator, shape: tuple[int, ...], sigmas: tuple[float, ...]) -> Floats:
    """Return stationary Gaussian noise of mean 0 and variance 1, smooth along each axis.

    Its law is the same when any axis is reversed, at the ends as in the middle. ``sigmas`` are
    the deviations of the Gaussian along each axis, in samples; 0 leaves an axis white.
    """
    pads = [int(4 * sigma + 0.5) for sigma in sigmas]
    padded = [size + 2 * pad for size, pad in zip(shape, pads, strict=True)]
    noise: Floats = rng.standard_normal(padded)
    for axis, (sigma, pad) in enumerate(zip(sigmas, pads, strict=True)):
        if sigma > 0:
            impulse = np.zeros(2 * pad + 1)
            impulse[pad] = 1.0
            gain = np.sqrt(np.sum(ndimage.gaussian_filter1d(impulse, sigma, mode="constant") ** 2))
            noise = ndimage.gaussian_filter1d(noise, sigma, axis=axis, mode="wrap") / gain
    return noise[tuple(slice(pad, pad + size) for size, pad in zip(shape, pads, strict=True))]


def _render(section: _Section, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Photograph a section (y, x) in grey values 0 to 255, with shot noise and blur."""
    shape = section.gap.shape
    tissue = CYTOPLASM + section.tone + section.shade + _granules(section, rng)
    tissue += _organelles(section, rng)
    tissue = _mitochondria(section, tissue)
    tissue -= 108.0 * section.strength * _membrane(section)
    tissue -= 60.0 * section.density * np.exp(-0.5 * (section.gap / 22.0) ** 2)
    shot = np.sqrt(np.clip(tissue, 20.0, 255.0)) * rng.standard_normal(shape)
    picture = ndimage.gaussian_filter(tissue + 2.6 * shot, 0.7, mode="nearest")
    contrast, brightness = 1.0 + 0.07 * rng.standard_normal(), 6.0 * rng.standard_normal()
    picture = 128.0 + contrast * (picture - 128.0) + brightness
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)


def _membrane(section: _Section) -> Floats:
    """Darkness of a membrane, projected through the section: an oblique one is wider and paler."""
    smear, width = np.maximum(section.smear, 1.0), np.sqrt(2.0) * MEMBRANE_SIGMA
    edges = erf((section.gap + smear) / width) - erf((section.gap - smear) / width)
    return np.asarray(edges * np.sqrt(np.pi) * width / (4.0 * smear), np.float64)


def _granules(section: _Section, rng: np.random.Generator) -> Floats:
    (dy, dx), shape = section.voxel_nm, section.gap.shape
    fine = smooth(rng, shape, (4.0 / dy, 4.0 / dx))
    coarse = smooth(rng, shape, (11.0 / dy, 11.0 / dx))
    return 13.0 * fine + 11.0 * coarse


def _organelles(section: _Section, rng: np.random.Generator) -> Floats:
    """Vesicles (dark rings of about 40 nm) and microtubules (dark dots) in the cytoplasm."""
    (dy, dx), shape = section.voxel_nm, section.gap.shape
    area = dy * dx * 1e-6
    free = (section.gap > 34.0) & (section.mito < -24.0)
    lot = rng.random(shape)
    apart = lot == ndimage.minimum_filter(lot, [max(1, round(38.0 / size)) for size in (dy, dx)])
    vesicle = apart & free & (lot < section.crowd * area)
    tubule = (rng.random(shape) < 90.0 * area) & (section.gap > 22.0) & (section.mito < -12.0)
    weight = rng.uniform(0.5, 1.3, shape)
    disc = _blobs(vesicle * weight, (11.0 / dy, 11.0 / dx))
    hole = _blobs(vesicle * weight, (7.5 / dy, 7.5 / dx))
    dot = _blobs(tubule * weight, (5.0 / dy, 5.0 / dx))
    return np.clip(240.0 * hole - 250.0 * disc - 38.0 * dot, -80.0, 10.0)


def _blobs(points: Floats, sigmas: tuple[float, float]) -> Floats:
    """Put a Gaussian of height 1 (times the point's weight) on every point."""
    peak = 1.0
    for sigma in sigmas:
        line = np.zeros(2 * int(4 * sigma + 1) + 1)
        line[line.size // 2] = 1.0
        peak *= float(ndimage.gaussian_filter1d(line, sigma, mode="constant").max())
    return np.asarray(ndimage.gaussian_filter(points, sigmas, mode="constant") / peak, np.float64)


def _mitochondria(section: _Section, tissue: Floats) -> Floats:
    """Paint mitochondria over the cytoplasm: dark matrix, striped cristae, dark outline."""
    depth = section.mito
    inside = np.clip(depth / 6.0 + 0.5, 0.0, 1.0)
    cristae = np.cos(2 * np.pi * section.stripe / 34.0) * np.clip((depth - 10.0) / 10.0, 0.0, 1.0)
    matrix = CYTOPLASM - 50.0 + 0.5 * (tissue - CYTOPLASM) + 26.0 * cristae
    outline = np.exp(-0.5 * ((depth - 5.0) / 6.0) ** 2)
    return np.asarray((1.0 - inside) * tissue + inside * matrix - 48.0 * outline, np.float64)


@dataclass(frozen=True)
class Phantom:
    """A synthetic volume and its ground truth; all arrays have the same shape (z, y, x).

    Attributes
    ----------
    raw
        Grey values, uint8, 0 to 255; membranes are dark.
    membranes
        1 on a membrane, 0 off it, uint8.
    neurons
        Neuron of a voxel, uint16: 1 to n, the same in every section; 0 exactly on membranes.
    mitochondria
        1 in a mitochondrion, 0 elsewhere, uint8; never on a membrane.
    voxel_nm
        Size of a voxel along z, y, x in nm.
    """

    raw: NDArray[np.uint8]
    membranes: NDArray[np.uint8]
    neurons: NDArray[np.uint16]
    mitochondria: NDArray[np.uint8]
    voxel_nm: tuple[float, float, float]


def phantom(
    shape: tuple[int, int, int] = (24, 192, 192),
    seed: int = 0,
    voxel_nm: tuple[float, float, float] = (50.0, 4.0, 4.0),
) -> Phantom:
    """Make a synthetic serial-section electron micrograph of neuropil with its ground truth.

    Membranes fill about 0.22 of the volume: 0.16 to 0.30 of a field of view of 0.77 x 0.77 um. A
    view smaller than a neurite may hold no membrane at all. Sections jitter by about 4 nm.

    ``shape`` and ``voxel_nm`` run along z, y, x; structures keep their size in nm. The same seed,
    shape and voxel size give the same bytes. ``ValueError`` if the shape is smaller than (1, 32,
    32), a size or the seed is below 0, or there would be more neurons than uint16 can number.
    """
    _check(shape, seed, voxel_nm)
    tissue = _Tissue(np.random.default_rng([seed, 0]), shape, voxel_nm)
    raw, membranes, mitochondria = (np.zeros(shape, np.uint8) for _ in range(3))
    cells = np.zeros(shape, np.intp)
    for z in range(shape[0]):
        section, cells[z] = tissue.cut(z)
        raw[z] = _render(section, np.random.default_rng([seed, 1, z]))
        width = HALF_WIDTH * (0.6 + 0.4 * section.strength)
        width = width + 0.4 * np.minimum(section.smear, 20.0) + 4 * section.density
        membranes[z] = section.gap < width
        mitochondria[z] = (section.mito > 0) & (membranes[z] == 0)
    kept, numbers = np.unique(np.where(membranes == 1, -1, cells), return_inverse=True)
    neurons = (numbers.reshape(shape) + (kept[0] >= 0)).astype(np.uint16)
    z_nm, y_nm, x_nm = (float(size) for size in voxel_nm)
    return Phantom(raw, membranes, neurons, mitochondria, (z_nm, y_nm, x_nm))


def _check(shape: tuple[int, int, int], seed: int, voxel_nm: tuple[float, float, float]) -> None:
    whole = len(shape) == 3 and all(isinstance(size, int | np.integer) for size in shape)
    if not whole or any(n < low for n, low in zip(shape, SMALLEST, strict=True)):
        raise ValueError(
            f"phantom shape is {shape}, expected three integers (z, y, x) of at least {SMALLEST}"
        )
    if len(voxel_nm) != 3 or not all(np.isfinite(size) and size > 0 for size in voxel_nm):
        raise ValueError(
            f"phantom voxel_nm is {voxel_nm}, expected three positive numbers (z, y, x) in nm"
        )
    if seed < 0:
        raise ValueError(f"phantom seed is {seed}, expected an integer of 0 or more")


def _pack(rng: np.random.Generator, extent: tuple[float, float]) -> tuple[Floats, Floats]:
    """Scatter large, middle, then small discs where there is room: centres (n, 2) and radii."""
    centres, radii = np.zeros((0, 2)), np.zeros(0)
    for size, chance in SIZES:
        step = 1.75 * size
        counts = [int((length + 2 * MARGIN) / step) + 2 for length in extent]
        axes = np.meshgrid(*map(np.arange, counts), indexing="ij")
        grid = np.stack(axes, axis=-1).reshape(-1, 2)
        points = (grid + rng.uniform(-0.3, 0.3, grid.shape) + rng.random(2) - 1.0) * step - MARGIN
        sizes = size * rng.uniform(0.75, 1.25, len(points))
        keep = rng.random(len(points)) < chance
        if len(radii):
            distance, nearest = KDTree(centres).query(points)
            keep &= distance > 0.85 * (radii[nearest] + 0.8 * sizes)
        centres = np.concatenate([centres, points[keep]])
        radii = np.concatenate([radii, sizes[keep]])
    return centres, radii


class _Tissue:
    """What lasts through z, at half sections: 2 z + 1 is the middle of section z."""

    def __init__(
        self,
        rng: np.random.Generator,
        shape: tuple[int, int, int],
        voxel_nm: tuple[float, float, float],
    ) -> None:
        self.shape, self.voxel = shape[1:], np.asarray(voxel_nm[1:], np.float64)
        self.extent = (shape[1] * voxel_nm[1], shape[2] * voxel_nm[2])
        self.steps, self.per_nm = 2 * shape[0] + 1, 2.0 / voxel_nm[0]
        self.jitter = rng.normal(0.0, 4.0, (shape[0], 2))
        self._neurites(rng)
        self._organelles(rng)
        self.flow = [self._field(rng, 240.0, 170.0) for _ in range(2)]
        self.fold = [self._field(rng, 42.0, 90.0) for _ in range(2)]
        self.strength, self.density = self._field(rng, 90.0, 60.0), self._field(rng, 120.0, 60.0)
        self.shade = self._field(rng, 500.0, 0.0)

    def _walk(self, rng: np.random.Generator, count: int, sigma_nm: float) -> Floats:
        """Independent stationary walks through z, shape (half sections, count)."""
        return smooth(rng, (self.steps, count), (sigma_nm * self.per_nm, 0.0))

    def _field(
        self, rng: np.random.Generator, size_nm: float, depth_nm: float
    ) -> tuple[Floats, float]:
        """Return noise smooth over both lengths, on a coarse grid, and the step of the grid."""
        step = size_nm / 2.0
        shape = (self.steps, *(int(length / step) + 6 for length in self.extent))
        return smooth(rng, shape, (depth_nm * self.per_nm, 2.0, 2.0)), step

    def _neurites(self, rng: np.random.Generator) -> None:
        """Place the cells; some are lobes of their neighbour's neuron."""
        anchors, radii = _pack(rng, self.extent)
        count = len(radii)
        if count > np.iinfo(np.uint16).max:
            raise ValueError(
                f"phantom of {self.extent} nm would hold {count} cells, expected at most 65535: "
                "make it smaller"
            )
        wander = np.stack([self._walk(rng, count, 170.0) for _ in range(2)], axis=-1)
        self.centres = anchors + 0.34 * radii[:, None] * wander
        self.radii = radii * (1.0 + 0.12 * self._walk(rng, count, 200.0))
        beside = KDTree(anchors).query(anchors, k=2)[1][:, 1]
        self.owner = np.where(rng.random(count) < 0.25, beside, np.arange(count))
        self.tone = (11.0 * rng.standard_normal(count))[self.owner]
        self.crowd = rng.choice([25.0, 90.0, 300.0], count, p=[0.35, 0.4, 0.25])[self.owner]

    def _organelles(self, rng: np.random.Generator) -> None:
        """One mitochondrion that comes and goes along each of the larger cells."""
        mean = self.radii.mean(axis=0)
        count = len(mean)
        size = np.clip(0.5 * mean, 0.0, 85.0) * rng.uniform(0.8, 1.1, count)
        size[(mean < 85.0) | (rng.random(count) < 0.3)] = 0.0
        self.size = size * np.sqrt(np.clip(1.2 * self._walk(rng, count, 200.0), 0.0, 1.0))
        self.stretch = rng.uniform(1.1, 1.9, count)
        self.angle = rng.uniform(0.0, 2 * np.pi, count) + 0.3 * self._walk(rng, count, 200.0)
        drift = np.stack([self._walk(rng, count, 200.0) for _ in range(2)], axis=-1)
        self.middle = self.centres + 0.15 * mean[:, None] * drift

    def _sample(self, field: tuple[Floats, float], half: int, jitter: Floats) -> Floats:
        """Read a field at the pixels of a section, shape (y, x)."""
        grid, step = field
        scale, offset = self.voxel / step, 2.5 + jitter / step
        found = ndimage.affine_transform(
            grid[half], scale, offset, self.shape, order=3, mode="nearest"
        )
        return np.asarray(found, np.float64)

    def _places(self, half: int, jitter: Floats) -> Floats:
        """Where in the unfolded tissue each pixel lies, shape (y, x, 2)."""
        rows, columns = (
            np.arange(n) * size + j
            for n, size, j in zip(self.shape, self.voxel, jitter, strict=True)
        )
        plain = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1)
        for axis in range(2):
            plain[..., axis] += 50.0 * self._sample(self.flow[axis], half, jitter)
            plain[..., axis] += 15.0 * self._sample(self.fold[axis], half, jitter)
        return plain

    def _gap(
        self, half: int, places: Floats, cell: NDArray[np.intp], other: NDArray[np.intp]
    ) -> Floats:
        """Signed distance to the boundary between two cells, positive inside `cell`."""
        centres, power = self.centres[half], self.radii[half] ** 2
        height = np.sum(centres**2, axis=-1) - power
        normal = centres[other] - centres[cell]
        length = np.maximum(np.sqrt(np.sum(normal**2, axis=-1)), 1e-6)
        return np.asarray(
            (height[other] - height[cell] - 2.0 * np.sum(places * normal, axis=-1)) / (2.0 * length)
        )

    def _nearest(
        self, half: int, places: Floats
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
        """Each pixel's cell, the nearest cell of another neuron, and the distance to that."""
        power = self.radii[half] ** 2
        lifted = np.column_stack([self.centres[half], np.sqrt(power.max() - power)])
        ahead = np.concatenate([places, np.zeros((*self.shape, 1))], axis=-1)
        near = KDTree(lifted).query(ahead, k=NEIGHBOURS)[1]
        cell, others = near[..., 0], near[..., 1:]
        same = self.owner[others] == self.owner[cell][..., None]
        first = np.where(same.any(-1), same.argmax(-1) + 1, 0)[..., None]
        lobe = np.take_along_axis(near, first, -1)
        here = places[..., None, :]
        gaps = self._gap(half, here, cell[..., None], others)
        gaps = np.maximum(gaps, self._gap(half, here, lobe, others))
        gaps[same] = np.inf
        best = np.argmin(gaps, axis=-1)[..., None]
        gap = np.minimum(np.take_along_axis(gaps, best, -1)[..., 0], 1e3)
        return cell, np.take_along_axis(others, best, -1)[..., 0], np.maximum(gap, 0.0)

    def cut(self, z: int) -> tuple[_Section, NDArray[np.intp]]:
        """Cut section z: its geometry, and the neuron of every pixel, shape (y, x)."""
        half, jitter = 2 * z + 1, self.jitter[z]
        places = self._places(half, jitter)
        cell, other, gap = self._nearest(half, places)
        below, above = (
            self._gap(h, self._places(h, jitter), cell, other) for h in (half - 1, half + 1)
        )
        mito, stripe = self._inside(half, places, cell, gap)
        strength = 1.0 + 0.22 * self._sample(self.strength, half, jitter)
        density = np.clip(1.2 * self._sample(self.density, half, jitter) - 1.9, 0.0, 1.0)
        shift = np.minimum(0.5 * np.abs(above - below), 60.0)
        section = _Section(
            gap=gap,
            smear=ndimage.gaussian_filter(shift, 9.0 / self.voxel, mode="nearest"),
            strength=np.clip(strength, 0.4, 1.5),
            density=density,
            tone=self.tone[cell],
            crowd=self.crowd[cell],
            mito=mito,
            stripe=stripe,
            shade=8.0 * self._sample(self.shade, half, jitter),
            voxel_nm=(float(self.voxel[0]), float(self.voxel[1])),
        )
        return section, self.owner[cell]

    def _inside(
        self, half: int, places: Floats, cell: NDArray[np.intp], gap: Floats
    ) -> tuple[Floats, Floats]:
        """Depth in the mitochondrion of the pixel's cell, and the coordinate across its cristae."""
        size, angle = self.size[half][cell], self.angle[half][cell]
        away = places - self.middle[half][cell]
        along = away[..., 0] * np.cos(angle) + away[..., 1] * np.sin(angle)
        across = away[..., 1] * np.cos(angle) - away[..., 0] * np.sin(angle)
        depth = size - np.hypot(along / self.stretch[cell], across)
        return np.minimum(depth, gap - 24.0) - 1e3 * (size < 15.0), across + 0.15 * along
