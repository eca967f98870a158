"""Interrupted, killed and shared runs of segment: the result is that of a run that was not."""

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
from evenslice.report import run_pages
from evenslice.segmentation import run as segmenting
from evenslice.segmentation.blocks import Work
from evenslice.segmentation.objects import Objects
from evenslice.volume.atomic import temp_path
from evenslice.volume.run_state import RunState
from verbs.scenes import arrays_of, assert_same, blurring, manifest_of, run, started

segment = partial(segment_as_ever, precision="fp32")
OPTIONS = {"tile": 40, "instances": "components", "min_size": 2}


class Stop(BaseException):
    """What no one catches, like a signal."""


@pytest.fixture(scope="module")
def grey():
    return np.random.default_rng(0).integers(0, 255, (7, 60, 90), dtype=np.uint8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, grey):
    """The same run without any trouble."""
    return segment(blurring(), grey, tmp_path_factory.mktemp("whole") / "s.zarr", **OPTIONS)


@pytest.fixture
def fail(monkeypatch):
    """Make the n-th call of something raise, before or after its work."""

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


@pytest.fixture
def interrupted(tmp_path, grey, fail, monkeypatch):
    """Begin a run that is cut short, and return its output."""

    def make(owner=Work, name="_write", call=3, after=False, **options):
        out = tmp_path / "s.zarr"
        fail(owner, name, call, Stop(), after)
        with pytest.raises(Stop):
            segment(blurring(), grey, out, **OPTIONS, **options)
        monkeypatch.undo()
        return out

    return make


PLACES = [
    (Work, "_write", 1, False),
    (Work, "_write", 17, True),
    (Objects, "begin", 1, False),
    (Objects, "begin", 1, True),
    (Objects, "piece", 1, True),
    (Objects, "piece", 2, False),
    (Objects, "begin", 2, True),
    (segmenting, "build_pyramid", 2, True),
    (segmenting, "rename_into_place", 1, False),
    (segmenting, "rename_into_place", 1, True),
    (RunState, "remove", 1, False),
]


@pytest.mark.parametrize("place", PLACES, ids=[f"{n} {c} {a}" for _, n, c, a in PLACES])
def test_an_interrupted_run_that_is_resumed_equals_one_that_was_not(
    tmp_path, grey, whole, interrupted, place
):
    out = interrupted(*place)
    assert Path(f"{out}.run").is_dir()
    result = segment(blurring(), grey, out, resume=True, **OPTIONS)
    assert result.complete and result.metadata() == whole.metadata()
    assert_same(out, whole)
    assert [f.name for f in tmp_path.iterdir()] == ["s.zarr"]


def test_what_was_done_before_is_not_done_again(grey, interrupted, monkeypatch):
    out, written, real = interrupted(call=9), [], Work._write
    monkeypatch.setattr(
        Work, "_write", lambda self, index, *rest: (written.append(index), real(self, index, *rest))
    )
    result = segment(blurring(), grey, out, resume=True, **OPTIONS)
    assert written == list(range(8, result.blocks))


def test_a_run_in_the_way_is_refused_unless_it_is_resumed(grey, whole, interrupted):
    out = interrupted()
    with pytest.raises(BadInputError, match=r"holds an unfinished run.*--resume"):
        segment(blurring(), grey, out, **OPTIONS)
    for name, value in (("threshold", 0.7), ("tile", 48), ("roi", "0:5,:,:"), ("tta", "reversal")):
        with pytest.raises(BadInputError, match=f"another ({name}|model)"):
            segment(blurring(), grey, out, resume=True, **OPTIONS | {name: value})
    with pytest.raises(BadInputError, match="another volume"):
        segment(blurring(), grey[::-1], out, resume=True, **OPTIONS)
    with pytest.raises(BadInputError, match="another model"):
        segment(blurring(reach=2), grey, out, resume=True, **OPTIONS)
    segment(blurring(), grey, out, force=True, **OPTIONS)
    assert_same(out, whole)


@pytest.mark.parametrize("name", ["s.zarr", "s.tif"])
def test_resuming_what_is_complete_gives_the_result_again(tmp_path, grey, monkeypatch, name):
    out = tmp_path / name
    first = segment(blurring(), grey, out, resume=True, **OPTIONS)
    assert first.blocks > 1 and first.objects > 1 and first.plan.cut.halo == 1
    monkeypatch.setattr(Work, "_write", lambda *_: pytest.fail("done again"))
    assert segment(blurring(), grey, out, resume=True, **OPTIONS) == first
    assert segment(blurring(), grey, out, shard="2/3", **OPTIONS) == first
    with pytest.raises(BadInputError, match="not known as the result of these options"):
        segment(blurring(), grey, out, resume=True, **OPTIONS | {"threshold": 0.7})
    with pytest.raises(BadInputError, match="exists, expected a new name"):
        segment(blurring(), grey, out, **OPTIONS)


def test_what_a_killed_writer_left_is_not_in_the_result(grey, whole, interrupted):
    out = interrupted()
    Path(f"{out}.run", "store.zarr", "0", "c.0123abcd.partial").write_bytes(b"half a chunk")
    segment(blurring(), grey, out, resume=True, **OPTIONS)
    assert_same(out, whole)


def test_force_replaces_only_at_the_end(tmp_path, grey, whole, interrupted):
    segment(blurring(), grey, tmp_path / "s.zarr", threshold=0.7)
    before = arrays_of(tmp_path / "s.zarr")
    out = interrupted(segmenting, "rename_into_place", 1, force=True)
    for name, array in arrays_of(out).items():
        np.testing.assert_array_equal(array, before[name])
    segment(blurring(), grey, out, resume=True, **OPTIONS)
    assert_same(out, whole)
    (tmp_path / "mine.zarr").mkdir()
    with pytest.raises(BadInputError, match=r"mine\.zarr exists and is no Zarr store"):
        segment(blurring(), grey, tmp_path / "mine.zarr", force=True)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_in_any_order_equal_one_process(tmp_path, grey, whole, order):
    out = tmp_path / "s.zarr"
    results = [segment(blurring(), grey, out, shard=f"{n}/3", **OPTIONS) for n in order]
    assert [result.complete for result in results] == [False, False, True]
    assert results[0].blocks_left > results[1].blocks_left > results[2].blocks_left == 0
    assert_same(out, whole)
    assert [f.name for f in tmp_path.iterdir()] == ["s.zarr"]


def test_shards_of_a_tiff_equal_one_process(tmp_path, grey):
    for n in (2, 1):
        segment(blurring(), grey, tmp_path / "s.tif", shard=f"{n}/2")
    segment(blurring(), grey, tmp_path / "one.tif")
    assert (tmp_path / "s.tif").read_bytes() == (tmp_path / "one.tif").read_bytes()


def test_a_shard_with_other_options_is_refused(tmp_path, grey):
    out = tmp_path / "s.zarr"
    segment(blurring(), grey, out, shard="1/2")
    manifest = manifest_of(out)
    with pytest.raises(BadInputError, match=r"another threshold \(was 0\.5, now 0\.4\)"):
        segment(blurring(), grey, out, shard="2/2", threshold=0.4)
    assert manifest_of(out) == manifest
    for shard in ("0/2", "3/2", "2", "a/b", "1/0"):
        with pytest.raises(BadInputError, match=f"--shard is '{shard}', expected I/N"):
            segment(blurring(), grey, out, shard=shard)
    with pytest.raises(BadInputError, match="--shard and --scheduler were both given"):
        segment(blurring(), grey, out, shard="1/2", scheduler="tcp://127.0.0.1:1")


def test_a_full_disk_is_one_clear_error(tmp_path, grey, whole, fail, monkeypatch):
    out = tmp_path / "s.zarr"
    full = OSError(errno.ENOSPC, "No space left on device")
    fail(Work, "_write", 4, full)
    with pytest.raises(BadInputError, match=r"no space is left for .*s\.zarr.*free some$"):
        segment(blurring(), grey, out, **OPTIONS)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr(segmenting, "WORTH_KEEPING_S", 0.0)
    fail(Work, "_write", 4, full)
    with pytest.raises(BadInputError, match=r"no space is left for .*; what is done is kept in"):
        segment(blurring(), grey, out, **OPTIONS)
    monkeypatch.undo()
    segment(blurring(), grey, out, resume=True, **OPTIONS)
    assert_same(out, whole)


def test_another_error_of_a_long_run_keeps_what_is_done(tmp_path, grey, monkeypatch):
    broken = grey.astype(np.float32)
    broken[5, 3, 3] = np.nan
    with pytest.raises(BadInputError, match="slice 5 has 1 voxels that are NaN"):
        segment(blurring(), broken, tmp_path / "s.tif")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadInputError, match="kept in"):  # others may take part in it
        segment(blurring(), broken, tmp_path / "t.tif", shard="2/2")
    assert (tmp_path / "t.tif.run").is_dir()
    monkeypatch.setattr(segmenting, "WORTH_KEEPING_S", 0.0)
    with pytest.raises(BadInputError, match=r"what is done is kept in .*s\.tif\.run"):
        segment(blurring(), broken, tmp_path / "s.tif")
    assert RunState(tmp_path / "s.tif.run").is_done("predict", 0)


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


def test_page_and_json_are_written_again_after_a_kill_before_them(place, monkeypatch, capfd):
    words = [*place, "s.zarr", *WORDS, "--json", "result.json"]

    def stop(*_):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(run_pages, "write_segmentation_page", stop)
        with pytest.raises(Stop):
            run(*words)
    assert sorted(file.name for file in Path().glob("s.*")) == ["s.zarr"]
    dead = temp_path(Path("s.zarr"), ".zarr")
    dead.touch()
    dead = dead.rename(dead.with_name(dead.name.replace(f"-{os.getpid()}-", "-4194303-")))
    assert run(*words, "--resume") == 0
    found = json.loads(Path("result.json").read_text())
    assert found["complete"] and found["objects"] > 0 and found["plan"]["cut"]["tile"]
    assert Path("s.report.html").is_file() and not dead.exists()
    assert run(*place, "whole.zarr", *WORDS, "--json", "whole.json") == 0
    whole = json.loads(Path("whole.json").read_text())
    del whole["path"], found["path"], whole["provenance"]["command"], found["provenance"]["command"]
    assert found == whole


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
    assert "--resume" in capfd.readouterr().err
    assert run(*place, "s.zarr", *WORDS, "--resume", "--json", "result.json") == 0
    assert json.loads(Path("result.json").read_text())["complete"]
    assert_same("s.zarr", "whole.zarr")
    assert not Path("s.zarr.run").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_kills_at_any_moment_change_nothing(place):
    """A run is killed ten times, a seeded number of pieces and milliseconds after each resume."""
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
