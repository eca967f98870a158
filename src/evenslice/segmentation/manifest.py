"""The manifest of a run that is joined, which someone else may have written: its sources are those named now, its plan is one."""

from typing import Any

from evenslice.errors import BadInputError
from evenslice.model.spec import Model
from evenslice.segmentation.blocks import Work
from evenslice.volume.array import Volume
from evenslice.volume.run_state import RunState


def work_of(run_state: RunState, model: Model, volume: Volume) -> Work:
    """Make ready to work on a run.

    Raises
    ------
    BadInputError
        If its manifest holds no plan.
    """
    try:
        work = Work(run_state, model, volume)
        plan, cut = work.plan, work.plan.cut
        sizes, margins = (*cut.tile, cut.stride, plan.depth, plan.side), (cut.halo, cut.overlap)
        if len(cut.tile) != 2 or not all(type(n) is int for n in (*sizes, *margins)):
            raise ValueError("a cut that is not of whole numbers")
        if min(sizes) < 1 or min(margins) < 0:
            raise ValueError("numbers below 1")
        return work
    except BadInputError:
        raise
    except (
        KeyError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        IndexError,
        MemoryError,
    ) as error:
        raise BadInputError(
            f"{run_state.folder} holds a damaged plan ({error!r}), expected what this run wrote; start over with --force"
        ) from error


def check_sources(run_state: RunState, sources: dict[str, Any]) -> None:
    """Refuse a run whose workers would open another model or volume than those named now: a model may be code, which is run.

    Parameters
    ----------
    ledger
        The run.
    sources
        ``model``, ``volume`` and ``slices`` as they were given; a model of None was saved in the folder of the run.

    Raises
    ------
    BadInputError
        If they differ.
    """
    noted = run_state.manifest["chosen"].get("sources")
    saved = str((run_state.folder / "model.safetensors").resolve())
    wanted = sources | {"model": sources["model"] or saved}
    if noted != wanted:
        raise BadInputError(
            f"{run_state.folder} holds a run of other files ({str(noted)[:200]}), expected {wanted} as given now; name the same, or start "
            "over with --force"
        )
