"""Two processes on one output: one is stopped in the middle of a run, the other comes; then the first goes on."""

import os
import shutil
import signal
import sys
from contextlib import contextmanager

import pytest

from faults.cases import CASES, content_of, filling, hidden_in, quick_training, segment, train
from faults.forking import begun, forked
from faults.test_faults import inputs, placed, undisturbed

__all__ = ["inputs", "undisturbed"]  # fixtures
pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="runs are forked, and descriptors are named in /proc"
)


@contextmanager
def stopped(folder, words, at, before=None):
    """A run that stopped at a write operation; ``go_on`` lets it go on and returns its outcome, ``end`` kills it."""
    wait = begun(folder, words, "stop", at, before)
    _, status = os.waitpid(wait.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), wait()
    ended = []

    def go_on(number=signal.SIGCONT):
        os.kill(wait.pid, number)
        ended.append(wait())
        return ended[0]

    try:
        yield go_on
    finally:
        if not ended:
            go_on(signal.SIGKILL)


def refused(folder, words, before=None, text="another process works on"):
    outcome = forked(folder, words, before=before)
    lines = [line for line in outcome.said.splitlines() if "warning: faults.nets" not in line]
    assert (outcome.code, len(lines)) == (2, 1), outcome.said
    assert lines[0].startswith("evenslice: error: ")
    assert text in lines[0]


def operation(whole, *texts, last=False):
    """Return the number of the first or last operation that is about all of these."""
    found = [
        n
        for n, (name, path) in enumerate(whole.operations, 1)
        if all(text in f"{name} {path}" for text in texts)
    ]
    return found[-1 if last else 0]


def impatient():
    from evenslice.volume import locks

    locks.wait_lock.__wrapped__.__defaults__ = (0.2,)


def test_segment_refuses_whoever_comes_and_equals_one_that_was_alone(undisturbed, inputs, tmp_path):
    whole, words = undisturbed("segment zarr"), placed(CASES["segment zarr"].words, inputs)
    with stopped(tmp_path, words, operation(whole, "rename", "done/label")) as go_on:
        for more in ([], ["--resume"], ["--force"]):
            refused(tmp_path, words + more)
        refused(tmp_path, [*words, "--resume", "--threshold", "0.7"], text="another threshold")
        refused(tmp_path, [*words, "--force", "--threshold", "0.7"])
        assert go_on().code == 0
    assert content_of(tmp_path) == whole.result


def test_segment_that_is_planned_is_waited_for_and_one_that_was_killed_there_is_begun_anew(
    undisturbed, inputs, tmp_path
):
    whole, words = undisturbed("segment zarr"), placed(CASES["segment zarr"].words, inputs)
    with stopped(tmp_path, words, operation(whole, "open", "manifest.json")) as go_on:
        refused(
            tmp_path,
            words,
            impatient,
            "another process has locked s.zarr.run/plan.lock for 0.2 s, expected less",
        )
        go_on(signal.SIGKILL)
    assert forked(tmp_path, [*words, "--resume"]).code == 0
    assert content_of(tmp_path) == whole.result


@pytest.mark.slow
def test_a_stopped_run_that_is_killed_is_gone_on_with(undisturbed, inputs, tmp_path):
    whole, words = undisturbed("segment zarr"), placed(CASES["segment zarr"].words, inputs)
    with stopped(tmp_path, words, operation(whole, "rename", "done/write")) as go_on:
        go_on(signal.SIGKILL)
    refused(tmp_path, words, text="holds an unfinished run, expected none; add --resume")
    assert forked(tmp_path, [*words, "--resume"]).code == 0
    assert content_of(tmp_path) == whole.result


def test_shards_share_a_run_and_one_finishes(undisturbed, inputs, tmp_path):
    whole = undisturbed("segment shard")  # the first was done before the second
    first, second = (
        placed(segment("s.tif", "--shard", f"{n}/2", "--tile", 40), inputs) for n in (1, 2)
    )
    alone = tmp_path / "alone"
    alone.mkdir()
    at = operation(forked(alone, first), "rename", "done/predict")
    shutil.rmtree(alone)
    with stopped(tmp_path, first, at) as go_on:
        refused(tmp_path, first)
        refused(tmp_path, [*first, "--force"])
        assert forked(tmp_path, second).code == 0
        assert not (tmp_path / "s.tif").exists()
        assert go_on().code == 0
    result = content_of(tmp_path, {"s.tif"})
    names = [path.name for path in tmp_path.iterdir()]
    assert [name for name in names if name.startswith(".") or name.endswith(".run")] == []
    assert result["s.tif"].replace(b"1/2", b"2/2") == whole.result["s.tif"]


@pytest.mark.slow
def test_a_shard_that_comes_while_another_finishes_leaves_it_to_that_one(
    undisturbed, inputs, tmp_path
):
    whole = undisturbed("segment shard")
    first, second = (
        placed(segment("s.tif", "--shard", f"{n}/2", "--tile", 40), inputs) for n in (1, 2)
    )
    assert forked(tmp_path, first).code == 0
    with stopped(tmp_path, second, operation(whole, "rename", "s.tif")) as go_on:
        assert forked(tmp_path, [*first, "--resume"]).code == 0
        assert go_on().code == 0
    assert content_of(tmp_path) == whole.result


def test_train_refuses_whoever_comes_and_equals_one_that_was_alone(undisturbed, inputs, tmp_path):
    whole, words = undisturbed("train"), placed(CASES["train"].words, inputs)
    with stopped(
        tmp_path, words, operation(whole, "rename", "state.ckpt", last=True), quick_training
    ) as go_on:
        for more in ([], ["--resume"], ["--force"]):
            refused(tmp_path, words + more, quick_training)
        assert go_on().code == 0
    assert content_of(tmp_path) == whole.result


@pytest.mark.slow
def test_a_training_is_gone_on_with_by_one_process(undisturbed, inputs, tmp_path):
    whole, words = undisturbed("train"), placed(CASES["train"].words, inputs)
    with stopped(
        tmp_path, words, operation(whole, "rename", "state.ckpt", last=True), quick_training
    ) as go_on:
        go_on(signal.SIGKILL)
    with stopped(tmp_path, [*words, "--resume"], 12, quick_training) as go_on:
        refused(tmp_path, [*words, "--resume"], quick_training)
        assert go_on().code == 0
    assert content_of(tmp_path) == whole.result


def test_studies_share_the_cells_of_a_folder(undisturbed, inputs, tmp_path):
    whole, case = undisturbed("study"), CASES["study"]
    words = placed(case.words, inputs)
    with stopped(tmp_path, words, operation(whole, "rename", "state.ckpt"), case.before) as go_on:
        other = forked(tmp_path, words, before=case.before)
        assert other.code == 0, other.said
        assert len(list(tmp_path.glob("out/cells/*/row.json"))) == 1
        assert go_on().code == 0
    assert content_of(tmp_path) == whole.result


@pytest.mark.slow
def test_a_table_of_a_study_that_is_written_is_waited_for(undisturbed, inputs, tmp_path):
    whole, case = undisturbed("study"), CASES["study"]
    words = placed(case.words, inputs)
    with stopped(tmp_path, words, operation(whole, "rename", "rows.csv"), case.before) as go_on:

        def before():
            case.before(), impatient()

        refused(tmp_path, words, before, "another process has locked out/tables.lock for 0.2 s")
        go_on(signal.SIGKILL)
    assert forked(tmp_path, words, before=case.before).code == 0
    assert content_of(tmp_path) == whole.result


def test_of_two_that_write_one_file_the_second_to_end_is_refused(undisturbed, inputs, tmp_path):
    words = placed(["evaluate", "IN/labels.tif", "IN/labels.tif", "--json", "t.json"], inputs)
    with stopped(tmp_path, words, operation(undisturbed("evaluate"), "fsync", "t.json")) as go_on:
        assert forked(tmp_path, words).code == 0
        first = content_of(tmp_path, {"t.json"})
        outcome = go_on()
    assert outcome.code == 2
    assert (
        "evenslice: error: t.json has appeared while this ran, expected a new name" in outcome.said
    )
    assert content_of(tmp_path) == first == undisturbed("evaluate").result


@pytest.mark.parametrize("force", [False, True])
def test_files_of_two_processes_are_never_mixed_in_a_folder(undisturbed, tmp_path, force):
    places = undisturbed("folder")
    mine, theirs = filling("mine", force), filling("theirs", force)
    with stopped(tmp_path, mine, operation(places, "fsync", "a.txt")) as go_on:
        assert forked(tmp_path, theirs).code == 0
        outcome = go_on()
    assert (outcome.code, "has appeared while this ran" in outcome.said) == (
        (0, False) if force else (2, True)
    )
    assert set(content_of(tmp_path).values()) == {b"mine" if force else b"theirs"}
    assert hidden_in(tmp_path) == []


def without_locks(code):
    def before():
        import fcntl

        def flock(*_):
            raise OSError(code, os.strerror(code))

        fcntl.flock = flock

    return before


def test_where_the_file_system_has_no_locks_files_say_who_works(undisturbed, inputs, tmp_path):
    import errno

    whole, words = undisturbed("segment zarr"), placed(CASES["segment zarr"].words, inputs)
    before = without_locks(errno.ENOLCK)
    with stopped(tmp_path, words, operation(whole, "rename", "done/label"), before) as go_on:
        for more in ([], ["--resume"], ["--force"]):
            refused(tmp_path, words + more, before)
        go_on(signal.SIGKILL)
    assert forked(tmp_path, [*words, "--resume"], before=before).code == 0
    assert content_of(tmp_path) == whole.result
    folder = tmp_path / "trained"
    folder.mkdir()

    def both():
        quick_training(), before()

    outcome = forked(folder, placed(train("--json", "t.json"), inputs), before=both)
    assert outcome.code == 0, outcome.said
    assert content_of(folder) == undisturbed("train").result
