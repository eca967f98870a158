"""A run of ``segment`` on a Dask cluster: pieces go to workers that share the run's folder (extra ``dask``)."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError
from evenslice.model.inputs import model_of
from evenslice.progress import Progress, Step, silent
from evenslice.segmentation.blocks import PREDICT, Work
from evenslice.segmentation.finish import Run
from evenslice.segmentation.objects import Objects
from evenslice.volume.files import open_volume
from evenslice.volume.run_state import RunState

TIMEOUT_S = 10
WAITING = 2  # tasks a thread that are handed out ahead
_LOCK = threading.Lock()
_OPEN: dict[tuple[str, int], Work] = {}


def do_pieces(work: Work, stage: str, indices: list[int], step: Step) -> None:
    """Do pieces of a stage in this process."""
    if stage == PREDICT:
        work.predict(indices, step)
        return
    objects = Objects(work)
    for index in indices:
        objects.piece(stage, index)
        step()


def do_remotely(folder: str, stage: str, indices: list[int]) -> int:
    """Do pieces of a stage on a worker; one task at a time in a process, since the network uses all threads chosen."""
    with _LOCK, silent("", 0) as step:
        do_pieces(_opened(Path(folder)), stage, indices, step)
    return len(indices)


def _opened(folder: Path) -> Work:
    """Return the run in a folder, opened once in a process."""
    key = (str(folder), (folder / "manifest.json").stat().st_mtime_ns)
    if key not in _OPEN:
        _OPEN.clear()
        run_state = RunState(folder)
        sources = run_state.manifest["chosen"]["sources"]
        # the process that named this model has opened it already, and checked the manifest
        model = model_of(sources["model"], sources["slices"], trust=True)
        _OPEN[key] = Work(run_state, model, open_volume(sources["volume"]))
    return _OPEN[key]


@contextmanager
def connected(address: str) -> Iterator[tuple[Any, Any]]:
    """Connect to a scheduler that has workers; give the package ``distributed`` and the client.

    Raises
    ------
    BadInputError
        If ``distributed`` is not installed, or no scheduler or no worker answers.
    """
    try:
        import distributed
    except ImportError as error:
        raise BadInputError(
            "--scheduler needs the package distributed, expected it to be installed; pip install 'evenslice[dask]'"
        ) from error
    try:
        client = distributed.Client(address, timeout=TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"no Dask scheduler answers at {address} ({error}), expected an address such as tcp://HOST:8786; start one first"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=TIMEOUT_S)
        except TimeoutError as error:
            raise BadInputError(
                f"the scheduler at {address} has no workers, expected some; start them"
            ) from error
        yield distributed, client


@contextmanager
def cluster_run(address: str, folder: Path, progress: Progress) -> Iterator[Run]:
    """Connect to a scheduler, and give what does the pieces of a stage on its workers.

    A worker that dies loses nothing: what it had is done again by another.

    Raises
    ------
    BadInputError
        As ``connected``.
    """
    with connected(address) as (distributed, client):

        def run(stage: str, left: list[int], label: str) -> None:
            _hand_out(distributed, client, str(folder.resolve()), stage, left, label, progress)

        yield run


def _hand_out(
    distributed: Any,
    client: Any,
    folder: str,
    stage: str,
    left: list[int],
    label: str,
    progress: Progress,
) -> None:
    """Give one piece a task to workers, a few ahead of what they can do at once."""
    waiting = iter(left)
    with progress(label, len(left)) as step:
        ahead = WAITING * max(1, sum(client.nthreads().values()))
        first = [_submit(client, folder, stage, index) for index in islice(waiting, ahead)]
        tasks = distributed.as_completed(first, loop=client.loop)
        for task in tasks:
            outcome(task, distributed)
            step()
            index = next(waiting, None)
            if index is not None:
                tasks.add(_submit(client, folder, stage, index))


def _submit(client: Any, folder: str, stage: str, index: int) -> Any:
    return client.submit(do_remotely, folder, stage, [index], pure=False)


def outcome(task: Any, distributed: Any) -> Any:
    """Return what a task returned, or raise ``BadInputError`` if workers died on it again and again."""
    try:
        return task.result()
    except distributed.KilledWorker as error:
        raise BadInputError(
            f"several workers died one after the other on the same piece ({error}), expected workers with enough memory; give them more, "
            "and run it again"
        ) from error
