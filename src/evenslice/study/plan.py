"""The plan of a study: a TOML file of grids, expanded into cells; nothing is opened."""

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from evenslice.errors import BadInputError
from evenslice.options import (
    NAMED_WEIGHTS,
    JsonObject,
    Table,
    TargetKind,
    TrainOptions,
    TrainPrecision,
    read_toml,
    validated,
)

DATASET = "dataset"
REVERSED = "reversed order"
METHOD = "mirror_index_"  # the column of a method
# What a study or its datasets decide.
OWN = ("validation", "target", "ignore_label", "keep", "patience")
MOST_NAMED = 8
Positive = Annotated[int, Field(ge=1)]
Part = Annotated[float, Field(gt=0, lt=1)]


class DatasetTable(Table):
    """Where the volumes of a dataset lie, and what of them is scored.

    ``test`` are slices ``Z0:Z1`` of the volume that are not trained on, the last 20 % when None;
    ``test_raw`` and ``test_labels`` a volume of its own, scored whole; the rest is as in
    ``TrainOptions``.
    """

    raw: str
    labels: str
    test: str | None = None
    test_raw: str | None = None
    test_labels: str | None = None
    target: TargetKind = "auto"
    ignore_label: int | None = None

    def roles(self) -> dict[str, str]:
        """Return all files by what they are."""
        named = self.model_dump(include={"raw", "labels", "test_raw", "test_labels"})
        return {role: path for role, path in named.items() if path is not None}


class AuditTable(Table):
    """How every network is audited, before and after training, on the same windows."""

    methods: list[str] = Field(default_factory=lambda: ["gradient", "ablation"])
    windows: Positive = 40
    tile: Annotated[int, Field(ge=16)] = 256
    margin: Part = 0.05
    watch_windows: Annotated[int, Field(ge=0)] = 0
    """Windows audited at every validation run during training; 0 for none."""


class StudyTable(Table):
    """A study file: ``train`` is shared by all cells, each ``grid`` lists what varies."""

    name: str
    title: str = ""
    control: str = "rgb"
    data: str | None = None
    dice_margin: Part = 0.01
    confidence: Part = 0.95
    keep_models: bool = False
    precision: TrainPrecision = "auto"
    train: JsonObject = Field(default_factory=dict)
    audit: AuditTable = AuditTable()
    datasets: dict[str, DatasetTable] = Field(default_factory=dict)
    grid: Annotated[list[JsonObject], Field(min_length=1)]


@dataclass(frozen=True)
class Cell:
    """One training of a study.

    ``varied`` names the options that are not the same in all cells of the study; ``several`` says
    whether the study compares several pretrained weights of this network.
    """

    options: TrainOptions
    dataset: str
    audit: AuditTable
    varied: tuple[str, ...] = field(default=(), compare=False)
    several: bool = field(default=False, compare=False)

    @property
    def weights(self) -> str:
        """The weights by name; of a file its name without folders."""
        weights = self.options.weights
        return Path(weights).name if _is_file(weights) else weights

    @property
    def treatment(self) -> str:
        """The treatment in a few words: the init, and what differs from plain training."""
        options = self.options
        words: list[str] = ["random weights" if options.weights == "none" else options.init]
        if options.tie != "none":
            words.append(f"{options.tie} tie")
        if options.augment_reversal:
            words.append("reverse-z")
        if options.augment != "flips" and "augment" in self.varied:
            words.append(f"augment {options.augment}")
        if options.freeze != "none":
            words.append(f"frozen {options.freeze}")
        if options.slices == 1:
            words.append("one slice")
        if options.z_order == "reversed":
            words.append(REVERSED)
        return ", ".join(words)

    @property
    def network(self) -> str:
        """Architecture and encoder, with the weights where a study compares several."""
        name = f"{self.options.arch} {self.options.encoder}"
        named = self.several and self.options.weights != "none"
        return f"{name} ({self.weights})" if named else name

    @property
    def context(self) -> str:
        """A hash of all but the treatment: cells are compared that share it.

        One slice is a treatment: whether the neighbours help. Other numbers are not compared.
        """
        treated = {"init", "tie", "freeze", "augment_reversal", "z_order", "weights", "augment"}
        if self.options.slices == 1:
            treated.add("slices")
        rest = self.options.model_dump(exclude=treated | set(OWN), exclude_defaults=True)
        text = json.dumps([self.network, self.dataset, rest], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def name(self) -> str:
        """A readable name for its folder, unique over studies; defaults do not count."""
        options = self.options
        asked = options.model_dump(exclude={"weights"}, exclude_defaults=True)
        asked |= {"weights": self.weights}
        if "augment_reversal" in asked:  # its name in earlier studies, whose cells keep theirs
            asked["reverse_z"] = asked.pop("augment_reversal")
        audit = self.audit.model_dump(exclude_defaults=True)
        text = json.dumps([asked, self.dataset, audit], sort_keys=True, default=str)
        words = [options.arch, options.encoder, self.treatment, self.dataset]
        plain = "-".join(re.sub(r"\W", "_", word) for word in [*words, f"seed{options.seed}"])
        return f"{plain[:100]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


@dataclass(frozen=True)
class Plan:
    """A study, ready to be run; paths in its table are relative to the folder of its file."""

    table: StudyTable
    folder: Path
    cells: tuple[Cell, ...]

    @property
    def datasets(self) -> list[str]:
        """The names of the datasets of all cells."""
        return list(dict.fromkeys(cell.dataset for cell in self.cells))

    def path(self, text: str) -> str:
        """Return a path of the file as seen from here."""
        return text if Path(text).is_absolute() else str(self.folder / text)


def read_study(path: str | Path) -> Plan:
    """Read a study file (TOML) and expand its grids.

    Raises
    ------
    BadInputError
        If it cannot be read, or a key is unknown or holds what it cannot; the key is named.
    """
    path = Path(path)
    table = validated(StudyTable, read_toml(path), str(path))
    cells: dict[str, Cell] = {}
    for number, grid in enumerate(table.grid):
        for values in _combinations(grid, f"{path}: grid.{number}"):
            cell = _cell(table, values, path, number)
            cells.setdefault(cell.name, cell)
    treatments = {cell.treatment for cell in cells.values()}
    if "control" in table.model_fields_set and table.control not in treatments:
        raise BadInputError(
            f"{path}: control is {table.control!r}, expected a treatment of the grids "
            f"({', '.join(sorted(treatments)[:MOST_NAMED])}); choose one"
        )
    return Plan(table, path.resolve().parent, _with_varied(tuple(cells.values())))


def _combinations(grid: JsonObject, where: str) -> list[JsonObject]:
    """Return every combination of the lists of a grid; what is no list is the same in all."""
    for key, value in grid.items():
        if value == []:
            raise BadInputError(
                f"{where}.{key} is an empty list, expected at least one value; add one"
            )
    axes = [value if isinstance(value, list) else [value] for value in grid.values()]
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*axes)]


def _cell(table: StudyTable, values: JsonObject, path: Path, number: int) -> Cell:
    where = f"{path}: grid.{number}"
    if not isinstance(values.get(DATASET), str):
        raise BadInputError(
            f"{where}.dataset is {values.get(DATASET)!r}, expected a name or a list of names"
        )
    dataset = values.pop(DATASET)
    tile = values.pop("tile", table.audit.tile)
    for key in OWN:
        if key in values or key in table.train:
            raise BadInputError(
                f"{where}.{key} is given, expected none: the dataset says what is scored, and the "
                "last state is kept; take it out"
            )
    chosen: JsonObject = {"precision": table.precision} | table.train | values
    weights = chosen.get("weights", "imagenet")
    if isinstance(weights, str) and _is_file(weights) and not Path(weights).is_absolute():
        chosen["weights"] = str((path.resolve().parent / weights).resolve())
    own = table.datasets.get(dataset)
    target = {} if own is None else {"target": own.target, "ignore_label": own.ignore_label}
    options = TrainOptions.read(chosen | target | {"keep": "last"}, where)
    audit = validated(AuditTable, table.audit.model_dump() | {"tile": tile}, where)
    return Cell(options, dataset, audit)


def _with_varied(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """Record in each cell what varies in the study."""
    dumps = [cell.options.model_dump() for cell in cells]
    varied = tuple(
        key for key in dumps[0] if len({json.dumps(one[key], default=str) for one in dumps}) > 1
    )
    weights: dict[str, set[str]] = {}
    for cell in cells:
        weights.setdefault(cell.network, set()).add(cell.options.weights)
    several = {name: len(found - {"none"}) > 1 for name, found in weights.items()}
    return tuple(replace(cell, varied=varied, several=several[cell.network]) for cell in cells)


def _is_file(weights: str) -> bool:
    return weights not in NAMED_WEIGHTS and not weights.startswith("hf-hub:")
