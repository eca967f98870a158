"""The data of a study: the user's own volumes, a public dataset by name, or the phantom."""

from pathlib import Path

from evenslice.data.phantom import phantom
from evenslice.data.registry import Dataset, dataset, default_folder
from evenslice.errors import BadInputError
from evenslice.study.plan import DatasetTable, Plan
from evenslice.volume.array import Volume
from evenslice.volume.files import save_volume, split_container

PHANTOM = "phantom"
SHAPE = (40, 128, 128)


def missing_files(data: DatasetTable) -> list[str]:
    """Return those files of a dataset that do not exist."""
    return [path for path in data.roles().values() if not split_container(path)[0].exists()]


def data_of(plan: Plan, name: str, out: Path) -> DatasetTable:
    """Find a dataset: a table of the study file, the ``phantom`` in ``out``, or a public one.

    Raises
    ------
    BadInputError
        If neither knows the name, or a table is incomplete.
    """
    own = plan.table.datasets.get(name)
    if own is None and name == PHANTOM:
        raw, labels = (str(out / PHANTOM / file) for file in ("raw.tif", "membranes.tif"))
        return DatasetTable(raw=raw, labels=labels, target="foreground")
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
    paths = {role: plan.path(path) for role, path in own.roles().items()}
    return own.model_copy(update=paths)


def folder_of(plan: Plan, name: str) -> Path:
    """Return the folder that holds a public dataset."""
    parent = default_folder() if plan.table.data is None else Path(plan.path(plan.table.data))
    return parent / dataset(name).folder


def _public(known: Dataset, folder: Path) -> DatasetTable:
    train, test = known.train, known.test
    paths = {"raw": str(folder / train.raw), "labels": str(folder / train.labels)}
    if test.raw != train.raw:
        paths |= {"test_raw": str(folder / test.raw), "test_labels": str(folder / test.labels)}
    elif test.span is not None:
        paths["test"] = f"{test.span[0]}:{test.span[1]}"
    return DatasetTable(**paths, target=known.target)  # type: ignore[arg-type]


def check_data(plan: Plan, out: Path) -> dict[str, DatasetTable]:
    """Return the data of all cells by name; ``BadInputError`` names what is missing."""
    found = {name: data_of(plan, name, out) for name in plan.datasets}
    for name, data in found.items():
        missing = [] if is_made(plan, name) else missing_files(data)
        if missing:
            raise BadInputError(
                f"{name} is not complete ({missing[0]} does not exist), expected its files; "
                f"{advice(plan, name)}"
            )
    return found


def is_made(plan: Plan, name: str) -> bool:
    """Whether the data of a name are not found but made: the phantom."""
    return name == PHANTOM and name not in plan.table.datasets


def make_data(data: DatasetTable) -> None:
    """Write the phantom where it is to lie, unless it lies there."""
    if not missing_files(data):
        return
    made, folder = phantom(SHAPE), Path(data.raw).parent
    folder.mkdir(exist_ok=True)
    save_volume(data.raw, Volume(made.raw, made.voxel_nm))
    save_volume(data.labels, Volume(made.membranes, made.voxel_nm, meaning="labels"))


def advice(plan: Plan, name: str) -> str:
    """Say how to get a dataset."""
    if name in plan.table.datasets:
        return f"correct the paths of datasets.{name}"
    return (
        f"fetch it with: evenslice data fetch '{dataset(name).name}' --to {folder_of(plan, name)}"
    )
