"""Ctrl-C and kill in the middle of each verb: one line, the code a shell knows, nothing half-written; a run goes on."""

import os
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from checking import ERROR, code_of, listing

from evenslice.cli.signals import Terminated, signals_raised
from evenslice.verbs import evaluate
from evenslice.volume.atomic import store_written_beside, written_beside

TOLD = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}
SLOW = """
import time
from pathlib import Path
import torch

class Slow(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, x):
        calls = Path("calls")
        calls.write_text(calls.read_text() + "x")
        time.sleep(float(Path("nap").read_text()))
        if len(calls.read_text()) > int(Path("pause").read_text()):
            Path("going").touch()
            time.sleep(20)
        return self.conv(x)

def make():
    torch.manual_seed(0)
    return Slow()
"""
TRAIN = [
    "--weights",
    "none",
    "--encoder",
    "test_resnet.r160_in1k",
    "--encoder-depth",
    2,
    "--crop",
    32,
    "--batch",
    1,
]
STUDY = """
name = "cut"
[train]
encoder = "test_resnet.r160_in1k"
encoder_depth = 2
weights = "none"
crop = 32
batch = 1
steps = 60
[audit]
windows = 8
tile = 32
[datasets.own]
raw = "raw.tif"
labels = "labels.tif"
[[grid]]
dataset = "own"
init = ["rgb", "green"]
"""


@pytest.fixture
def interrupting(monkeypatch):
    """Have ``evaluate`` do something in the middle of its work."""

    def use(act):
        monkeypatch.setattr(evaluate, "evaluate", lambda *_, **__: act())

    return use


EVALUATE = ["evaluate", "labels.tif", "labels.tif"]


@pytest.mark.parametrize(
    "number", TOLD, ids=lambda number: f"signals: {number.name} while a file is written"
)
def test_what_is_half_written_goes(place, capfd, interrupting, number):
    (place / "old.zarr").mkdir()
    zarr.create_group(place / "old.zarr", overwrite=True)
    before = listing(place)

    def act():
        with (
            store_written_beside(Path("old.zarr"), force=True) as store,
            written_beside(Path("new.json")) as part,
        ):
            (store / "zarr.json").write_text("half")
            part.write_text("half")
            os.kill(os.getpid(), number)
            time.sleep(10)

    interrupting(act)
    assert code_of(EVALUATE) == TOLD[number][0]
    assert capfd.readouterr().err == f"{ERROR}{TOLD[number][1]}\n"
    assert listing(place) == before


@pytest.mark.parametrize(
    "number", TOLD, ids=lambda number: f"signals: second {number.name} while cleaning up"
)
def test_a_second_one_does_not_cut_the_cleaning_short(place, capfd, interrupting, number):
    before = listing(place)

    def act():
        try:
            Path("half").touch()
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            for again in TOLD:
                os.kill(os.getpid(), again)
            time.sleep(0.01)
            Path("half").unlink()

    interrupting(act)
    assert code_of(EVALUATE) == TOLD[number][0]
    assert capfd.readouterr().err == f"{ERROR}{TOLD[number][1]}\n"
    assert listing(place) == before


def test_an_interruption_that_was_dealt_with_is_forgotten():
    seen = []
    with signals_raised():
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
            try:
                os.kill(os.getpid(), number)
                time.sleep(10)
            except (KeyboardInterrupt, Terminated) as error:
                seen.append(type(error).__name__)
    assert seen == ["Interrupted", "Interrupted", "Terminated"]


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_a_signal_that_python_drops_is_raised_again(number, kind):
    class Deaf:
        def __del__(self):
            os.kill(os.getpid(), number)
            time.sleep(0.01)

    reached = []

    def go_on():
        Deaf()
        reached.append("what was raised within was dropped")
        time.sleep(10)

    with pytest.raises(kind), signals_raised():
        go_on()
    assert reached


def test_handlers_are_put_back_and_those_of_others_left():
    before = [signal.getsignal(number) for number in TOLD]
    with signals_raised():
        assert [signal.getsignal(number) for number in TOLD] != before
    assert [signal.getsignal(number) for number in TOLD] == before
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with signals_raised():
            os.kill(os.getpid(), signal.SIGTERM)
            assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_other_threads_leave_signals_alone(place, capfd):
    codes = []
    thread = threading.Thread(target=lambda: codes.append(code_of(EVALUATE)))
    thread.start()
    thread.join()
    assert codes == [0]


def names():
    return {path.name for path in Path().iterdir()}


def paused_at(calls, nap=0.0):
    Path("slow.py").write_text(SLOW)
    Path("nap").write_text(str(nap))
    Path("calls").write_text("")
    Path("pause").write_text(str(calls))


def stopped(server, number, words, *seen, pause=2, nap=0.0):
    """Start a command, stop it where it has got to, check what it says, and return what it left."""
    paused_at(pause, nap)
    before = names()
    command = server.start(*words)
    command.wait_for(*(seen or ["going"]))
    command.kill(number)
    code, said = TOLD[number]
    assert command.code() == code, command.err
    assert command.err.splitlines()[-1] == f"{ERROR}{said}"
    assert [
        line for line in command.err.splitlines() if "Traceback" in line or line.startswith(ERROR)
    ] == [f"{ERROR}{said}"]
    assert command.out == ""
    return {name for name in names() - before if name not in ("going", "__pycache__")}


@pytest.mark.slow
@pytest.mark.parametrize("number", TOLD, ids=lambda number: f"signals: {number.name} in audit")
def test_audit(place, server, number):
    words = [
        "audit",
        "slow:make",
        "raw.tif",
        "--slices",
        3,
        "--mean",
        1,
        "--std",
        1,
        "--tile",
        32,
        "--maps",
        "maps.zarr",
        "--out",
        "page",
    ]
    assert stopped(server, number, words, pause=12) == set()


@pytest.mark.slow
@pytest.mark.parametrize("number", TOLD, ids=lambda number: f"signals: {number.name} in export")
def test_export(place, server, number):
    words = ["export", "slow:make", "out.onnx", "--slices", 3, "--mean", 1, "--std", 1]
    assert stopped(server, number, words) == set()


@pytest.mark.slow
@pytest.mark.parametrize("number", TOLD, ids=lambda number: f"signals: {number.name} in fix")
def test_fix(place, server, number):
    words = [
        "fix",
        "slow:make",
        "out.safetensors",
        "--slices",
        3,
        "--mean",
        1,
        "--std",
        1,
        "--audit",
        "raw.tif",
    ]
    assert stopped(server, number, words, pause=6) == set()


@pytest.mark.slow
@pytest.mark.parametrize("number", TOLD, ids=lambda number: f"signals: {number.name} in segment")
@pytest.mark.parametrize("out", ["out.zarr", "out.tif"])
def test_segment_goes_on(place, server, number, out):
    words = [
        "segment",
        "slow:make",
        "raw.tif",
        out,
        "--slices",
        3,
        "--mean",
        128,
        "--std",
        40,
        "--precision",
        "fp32",
    ]
    record = f"{out}.run/done/predict/*/*.json"
    assert stopped(server, number, words, record, pause=10**6, nap=0.3) == {f"{out}.run"}
    paused_at(10**6)
    command = server.start(*words, "--resume")
    assert command.code() == 0, command.err
    assert not Path(f"{out}.run").exists()
    command = server.start(*words[:3], f"whole{out}", *words[4:])
    assert command.code() == 0, command.err
    if out == "out.tif":
        from evenslice import open_volume

        assert (
            open_volume(out).read(np.s_[:, :, :]) == open_volume(f"whole{out}").read(np.s_[:, :, :])
        ).all()
    else:
        one, two = (zarr.open_array(f"{name}/0", mode="r")[:] for name in (out, f"whole{out}"))
        assert np.array_equal(one, two)


@pytest.mark.slow
@pytest.mark.parametrize("number", TOLD, ids=lambda number: f"signals: {number.name} in train")
def test_train_goes_on(place, server, number):
    words = ["train", "raw.tif", "labels.tif", "m.safetensors", *TRAIN, "--steps", 120]
    assert stopped(server, number, words, "m.safetensors.run/state.ckpt") == {"m.safetensors.run"}
    command = server.start(*words, "--resume")
    assert command.code() == 0, command.err
    assert not Path("m.safetensors.run").exists()
    first = stopped(
        server, number, [*words[:3], "n.safetensors", *words[4:]], "n.safetensors.run/log.csv"
    )
    assert first <= {"n.safetensors.run"}  # nothing to go on with but the first steps


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", TOLD, ids=lambda number: f"signals: {number.name} in train on two devices"
)
def test_train_on_two_devices(place, server, number):
    words = [
        "train",
        "raw.tif",
        "labels.tif",
        "m.safetensors",
        *TRAIN,
        "--batch",
        2,
        "--steps",
        2000,
    ]
    words += ["--devices", 2, "--device", "cpu"]
    assert stopped(server, number, words, "m.safetensors.run/log.csv") <= {"m.safetensors.run"}


@pytest.mark.slow
@pytest.mark.parametrize("number", TOLD, ids=lambda number: f"signals: {number.name} in study")
def test_study_goes_on(place, server, number):
    Path("study.toml").write_text(STUDY)
    words = ["study", "study.toml", "--out", "done"]
    paused_at(10**6)
    command = server.start(*words)
    command.wait_for("done/cells/*/*.run", "done/cells/*/*.safetensors.run")
    command.kill(number)
    code, said = TOLD[number]
    assert command.code() == code, command.err
    assert command.err.splitlines()[-1] == f"{ERROR}{said}"
    command = server.start(*words)
    assert command.code() == 0, command.err
    assert len(Path("done/rows.csv").read_text().splitlines()) == 3
    assert not [path for path in Path("done").rglob("*") if ".part" in path.name]
    shutil.rmtree("done")


@pytest.mark.slow
@pytest.mark.parametrize("number", TOLD, ids=lambda number: f"signals: {number.name} in demo")
def test_demo(place, server, number):
    assert stopped_demo(server, number) == set()


def stopped_demo(server, number):
    before = names()
    command = server.start("demo", "out")
    command.wait_for(".out.*/*")
    command.kill(number)
    code, said = TOLD[number]
    assert command.code() == code, command.err
    assert command.err.splitlines()[-1] == f"{ERROR}{said}"
    return names() - before
