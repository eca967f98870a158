"""Runs of segment that are interrupted, killed, shared or in the way: the result is that of one that was not."""

import errno
import itertools
import json
import os
import random
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from evenslice import save_model, save_volume
from evenslice import segment as segment_as_ever
from evenslice.errors import BadInputError
from evenslice.segmentation import finish as segment_finish
from evenslice.segmentation.blocks import Work
from evenslice.segmentation.objects import Objects
from evenslice.volume.atomic import temp_path
from evenslice.volume.run_state import RunState
from verbs.scenes import arrays_of, assert_same, blurring, manifest_of, run, started

segment = partial(segment_as_ever, precision="fp32")
OPTIONS = {"tile": 40, "instances": "components", "min_size": 2}


class Stop(BaseException):
    """What no one catches, like a signal."""


@pytest.fixture
def whole(tmp_path, grey):
    """The same run without any trouble."""
    folder = tmp_path / "whole"
    folder.mkdir()
    segment(blurring(), grey, folder / "s.zarr", **OPTIONS)
    return folder / "s.zarr"


@pytest.fixture
def fail(monkeypatch):
    """Make the n-th call of something raise, before or after its work; what was called is counted."""

    def at(owner, name, call, error, after=False):
        real, calls = getattr(owner, name), itertools.count(1)

        def failing(*args, **kwargs):
            now = next(calls) == call
            if now and not after:
                raise error
            found = real(*args, **kwargs)
            if now:
                raise error
            return found

        monkeypatch.setattr(owner, name, failing)

    return at


PLACES = [
    (Work, "_write", 1, False),
    (Work, "_write", 5, False),
    (Work, "_write", 17, True),
    (Objects, "begin", 1, False),
    (Objects, "begin", 1, True),
    (Objects, "piece", 1, True),
    (Objects, "piece", 2, False),
    (Objects, "begin", 2, False),
    (Objects, "begin", 2, True),
    (segment_finish, "build_pyramid", 1, False),
    (segment_finish, "build_pyramid", 2, True),
    (segment_finish, "_give_name", 1, False),
    (segment_finish, "_give_name", 1, True),
    (RunState, "remove", 1, False),
]


@pytest.mark.parametrize(
    ("owner", "name", "call", "after"), PLACES, ids=[f"{n} {c} {a}" for _, n, c, a in PLACES]
)
def test_an_interrupted_run_that_goes_on_equals_one_that_was_not(
    tmp_path, grey, whole, fail, monkeypatch, owner, name, call, after
):
    out = tmp_path / "s.zarr"
    fail(owner, name, call, Stop(), after)
    with pytest.raises(Stop):
        segment(blurring(), grey, out, **OPTIONS)
    monkeypatch.undo()
    assert Path(f"{out}.run").is_dir()
    result = segment(blurring(), grey, out, resume=True, **OPTIONS)
    assert result.complete
    assert_same(out, whole)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["s.zarr", "whole"]


def test_what_was_done_before_is_not_done_again(tmp_path, grey, fail, monkeypatch):
    fail(Work, "_write", 9, Stop())
    with pytest.raises(Stop):
        segment(blurring(), grey, tmp_path / "s.zarr", **OPTIONS)
    monkeypatch.undo()
    written = []
    real = Work._write
    monkeypatch.setattr(
        Work, "_write", lambda self, index, *rest: (written.append(index), real(self, index, *rest))
    )
    result = segment(blurring(), grey, tmp_path / "s.zarr", resume=True, **OPTIONS)
    assert written == list(range(8, result.blocks))


def test_a_run_in_the_way_is_refused_unless_it_is_gone_on_with(
    tmp_path, grey, whole, fail, monkeypatch
):
    out = tmp_path / "s.zarr"
    fail(Work, "_write", 3, Stop())
    with pytest.raises(Stop):
        segment(blurring(), grey, out, **OPTIONS)
    monkeypatch.undo()
    with pytest.raises(BadInputError, match="holds an unfinished run, expected none; add --resume"):
        segment(blurring(), grey, out, **OPTIONS)
    for other, message in (
        ({"threshold": 0.7}, "another threshold"),
        ({"tile": 48}, "another tile"),
        ({"roi": "0:5,:,:"}, "another roi"),
        ({"tta": "reversal"}, "another"),
    ):
        with pytest.raises(BadInputError, match=message):
            segment(blurring(), grey, out, resume=True, **OPTIONS | other)
    with pytest.raises(BadInputError, match="another volume"):
        segment(blurring(), grey[::-1], out, resume=True, **OPTIONS)
    with pytest.raises(BadInputError, match="another model"):
        segment(blurring(reach=2), grey, out, resume=True, **OPTIONS)
    segment(blurring(), grey, out, force=True, **OPTIONS)
    assert_same(out, whole)


def test_resume_with_nothing_there_begins_and_with_all_there_is_done(
    tmp_path, grey, whole, monkeypatch
):
    out = tmp_path / "s.zarr"
    assert segment(blurring(), grey, out, resume=True, **OPTIONS).plan is not None
    assert_same(out, whole)
    monkeypatch.setattr(Work, "_write", lambda *_: pytest.fail("done again"))
    again = segment(blurring(), grey, out, resume=True, **OPTIONS)
    assert (again.complete, again.plan) == (True, None)
    assert segment(blurring(), grey, out, shard="2/3", **OPTIONS).complete
    with pytest.raises(BadInputError, match="is not known as the result of these options"):
        segment(blurring(), grey, out, resume=True, **OPTIONS | {"threshold": 0.7})
    with pytest.raises(BadInputError, match="exists, expected a new name"):
        segment(blurring(), grey, out, **OPTIONS)


def test_what_a_killed_writer_left_is_not_in_the_result(tmp_path, grey, whole, fail, monkeypatch):
    fail(Work, "_write", 4, Stop())
    with pytest.raises(Stop):
        segment(blurring(), grey, tmp_path / "s.zarr", **OPTIONS)
    monkeypatch.undo()
    (tmp_path / "s.zarr.run" / "store.zarr" / "0" / "c.0123abcd.partial").write_bytes(
        b"half a chunk"
    )
    segment(blurring(), grey, tmp_path / "s.zarr", resume=True, **OPTIONS)
    assert_same(tmp_path / "s.zarr", whole)


def test_force_replaces_only_at_the_end(tmp_path, grey, whole, fail, monkeypatch):
    out = tmp_path / "s.zarr"
    segment(blurring(), grey, out, threshold=0.7)
    before = arrays_of(out)
    fail(segment_finish, "_give_name", 1, Stop())
    with pytest.raises(Stop):
        segment(blurring(), grey, out, force=True, **OPTIONS)
    monkeypatch.undo()
    for name, array in arrays_of(out).items():
        np.testing.assert_array_equal(array, before[name])
    segment(blurring(), grey, out, resume=True, **OPTIONS)
    assert_same(out, whole)
    (tmp_path / "mine.zarr").mkdir()
    with pytest.raises(BadInputError, match=r"mine\.zarr exists and is no Zarr store"):
        segment(blurring(), grey, tmp_path / "mine.zarr", force=True)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_shards_in_any_order_equal_one_process(tmp_path, grey, whole, order):
    out = tmp_path / "s.zarr"
    results = [segment(blurring(), grey, out, shard=f"{n}/3", **OPTIONS) for n in order]
    assert [result.complete for result in results] == [False, False, True]
    assert results[0].blocks_left > results[1].blocks_left > results[2].blocks_left == 0
    assert_same(out, whole)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["s.zarr", "whole"]


def test_shards_of_a_tiff_equal_one_process(tmp_path, grey):
    for n in (2, 1):
        segment(blurring(), grey, tmp_path / "s.tif", shard=f"{n}/2")
    segment(blurring(), grey, tmp_path / "one.tif")
    assert (tmp_path / "s.tif").read_bytes() == (tmp_path / "one.tif").read_bytes()


def test_a_shard_with_other_options_is_refused(tmp_path, grey, capfd):
    save_volume(tmp_path / "raw.tif", grey)
    out = tmp_path / "s.zarr"
    segment(blurring(), grey, out, shard="1/2")
    manifest = manifest_of(out)
    with pytest.raises(
        BadInputError, match=r"another threshold \(0\.5\), expected 0\.4 as asked now"
    ):
        segment(blurring(), grey, out, shard="2/2", threshold=0.4)
    assert manifest_of(out) == manifest
    for shard in ("0/2", "3/2", "2", "a/b", "1/0"):
        with pytest.raises(BadInputError, match=f"--shard is '{shard}', expected I/N"):
            segment(blurring(), grey, tmp_path / "t.zarr", shard=shard)
    with pytest.raises(BadInputError, match="--shard and --scheduler were both given"):
        segment(blurring(), grey, tmp_path / "t.zarr", shard="1/2", scheduler="tcp://127.0.0.1:1")


def test_a_full_disk_is_one_clear_error(tmp_path, grey, whole, fail, monkeypatch):
    out = tmp_path / "s.zarr"
    full = OSError(errno.ENOSPC, "No space left on device")
    fail(Work, "_write", 4, full)
    with pytest.raises(
        BadInputError, match=r"no space is left for .*s\.zarr, expected more; free some$"
    ):
        segment(blurring(), grey, out, **OPTIONS)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["whole"]
    monkeypatch.undo()
    monkeypatch.setattr("evenslice.segmentation.run.WORTH_KEEPING_S", 0.0)
    fail(Work, "_write", 4, full)
    with pytest.raises(
        BadInputError,
        match=r"no space is left for .*s\.zarr, expected more; free some; what is done is kept in",
    ):
        segment(blurring(), grey, out, **OPTIONS)
    monkeypatch.undo()
    segment(blurring(), grey, out, resume=True, **OPTIONS)
    assert_same(out, whole)


def test_another_error_of_a_long_run_keeps_what_is_done(tmp_path, grey, monkeypatch):
    broken = grey.astype(np.float32)
    broken[7, 3, 3] = np.nan
    monkeypatch.setattr("evenslice.segmentation.run.WORTH_KEEPING_S", 0.0)
    with pytest.raises(
        BadInputError,
        match=r"slice 7 has 1 voxels that are NaN .* what is done is kept in .*s\.tif\.run",
    ):
        segment(blurring(), broken, tmp_path / "s.tif")
    assert RunState(tmp_path / "s.tif.run").is_done("predict", 0)
    shard = {"shard": "2/2"}
    monkeypatch.undo()
    with pytest.raises(BadInputError, match="kept in"):  # others may take part in it
        segment(blurring(), broken, tmp_path / "t.tif", **shard)
    assert (tmp_path / "t.tif.run").is_dir()


@pytest.fixture
def place(tmp_path, monkeypatch, make_model):
    """A folder with a model and a volume of enough blocks to be killed in the middle."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    save_volume("raw.tif", np.uint8(np.clip(rng.normal(128, 60, (8, 48, 97)), 0, 255)))
    save_model("m.safetensors", make_model())
    return ["segment", "m.safetensors", "raw.tif"]


WORDS = ["--tile", 96, "--instances", "components", "--precision", "fp32"]
DONE = Path("s.zarr.run") / "done"


def done():
    return list(DONE.glob("*/*/*.json"))


def wait_for(process, blocks):
    while len(done()) < blocks:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)


def test_going_on_with_what_is_complete_keeps_what_was_told_and_removes_what_a_dead_process_left(
    place, capfd
):
    assert run(*place, "s.zarr", *WORDS, "--json", "told.json") == 0
    told = Path("told.json").read_text()
    assert json.loads(told)["objects"] > 0
    dead = temp_path(Path("s.zarr"), suffix=".zarr")
    dead.touch()
    dead = dead.rename(dead.with_name(dead.name.replace(f"-{os.getpid()}-", "-4194303-")))
    assert run(*place, "s.zarr", *WORDS, "--json", "told.json", "--resume") == 0
    assert Path("told.json").read_text() == told and not dead.exists()
    Path("told.json").unlink()
    assert run(*place, "s.zarr", *WORDS, "--json", "told.json", "--resume") == 0
    assert json.loads(Path("told.json").read_text())["complete"]


@pytest.mark.slow
def test_a_killed_process_loses_nothing_and_a_living_one_is_alone(place, capfd):
    assert run(*place, "whole.zarr", *WORDS) == 0
    with started(*place, "s.zarr", *WORDS) as process:
        try:
            wait_for(process, 2)
            os.kill(process.pid, signal.SIGSTOP)
            for option in ("--resume", "--force"):
                assert run(*place, "s.zarr", *WORDS, option) == 2
                err = capfd.readouterr().err
                assert err.startswith("evenslice: error: another process works on")
                assert err.count("\n") == 1
            assert not Path("s.zarr").exists()
        finally:
            os.kill(process.pid, signal.SIGKILL)
    assert run(*place, "s.zarr", *WORDS) == 2
    assert "go on with --resume" in capfd.readouterr().err
    assert run(*place, "s.zarr", *WORDS, "--resume", "--json", "told.json") == 0
    assert json.loads(Path("told.json").read_text())["complete"]
    assert_same("s.zarr", "whole.zarr")
    assert not Path("s.zarr.run").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_kills_at_any_moment_change_nothing(place):
    """A run is killed ten times, a seeded number of pieces and of milliseconds after it went on, and goes on each time."""
    assert run(*place, "whole.zarr", *WORDS) == 0
    chance, kills, seen = random.Random(0), 0, set()
    while kills < 10:
        target = len(done()) + chance.randint(1, 6)
        with started(*place, "s.zarr", *WORDS, "--resume") as process:
            while process.poll() is None and len(done()) < target:
                time.sleep(0.001)
            time.sleep(chance.uniform(0, 0.1))
            if process.poll() is None:
                process.kill()
                kills += 1
                seen.add(len(done()))
                continue
        assert process.returncode == 0
        assert_same("s.zarr", "whole.zarr")
        shutil.rmtree("s.zarr")
    assert run(*place, "s.zarr", *WORDS, "--resume") == 0
    assert_same("s.zarr", "whole.zarr")
    assert len(seen) > 3  # they were killed at work, in many places


@pytest.mark.slow
def test_shards_at_the_same_time_equal_one_process(place):
    assert run(*place, "whole.zarr", *WORDS) == 0
    processes = [started(*place, "s.zarr", *WORDS, "--shard", f"{n}/3") for n in (1, 2, 3)]
    for process in processes:
        _, err = process.communicate()
        assert (process.returncode, err) == (0, "")
    assert_same("s.zarr", "whole.zarr")
    assert not Path("s.zarr.run").exists()
