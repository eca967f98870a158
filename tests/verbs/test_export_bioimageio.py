"""Packages of bioimage.io: valid, offline, and as probable for raw slices as evenslice says."""

import json
import socket
import warnings
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    core = pytest.importorskip("bioimageio.core")

from evenslice.errors import BadInputError
from evenslice.model.opening import model_of
from evenslice.model.predict import probabilities_of
from evenslice.model.spec import Model, Spec
from evenslice.verbs.export import export
from evenslice.volume.normalisation import Normalisation

pytestmark = pytest.mark.filterwarnings("ignore")
ONE, EACH = (
    Normalisation((128.0,), (40.0,), "file"),
    Normalisation((90.0, 100.0, 110.0), (30.0, 40.0, 50.0), "file"),
)
TRAINING = {
    "volume": "raw.tif",
    "slices": [[0, 9]],
    "validation": [[12, 15]],
    "voxel_nm": [50.0, 4.0, 8.0],
}


class Placed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.place = (
            nn.Conv2d(3, 1, 3, padding=1),
            nn.Parameter(torch.ones(1, 1, 64, 96)),
        )
        self.img_size = (64, 96)

    def forward(self, x):
        return self.conv(x) * self.place


def model(slices=3, classes=1, norm=ONE, network=None, **facts):
    torch.manual_seed(0)
    made = network or nn.Sequential(
        nn.Conv2d(slices, 6, 3, 2, padding=1), nn.ReLU(), nn.ConvTranspose2d(6, classes, 2, 2)
    )
    return Model(
        made.eval(),
        Spec(slices=slices, classes=classes),
        norm,
        stride=2,
        training=TRAINING,
        **facts,
    )


def predicted(path, raw):
    found = core.predict(model=path, inputs={"slices": raw})
    return (
        next(iter(found.members.values())).data.transpose("batch", "channel", "y", "x").to_numpy()
    )


def expected(given, raw):
    with torch.no_grad():
        return probabilities_of(
            given.module(torch.from_numpy(given.normalisation.apply(raw)))
        ).numpy()


def check(path, given, shape):
    raw = np.random.default_rng(0).normal(110, 45, shape).astype(np.float32)
    assert np.abs(predicted(path, raw) - expected(given, raw)).max() <= 1e-4
    found = core.load_description(path)
    assert found.validation_summary.status in ("passed", "valid-format"), (
        found.validation_summary.format()
    )
    return found


def test_a_package_is_valid_and_predicts_probabilities_from_raw_slices(tmp_path, monkeypatch):
    def refused(*_):
        raise AssertionError("it asks the network for something")

    monkeypatch.setattr(socket.socket, "connect", refused)
    given = model(norm=EACH)
    done = export(
        given, tmp_path / "membranes.zip", tile=64, authors=["A. Nobody"], license="CC-BY-4.0"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["membranes.zip"] and done.warnings == ()
    found = check(tmp_path / "membranes.zip", given, (1, 3, 66, 84))
    assert found.inputs[0].axes[1].channel_names == ["previous", "centre", "next"]
    assert [axis.scale for axis in found.inputs[0].axes[2:]] == [4.0, 8.0]
    assert (found.inputs[0].axes[2].size.min, found.inputs[0].axes[2].size.step) == (64, 2)
    assert (found.authors[0].name, found.license, found.name) == (
        "A. Nobody",
        "CC-BY-4.0",
        "membranes",
    )
    assert found.config.evenslice["certificate"] == json.loads(
        json.dumps(done.certificate.to_dict())
    )
    with zipfile.ZipFile(tmp_path / "membranes.zip") as archive:
        text = archive.read("README.md").decode()
        archive.extract("weights.onnx", tmp_path)
    assert "lowest first: previous, centre, next" in text and "slices trained on: 0:9" in text
    assert model_of(tmp_path / "weights.onnx").normalisation == EACH


def test_an_unknown_licence_is_refused_and_nothing_is_left(tmp_path):
    with pytest.raises(BadInputError, match="--license is 'mine', expected an SPDX identifier"):
        export(model(), tmp_path / "m.zip", tile=32, license="mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_package_that_predicts_something_else_is_not_written(tmp_path, monkeypatch):
    from evenslice.verbs import export_bioimageio

    normalising = export_bioimageio._normalising
    monkeypatch.setattr(export_bioimageio, "_check_valid", lambda path: None)
    monkeypatch.setattr(export_bioimageio, "_normalising", lambda norm: normalising(EACH))
    with pytest.raises(
        BadInputError, match=r"away from those of evenslice, expected at most 0.0001"
    ):
        export(model(), tmp_path / "m.zip", tile=32)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"slices": 5, "classes": 3}, (1, 5, 64, 64)),
        ({"slices": 1}, (2, 1, 68, 64)),
        ({"slices": 9}, (1, 9, 64, 70)),
        ({"network": Placed(), "size": (64, 96)}, (1, 3, 64, 96)),
    ],
)
def test_packages_of_other_networks_are_valid(tmp_path, options, shape):
    given = model(**options)
    done = export(given, tmp_path / "m.zip", tile=64)
    assert "names no author and no licence; give --author and --license" in done.warnings[-1]
    found = check(tmp_path / "m.zip", given, shape)
    assert core.test_description(tmp_path / "m.zip").status == "passed"
    assert len(found.inputs[0].axes[1].channel_names) == given.slices


@pytest.mark.slow
def test_the_mean_over_the_reversal_is_in_a_package(tmp_path):
    given = model(norm=EACH).with_tta("reversal")
    export(given, tmp_path / "m.zip", tile=64)
    check(tmp_path / "m.zip", given, (1, 3, 64, 64))
    raw = np.random.default_rng(1).normal(110, 45, (1, 3, 64, 64)).astype(np.float32)
    far = predicted(tmp_path / "m.zip", raw) - predicted(tmp_path / "m.zip", raw[:, ::-1].copy())
    assert np.abs(far).max() < 1e-5
