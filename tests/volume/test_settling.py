import asyncio
import errno
import time

import numpy as np
import pytest
from zarr.storage import LocalStore

from evenslice import save_volume
from evenslice.volume import atomic as settling


@pytest.fixture
def late(monkeypatch):
    """Make the first chunk of a write fail at once, and the others come late; give what was written after the error."""
    real, came = LocalStore.set, []

    async def set_late(self, key, value, *args, **kwargs):
        if "/c/" in key:
            if key.endswith("c/0/0/0"):
                raise OSError(errno.EIO, "broken disk")
            await asyncio.sleep(0.3)
            came.append(key)
        return await real(self, key, value, *args, **kwargs)

    monkeypatch.setattr(LocalStore, "set", set_late)
    return came


def test_nothing_is_written_after_the_error_of_a_store_was_raised(tmp_path, late):
    with pytest.raises(OSError, match="broken disk"):
        save_volume(tmp_path / "v.zarr", np.ones((4, 40, 600), np.uint8))
    assert late  # the others were under way
    time.sleep(0.5)
    assert list(tmp_path.iterdir()) == []


def test_what_succeeds_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(settling, "settle", lambda: pytest.fail("waited"))
    with settling.wait_for_zarr_writes():
        pass


def test_what_never_ends_is_waited_for_only_so_long(tmp_path, late, monkeypatch):
    monkeypatch.setattr(settling, "LONGEST_S", 0.05)
    with pytest.raises(OSError, match="broken disk"):
        save_volume(tmp_path / "v.zarr", np.ones((4, 40, 600), np.uint8))
    assert not late
    settling.settle()
