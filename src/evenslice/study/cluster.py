"""The cells of a study on a Dask cluster whose workers see the same folders (extra ``dask``)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from evenslice.segmentation.cluster import connected, outcome
from evenslice.study.data import data_of
from evenslice.study.folder import StudyFolder
from evenslice.study.plan import Cell, read_study


def do_on_cluster(
    address: str, file: Path, out: Path, cells: Sequence[Cell], device: str, retry: bool
) -> Iterator[str]:
    """Hand the cells out to workers, and yield a word on each as it is done.

    Raises
    ------
    BadInputError
        If ``distributed`` is not installed, or no scheduler or no worker answers, or workers die on a cell again and again.
    """
    with connected(address) as (distributed, client):
        given = (str(file.resolve()), str(out.resolve()), device, retry)
        tasks = [client.submit(do_remotely, cell.name, *given, pure=False) for cell in cells]
        for task in distributed.as_completed(tasks, loop=client.loop):
            yield str(outcome(task, distributed))


def do_remotely(name: str, file: str, out: str, device: str, retry: bool) -> str:
    """Run one cell on a worker."""
    from evenslice.study.run import do_cell

    plan = read_study(file)
    cell = next(one for one in plan.cells if one.name == name)
    return do_cell(
        StudyFolder(Path(out), plan),
        plan,
        cell,
        data_of(plan, cell.dataset, Path(out)),
        device,
        retry,
    )
