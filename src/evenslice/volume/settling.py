"""Waiting for zarr's own threads: when one chunk of a write fails, it raises at once and goes on to write the others."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_S = 10.0


@contextmanager
def settled() -> Iterator[None]:
    """If what is done within fails, let the error pass only when zarr has stopped writing, so that nothing appears after it."""
    try:
        yield
    except BaseException:
        settle()
        raise


def settle() -> None:
    """Wait until zarr has done all that it was asked for in this process, 10 s at most."""
    if "zarr" in sys.modules:
        from zarr.core.sync import sync

        sync(_others())


async def _others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=LONGEST_S)
