"""What a training run learns from: volumes split in z, what their labels mean, one normalisation, and the record of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError
from evenslice.labels.targets import resolve_target
from evenslice.learn.losses import check_loss
from evenslice.learn.multi_volume import Mixture, combined, find_occurrences
from evenslice.learn.patches import PatchSource, split_slices
from evenslice.model.inputs import (
    check_same_shape,
    fingerprint,
    parse_span,
    spans_of,
    voxel_warning,
)
from evenslice.model.provenance import provenance_of, versions
from evenslice.model.weights import BUNDLED
from evenslice.options import TrainOptions
from evenslice.verbs.train_score import Validation
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import estimate


@dataclass(frozen=True)
class Plan:
    """Where patches are drawn, and which slices validate.

    Attributes
    ----------
    mixture
        The volumes with their training slices.
    validation
        Slices of each volume, in the same order.
    """

    mixture: Mixture
    validation: tuple[tuple[int, ...], ...]

    @property
    def first(self) -> PatchSource:
        """The first volume; what is the same for all can be asked of it."""
        return self.mixture.sources[0]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know of the volumes and labels."""
        return tuple(
            w
            for source in self.mixture.sources
            for w in voxel_warning(source.volume, source.labels)
        )

    def validating(self, mixture: Mixture) -> Validation:
        """Return each volume of a mixture, this one or a copy in memory, with its validation slices."""
        return list(zip(mixture.sources, self.validation, strict=True))


def plan_training(
    volumes: Sequence[Volume], labels: Sequence[Volume], recipe: TrainOptions
) -> Plan:
    """Split the slices, decide what the labels mean, measure the normalisation on the training slices, look for the classes.

    Raises
    ------
    BadInputError
        If volumes and labels do not fit each other or the recipe.
    """
    if len(volumes) != len(labels) or not volumes:
        raise BadInputError(
            f"{len(volumes)} volumes and {len(labels)} of labels were given, expected as many of both and at least one; give labels for each"
        )
    for volume, truth in zip(volumes, labels, strict=True):
        check_same_shape(volume, truth)
    splits = [
        _split(volume, recipe, span)
        for volume, span in zip(volumes, _spans(recipe, len(volumes)), strict=True)
    ]
    target = resolve_target(labels, recipe.target, recipe.ignore_label)
    check_loss(recipe, target.classes)
    low = [min(recipe.crop, *(volume.shape[axis] for volume in volumes)) for axis in (1, 2)]
    parts = [estimate(v, recipe.seed, train) for v, (train, _) in zip(volumes, splits, strict=True)]
    voxels = [
        len(train) * v.shape[1] * v.shape[2] for v, (train, _) in zip(volumes, splits, strict=True)
    ]
    normalisation = combined(parts, voxels)
    sources = tuple(
        PatchSource(
            volume,
            truth,
            tuple(train),
            recipe.slices,
            (low[0], low[1]),
            target,
            normalisation,
            recipe.reverse_z,
            recipe.ignore_label,
            turns=recipe.augment != "none",
            em=recipe.em if recipe.augment == "em" else None,
        )
        for volume, truth, (train, _) in zip(volumes, labels, splits, strict=True)
    )
    class_locations = find_occurrences(sources, recipe.seed) if recipe.balance else None
    return Plan(
        Mixture(sources, class_locations, recipe.balance),
        tuple(tuple(check) for _, check in splits),
    )


def _spans(recipe: TrainOptions, count: int) -> list[str | None]:
    """Return which slices of each volume validate, as the recipe says it."""
    if not isinstance(recipe.validation, list):
        return [recipe.validation] * count
    if len(recipe.validation) != count:
        raise BadInputError(
            f"--validation names slices of {len(recipe.validation)} volumes, expected {count}; give one for each, or one for all"
        )
    return list(recipe.validation)


def _split(volume: Volume, recipe: TrainOptions, text: str | None) -> tuple[list[int], list[int]]:
    if text is None:
        return split_slices(volume.shape[0], recipe.slices, source=volume.source)
    span = parse_span(text, volume.shape[0], "--validation")
    return split_slices(volume.shape[0], recipe.slices, range(span.start, span.stop), volume.source)


def provenance(plan: Plan, recipe: TrainOptions) -> dict[str, Any]:
    """Record what a model was trained on, for its file; several volumes are listed under ``volumes``, the first one first."""
    records = [
        _record(source, zs)
        for source, zs in zip(plan.mixture.sources, plan.validation, strict=True)
    ]
    return {
        **records[0],
        "target": plan.first.target.kind,
        "recipe": recipe.model_dump() | {"weights": Path(recipe.weights).name},
        "versions": versions(),
        **({"volumes": records} if len(records) > 1 else {}),
    }


def origin(plan: Plan, recipe: TrainOptions) -> dict[str, Any]:
    """Record with what a model is made: command, seed, versions, and hashes of volumes, labels and weights."""
    read: dict[str, Any] = {"weights": BUNDLED if recipe.weights == "bundled" else recipe.weights}
    for n, source in enumerate(plan.mixture.sources, 1):
        end = "" if n == 1 else f"_{n}"
        read |= {f"volume{end}": source.volume, f"labels{end}": source.labels}
    return provenance_of(recipe.seed, **read)


def _record(source: PatchSource, zs: Sequence[int]) -> dict[str, Any]:
    """Record one volume; the slices are those that windows can see."""
    volume, reach = source.volume, source.slices // 2
    depth = volume.shape[0]
    seen = sorted(
        {n for z in source.centres for n in range(max(0, z - reach), min(depth, z + reach + 1))}
    )
    return {
        "volume": Path(volume.source).name,
        "fingerprint": fingerprint(volume),
        "labels": fingerprint(source.labels),
        "voxel_nm": volume.voxel_nm,
        "slices": spans_of(seen),
        "validation": spans_of(list(zs)),
    }
