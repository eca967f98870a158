"""The cells of a study in the order to draw them: groups, names, what each measured, and how each treatment looks."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenslice.report.verdict import is_number

ALL = "all"
USUAL = ("rgb", "green", "mean", "random weights", "rgb, reverse-z")
SHAPES = ("circle", "square", "triangle", "diamond", "wedge")
COLOURS = ("#1f242b", "#00805d", "#b0468e", "#b06f00", "#4a86ff", "#8a3b12", "#4b2e83")
DASHES: tuple[tuple[int, ...], ...] = (
    (),
    (6, 2),
    (2, 2),
    (8, 2, 2, 2),
    (4, 1),
    (10, 3),
    (5, 2, 1, 2, 1, 2),
)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Look:
    """How a treatment is drawn: a colour, a dash pattern (empty for a whole line) and a marker."""

    colour: str
    dash: tuple[int, ...]
    shape: str

    @property
    def dashes(self) -> str:
        """The dash pattern as SVG has it."""
        return " ".join(map(str, self.dash))


@dataclass(frozen=True)
class Group:
    """The finished cells of one network that see the same number of slices.

    Attributes
    ----------
    title
        The network; with the number of slices where the study has several.
    network
        Its name in the study.
    slices
        How many slices it sees.
    treatments
        Those it was to be trained with, the control first; some may have no finished cell.
    rows
        Its finished cells, in the order of the study.
    """

    title: str
    network: str
    slices: int
    treatments: tuple[str, ...]
    rows: tuple[Row, ...]

    def of(self, treatment: str) -> list[Row]:
        """Return the finished cells of a treatment."""
        return [row for row in self.rows if row.get("treatment") == treatment]


def finished(study: Mapping[str, Any]) -> list[Row]:
    """Return the cells that were measured."""
    return [
        row
        for row in study.get("rows") or []
        if not row.get("failure") and is_number(row.get("mirror_index"))
    ]


def failures(study: Mapping[str, Any]) -> list[Row]:
    """Return the cells that failed, or have nothing measured."""
    good = {id(row) for row in finished(study)}
    return [row for row in study.get("rows") or [] if id(row) not in good]


def names(rows: Iterable[Row], key: str) -> list[str]:
    """Return what a column holds, each once, in order."""
    return list(dict.fromkeys(str(row.get(key)) for row in rows if row.get(key) is not None))


def shares_of(row: Row, end: str = "") -> list[float | None]:
    """Return the share of each slot; ``end`` is ``_before`` for before training."""
    return [
        share if is_number(share := row.get(f"share_{slot}{end}")) else None
        for slot in range(slices_of(row))
    ]


def slices_of(row: Row) -> int:
    """Return how many slices a cell sees."""
    stated = row.get("slices")
    if is_number(stated):
        return int(stated)
    slots = [
        slot
        for slot in range(9)
        if is_number(row.get(f"share_{slot}")) or is_number(row.get(f"share_{slot}_before"))
    ]
    return max(slots, default=2) + 1


def groups_of(study: Mapping[str, Any]) -> list[Group]:
    """Return the finished cells by network and number of slices."""
    several = len({slices_of(row) for row in finished(study)}) > 1
    keys = dict.fromkeys((str(row.get("network")), slices_of(row)) for row in finished(study))
    return [_group(study, network, slices, several) for network, slices in keys]


def _group(study: Mapping[str, Any], network: str, slices: int, several: bool) -> Group:
    every = [
        row
        for row in study.get("rows") or []
        if str(row.get("network")) == network and slices_of(row) == slices
    ]
    meant = set(names(every, "treatment"))
    return Group(
        f"{network}, {slices} slices" if several else network,
        network,
        slices,
        tuple(name for name in treatments_of(study) if name in meant),
        tuple(finished({"rows": every})),
    )


def treatments_of(study: Mapping[str, Any]) -> list[str]:
    """Return the treatments, the control first."""
    every = names(study.get("rows") or [], "treatment")
    control = str(study.get("control"))
    return [control, *(name for name in every if name != control)] if control in every else every


def looks_of(treatments: Sequence[str]) -> dict[str, Look]:
    """Choose how each treatment is drawn; colours, dashes and markers each tell them apart, the control is black.

    Against ``rgb`` the treatments of the paper look the same in every study, whichever of them it has.
    """
    places = (
        {name: n for n, name in enumerate(USUAL) if name in treatments}
        if treatments[:1] == list(USUAL[:1])
        else {}
    )
    free = (n for n in itertools.count() if n not in places.values())
    places |= {name: next(free) for name in treatments if name not in places}
    return {name: _look(places[name]) for name in treatments}


def _look(place: int) -> Look:
    return Look(
        COLOURS[place % len(COLOURS)], DASHES[place % len(DASHES)], SHAPES[place % len(SHAPES)]
    )


def shapes_of(datasets: Sequence[str]) -> dict[str, str]:
    """Choose a marker for each data set."""
    return {name: SHAPES[n % len(SHAPES)] for n, name in enumerate(datasets)}


def lean_of(study: Mapping[str, Any]) -> dict[tuple[str, str, str], Row]:
    """Return the pooled leans by treatment, network (``all`` for all of them) and when."""
    return {
        (str(one.get("treatment")), str(one.get("network")), str(one.get("when"))): one
        for one in study.get("lean") or []
    }


def cell_name(row: Row) -> str:
    """Name a cell within its network and treatment."""
    target = f", {row['target']}" if row.get("target") else ""
    return f"{row.get('dataset')}{target}, seed {row.get('seed')}"
