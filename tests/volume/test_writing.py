import os

import pytest

from evenslice.errors import BadInputError
from evenslice.volume.writing import check_writable, folder_written_beside, written_beside


def tree(folder) -> dict[str, str]:
    return {str(f.relative_to(folder)): f.read_text() for f in sorted(folder.rglob("*")) if f.is_file()}


def write_and_fail(path, error):
    with written_beside(path) as part:
        part.write_text("half")
        raise error


def fill_and_fail(path, error, force=False):
    with folder_written_beside(path, force) as part:
        (part / "a.txt").write_text("half")
        raise error


def test_the_file_appears_only_when_complete(tmp_path):
    with written_beside(tmp_path / "a.tif") as part:
        part.write_text("new")
        assert part.suffix == ".tif"
        assert part.parent == tmp_path
        assert not (tmp_path / "a.tif").exists()
    assert tree(tmp_path) == {"a.tif": "new"}


@pytest.mark.parametrize("error", [RuntimeError("broke"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [{}, {"a.txt": "old"}])
def test_a_failure_leaves_no_file_and_keeps_the_old_one(tmp_path, error, old):
    for name, text in old.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(type(error)):
        write_and_fail(tmp_path / "a.txt", error)
    assert tree(tmp_path) == old


def test_an_old_file_is_replaced(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with written_beside(tmp_path / "a.txt") as part:
        part.write_text("new")
        assert (tmp_path / "a.txt").read_text() == "old"
    assert tree(tmp_path) == {"a.txt": "new"}


def test_writing_over_a_file_needs_force(tmp_path):
    path = tmp_path / "a.txt"
    check_writable(path, force=False)
    path.write_text("old")
    with pytest.raises(BadInputError, match="add --force"):
        check_writable(path, force=False)
    check_writable(path, force=True)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_is_no_file_name_with_or_without_force(tmp_path, force):
    with pytest.raises(BadInputError, match="is a folder, expected a file name"):
        check_writable(tmp_path, force)


@pytest.mark.parametrize("force", [False, True])
def test_the_folder_to_write_to_must_exist(tmp_path, force):
    with pytest.raises(BadInputError, match=r"the folder .*none of a.txt does not exist"):
        check_writable(tmp_path / "none" / "a.txt", force)


def test_a_new_folder_appears_only_when_complete(tmp_path):
    out = tmp_path / "out"
    with folder_written_beside(out, force=False) as part:
        (part / "a.txt").write_text("a")
        (part / "sub").mkdir()
        (part / "sub" / "b.txt").write_text("b")
        assert not out.exists()
    assert tree(tmp_path) == {"out/a.txt": "a", "out/sub/b.txt": "b"}


@pytest.mark.parametrize("error", [RuntimeError("broke"), KeyboardInterrupt()])
def test_a_failure_leaves_no_folder(tmp_path, error):
    with pytest.raises(type(error)):
        fill_and_fail(tmp_path / "out", error)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_an_old_folder_as_it_was(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("old")
    with pytest.raises(RuntimeError):
        fill_and_fail(tmp_path / "out", RuntimeError(), force=True)
    assert tree(tmp_path) == {"out/a.txt": "old"}


def test_force_keeps_what_is_not_written_anew(tmp_path):
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    for name in ("a.txt", "notes.txt", "sub/b.txt", "sub/c.txt"):
        (out / name).write_text("old")
    with folder_written_beside(out, force=True) as part:
        (part / "sub").mkdir()
        for name in ("a.txt", "sub/b.txt"):
            (part / name).write_text("new")
    assert tree(out) == {"a.txt": "new", "notes.txt": "old", "sub/b.txt": "new", "sub/c.txt": "old"}
    assert [f.name for f in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_needs_no_force_and_a_full_one_does(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    with folder_written_beside(out, force=False) as part:
        (part / "a.txt").write_text("a")
    assert tree(out) == {"a.txt": "a"}
    with pytest.raises(BadInputError, match="add --force"):
        fill_and_fail(out, RuntimeError())
    assert tree(out) == {"a.txt": "a"}


def test_a_file_or_a_missing_parent_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInputError, match="is a file, expected a folder"):
        fill_and_fail(tmp_path / "file", RuntimeError(), force=True)
    with pytest.raises(BadInputError, match=r"the folder .*none of out does not exist"):
        fill_and_fail(tmp_path / "none" / "out", RuntimeError())


def test_what_a_killed_run_left_behind_is_not_in_the_way(tmp_path):
    left = tmp_path / f".out.{os.getpid()}.part"
    left.mkdir()
    (left / "half.txt").write_text("half")
    with folder_written_beside(tmp_path / "out", force=False) as part:
        (part / "a.txt").write_text("a")
    assert tree(tmp_path) == {"out/a.txt": "a"}


def test_a_relative_name_is_written_where_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    from pathlib import Path

    with folder_written_beside(Path("out"), force=False) as part:
        (part / "a.txt").write_text("a")
    with written_beside(Path("b.txt")) as part:
        part.write_text("b")
    assert tree(tmp_path) == {"b.txt": "b", "out/a.txt": "a"}
