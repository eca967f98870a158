"""Several devices, here processes on the CPU: they share each batch and average its gradients; none outlives the others."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from evenslice.learn.devices import check_devices
from evenslice.learn.job import Reopened, abroad
from evenslice.learn.ranks import Ranks, crew, free_port
from toys import RAW, Toy

from evenslice import load_model, save_volume, train
from evenslice.errors import BadInputError
from evenslice.learn.fit import LOG, Seen
from evenslice.options import TrainOptions
from evenslice.volume.array import Volume
from evenslice.volume.files import open_volume

QUICK = {"weights": "none", "encoder_depth": 3, "steps": 4, "batch": 4, "crop": 32}
HERE = Path(__file__).resolve().parent


@pytest.fixture
def toys(monkeypatch):
    """Let the processes of other devices find the toys."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))


def test_one_device_is_this_process():
    with crew(None, 1) as ranks:
        assert (ranks.global_rank(), ranks.world_size()) == (0, 1)
    assert Ranks(2, 3, 7).local_rank() == 2
    assert 0 < free_port() < 2**16


def test_several_processors_must_be_asked_for_by_name():
    check_devices(1, torch.device("cpu"), "auto")
    check_devices(2, torch.device("cpu"), "cpu")
    with pytest.raises(BadInputError, match=r"--devices is 2 and 0 GPUs were found.*--device cpu"):
        check_devices(2, torch.device("cpu"), "auto")


def test_a_file_is_opened_anew_where_it_is_read(tmp_path):
    import pickle

    save_volume(tmp_path / "a.tif", RAW)
    volume = open_volume(tmp_path / "a.tif")
    sent = pickle.loads(pickle.dumps(abroad(volume, tmp_path / "a.tif")))
    assert isinstance(sent.pixels, Reopened)
    assert (sent.shape, sent.dtype, sent.source) == (volume.shape, volume.dtype, volume.source)
    assert (sent.slice_at(2) == RAW[2]).all()
    assert abroad(Volume(RAW), RAW).pixels is RAW


def test_what_cannot_be_sent_is_said():
    with pytest.raises(BadInputError, match="give its path"), crew(lambda: None, 2):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("augment", ["flips", "em"])
def test_two_devices_train_as_one_where_nothing_depends_on_the_batch(tmp_path, toys, augment):
    recipe = TrainOptions(steps=6, batch=4, crop=32, loss="ce", augment=augment, clip=0.5)
    job = Toy(tmp_path / "two", recipe.model_copy(update={"devices": 2}))
    alone = Toy(tmp_path / "one", recipe)
    for toy in (job, alone):
        toy.folder.mkdir()
    with crew(job, 2) as ranks:
        torch.manual_seed(0)
        two = job.train(ranks)
    one = alone.train()
    assert all(torch.allclose(one[key], two[key], rtol=1e-5, atol=1e-6) for key in one)
    logs = [(toy.folder / LOG).read_text().splitlines()[1:] for toy in (job, alone)]
    losses = [[float(row.split(",")[1]) for row in rows] for rows in logs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert not torch.distributed.is_initialized()


@pytest.mark.slow
def test_all_devices_stop_where_the_first_one_says_so(tmp_path, toys):
    job = Toy(tmp_path, TrainOptions(steps=9, batch=2, crop=32, devices=2))
    with crew(job, 2) as ranks:
        job.train(ranks, lambda steps, *_: Seen(0.1, stop=steps == 6))
    assert len((tmp_path / LOG).read_text().splitlines()) == 7


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("when", ["at first", "later"])
def test_a_process_that_fails_ends_the_run_with_its_reason(tmp_path, toys, when):
    job = Toy(tmp_path, TrainOptions(steps=6, batch=2, crop=32, devices=2), when)
    with pytest.raises(BadInputError, match="RuntimeError: no memory left"), crew(job, 2) as ranks:
        job.train(ranks)


SHARED = """
import sys, numpy as np, torch
torch.set_num_threads(1)
import os, signal
from evenslice import train
from evenslice.learn import fit
from evenslice.learn.module import Training
from evenslice.learn.recipe import TrainOptions
fit.FEWEST_CHUNK = 2
step = Training.training_step
def dying(self, batch, number):
    if self.done == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, number)
Training.training_step = dying
train("raw.tif", "labels.tif", "killed.safetensors", TrainOptions(**eval(sys.argv[1])), device="cpu")
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_run_takes_its_processes_along_and_goes_on_as_if_it_was_not(
    tmp_path, grey, monkeypatch
):
    from evenslice.learn import fit

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fit, "FEWEST_CHUNK", 2)
    save_volume("raw.tif", grey)
    save_volume("labels.tif", (grey > 128).astype("uint8"))
    settings = QUICK | {"devices": 2, "tie": "mirror", "augment": "em", "seed": 3}
    died = subprocess.run(
        [sys.executable, "-c", SHARED, repr(settings)],
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert died.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 30
    while members() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not members()
    recipe = TrainOptions(**settings)
    train("raw.tif", "labels.tif", "killed.safetensors", recipe, device="cpu", resume=True)
    train("raw.tif", "labels.tif", "whole.safetensors", recipe, device="cpu")
    one, other = (
        load_model(f"{name}.safetensors").module.state_dict() for name in ("killed", "whole")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert Path("killed.log.csv").read_bytes() == Path("whole.log.csv").read_bytes()


def members():
    """Processes of other devices that run from here."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if b"evenslice.learn.rank" in words and (process / "cwd").resolve() == Path.cwd():
                found.append(process.name)
        except OSError:
            continue
    return found
