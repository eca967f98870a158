"""Whether a volume is one that a model was trained on, or like those."""

from dataclasses import replace

import numpy as np

from evenslice.model.spec import Model
from evenslice.volume.array import Volume
from evenslice.volume.inputs import fingerprint
from evenslice.volume.normalisation import measure_intensities

COMPARED_BLOCKS = 16


def trained_slices(model: Model, volume: Volume) -> set[int]:
    """Return which slices of this volume a model was trained on; empty for another volume."""
    training = model.training
    if not training:
        return set()
    own = fingerprint(volume)
    known = [v for v in training.get("volumes", [training]) if v.get("fingerprint") == own]
    return {z for each in known for start, stop in each["slices"] for z in range(start, stop)}


def intensity_warning(model: Model, volume: Volume, seed: int = 0) -> tuple[str, ...]:
    """Warn if a volume's intensities are far from those that a model was trained on or expects."""
    norm, training = model.normalisation, model.training
    found = measure_intensities(volume, seed, blocks=COMPARED_BLOCKS)
    if norm is None or np.isnan(found.mean):
        return ()
    if found.std == 0:
        return (f"{volume.source} is constant (every voxel read is {found.mean:g}); check it",)
    trained = bool(training) and norm.source == "file"
    known = (training.get("intensities") or {}) if trained else {}
    expected = replace(
        found,
        dtype=known.get("dtype", ""),
        mean=float(np.mean(norm.mean)),
        std=float(np.mean(norm.std)),
        skew=known.get("skew", 0.0),
    )
    if not found.differs(expected):
        return ()
    how = "was trained on" if trained else "is normalised by"
    return (
        f"{volume.source} has intensities of {found.text}, the model {how} {expected.text}, "
        "expected about the same and not inverted; scale the volume, or normalise it by its own "
        "numbers (segment --normalisation volume, or --mean and --std)",
    )
