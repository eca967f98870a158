"""What is flushed to the disk: every file and every name that was written, and what happens where that cannot be done."""

import errno
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import zarr

from evenslice.volume import atomic as durable
from evenslice.volume import atomic as renaming


@pytest.fixture
def flushed(monkeypatch):
    """Return the list of what is flushed, as it happens."""
    seen, real = [], durable._flush

    def flush(path, flags):
        real(path, flags)
        seen.append(path)

    monkeypatch.setattr(durable, "_flush", flush)
    return seen


def tree(folder):
    for name in ("a.txt", "deep/b.txt", "deep/deeper/c.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return {folder / "a.txt", folder / "deep/b.txt", folder / "deep/deeper/c.txt"}, {
        folder,
        folder / "deep",
        folder / "deep/deeper",
    }


def test_all_files_of_a_tree_are_flushed_before_their_names(tmp_path, flushed):
    files, folders = tree(tmp_path)
    durable.flush_tree(tmp_path)
    assert set(flushed[:3]) == files and set(flushed[3:]) == folders and len(flushed) == 6


@pytest.mark.parametrize("whole", [True, False])
def test_many_files_are_flushed_with_their_file_system_where_that_is_possible(
    tmp_path, flushed, monkeypatch, whole
):
    files, folders = tree(tmp_path)
    monkeypatch.setattr(durable, "MANY", 2)
    asked = []
    monkeypatch.setattr(durable, "_flush_system", lambda folder: (asked.append(folder), whole)[1])
    durable.flush_tree(tmp_path)
    assert asked == [tmp_path] and set(flushed) == (set() if whole else files | folders)
    monkeypatch.setattr(durable, "MANY", 3)
    durable.flush_tree(tmp_path)
    assert asked == [tmp_path], "three files are not many yet"


@pytest.mark.skipif(sys.platform != "linux", reason="syncfs is of Linux")
def test_a_file_system_is_flushed_by_the_system_or_not_at_all(tmp_path, monkeypatch):
    assert durable._flush_system(tmp_path)
    open_before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for library in (SimpleNamespace(), SimpleNamespace(syncfs=lambda _: -1)):
        monkeypatch.setattr(durable.ctypes, "CDLL", lambda *_, library=library, **__: library)
        assert not durable._flush_system(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == open_before  # noqa: PTH208
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not durable._flush_system(tmp_path)


@pytest.mark.parametrize("number", sorted(durable._UNKNOWN))
def test_a_file_system_that_cannot_flush_is_no_error(tmp_path, monkeypatch, number):
    def fsync(_):
        raise OSError(number, "not here")

    monkeypatch.setattr(os, "fsync", fsync)
    durable.flush_folder(tmp_path)


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_what_did_not_reach_the_disk_is_an_error_that_names_the_file(tmp_path, monkeypatch, number):
    def fsync(_):
        raise OSError(number, "lost")

    (tmp_path / "a.txt").touch()
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=r"lost.*a\.txt") as caught:
        durable.flush_file(tmp_path / "a.txt")
    assert caught.value.errno == number


def test_what_is_not_there_cannot_be_flushed(tmp_path):
    with pytest.raises(FileNotFoundError):
        durable.flush_file(tmp_path / "none")


def test_folders_are_left_alone_where_they_cannot_be_opened(tmp_path, flushed, monkeypatch):
    monkeypatch.setattr(durable, "os", SimpleNamespace(name="nt"))
    durable.flush_folder(tmp_path)
    assert flushed == []


def test_the_chunks_of_a_box_are_flushed_and_no_others(tmp_path, flushed):
    array = zarr.create_array(
        str(tmp_path / "s.zarr"), shape=(4, 6), chunks=(2, 2), dtype="u1", fill_value=0
    )
    values = np.ones((4, 6), np.uint8)
    values[:2, 2:4] = 0  # a chunk that holds the fill value alone is no file
    array[:] = values
    flushed.clear()
    durable.flush_box(array, (slice(0, 2), slice(0, 5)))
    root = tmp_path / "s.zarr"
    files = [path for path in flushed if path.is_file()]
    assert files == [root / "c/0/0", root / "c/0/2"]
    assert flushed[len(files) :] == [root / "c", root / "c/0"]


@pytest.mark.parametrize("library", ["none", "old"])
def test_names_are_not_swapped_where_the_system_cannot(tmp_path, monkeypatch, library):
    def load(*_, **__):
        if library == "none":
            raise OSError("no such library")
        return SimpleNamespace()

    monkeypatch.setattr(renaming.ctypes, "CDLL", load)
    assert not renaming.swap(tmp_path, tmp_path)
    monkeypatch.setattr(sys, "platform", "win32")
    assert not renaming.swap(tmp_path, tmp_path)


def test_the_old_folder_comes_back_when_the_new_one_cannot_get_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(renaming, "swap", lambda *_: False)
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr" / "old.txt").touch()
    with pytest.raises(FileNotFoundError):
        renaming.name_folder(tmp_path / "never made", tmp_path / "s.zarr", force=True)
    assert [path.name for path in tmp_path.rglob("*")] == ["s.zarr", "old.txt"]


def test_another_error_at_the_last_step_is_told_as_it_is(tmp_path, monkeypatch):
    def link(*_):
        raise OSError(errno.EIO, "broken")

    with pytest.raises(FileNotFoundError):
        renaming.name_folder(tmp_path / "never made", tmp_path / "s.zarr", force=False)
    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OSError, match="broken"):
        renaming.rename_into_place(tmp_path / "a", tmp_path / "b", force=False)
