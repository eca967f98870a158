"""The data of a study: the user's own volumes, a public dataset by name, or the phantom."""

from dataclasses import dataclass
from pathlib import Path

from evenslice.data.phantom import phantom
from evenslice.data.registry import Dataset, dataset, default_folder
from evenslice.errors import BadInputError
from evenslice.options import TargetKind
from evenslice.study.plan import Plan
from evenslice.volume.array import Volume
from evenslice.volume.files import open_volume, save_volume, split_container

PHANTOM = "phantom"
SHAPE = (40, 128, 128)


@dataclass(frozen=True)
class Data:
    """Where the volumes of a dataset lie, and what of them is scored.

    Attributes
    ----------
    raw, labels
        The training volume and its labels.
    test
        ``Z0:Z1``, slices of it that are scored and not trained on; None for the last 20 %.
    test_raw, test_labels
        A volume of its own that is scored instead, or None.
    target, ignore_label
        What the labels mean, where the dataset says so.
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
        named = {
            "raw": self.raw,
            "labels": self.labels,
            "test_raw": self.test_raw,
            "test_labels": self.test_labels,
        }
        return {role: path for role, path in named.items() if path is not None}

    @property
    def paths(self) -> list[str]:
        """All files."""
        return list(self.roles().values())

    def missing(self) -> list[str]:
        """Return those files that do not exist."""
        return [path for path in self.paths if not split_container(path)[0].exists()]

    def shapes(self) -> list[tuple[int, int, int]]:
        """Return the shapes (z, y, x) of the volumes."""
        return [open_volume(path).shape for path in (self.raw, self.test_raw) if path is not None]


def data_of(plan: Plan, name: str, out: Path) -> Data:
    """Find a dataset: a table of the study file, the ``phantom`` in ``out``, or a public one.

    Raises
    ------
    BadInputError
        If neither knows the name, or a table is incomplete.
    """
    own = plan.table.datasets.get(name)
    if own is None and name == PHANTOM:
        return Data(
            str(out / PHANTOM / "raw.tif"),
            str(out / PHANTOM / "membranes.tif"),
            target="foreground",
        )
    if own is None:
        return _public(dataset(name), folder_of(plan, name))
    if (own.test_raw is None) != (own.test_labels is None):
        raise BadInputError(
            f"datasets.{name} has only one of test_raw and test_labels, expected both or neither; "
            "add it"
        )
    if own.test_raw is not None and own.test is not None:
        raise BadInputError(
            f"datasets.{name} has both test and test_raw, expected one of them; take one out"
        )
    paths = {
        key: None if value is None else plan.path(value)
        for key, value in own.model_dump(
            include={"raw", "labels", "test_raw", "test_labels"}
        ).items()
    }
    return Data(**paths, test=own.test, target=own.target, ignore_label=own.ignore_label)  # type: ignore[arg-type]


def folder_of(plan: Plan, name: str) -> Path:
    """Return the folder that holds a public dataset."""
    parent = default_folder() if plan.table.data is None else Path(plan.path(plan.table.data))
    return parent / dataset(name).folder


def _public(known: Dataset, folder: Path) -> Data:
    train, test = known.train, known.test
    raw, labels = (str(folder / part) for part in (train.raw, train.labels))
    if test.raw == train.raw:
        assert test.span is not None
        return Data(raw, labels, f"{test.span[0]}:{test.span[1]}", target=known.target)
    return Data(raw, labels, None, str(folder / test.raw), str(folder / test.labels), known.target)


def check_data(plan: Plan, out: Path) -> dict[str, Data]:
    """Return the data of all cells by name; ``BadInputError`` names what is missing."""
    found = {
        name: data_of(plan, name, out)
        for name in dict.fromkeys(cell.dataset for cell in plan.cells)
    }
    for name, data in found.items():
        missing = [] if is_made(plan, name) else data.missing()
        if missing:
            raise BadInputError(
                f"{name} is not complete ({missing[0]} does not exist), expected its files; "
                f"{advice(plan, name)}"
            )
    return found


def is_made(plan: Plan, name: str) -> bool:
    """Whether the data of a name are not found but made: the phantom."""
    return name == PHANTOM and name not in plan.table.datasets


def make_data(data: Data) -> None:
    """Write the phantom where it is to lie, unless it lies there."""
    if not data.missing():
        return
    made, folder = phantom(SHAPE), Path(data.raw).parent
    folder.mkdir(exist_ok=True)
    save_volume(data.raw, Volume(made.raw, made.voxel_nm))
    save_volume(data.labels, Volume(made.membranes, made.voxel_nm))


def advice(plan: Plan, name: str) -> str:
    """Say how to get a dataset."""
    if name in plan.table.datasets:
        return f"correct the paths of datasets.{name}"
    return (
        f"fetch it with: evenslice data fetch '{dataset(name).name}' --to {folder_of(plan, name)}"
    )
