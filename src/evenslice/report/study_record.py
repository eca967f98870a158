"""A study as its pages and charts read it: what ``study.json`` holds, with types."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from evenslice.options import JsonObject
from evenslice.report.verdict import is_number

if TYPE_CHECKING:
    from evenslice.study.run import Study

ALL = "all"
VERDICTS = {"leans": "asymmetric", "even": "symmetric"}  # as studies of version 0.1 spell them


def _finite(value: object) -> float | None:
    return value if is_number(value) else None


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


class Cell(_Model):
    """One training: what identifies it, and what was measured before and after."""

    network: Text = ""
    treatment: Text = ""
    dataset: Text = ""
    target: Text = ""
    seed: Count = None
    slices: int = 3
    steps: Count = None
    seconds: Number = None
    dice: Number = None
    iou: Number = None
    shares: tuple[Number, ...] = ()
    shares_before: tuple[Number, ...] = ()
    index: Estimate = Estimate()
    index_before: Estimate = Estimate()
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
        return not self.failure and self.index.value is not None

    @property
    def name(self) -> str:
        """The cell within its network and treatment."""
        target = f", {self.target}" if self.target else ""
        return f"{self.dataset}{target}, seed {self.seed}"


class PooledIndex(Estimate):
    """Mean mirror index of a treatment over cells, before or after training."""

    treatment: Text = ""
    network: Text = ""
    when: Text = ""
    cells: Count = None
    datasets: Count = None
    p_holm: Number = None
    verdict: Text = ""


class Comparison(Estimate):
    """Mean paired difference of a treatment from the control."""

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
    verdict: Text = ""

    @property
    def name(self) -> str:
        """The treatment, and the network unless that is all of them."""
        return self.treatment + ("" if self.network in ("", ALL) else f", {self.network}")


class Claim(_Model):
    """A claim of the paper, and what the study says of it."""

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


class Curve(_Model):
    """The validations of one cell during training."""

    network: Text = ""
    treatment: Text = ""
    dataset: Text = ""
    target: Text = ""
    seed: Count = None
    points: tuple[Point, ...] = ()


@dataclass(frozen=True)
class Group:
    """The finished cells of one network that see the same number of slices.

    Attributes
    ----------
    title
        The network; with the number of slices where the study has several.
    network, slices
        Its name in the study, and how many slices it sees.
    treatments
        Those it was to be trained with, the control first; some may have no finished cell.
    cells
        Its finished cells, in the order of the study.
    """

    title: str
    network: str
    slices: int
    treatments: tuple[str, ...]
    cells: tuple[Cell, ...]

    def of(self, treatment: str) -> list[Cell]:
        """Return the finished cells of a treatment."""
        return [cell for cell in self.cells if cell.treatment == treatment]


class StudyRecord(_Model):
    """All that ``study.json`` says (schema ``evenslice.study/1``), finished or not."""

    name: Text = ""
    title: Text = ""
    control: Text = ""
    command: Text = ""
    margin: Number = None
    dice_margin: Number = None
    confidence: Number = None
    cells: int = 0
    done: int = 0
    failed: int = 0
    settings: JsonObject = {}
    versions: JsonObject = {}
    provenance: JsonObject = {}
    rows: tuple[Cell, ...] = ()
    lean: tuple[PooledIndex, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    claims: tuple[Claim, ...] = ()
    curves: tuple[Curve, ...] = ()

    @property
    def finished(self) -> list[Cell]:
        """The cells that were measured."""
        return [cell for cell in self.rows if cell.finished]

    @property
    def failures(self) -> list[Cell]:
        """The cells that failed, or have nothing measured."""
        return [cell for cell in self.rows if not cell.finished]

    @property
    def treatments(self) -> list[str]:
        """The treatments, the control first."""
        found = unique(cell.treatment for cell in self.rows)
        return sorted(found, key=lambda name: name != self.control)

    @property
    def datasets(self) -> list[str]:
        """The datasets of the finished cells."""
        return unique(cell.dataset for cell in self.finished)

    @property
    def groups(self) -> list[Group]:
        """The finished cells by network and number of slices."""
        keys = dict.fromkeys((cell.network, cell.slices) for cell in self.finished)
        several = len({slices for _, slices in keys}) > 1
        return [self._group(network, slices, several) for network, slices in keys]

    def _group(self, network: str, slices: int, several: bool) -> Group:
        own = [cell for cell in self.rows if (cell.network, cell.slices) == (network, slices)]
        planned = {cell.treatment for cell in own}
        return Group(
            f"{network}, {slices} slices" if several else network,
            network,
            slices,
            tuple(name for name in self.treatments if name in planned),
            tuple(cell for cell in own if cell.finished),
        )

    @property
    def pooled(self) -> dict[tuple[str, str, str], PooledIndex]:
        """The pooled indices by treatment, network (``all`` for all of them) and when."""
        return {(one.treatment, one.network, one.when): one for one in self.lean}

    def pooled_pairs(self) -> list[tuple[PooledIndex, PooledIndex]]:
        """Return the pooled indices before and after training, by treatment and network."""
        found = self.pooled
        keys = dict.fromkeys((treatment, network) for treatment, network, _ in found)
        return [
            (
                found.get((*key, "before"), PooledIndex(treatment=key[0], network=key[1])),
                found.get((*key, "after"), PooledIndex(treatment=key[0], network=key[1])),
            )
            for key in keys
        ]


def study_record(study: "Study | Mapping[str, Any]") -> StudyRecord:
    """Read a study, or what ``study.json`` holds of one."""
    return StudyRecord.model_validate(study if isinstance(study, Mapping) else study.to_dict())


def unique(names: Iterable[str]) -> list[str]:
    """Return each name once, in order."""
    return list(dict.fromkeys(names))
