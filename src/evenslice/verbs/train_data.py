"""What a training run learns from and is validated on: volumes split in z, targets, scores."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from evenslice.errors import BadInputError
from evenslice.evidence.label_asymmetry import LabelAsymmetry, label_asymmetry
from evenslice.evidence.window_view import WindowView
from evenslice.labels.metrics import Scores, confusion, scores_of
from evenslice.labels.targets import Target, resolve_target, unique_values
from evenslice.learn.losses import check_loss
from evenslice.learn.multi_volume import MultiVolume, combined, find_class_locations
from evenslice.learn.patches import PatchSource, split_slices
from evenslice.model.predict import classes_of
from evenslice.model.provenance import provenance_of, versions
from evenslice.model.spec import Model
from evenslice.model.streaming import predict_slices
from evenslice.model.weights_source import weights_record
from evenslice.options import JsonObject, TrainOptions
from evenslice.progress import Progress, silent
from evenslice.volume.array import Volume, Voxels, crop
from evenslice.volume.inputs import (
    check_same_shape,
    fingerprint,
    parse_span,
    spans_of,
    voxel_warning,
)
from evenslice.volume.normalisation import Statistics, measure_intensities, normalisation_from
from evenslice.volume.windows import middle, read_window

VIEW_SIDE = 320  # pixels
Slices = Sequence[int]


@dataclass(frozen=True)
class TrainingData:
    """Where patches are drawn, and which slices validate."""

    source: MultiVolume  # the volumes with their training slices
    validation: tuple[tuple[int, ...], ...]  # slices of each volume, in the same order
    intensities: tuple[Statistics, ...]  # of the training slices of each
    label_asymmetry: tuple[LabelAsymmetry, ...]  # of the training slices of each

    @property
    def target(self) -> Target:
        """How labels become targets, the same for all volumes."""
        return self.source.sources[0].target

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know of the volumes and labels."""
        pairs = [(source.volume, source.labels) for source in self.source.sources]
        volumes, first = [volume.source for volume, _ in pairs], self.intensities[0]
        pairs += [(pairs[0][0], volume) for volume, _ in pairs[1:]]
        return (
            *(text for pair in pairs for text in voxel_warning(*pair)),
            *(
                f"{name} has intensities of {found.text}, {volumes[0]} of {first.text}, expected "
                "about the same and not inverted; scale one of them first"
                for name, found in zip(volumes[1:], self.intensities[1:], strict=True)
                if found.differs(first)
            ),
            *(
                f"{source.labels.source}: {found.text} A network learns such a lag; --tie mirror "
                "keeps it from that"
                for source, found in zip(self.source.sources, self.label_asymmetry, strict=True)
                if found.verdict.startswith("asymmetric")
            ),
            *self._one_label("training", [one.centres for one in self.source.sources]),
            *self._one_label("validation", self.validation),
        )

    def _one_label(self, what: str, slices: Sequence[Slices]) -> tuple[str, ...]:
        """Say so where all slices of a kind hold one label together."""
        ignore, found, sources = self.target.ignore, set[int | None](), self.source.sources
        for one, zs in zip(sources, slices, strict=True):
            for first, last in spans_of(list(zs)):
                part = crop(one.labels, (slice(first, last), slice(None), slice(None)))
                found.update(unique_values(part, ignore, most=1 + (ignore is not None)))
                if len(found - {ignore}) > 1:
                    return ()
        only = ", ".join(map(str, found - {ignore})) or ignore
        return (
            f"the {what} slices of {sources[0].labels.source} hold only the label {only}, expected "
            "background and foreground; choose other --validation slices",
        )


def plan_data(
    volumes: Sequence[Volume], labels: Sequence[Volume], options: TrainOptions
) -> TrainingData:
    """Split the slices, resolve the target, estimate the normalisation on the training slices.

    Raises ``BadInputError`` if volumes and labels do not fit each other or the options.
    """
    if len(volumes) != len(labels) or not volumes:
        raise BadInputError(
            f"{len(volumes)} volumes and {len(labels)} of labels were given, expected as many of "
            "both and at least one; give labels for each"
        )
    for pair in zip(volumes, labels, strict=True):
        check_same_shape(*pair)
    spans = _validation_spans(options, len(volumes))
    splits = [_split(*one, options.slices) for one in zip(volumes, spans, strict=True)]
    target = resolve_target(labels, options.target, options.ignore_label)
    check_loss(options, target.classes)
    height, width = (min(options.crop, *(v.shape[axis] for v in volumes)) for axis in (1, 2))
    found, parts, voxels = [], [], []
    for volume, (zs, _) in zip(volumes, splits, strict=True):
        found.append(measure_intensities(volume, options.seed, zs))
        if found[-1].bad:
            raise BadInputError(
                f"{volume.source} has {found[-1].bad} voxels that are NaN or infinite among those "
                "read, expected numbers; fill them first"
            )
        parts.append(normalisation_from(found[-1], volume.source))
        voxels.append(found[-1].counted * len(zs) * volume.shape[1] * volume.shape[2])
    normalisation = combined(parts, voxels)
    sources = tuple(
        PatchSource(
            volume,
            marks,
            tuple(zs),
            options.slices,
            (height, width),
            target,
            normalisation,
            options.augment_reversal,
            options.z_order == "reversed",
            turns=options.augment != "none",
            em=options.em if options.augment == "em" else None,
        )
        for volume, marks, (zs, _) in zip(volumes, labels, splits, strict=True)
    )
    locations = find_class_locations(sources, options.seed) if options.balance else None
    source = MultiVolume(sources, locations, options.balance)
    validation = tuple(tuple(zs) for _, zs in splits)
    fits = tuple(_label_asymmetry(one, options.seed) for one in sources)
    return TrainingData(source, validation, tuple(found), fits)


def _validation_spans(options: TrainOptions, count: int) -> list[str | None]:
    """Return the option ``validation`` for each volume."""
    if not isinstance(options.validation, list):
        return [options.validation] * count
    if len(options.validation) != count:
        raise BadInputError(
            f"--validation names slices of {len(options.validation)} volumes, expected {count}; "
            "give one for each, or one for all"
        )
    return list(options.validation)


def _split(volume: Volume, text: str | None, slices: int) -> tuple[list[int], list[int]]:
    depth = volume.shape[0]
    if text is None:
        return split_slices(depth, slices, source=volume.source)
    span = parse_span(text, depth, "--validation")
    return split_slices(depth, slices, range(span.start, span.stop), volume.source)


def training_record(data: TrainingData, options: TrainOptions) -> JsonObject:
    """Return what a model file says of its training; ``volumes`` lists several, the first first."""
    each = zip(
        data.source.sources, data.validation, data.intensities, data.label_asymmetry, strict=True
    )
    records = [_volume_record(*one) for one in each]
    return {
        **records[0],
        "target": data.target.kind,
        "recipe": options.model_dump() | {"weights": Path(options.weights).name},
        "versions": versions(),
        **({"volumes": records} if len(records) > 1 else {}),
    }


def _slices_seen(source: PatchSource) -> list[list[int]]:
    """Return the spans of slices that training windows see."""
    side, depth = source.slices // 2, source.volume.shape[0]
    near = {n for z in source.centres for n in range(z - side, z + side + 1)}
    return spans_of(sorted(near & set(range(depth))))


def _label_asymmetry(source: PatchSource, seed: int) -> LabelAsymmetry:
    """Measure the labels of the longest span of training slices."""
    first, last = max(_slices_seen(source), key=lambda span: span[1] - span[0])
    box = slice(first, last), slice(None), slice(None)
    parts = crop(source.volume, box), crop(source.labels, box)
    return label_asymmetry(*parts, source.target, seed=seed)


def _volume_record(
    source: PatchSource, validation: Slices, found: Statistics, fit: LabelAsymmetry
) -> JsonObject:
    """Describe one volume; its slices are those that training windows see."""
    volume = source.volume
    return {
        "volume": Path(volume.source).name,
        "fingerprint": fingerprint(volume),
        "labels": fingerprint(source.labels),
        "voxel_nm": volume.voxel_nm,
        "intensities": {key: getattr(found, key) for key in ("dtype", "mean", "std", "skew")},
        "slices": _slices_seen(source),
        "validation": spans_of(list(validation)),
        "label_asymmetry": fit.to_dict(),
    }


def training_provenance(data: TrainingData, options: TrainOptions) -> JsonObject:
    """Return command, seed, versions, and hashes of volumes, labels and weights."""
    read: JsonObject = {"weights": weights_record(options.encoder, options.weights)}
    for n, source in enumerate(data.source.sources, 1):
        end = "" if n == 1 else f"_{n}"
        read |= {f"volume{end}": source.volume, f"labels{end}": source.labels}
    return provenance_of(options.seed, **read)


def spread(items: Slices, most: int) -> list[int]:
    """Return at most so many of the items, evenly spread."""
    picks = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round())
    return [items[int(pick)] for pick in picks]


def validate(
    model: Model,
    sources: Sequence[PatchSource],
    slices: Sequence[Slices],
    device: torch.device,
    progress: Progress = silent,
) -> Scores:
    """Segment slices of each volume and score all their pixels together, but for ignored labels."""
    parts = [
        (source.volume, source.labels, source.target, zs)
        for source, zs in zip(sources, slices, strict=True)
    ]
    return score_slices(model, parts, device, progress)


def score_slices(
    model: Model,
    parts: Sequence[tuple[Volume, Volume, Target, Slices]],
    device: torch.device,
    progress: Progress = silent,
) -> Scores:
    """Segment slices of each (volume, labels, target, slices); score all their pixels together.

    A model that was trained in reversed order sees every window reversed, here as there.
    """
    model, size = _in_trained_order(model), max(2, model.spec.classes)
    table = np.zeros((size, size), np.int64)
    with progress("validating", sum(len(zs) for *_, zs in parts)) as step:
        for volume, labels, target, zs in parts:
            for z, probability in zip(zs, predict_slices(model, volume, zs, device), strict=True):
                known = target.known(labels.slice_at(z))
                table += confusion(_classes(probability), known, size, ignore=-1)
                step()
    return scores_of(table)


class _Reversed(torch.nn.Module):
    """A network that is given each window (B, S, y, x) in opposite order."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.network(windows.flip(1)))


def _in_trained_order(model: Model) -> Model:
    if model.training.get("recipe", {}).get("z_order") != "reversed":
        return model
    return replace(model, module=_Reversed(model.module))


def _classes(probability: NDArray[np.float32]) -> Voxels:
    return np.asarray(classes_of(torch.from_numpy(probability)[None])[0].numpy())


def views_of(
    model: Model, source: PatchSource, zs: Slices, device: torch.device, label: str
) -> tuple[WindowView, ...]:
    """Segment slices of a volume and return the middle of each with its prediction, for a page."""
    y, x = (middle(slice(0, n), VIEW_SIDE) for n in source.volume.shape[1:])
    model, views = _in_trained_order(model), []
    for z, probability in zip(zs, predict_slices(model, source.volume, zs, device), strict=True):
        guess = probability[0] if len(probability) == 1 else _classes(probability)
        views.append(
            WindowView(
                label=label,
                origin=(z, y.start, x.start),
                slices=read_window(source.volume, z, model.slices, y, x),
                attribution=None,
                prediction=guess[y, x].astype(np.float32),
                truth=source.target_at(slice(z, z + 1), y, x)[0],
                voxel_nm=source.volume.voxel_nm,
            )
        )
    return tuple(views)
