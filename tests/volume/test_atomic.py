"""What is written is there as a whole or not at all, and on the disk before it has its name."""

import asyncio
import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.storage import LocalStore

from evenslice import save_volume
from evenslice.errors import BadInputError
from evenslice.volume import atomic
from evenslice.volume.atomic import (
    check_writable,
    folder_written_beside,
    fsync_box,
    rename_into_place,
    store_written_beside,
    temp_path,
    written_beside,
)


def tree(folder) -> dict[str, str]:
    return {
        str(f.relative_to(folder)): f.read_text() for f in sorted(folder.rglob("*")) if f.is_file()
    }


def stop(error=None):
    if error is not None:
        raise error


def write(path, text="new", force=True, meanwhile=stop):
    with written_beside(path, force) as part:
        part.write_text(text)
        meanwhile()


def fill(path, force=False, beside=False, meanwhile=stop, **texts):
    with folder_written_beside(path, force, beside) as part:
        for name, text in texts.items():
            file = part / f"{name.replace('__', '/')}.txt"
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
        meanwhile()


def store(path, text, force=True, meanwhile=stop):
    with store_written_beside(path, force) as part:
        (part / "zarr.json").write_text(text)
        meanwhile()


@pytest.fixture(scope="module")
def ended():
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    return process.pid


def left_by(pid, path, suffix="", machine=None):
    """A hidden name that another process chose, on this machine or another one."""
    mine = temp_path(path, suffix)
    owner = f"{atomic._machine()}-{os.getpid()}-"
    return mine.with_name(mine.name.replace(owner, f"{machine or atomic._machine()}-{pid}-"))


def test_a_file_appears_or_is_replaced_only_when_complete(tmp_path):
    for old in ({}, {"a.tif": "old"}):
        with written_beside(tmp_path / "a.tif") as part:
            assert tree(tmp_path) == old
            part.write_text("new")
            assert part.suffix == ".tif"
            assert part.parent == tmp_path
        assert tree(tmp_path) == {"a.tif": "new"}
        (tmp_path / "a.tif").write_text("old")


def test_a_folder_appears_only_when_complete(tmp_path):
    def meanwhile():
        assert not (tmp_path / "out").exists()

    fill(tmp_path / "out", meanwhile=meanwhile, a="a", sub__b="b")
    assert tree(tmp_path) == {"out/a.txt": "a", "out/sub/b.txt": "b"}


@pytest.mark.parametrize("error", [RuntimeError("broke"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [{}, {"out/a.txt": "old"}])
def test_a_failure_leaves_nothing_and_keeps_what_was_there(tmp_path, error, old):
    for name, text in old.items():
        (tmp_path / "out").mkdir()
        (tmp_path / name).write_text(text)
    with pytest.raises(type(error)):
        fill(tmp_path / "out", force=True, meanwhile=lambda: stop(error), a="half")
    assert tree(tmp_path) == old
    (tmp_path / "out").mkdir(exist_ok=True)
    with pytest.raises(type(error)):
        write(tmp_path / "out" / "a.txt", "half", meanwhile=lambda: stop(error))
    assert tree(tmp_path) == old


def test_writing_over_what_is_there_needs_force(tmp_path):
    path, out = tmp_path / "a.txt", tmp_path / "out"
    check_writable(path, force=False)
    path.write_text("old")
    with pytest.raises(BadInputError, match="add --force"):
        check_writable(path, force=False)
    check_writable(path, force=True)
    out.mkdir()
    fill(out, a="a")  # an empty folder is as none
    with pytest.raises(BadInputError, match="add --force"):
        fill(out, a="b")
    assert tree(tmp_path) == {"a.txt": "old", "out/a.txt": "a"}


@pytest.mark.parametrize("force", [False, True])
def test_a_place_that_takes_no_file_is_refused(tmp_path, force):
    with pytest.raises(BadInputError, match="is a folder or a device, expected a file name"):
        check_writable(tmp_path, force)
    with pytest.raises(BadInputError, match=r"the folder .*none of a.txt does not exist"):
        check_writable(tmp_path / "none" / "a.txt", force)
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="is a file, expected a folder"):
        fill(tmp_path / "file", force)
    with pytest.raises(BadInputError, match=r"the folder .*none of out does not exist"):
        fill(tmp_path / "none" / "out", force)


def test_force_keeps_what_is_not_written_anew(tmp_path):
    out = tmp_path / "out"
    fill(out, a="old", notes="old", sub__b="old", sub__c="old")
    fill(out, force=True, a="new", sub__b="new")
    assert tree(out) == {"a.txt": "new", "notes.txt": "old", "sub/b.txt": "new", "sub/c.txt": "old"}
    assert [f.name for f in tmp_path.iterdir()] == ["out"]


def test_files_beside_others_need_no_force_unless_they_are_there(tmp_path):
    fill(tmp_path / "out", a="theirs")
    fill(tmp_path / "out", beside=True, b="mine")
    with pytest.raises(BadInputError, match=r"b\.txt has appeared"):
        fill(tmp_path / "out", beside=True, b="again", c="again")
    assert tree(tmp_path) == {"out/a.txt": "theirs", "out/b.txt": "mine"}


def test_what_a_killed_run_left_behind_is_not_in_the_way_and_goes(tmp_path, ended):
    half = left_by(ended, tmp_path / "out")
    half.mkdir()
    (half / "half.txt").write_text("half")
    left_by(ended, tmp_path / "a.tif", ".tif").write_text("half")
    fill(tmp_path / "out", a="a")
    write(tmp_path / "a.tif")
    assert tree(tmp_path) == {"a.tif": "new", "out/a.txt": "a"}


def test_what_a_living_process_or_one_elsewhere_writes_stays_for_a_week(tmp_path, ended):
    path = tmp_path / "a.txt"
    living, other = temp_path(path, ".txt"), left_by(ended, tmp_path / "b.txt", ".txt")
    elsewhere, old = (left_by(ended, path, ".txt", "00000000") for _ in range(2))
    for part in (living, elsewhere, old, other):
        part.write_text("theirs")
    os.utime(old, (0, 0))
    write(path)
    assert sorted(tree(tmp_path)) == sorted([living.name, elsewhere.name, other.name, "a.txt"])


def test_temporary_names_are_hidden_of_the_same_kind_and_never_the_same(tmp_path):
    one, other = (temp_path(tmp_path / "a.tif", ".tif") for _ in range(2))
    assert one != other
    assert (one.name[0], one.suffix) == (".", ".tif")


def test_what_appeared_meanwhile_is_not_replaced_without_force(tmp_path):
    file, place = tmp_path / "a.txt", tmp_path / "t.zarr"
    with pytest.raises(BadInputError, match=r"a\.txt has appeared while this ran, .* --force"):
        write(file, "mine", False, lambda: file.write_text("theirs"))
    with pytest.raises(BadInputError, match=r"t\.zarr has appeared"):
        store(place, "mine", False, lambda: store(place, "theirs"))
    assert tree(tmp_path) == {"a.txt": "theirs", "t.zarr/zarr.json": "theirs"}
    write(file, "mine")
    store(place, "mine")
    assert tree(tmp_path) == {"a.txt": "mine", "t.zarr/zarr.json": "mine"}
    with pytest.raises(BadInputError, match="exists, expected a new name"):
        store(place, "newer", force=False)


def test_an_old_store_comes_back_when_the_new_one_cannot_get_its_name(tmp_path, monkeypatch):
    store(tmp_path / "s.zarr", "old")
    (tmp_path / "new").mkdir()
    real = Path.rename
    broken = OSError(errno.EIO, "broken")
    monkeypatch.setattr(
        Path, "rename", lambda self, to: stop(broken) if self.name == "new" else real(self, to)
    )
    with pytest.raises(OSError, match="broken"):
        rename_into_place(tmp_path / "new", tmp_path / "s.zarr", force=True)
    assert tree(tmp_path) == {"s.zarr/zarr.json": "old"}


def test_a_store_comes_back_if_the_process_ended_between_two_names(tmp_path):
    old = tmp_path / ".s.zarr.old"
    old.mkdir()
    (old / "zarr.json").write_text("old")
    with pytest.raises(BadInputError, match="exists, expected a new name"):
        store(tmp_path / "s.zarr", "new", force=False)
    assert tree(tmp_path) == {"s.zarr/zarr.json": "old"}
    shutil.copytree(tmp_path / "s.zarr", old)
    store(tmp_path / "s.zarr", "new")
    assert tree(tmp_path) == {"s.zarr/zarr.json": "new"}


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    flushed, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(sorted(tree(tmp_path))) or real(fd))
    write(tmp_path / "a.txt")
    assert flushed[0] != ["a.txt"]  # the part
    assert flushed[-1] == ["a.txt"]  # the folder
    flushed.clear()
    store(tmp_path / "s.zarr", "new")
    assert "s.zarr/zarr.json" not in flushed[0]
    assert "s.zarr/zarr.json" in flushed[-1]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO, errno.ENOSPC])
def test_a_disk_without_fsync_is_good_enough_and_one_that_fails_is_not(tmp_path, monkeypatch, code):
    monkeypatch.setattr(os, "fsync", lambda _: stop(OSError(code, os.strerror(code))))
    if code == errno.EINVAL:
        write(tmp_path / "a.txt")
        assert tree(tmp_path) == {"a.txt": "new"}
        return
    with pytest.raises(OSError, match=os.strerror(code)) as caught:
        write(tmp_path / "a.txt")
    assert caught.value.filename == str(tmp_path / "a.txt")
    assert tree(tmp_path) == {}


def test_the_chunks_of_a_box_are_on_the_disk_and_no_others(tmp_path, monkeypatch):
    array = zarr.create_array(
        str(tmp_path / "s.zarr"), shape=(4, 6), chunks=(2, 2), dtype="u1", fill_value=0
    )
    values = np.ones((4, 6), np.uint8)
    values[:2, 2:4] = 0  # a chunk that holds the fill value alone is no file
    array[:] = values
    flushed = []
    monkeypatch.setattr(atomic, "fsync", flushed.append)
    fsync_box(array, (slice(0, 2), slice(0, 5)))
    root = tmp_path / "s.zarr"
    assert flushed == [root / name for name in ("c/0/0", "c/0/2", "c", "c/0")]


def test_nothing_is_written_after_the_error_of_a_store_was_raised(tmp_path, monkeypatch):
    """The first chunk of a write fails at once, the others come late."""
    real, came = LocalStore.set, []

    async def set_late(self, key, value, *args, **kwargs):
        if "/c/" in key:
            if key.endswith("c/0/0/0"):
                raise OSError(errno.EIO, "broken disk")
            await asyncio.sleep(0.2)
            came.append(key)
        return await real(self, key, value, *args, **kwargs)

    monkeypatch.setattr(LocalStore, "set", set_late)
    with pytest.raises(OSError, match="broken disk"):
        save_volume(tmp_path / "v.zarr", np.ones((4, 40, 600), np.uint8))
    assert came  # the others were under way
    time.sleep(0.4)
    assert list(tmp_path.iterdir()) == []
