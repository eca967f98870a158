"""A run of ``segment`` on a Dask cluster: pieces go to workers that share its folder."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from evenslice.errors import BadInputError
from evenslice.progress import Progress, silent
from evenslice.segmentation.blocks import Work, open_inputs, options_in
from evenslice.segmentation.objects import Run, do_pieces
from evenslice.volume.run_state import RunState

TIMEOUT_S = 10
WAITING = 2  # tasks per thread that are handed out ahead
_LOCK = threading.Lock()
_OPEN: dict[tuple[str, ...], Work] = {}


def do_remotely(sources: tuple[str, str, str], stage: str, index: int) -> None:
    """Do a piece of a stage on a worker; ``sources`` are those of ``cluster_run``.

    A worker opens what the client names, not what lies in the folder: a model may be code.
    """
    # one task at a time in a process, since the network uses all threads of the plan
    with _LOCK, silent("", 0) as step:
        do_pieces(_opened(*sources), stage, [index], step)


def _opened(folder: str, model: str, volume: str) -> Work:
    """Return a run, opened once in a process."""
    manifest = Path(folder) / "manifest.json"
    key = (folder, model, volume, str(manifest.stat().st_mtime_ns))
    if key not in _OPEN:
        _OPEN.clear()
        run_state = RunState(Path(folder))
        options = options_in(run_state.manifest["asked"], manifest)
        _OPEN[key] = Work(run_state, *open_inputs(model, volume, options))
    return _OPEN[key]


@contextmanager
def connected(address: str) -> Iterator[tuple[Any, Any]]:
    """Connect to a scheduler that has workers; give the package ``distributed`` and the client.

    Raises ``BadInputError`` if that is not installed, or no scheduler or no worker answers.
    """
    try:
        import distributed
    except ImportError as error:
        raise BadInputError(
            "--scheduler needs the package distributed, expected it to be installed; "
            "pip install 'evenslice[dask]'"
        ) from error
    try:
        client = distributed.Client(address, timeout=TIMEOUT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"no Dask scheduler answers at {address} ({error}), expected an address such as "
            "tcp://HOST:8786; start one first"
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
def cluster_run(address: str, sources: tuple[str, str, str], progress: Progress) -> Iterator[Run]:
    """Connect to a scheduler, and give what does the pieces of a stage on its workers.

    A worker that dies loses nothing: another does its piece again. ``sources`` are the names of the
    folder of the run, the model and the volume, which mean the same to the workers.
    """
    with connected(address) as (distributed, client):

        def submit(stage: str, index: int) -> Any:
            return client.submit(do_remotely, sources, stage, index, pure=False)

        def run(stage: str, left: list[int], label: str) -> None:
            waiting = iter(left)
            ahead = WAITING * max(1, sum(client.nthreads().values()))
            first = [submit(stage, index) for index in islice(waiting, ahead)]
            tasks = distributed.as_completed(first, loop=client.loop)
            with progress(label, len(left)) as step:
                for task in tasks:
                    outcome(task, distributed)
                    step()
                    index = next(waiting, None)
                    if index is not None:
                        tasks.add(submit(stage, index))

        yield run


def outcome(task: Any, distributed: Any) -> Any:
    """Return what a task returned, or raise ``BadInputError`` if worker after worker died on it."""
    try:
        return task.result()
    except distributed.KilledWorker as error:
        raise BadInputError(
            f"several workers died one after the other on the same piece ({error}), expected "
            "workers with enough memory; give them more, and run it again"
        ) from error
