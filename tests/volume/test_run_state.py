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


@contextmanager
def held_elsewhere(folder, name="run"):
    """Another process that holds a lock, until it is killed or done with."""
    words = [sys.executable, "-c", HOLDER, str(folder), name]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
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
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        run_state.done("predict", 0)
    assert run_state.left("predict", range(1)) == [0]
    assert [file for file in (folder / "done").rglob("*") if file.is_file()] == []


def test_how_is_chosen_once_and_kept(folder):
    begin(folder, choose=lambda folder: {"tile": 7}).done("predict", 0)
    joined = begin(folder, join=True, choose=lambda folder: pytest.fail("chosen twice"))
    assert joined.manifest["chosen"] == {"tile": 7}
    assert joined.is_done("predict", 0)
    assert begin(folder, {**ASKED, "roi": ((0, 3), (0, 4))}, join=True).is_done(
        "predict", 0
    )  # as JSON has it


def test_a_run_in_the_way_is_refused(folder):
    begin(folder).done("predict", 0)
    with pytest.raises(
        BadInputError, match=r"holds an unfinished run, expected none; add --resume"
    ):
        begin(folder)
    assert RunState(folder).is_done("predict", 0)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({**ASKED, "threshold": 0.7}, r"another threshold \(0\.5\), expected 0\.7"),
        ({**ASKED, "axis": "y"}, r'another axis \(null\), expected "y"'),
        ({"model": "abc", "roi": ASKED["roi"]}, r"another threshold \(0\.5\), expected null"),
        (
            {**ASKED, "model": "x" * 99},
            r"another model \(\"abc\"\), expected \"x{56}\.\.\. as asked",
        ),
    ],
)
def test_other_options_are_refused_by_name(folder, asked, message):
    begin(folder)
    with pytest.raises(BadInputError, match=message):
        begin(folder, asked, join=True)
    assert RunState(folder).manifest["asked"] == ASKED


def test_force_starts_anew(folder):
    def choose(place):
        assert not (place / "store").exists()
        (place / "store").mkdir()
        return {}

    begin(folder, choose=choose).done("predict", 0)
    run_state = begin(folder, {**ASKED, "threshold": 0.9}, force=True, choose=choose)
    assert not run_state.is_done("predict", 0)
    assert run_state.manifest["asked"]["threshold"] == 0.9


@pytest.mark.parametrize("error", [BadInputError("no"), OSError("full"), KeyboardInterrupt()])
@pytest.mark.parametrize("before", [False, True])
def test_a_choice_that_fails_leaves_nothing(folder, error, before):
    if before:
        begin(folder)

    def choose(place):
        (place / "store").mkdir()
        (place / "store" / "0").write_text("x")
        raise error

    with pytest.raises(type(error)):
        begin(folder, choose=choose, force=before)
    assert list(folder.parent.iterdir()) == []


def test_a_choice_that_was_killed_is_made_again(folder):
    folder.mkdir()
    (folder / "plan.lock").touch()
    (folder / "store").mkdir()

    def choose(place):
        (place / "store").mkdir()
        return {}

    assert begin(folder, join=True, choose=choose).left("predict", range(1)) == [0]


def test_a_folder_of_somebody_else_is_left_alone(folder):
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(BadInputError, match="expected no folder of that name"):
            begin(folder, force=force)
    assert (folder / "mine.txt").read_text() == "mine"


def test_a_file_of_that_name_is_left_alone(folder):
    folder.write_text("mine")
    with pytest.raises(BadInputError, match="is a file, expected no file of that name"):
        begin(folder)
    assert folder.read_text() == "mine"


def test_a_lock_that_another_process_holds_is_refused(folder):
    run_state = begin(folder)
    with held_elsewhere(folder):
        with pytest.raises(
            BadInputError, match=r"another process works on .*x\.zarr \(run\), expected none"
        ):
            run_state.holding("run", folder.parent / "x.zarr").__enter__()
        with run_state.holding("other", folder):
            pass
        with pytest.raises(BadInputError, match="another process works on"):
            begin(folder, force=True)
        assert RunState(folder).manifest["asked"] == ASKED


def test_the_lock_of_a_killed_process_is_free(folder):
    run_state = begin(folder)
    with held_elsewhere(folder) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with run_state.holding("run", folder):
            pass
    with run_state.holding("run", folder), pytest.raises(BadInputError, match="another process"):
        run_state.holding("run", folder).__enter__()
    with run_state.holding("run", folder):
        pass


def test_it_is_removed_as_one(folder, monkeypatch):
    run_state = begin(folder)
    run_state.done("predict", 0)
    run_state.remove()
    assert list(folder.parent.iterdir()) == []
    run_state = begin(folder)
    run_state.done("predict", 0)
    monkeypatch.setattr("shutil.rmtree", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError, match="killed"):
        run_state.remove()
    assert not folder.exists()


@pytest.mark.parametrize("text", [b"", b'{"a": ', b"\xff\xfe\x00"])
def test_what_is_no_json_is_damaged(folder, text):
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
    folder.write_text('["asked"]')
    with pytest.raises(BadInputError, match="damaged"):
        stored_table(folder, "asked")


@pytest.mark.parametrize("value", [{"a": 1}, [{"a": 1}, 3], [{"a": 1}, {"b": 2}]])
def test_rows_are_tables_with_their_keys(folder, value):
    folder.write_text(json.dumps([{"a": 1, "b": 2}, {"a": 3}]))
    assert stored_rows(folder, "a") == [{"a": 1, "b": 2}, {"a": 3}]
    folder.write_text(json.dumps(value))
    with pytest.raises(BadInputError, match=r"damaged \(it is no list of tables with a\)"):
        stored_rows(folder, "a")
