"""A folder of good files, beside which the hostile ones are made."""

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
from checking import LIMIT_S, check

from evenslice import load_model, save_model, save_volume
from evenslice.model import inputs as models
from evenslice.volume.normalisation import Normalisation

SHAPE = (9, 48, 64)


def pytest_collection_modifyitems(items):
    for item in items:
        if (
            Path(__file__).parent in item.path.parents
            and item.get_closest_marker("timeout") is None
        ):
            item.add_marker(pytest.mark.timeout(LIMIT_S))


@pytest.fixture(scope="session")
def volume():
    """Noise (9, 48, 64), smooth enough to be segmented."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(0).normal(size=SHAPE), (1, 2, 2))
    return np.uint8(np.clip(128 + 300 * noise, 0, 255))


@pytest.fixture(scope="session")
def quick():
    """A network of one convolution."""
    from verbs.scenes import blurring

    return blurring()


@pytest.fixture(scope="session")
def good(tmp_path_factory, volume, quick):
    """The good files, made once."""
    folder = tmp_path_factory.mktemp("good")
    save_volume(folder / "raw.tif", volume, (30.0, 4.0, 4.0))
    save_volume(folder / "labels.tif", (volume > 128).astype(np.uint8), (30.0, 4.0, 4.0))
    save_model(folder / "model.safetensors", quick)
    return folder


@pytest.fixture(scope="session")
def whole_model(tmp_path_factory):
    """A file of a small real network, which all verbs can load."""
    from evenslice.model.build import build_model

    path = tmp_path_factory.mktemp("whole") / "whole.safetensors"
    model = build_model(weights="none", encoder="test_resnet.r160_in1k", encoder_depth=2)
    model.module.eval()
    save_model(path, model.with_facts(normalisation=Normalisation((128.0,), (40.0,), "file")))
    return path


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """Starts commands in processes of their own."""
    from forks import Server

    made = Server(tmp_path_factory.mktemp("commands"))
    yield made
    made.end()


@pytest.fixture
def place(tmp_path, monkeypatch, good, quick):
    """The folder that a case is run in; ``model.safetensors`` is loaded without building a network."""
    for file in good.iterdir():
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    known = (good / "model.safetensors").read_bytes()

    def loaded(path, network=None):
        file = Path(path)
        if file.name == "model.safetensors" and file.is_file() and file.read_bytes() == known:
            return copy.deepcopy(quick)
        return load_model(path, network)

    monkeypatch.setattr(models, "load_model", loaded)
    return tmp_path


@pytest.fixture
def checked(place, capfd):
    """Run a case where all that holds for every one is checked."""

    def run(case):
        return check(case, place, capfd)

    return run
