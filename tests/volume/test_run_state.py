"""Long runs: what is done survives, and only those who do the same may take part."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from evenslice.errors import BadInputError
from evenslice.volume.run_state import RunState, open_run_state, stored_rows, stored_table

ASKED = {"model": "abc", "roi": [[0, 3], [0, 4]], "threshold": 0.5}
HOLDER = """
import sys
from pathlib import Path
from evenslice.volume.run_state import RunState
with RunState(Path(sys.argv[1])).holding(sys.argv[2], Path("out")):
    print("locked", flush=True)
    sys.stdin.read()
"""


def begin(folder, asked=ASKED, join=False, force=False, choose=lambda folder: {"n": 1}):
    return open_run_state(folder, asked, choose, join, force)


def make_store(place):
    """A choice that cannot be made where another left something."""
    (place / "store").mkdir()
    return {}


def killed(*_):
    raise OSError("killed")


@contextmanager
def held_elsewhere(folder, name="run"):
    """Another process that holds a lock, until it is killed or done with."""
    words = [sys.executable, "-c", HOLDER, str(folder), name]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, text=True, **pipes) as process:
        assert process.stdout.readline() == "locked\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "out.run"


def test_what_is_done_is_known_to_others(folder):
    run_state = begin(folder)
    for index in (0, 3, 2000):
        run_state.done("predict", index, {"index": index})
    run_state.done("label", 1)
    other = RunState(folder)
    assert other.manifest == {"asked": ASKED, "chosen": {"n": 1}}
    assert other.left("predict", range(5)) == [1, 2, 4]
    assert other.left("predict", range(1999, 2002)) == [1999, 2001]
    assert other.left("label", range(2)) == [0]
    assert (other.is_done("predict", 3), other.is_done("label", 3)) == (True, False)
    assert [record["index"] for record in other.records("predict", 2001)] == [0, 3, 2000]
    assert [record["index"] for record in other.records("predict", 2000)] == [0, 3]
    assert list(other.records("label", 2)) == [{}]
    assert 0 <= other.age_s() < 100


def test_a_record_that_was_not_written_to_its_end_does_not_count(folder, monkeypatch):
    run_state = begin(folder)
    monkeypatch.setattr("pathlib.Path.replace", killed)
    with pytest.raises(OSError, match="killed"):
        run_state.done("predict", 0)
    assert run_state.left("predict", range(1)) == [0]
    assert [file for file in (folder / "done").rglob("*") if file.is_file()] == []


def test_how_is_chosen_once_and_kept(folder):
    begin(folder, choose=lambda folder: {"tile": 7}).done("predict", 0)
    joined = begin(folder, join=True, choose=lambda folder: pytest.fail("chosen twice"))
    assert joined.manifest["chosen"] == {"tile": 7}
    assert joined.is_done("predict", 0)
    as_tuples = ASKED | {"roi": ((0, 3), (0, 4))}  # JSON has lists
    assert begin(folder, as_tuples, join=True).is_done("predict", 0)


@pytest.mark.parametrize(
    ("asked", "join", "words"),
    [
        (ASKED, False, "holds an unfinished run, expected none; add --resume"),
        (ASKED | {"threshold": 0.7}, True, r"another threshold \(was 0\.5, now 0\.7\)"),
        (ASKED | {"axis": "y"}, True, r'another axis \(was null, now "y"\)'),
        ({"model": "abc", "roi": ASKED["roi"]}, True, r"threshold \(was 0\.5, now null\)"),
        (ASKED | {"model": "x" * 99}, True, r"model \(was \"abc\", now \"x+\.\.\.\)"),
    ],
)
def test_another_run_is_refused_with_what_differs(folder, asked, join, words):
    begin(folder).done("predict", 0)
    with pytest.raises(BadInputError, match=words):
        begin(folder, asked, join)
    assert RunState(folder).manifest["asked"] == ASKED
    assert RunState(folder).is_done("predict", 0)


def test_force_starts_anew(folder):
    begin(folder, choose=make_store).done("predict", 0)
    run_state = begin(folder, ASKED | {"threshold": 0.9}, force=True, choose=make_store)
    assert not run_state.is_done("predict", 0)
    assert run_state.manifest["asked"]["threshold"] == 0.9


@pytest.mark.parametrize("error", [BadInputError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [False, True])
def test_a_choice_that_fails_leaves_nothing(folder, error, before):
    if before:
        begin(folder)

    def choose(place):
        make_store(place)
        raise error

    with pytest.raises(type(error)):
        begin(folder, choose=choose, force=before)
    assert list(folder.parent.iterdir()) == []


def test_a_choice_that_was_killed_is_made_again(folder):
    folder.mkdir()
    (folder / "plan.lock").touch()
    make_store(folder)
    assert begin(folder, join=True, choose=make_store).left("predict", range(1)) == [0]


def test_what_is_no_run_is_left_alone(folder):
    folder.write_text("mine")
    with pytest.raises(BadInputError, match="no folder of a run, expected nothing"):
        begin(folder)
    assert folder.read_text() == "mine"
    folder.unlink()
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(BadInputError, match="no folder of a run, expected nothing"):
            begin(folder, force=force)
    assert (folder / "mine.txt").read_text() == "mine"


def test_a_lock_is_refused_to_others_until_its_holder_is_killed(folder):
    run_state = begin(folder)
    with held_elsewhere(folder) as process:
        with pytest.raises(BadInputError, match=r"another process works on .*x\.zarr \(run\)"):
            run_state.holding("run", folder.parent / "x.zarr").__enter__()
        with run_state.holding("other", folder):
            pass
        with pytest.raises(BadInputError, match="another process works on"):
            begin(folder, force=True)
        assert RunState(folder).manifest["asked"] == ASKED
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with run_state.holding("run", folder), pytest.raises(BadInputError, match="another"):
            run_state.holding("run", folder).__enter__()
        with run_state.holding("run", folder):
            pass


def test_it_is_removed_as_one(folder, monkeypatch):
    run_state = begin(folder)
    run_state.done("predict", 0)
    run_state.remove()
    assert list(folder.parent.iterdir()) == []
    run_state = begin(folder)
    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(OSError, match="killed"):
        run_state.remove()
    assert not folder.exists()


@pytest.mark.parametrize("text", [b"", b'{"a": ', b"\xff\xfe\x00", b'"a"'])
def test_what_is_no_json_of_the_right_kind_is_damaged(folder, text):
    folder.write_bytes(text)
    for read in (stored_table, stored_rows):
        with pytest.raises(BadInputError, match=r"out\.run is damaged .*start over with --force"):
            read(folder)


def test_a_table_has_its_keys(folder):
    with pytest.raises(FileNotFoundError):
        stored_table(folder)
    folder.write_text('{"asked": 1, "chosen": 2}')
    assert stored_table(folder, "asked", "chosen") == {"asked": 1, "chosen": 2}
    with pytest.raises(BadInputError, match="no table with asked, seed"):
        stored_table(folder, "asked", "seed")


@pytest.mark.parametrize("value", [{"a": 1}, [{"a": 1}, 3], [{"a": 1}, {"b": 2}]])
def test_rows_are_tables_with_their_keys(folder, value):
    folder.write_text(json.dumps([{"a": 1, "b": 2}, {"a": 3}]))
    assert stored_rows(folder, "a") == [{"a": 1, "b": 2}, {"a": 3}]
    folder.write_text(json.dumps(value))
    with pytest.raises(BadInputError, match=r"damaged \(it is no list of tables with a\)"):
        stored_rows(folder, "a")
