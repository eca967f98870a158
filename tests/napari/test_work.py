"""Work that is watched and stopped; no Qt."""

import threading

import pytest
from one_layer import linear

from evenslice import audit, segment
from evenslice.errors import BadInputError
from evenslice.napari.work import Control, Outcome, StoppedError, attempt, numbers
from evenslice.segmentation import run as segmenting


def control_that_stops_at(count):
    """A control whose user presses cancel when so many steps are told."""
    told = []

    def tell(label, done, total):
        told.append((label, done, total))
        if done == count:
            control.stop()

    control = Control(tell)
    return control, told


def test_progress_is_told_step_by_step():
    told = []
    control = Control(lambda *far: told.append(far))
    with control.progress("counting", 2) as step:
        step()
        step("a note")
    assert told == [("counting", 0, 2), ("counting", 1, 2), ("counting", 2, 2)]


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
    control, told = control_that_stops_at(2)

    def task(control):
        return audit(
            linear([1.0, -2.0, 0.5]),
            grey,
            windows=12,
            tile=32,
            maps=tmp_path / "m.zarr",
            progress=control.progress,
        )

    assert attempt(control, task) == Outcome(stopped=True)
    assert told[-1][1] == 2
    assert list(tmp_path.iterdir()) == []


def test_an_audit_stops_within_a_step(grey):
    """Cancel is pressed while a window is measured: the run of the network, a copy of the one watched, is not made."""
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


def test_a_segmentation_is_stopped_and_gone_on_with(grey, tmp_path, monkeypatch):
    monkeypatch.setattr(segmenting, "WORTH_KEEPING_S", 0.0)
    model, out, whole = linear([1.0, -2.0, 0.5]), tmp_path / "o.zarr", tmp_path / "whole.zarr"
    control, _ = control_that_stops_at(2)
    assert attempt(control, lambda c: segment(model, grey, out, progress=c.progress)) == Outcome(
        stopped=True
    )
    assert not out.exists()
    again, told = control_that_stops_at(None)
    done = attempt(again, lambda c: segment(model, grey, out, resume=True, progress=c.progress))
    assert done.error is None
    assert told[0] == ("segmenting", 0, done.value.blocks - 2)
    segment(model, grey, whole)
    chunks = {f.relative_to(whole): f.read_bytes() for f in whole.rglob("c/**/*") if f.is_file()}
    assert chunks
    assert {
        f.relative_to(out): f.read_bytes() for f in out.rglob("c/**/*") if f.is_file()
    } == chunks


def test_a_segmentation_stopped_early_leaves_nothing(grey, tmp_path):
    control, _ = control_that_stops_at(1)
    assert attempt(
        control, lambda c: segment(linear([1.0]), grey, tmp_path / "o.zarr", progress=c.progress)
    ).stopped
    assert list(tmp_path.iterdir()) == []


def test_numbers_are_read_or_refused():
    assert numbers(" ", "the mean") is None
    assert numbers("1, 2.5", "the mean") == [1.0, 2.5]
    with pytest.raises(
        BadInputError, match=r"the mean is 'two', expected one number or one a slot"
    ):
        numbers("two", "the mean")
