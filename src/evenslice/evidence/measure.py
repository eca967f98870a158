"""Measuring: read windows, arrange, normalise, explain; then shares, intervals and a verdict per method."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evenslice.errors import BadInputError
from evenslice.evidence.attribution import gradient
from evenslice.evidence.look import Look
from evenslice.evidence.result import MethodResult
from evenslice.evidence.shares import index_parts, pair_parts, shares_of
from evenslice.evidence.sites import Site
from evenslice.evidence.stats import Interval, method_verdict, ratio_interval
from evenslice.model.predict import classes_of, probabilities_of
from evenslice.progress import Step
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation, check_finite
from evenslice.volume.windows import read_window, reverse

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scene:
    """What is measured: a network on a volume.

    Attributes
    ----------
    module
        On ``device``, in eval mode, frozen.
    stride
        What its height and width are multiples of.
    slices
        S.
    volume, truth
        Raw voxels, and labels to show beside the prediction or None.
    normalisation
        Applied after the slices are arranged.
    device
        Where to run.
    label
        Name of the model on what is shown.
    """

    module: nn.Module
    stride: int
    slices: int
    volume: Volume
    truth: Volume | None
    normalisation: Normalisation
    device: torch.device
    label: str


@dataclass(frozen=True)
class Measured:
    """What the windows gave.

    Attributes
    ----------
    importance
        (windows, arrangements, S): the window as it is, and its reversal.
    change, flipped
        (windows,): mean absolute change of probability under the reversal, and fraction of pixels whose class flips.
    looks
        The first few windows, to look at.
    """

    importance: Floats
    change: Floats
    flipped: Floats
    looks: tuple[Look, ...]


def measure(scene: Scene, sites: Sequence[Site], looks: int, step: Step) -> Measured:
    """Measure every window together with its reversal, which is made before normalisation."""
    importance, change, flipped = [], [], []
    kept: list[Look] = []
    for site, raw in read_sites(scene.volume, scene.slices, sites):
        slots, logits = gradient(scene.module, pair_of(scene, raw), scene.stride)
        blank = raw.min() == raw.max()  # no picture, no evidence: dropped with the windows of no importance
        importance.append(slot_importance(scene, slots) * (0.0 if blank else 1.0))
        moved, turned = reversal_response(logits)
        change.append(moved)
        flipped.append(turned)
        if len(kept) < looks:
            kept.append(_look(scene, site, raw, slots[0], logits))
        step()
    return Measured(np.stack(importance), np.array(change), np.array(flipped), tuple(kept))


def read_sites(volume: Volume, slices: int, sites: Sequence[Site]) -> Iterator[tuple[Site, NDArray[np.generic]]]:
    """Read the raw windows (S, y, x) of some sites, one after the other."""
    for site in sites:
        raw = read_window(volume, site.z, slices, site.y, site.x)
        check_finite(raw, f"{volume.source} around slice {site.z}")
        yield site, raw


def pair_of(scene: Scene, raw: NDArray[np.generic]) -> Tensor:
    """Arrange a raw window (S, y, x) and its reversal, then normalise: (2, S, y, x)."""
    return torch.from_numpy(scene.normalisation.apply(np.stack([raw, reverse(raw)]))).to(scene.device)


def slot_importance(scene: Scene, slots: Tensor) -> Floats:
    """Sum importance over pixels: (arrangements, S, y, x) of normalised input to (arrangements, S) of raw intensity.

    A slot that is normalised with a smaller std counts more per grey level; with one std for all it cancels in shares.
    """
    found: Floats = slots.double().sum(dim=(2, 3)).cpu().numpy()
    return np.asarray(found / np.asarray(scene.normalisation.std))


def reversal_response(logits: Tensor) -> tuple[float, float]:
    """Return how far the prediction moves under the reversal.

    Parameters
    ----------
    logits
        (2, C, y, x): of a window and of its reversal.

    Returns
    -------
    tuple
        Mean over pixels of the absolute change of probability (of several classes half the summed changes: the total
        variation, which for two classes is the change of either), and the fraction of pixels whose class flips.
    """
    probabilities = probabilities_of(logits.double())
    first, second = probabilities
    change = (first - second).abs().sum(0) * (1.0 if len(first) == 1 else 0.5)
    one, other = classes_of(probabilities)
    return float(change.mean()), float((one != other).double().mean())


def method_result(
    importance: Floats, clusters: NDArray[np.intp], margin: float, confidence: float, seed: int
) -> MethodResult:
    """Turn importance (windows, arrangements, S) into shares, pairs and index with intervals, and a verdict.

    Raises
    ------
    BadInputError
        If no window has any importance.
    """
    shares = shares_of(importance)
    used = np.isfinite(shares).all(axis=1)
    if not used.any():
        raise BadInputError(
            "no window has any importance, expected a picture in the windows and an output that depends on it; check the volume and the model"
        )
    shares, clusters = shares[used], clusters[used]

    def interval(top: Floats, bottom: Floats) -> Interval:
        return ratio_interval(top, bottom, clusters, confidence, seed)

    by_slot = tuple(interval(share, np.ones(len(share))) for share in shares.T)
    if len(by_slot) == 1:
        return MethodResult(by_slot, (), None, "abstained")
    pairs = tuple(interval(top, bottom) for top, bottom in zip(*(part.T for part in pair_parts(shares)), strict=True))
    outer = 1.0 - by_slot[len(by_slot) // 2].value
    verdict = method_verdict(pairs, outer, len(set(clusters.tolist())), margin)
    return MethodResult(by_slot, pairs, interval(*index_parts(shares)), verdict)


def _look(scene: Scene, site: Site, raw: NDArray[np.generic], slots: Tensor, logits: Tensor) -> Look:
    probability = probabilities_of(logits[:1])[0]
    prediction = probability[0] if len(probability) == 1 else probability.argmax(0)
    here = (slice(site.z, site.z + 1), site.y, site.x)
    return Look(
        label=scene.label,
        origin=(site.z, site.y.start, site.x.start),
        slices=raw,
        attribution=slots.float().cpu().numpy(),
        prediction=prediction.float().cpu().numpy(),
        truth=None if scene.truth is None else scene.truth.read(here)[0],
        voxel_nm=scene.volume.voxel_nm,
    )
