"""What a phantom is made of: stationary smooth noise, and the grey values of one section of tissue.

Nothing here prefers a direction along z: noise is filtered with symmetric kernels, and each section is rendered on its own.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import erf

Floats = NDArray[np.float64]

CYTOPLASM = 160.0
MEMBRANE_SIGMA = 7.5


@dataclass(frozen=True)
class Section:
    """The geometry of one section; every array has shape (y, x), lengths are in nm.

    Attributes
    ----------
    gap
        Distance to the nearest membrane's middle line, 0 or more.
    smear
        Half the distance by which that membrane shifts within the thickness of the section, 0 or more.
    strength
        Darkness of the membrane, around 1.
    density
        Postsynaptic density beside the membrane, 0 (none) to 1.
    tone
        Brightness of the neurite's cytoplasm relative to the mean, in grey values.
    crowd
        Vesicles per square micrometre.
    mito
        Depth below the surface of a mitochondrion, negative outside of it.
    stripe
        Coordinate across its cristae.
    shade
        Slow change of brightness over the section, in grey values.
    voxel_nm
        Size of a pixel along y and x.
    """

    gap: Floats
    smear: Floats
    strength: Floats
    density: Floats
    tone: Floats
    crowd: Floats
    mito: Floats
    stripe: Floats
    shade: Floats
    voxel_nm: tuple[float, float]


def smooth(rng: np.random.Generator, shape: tuple[int, ...], sigmas: tuple[float, ...]) -> Floats:
    """Stationary Gaussian noise of mean 0 and variance 1, smooth along each axis.

    Parameters
    ----------
    rng
        Where the white noise comes from.
    shape
        Shape of the result, any axes.
    sigmas
        Standard deviation of the Gaussian filter along each axis, in samples; 0 leaves an axis white.

    Returns
    -------
    NDArray[np.float64]
        Array of `shape`. Its law is the same when any axis is reversed, at the ends as in the middle.
    """
    pads = [int(4 * sigma + 0.5) for sigma in sigmas]
    noise: Floats = rng.standard_normal([size + 2 * pad for size, pad in zip(shape, pads, strict=True)])
    for axis, (sigma, pad) in enumerate(zip(sigmas, pads, strict=True)):
        if sigma > 0:
            impulse = np.zeros(2 * pad + 1)
            impulse[pad] = 1.0
            gain = np.sqrt(np.sum(ndimage.gaussian_filter1d(impulse, sigma, mode="constant") ** 2))
            noise = ndimage.gaussian_filter1d(noise, sigma, axis=axis, mode="wrap") / gain
    return noise[tuple(slice(pad, pad + size) for size, pad in zip(shape, pads, strict=True))]


def render(section: Section, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Photograph one section: tissue, its own brightness and contrast, shot noise and the blur of the camera.

    Parameters
    ----------
    section
        What is where.
    rng
        Where granules, vesicles and noise come from.

    Returns
    -------
    NDArray[np.uint8]
        Picture of shape (y, x), grey values 0 to 255, membranes dark.
    """
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


def _membrane(section: Section) -> Floats:
    """Darkness of a membrane, projected through the section: an oblique one is wider and paler."""
    smear, width = np.maximum(section.smear, 1.0), np.sqrt(2.0) * MEMBRANE_SIGMA
    edges = erf((section.gap + smear) / width) - erf((section.gap - smear) / width)
    return np.asarray(edges * np.sqrt(np.pi) * width / (4.0 * smear), np.float64)


def _granules(section: Section, rng: np.random.Generator) -> Floats:
    """Grain of the cytoplasm at the scales of single molecules and of their clusters."""
    (dy, dx), shape = section.voxel_nm, section.gap.shape
    fine = smooth(rng, shape, (4.0 / dy, 4.0 / dx))
    coarse = smooth(rng, shape, (11.0 / dy, 11.0 / dx))
    return 13.0 * fine + 11.0 * coarse


def _organelles(section: Section, rng: np.random.Generator) -> Floats:
    """Vesicles (dark rings of about 40 nm) and microtubules (dark dots) off the membranes and the mitochondria."""
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


def _mitochondria(section: Section, tissue: Floats) -> Floats:
    """Paint mitochondria over the cytoplasm: dark matrix, striped cristae, dark outline."""
    depth = section.mito
    inside = np.clip(depth / 6.0 + 0.5, 0.0, 1.0)
    cristae = np.cos(2 * np.pi * section.stripe / 34.0) * np.clip((depth - 10.0) / 10.0, 0.0, 1.0)
    matrix = CYTOPLASM - 50.0 + 0.5 * (tissue - CYTOPLASM) + 26.0 * cristae
    outline = np.exp(-0.5 * ((depth - 5.0) / 6.0) ** 2)
    return np.asarray((1.0 - inside) * tissue + inside * matrix - 48.0 * outline, np.float64)
