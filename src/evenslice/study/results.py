"""What a study has found, as ``study.json`` holds it: its cells, comparisons and claims, typed."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from evenslice.options import JsonObject

SCHEMA = "evenslice.study/1"
ALL = "all"  # networks, pooled
VERDICTS = {"leans": "asymmetric", "even": "symmetric"}  # as studies of version 0.1 spell them


def _finite(value: object) -> object:
    return value if isinstance(value, int | float) and abs(value) < float("inf") else None


def _text(value: object) -> str:
    return "" if value is None else VERDICTS.get(str(value), str(value))


Number = Annotated[float | None, BeforeValidator(_finite)]
Count = Annotated[int | None, BeforeValidator(_finite)]
Text = Annotated[str, BeforeValidator(_text)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Estimate(_Model):
    """A value with its interval; None where there is none."""

    value: Number = None
    low: Number = None
    high: Number = None


class _Training(_Model):
    """What identifies a training."""

    network: Text = ""
    treatment: Text = ""
    dataset: Text = ""
    target: Text = ""
    seed: Count = None


class CellResult(_Training):
    """One training: what identifies it, and what was measured before and after."""

    slices: int = 3
    steps: Count = None
    seconds: Number = None
    dice: Number = None
    iou: Number = None
    shares: tuple[Number, ...] = ()
    shares_before: tuple[Number, ...] = ()
    index: Estimate = Estimate()
    index_before: Estimate = Estimate()
    label_asymmetry_text: Text = ""
    verdict: Text = ""
    failure: Text = ""

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, row: JsonObject) -> JsonObject:
        """Gather the flat columns of a row: shares by slot, the mirror index with its ends."""
        slices = int(row.get("slices") or 3)
        found = {**row, "slices": slices}
        for end in ("", "_before"):
            found[f"shares{end}"] = [row.get(f"share_{slot}{end}") for slot in range(slices)]
            ends = {"value": "mirror_index", "low": "mirror_low", "high": "mirror_high"}
            found[f"index{end}"] = {key: row.get(name + end) for key, name in ends.items()}
        return found

    @property
    def finished(self) -> bool:
        """Whether it was measured."""
        one_slice = self.slices == 1  # which has no mirror index
        return not self.failure and (self.index.value is not None or one_slice)

    @property
    def name(self) -> str:
        """The cell within its network and treatment."""
        target = f", {self.target}" if self.target else ""
        return f"{self.dataset}{target}, seed {self.seed}"


class PooledIndex(Estimate):
    """Mean signed mirror index of a treatment over cells; its verdict, by the margin."""

    treatment: Text = ""
    network: Text = ""
    when: Text = ""
    cells: Count = None
    datasets: Count = None
    p: Number = None
    p_holm: Number = None
    verdict: Text = ""


class Comparison(Estimate):
    """Mean paired difference, treatment less control; datasets are blocks.

    ``p`` and ``p_holm``: against no difference. ``p_equivalence``: against a difference of the
    margin or more, by two one-sided tests. ``p_not_worse``: against being worse by the margin or
    more. ``verdict``: ``lower`` or ``higher`` where ``p_holm`` is small, ``equivalent`` where the
    adjusted ``p_equivalence`` is, else ``undecided``.
    """

    treatment: Text = ""
    control: Text = ""
    network: Text = ""
    outcome: Text = ""
    cells: Count = None
    datasets: Count = None
    p: Number = None
    p_holm: Number = None
    p_signflip: Number = None
    margin: Number = None
    p_equivalence: Number = None
    p_equivalence_holm: Number = None
    p_not_worse: Number = None
    verdict: Text = ""

    @property
    def name(self) -> str:
        """The treatment, and the network unless that is all of them."""
        return self.treatment + ("" if self.network in ("", ALL) else f", {self.network}")


class Parts(_Model):
    """The mirror index of trainings in both orders of z, taken apart by its causes.

    ``data``: half of forward less reversed, what turned with the volume. ``slots``: half of their
    sum, what stayed with the slots: pretraining, and by its standard deviation over the seeds,
    ``spread``, the chance of one training. Intervals are over seeds; a pair shares its seed.
    """

    method: Text = ""
    treatment: Text = ""
    network: Text = ""
    dataset: Text = ""
    seeds: Count = None
    data: Estimate = Estimate()
    slots: Estimate = Estimate()
    spread: Number = None


class Claim(_Model):
    """A claim of the paper, and whether this study supports it: yes, no or undecided."""

    name: Text = ""
    verdict: Text = ""
    sentence: Text = ""


class Point(_Model):
    """One validation during training."""

    steps: Number = None
    loss: Number = None
    dice: Number = None
    mirror_index: Number = None
    mirror_low: Number = None
    mirror_high: Number = None


class Curve(_Training):
    """The validations of one cell during training."""

    points: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Group:
    """The finished cells of one network that see the same number of slices.

    ``title`` is the network, with the number of slices where the study has several; ``treatments``
    are those it was to be trained with, the control first; some may have no finished cell.
    """

    title: str
    network: str
    slices: int
    treatments: tuple[str, ...]
    cells: tuple[CellResult, ...]

    def of(self, treatment: str) -> list[CellResult]:
        """Return the finished cells of a treatment."""
        return [cell for cell in self.cells if cell.treatment == treatment]


class Study(_Model):
    """What a study has found so far, finished or not.

    Attributes
    ----------
    cells, done, failed
        How many there are.
    rows, curves
        As ``study.json`` holds them; typed: ``results`` and ``courses``.
    lean, comparisons, claims, causes
        Pooled mirror indices, comparisons with the control, the claims of the paper, and what of
        the indices comes from the data and what stays with the slots.
    provenance
        Command, seeds, versions, and hashes of the data.
    """

    name: Text = ""
    title: Text = ""
    control: Text = ""
    margin: Number = None
    dice_margin: Number = None
    confidence: Number = None
    cells: int = 0
    done: int = 0
    failed: int = 0
    settings: JsonObject = {}
    versions: JsonObject = {}
    provenance: JsonObject = {}
    rows: tuple[JsonObject, ...] = ()
    lean: tuple[PooledIndex, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    claims: tuple[Claim, ...] = ()
    causes: tuple[Parts, ...] = ()
    curves: tuple[JsonObject, ...] = ()

    @classmethod
    def of(cls, study: Self | JsonObject) -> Self:
        """Read what ``study.json`` holds; a study stays what it is."""
        return study if isinstance(study, cls) else cls.model_validate(study)

    def to_dict(self) -> JsonObject:
        """Return the study as JSON can hold it (schema evenslice.study/1)."""
        return {"schema": SCHEMA, **self.model_dump()}

    @cached_property
    def results(self) -> tuple[CellResult, ...]:
        """The rows, typed."""
        return tuple(map(CellResult.model_validate, self.rows))

    @cached_property
    def courses(self) -> tuple[Curve, ...]:
        """The curves, typed."""
        return tuple(map(Curve.model_validate, self.curves))

    @property
    def finished(self) -> list[CellResult]:
        """The cells that were measured."""
        return [cell for cell in self.results if cell.finished]

    @property
    def failures(self) -> list[CellResult]:
        """The cells that failed, or have nothing measured."""
        return [cell for cell in self.results if not cell.finished]

    @property
    def treatments(self) -> list[str]:
        """The treatments, the control first."""
        found = unique(cell.treatment for cell in self.results)
        return sorted(found, key=lambda name: name != self.control)

    @property
    def datasets(self) -> list[str]:
        """The datasets of the finished cells."""
        return unique(cell.dataset for cell in self.finished)

    @property
    def labels(self) -> dict[str, str]:
        """By dataset, how well the labels trained on fit the slices before and after their own."""
        cells = [cell for cell in reversed(self.finished) if cell.label_asymmetry_text]
        return {cell.dataset: cell.label_asymmetry_text for cell in cells}

    @property
    def groups(self) -> list[Group]:
        """The finished cells by network and number of slices."""
        keys = dict.fromkeys((cell.network, cell.slices) for cell in self.finished)
        several = len({slices for _, slices in keys}) > 1
        groups = []
        for key in keys:
            own = [cell for cell in self.results if (cell.network, cell.slices) == key]
            planned = {cell.treatment for cell in own}
            title = f"{key[0]}, {key[1]} slices" if several else key[0]
            treatments = tuple(name for name in self.treatments if name in planned)
            finished = tuple(cell for cell in own if cell.finished)
            groups.append(Group(title, *key, treatments, finished))
        return groups

    @property
    def pooled(self) -> dict[tuple[str, str, str], PooledIndex]:
        """The pooled indices by treatment, network (``all`` for all of them) and when."""
        return {(one.treatment, one.network, one.when): one for one in self.lean}

    def pooled_pairs(self) -> list[tuple[PooledIndex, PooledIndex]]:
        """Return the pooled indices before and after training, by treatment and network."""
        found = self.pooled
        pairs = []
        for key in dict.fromkeys((treatment, network) for treatment, network, _ in found):
            none = PooledIndex(treatment=key[0], network=key[1])
            pairs.append((found.get((*key, "before"), none), found.get((*key, "after"), none)))
        return pairs


def unique(names: Iterable[str]) -> list[str]:
    """Return each name once, in order."""
    return list(dict.fromkeys(names))
