"""Work that is watched and stopped, and loading torch into a viewer; no Qt."""

import subprocess
import sys
import threading

import pytest
from one_layer import linear

from evenslice import audit, segment
from evenslice.errors import BadInputError
from evenslice.napari.work import Control, Outcome, StoppedError, attempt, keep_triton_out
from evenslice.segmentation import run as segmenting


def control_that_stops_at(count):
    """A control whose user presses cancel when so many steps are reported."""
    reported = []

    def report(label, done, total):
        reported.append((label, done, total))
        if done == count:
            control.stop()

    control = Control(report)
    return control, reported


def test_progress_is_reported_step_by_step():
    reported = []
    control = Control(lambda *far: reported.append(far))
    with control.progress("counting", 2) as step:
        step()
        step("a note")
    assert reported == [("counting", 0, 2), ("counting", 1, 2), ("counting", 2, 2)]


def test_a_stopped_control_stops_at_the_next_step_and_before_the_next_label():
    control = Control()
    with control.progress("counting", 2) as step:
        control.stop()
        with pytest.raises(StoppedError):
            step()
    with pytest.raises(StoppedError), control.progress("more", 2):
        raise AssertionError("the label was begun")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (BadInputError("two\nlines"), "two lines"),
        (
            FileNotFoundError(2, "No such file", "a.tif"),
            "a.tif cannot be used (No such file); choose another, or make room",
        ),
        (KeyError("odd"), "unexpected KeyError: 'odd'; please report it"),
    ],
)
def test_every_error_is_one_line(error, words):
    def task(control):
        raise error

    assert attempt(Control(), task) == Outcome(error=words)


def test_a_value_a_stop_and_an_error_after_a_stop():
    assert attempt(Control(), lambda control: 7) == Outcome(value=7)
    stopped = Control()
    stopped.stop()
    assert attempt(stopped, lambda control: 7) == Outcome(stopped=True)

    def wrapped(control):
        control.stop()
        raise RuntimeError("what their code made of our stop")

    assert attempt(Control(), wrapped) == Outcome(stopped=True)


def test_an_audit_stops_at_a_step_and_leaves_no_maps(grey, tmp_path):
    control, reported = control_that_stops_at(2)

    def task(control):
        options = {"windows": 12, "tile": 32, "maps": tmp_path / "m.zarr"}
        return audit(linear([1.0, -2.0, 0.5]), grey, progress=control.progress, **options)

    assert attempt(control, task) == Outcome(stopped=True)
    assert reported[-1][1] == 2
    assert list(tmp_path.iterdir()) == []


def test_an_audit_stops_within_a_step(grey):
    """Cancel is pressed while a window is measured: a copy of the network does not run."""
    model, control, runs = linear([1.0, -2.0, 0.5]), Control(), []

    def count(*given):
        runs.append(threading.current_thread())
        if len(runs) == 3:
            control.stop()

    def task(control):
        model.module.register_forward_pre_hook(count)
        with control.watching(model.module):
            return audit(model, grey, windows=12, tile=32, progress=control.progress)

    assert attempt(control, task) == Outcome(stopped=True)
    assert len(runs) == 3  # of the dozens that a window takes
    assert len(model.module._forward_pre_hooks) == 1  # ours is gone


def test_a_segmentation_is_stopped_and_resumed(grey, tmp_path, monkeypatch):
    monkeypatch.setattr(segmenting, "WORTH_KEEPING_S", 0.0)
    model, out, whole = linear([1.0, -2.0, 0.5]), tmp_path / "o.zarr", tmp_path / "whole.zarr"
    control, _ = control_that_stops_at(2)
    stopped = attempt(control, lambda c: segment(model, grey, out, progress=c.progress))
    assert stopped == Outcome(stopped=True)
    assert not out.exists()
    again, reported = control_that_stops_at(None)
    done = attempt(again, lambda c: segment(model, grey, out, resume=True, progress=c.progress))
    assert done.error is None
    assert ("segmenting", 0, done.value.blocks - 2) in reported
    segment(model, grey, whole)
    chunks, resumed = (
        {
            file.relative_to(store): file.read_bytes()
            for file in store.rglob("c/**/*")
            if file.is_file()
        }
        for store in (whole, out)
    )
    assert resumed == chunks != {}


@pytest.fixture
def no_triton(monkeypatch):
    """As if triton had not been imported; whatever is done to it is undone."""
    monkeypatch.setitem(sys.modules, "triton", None)
    del sys.modules["triton"]


@pytest.mark.parametrize(
    ("library", "kept"), [("/usr/lib/libLLVM-15.so.1", True), ("/usr/lib/libGL.so.1", False)]
)
def test_triton_is_kept_out_only_where_another_llvm_is_loaded(tmp_path, no_triton, library, kept):
    (tmp_path / "maps").write_text(f"7f00-7f01 r-xp 00000000 08:01 1 {library}\n")
    assert keep_triton_out(tmp_path / "maps") == kept
    assert ("triton" in sys.modules) == kept
    assert keep_triton_out(tmp_path / "maps") == kept


def test_a_triton_that_was_there_first_stays_and_without_maps_nothing_is_kept_out(
    tmp_path, no_triton
):
    assert not keep_triton_out(tmp_path / "none")
    assert "triton" not in sys.modules
    (tmp_path / "maps").write_text("libLLVM")
    sys.modules["triton"] = sys
    assert not keep_triton_out(tmp_path / "maps")
    assert sys.modules["triton"] is sys


@pytest.mark.slow
def test_the_verbs_load_without_triton():
    verbs = "evenslice.segmentation.run, evenslice.verbs.audit"
    code = f"import sys; sys.modules['triton'] = None; import {verbs}; print('loaded')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "loaded\n", done.stderr
