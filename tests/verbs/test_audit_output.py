"""What an audit writes and shows: maps, a notebook, the command line."""

import json
import sys

import numpy as np
import pytest
import torch
import yaozarrs
import zarr
from torch import nn

from evenslice import audit
from evenslice.cli import app as cli
from evenslice.errors import BadInputError
from evenslice.model.spec import Model, Spec
from evenslice.volume.array import Volume
from evenslice.volume.files import save_volume
from evenslice.volume.normalisation import Normalisation
from their_networks import NETWORKS

NORM = Normalisation((128.0,), (40.0,), "file")
OPTIONS = {"methods": ["gradient"], "windows": 5, "tile": 32}


@pytest.fixture
def volume(grey):
    return np.concatenate([grey, grey[::-1] // 2 + 40])


@pytest.fixture
def network():
    torch.manual_seed(0)
    first = nn.Conv2d(3, 6, 3, padding=1)
    first.weight.data[:, 0] *= 3
    return nn.Sequential(first, nn.Tanh(), nn.Conv2d(6, 1, 3, padding=1)).eval()


@pytest.fixture
def model(network):
    return Model(network, Spec(), NORM, stride=1)


def run(*words):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    return stop.value.code


def test_maps_are_a_valid_image_over_windows_and_slots(model, volume, tmp_path):
    source, store = Volume(volume, (50.0, 4.0, 4.0)), tmp_path / "maps.zarr"
    found = audit(model, source, maps=store, **OPTIONS)
    yaozarrs.validate_zarr_store(str(store))
    yaozarrs.validate_zarr_store(str(store / "raw"))
    group = zarr.open_group(str(store), mode="r")
    assert group["0"].shape == group["raw/0"].shape == (5, 3, 32, 32)
    [image] = group.attrs["ome"]["multiscales"]
    assert image["datasets"][0]["coordinateTransformations"][0]["scale"] == [1.0, 1.0, 4.0, 4.0]
    assert image["axes"][-1] == {"name": "x", "type": "space", "unit": "nanometer"}
    assert [c["label"] for c in group.attrs["ome"]["omero"]["channels"]] == ["-1", "centre", "+1"]
    z, y, x = group.attrs["evenslice"]["windows"][0]
    np.testing.assert_array_equal(group["raw/0"][0], volume[z - 1 : z + 2, y : y + 32, x : x + 32])
    np.testing.assert_array_equal(group["0"][0], found.views[0].attribution)


def test_maps_replace_only_a_store_and_only_by_force(model, volume, tmp_path):
    store, folder, options = tmp_path / "maps.zarr", tmp_path / "mine", {**OPTIONS, "windows": 2}
    audit(model, volume, maps=store, **OPTIONS)
    with pytest.raises(BadInputError, match="exists, expected a new name"):
        audit(model, volume, maps=store, **options)
    audit(model, volume, maps=store, force=True, **options)
    assert zarr.open_group(str(store), mode="r")["0"].shape[0] == 2
    folder.mkdir()
    with pytest.raises(BadInputError, match="is no Zarr store"):
        audit(model, volume, maps=folder, force=True, **options)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["maps.zarr", "mine"]


def test_a_failed_audit_leaves_no_maps(model, volume, tmp_path):
    broken = volume.astype(np.float32)
    broken[8] = np.nan
    with pytest.raises(BadInputError, match="NaN"):
        audit(model, broken, maps=tmp_path / "m.zarr", **{**OPTIONS, "windows": 200})
    assert list(tmp_path.iterdir()) == []


def test_an_audit_shows_itself_in_a_notebook(model, volume):
    found = audit(model, volume, **{**OPTIONS, "methods": ["gradient", "ablation"]})
    shown = found._repr_html_()
    assert all(f"<td>{name}</td>" in shown for name in found.methods)
    assert len(found.plot().axes) == 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_exported_networks_are_audited_in_one_command(network, volume, tmp_path, capfd, ending):
    path, x = tmp_path / f"m.{ending}", (torch.rand(1, 3, 32, 64),)
    if ending == "pt2":
        torch.export.save(torch.export.export(network, x), path)
    else:
        torch.onnx.export(network, x, path, dynamo=False, input_names=["x"])
    save_volume(tmp_path / "v.tif", Volume(volume))
    common = ["audit", path, tmp_path / "v.tif", "--trust"]
    given = ["--windows", "8", "--mean", "128", "--std", "40", "--json", tmp_path / "a.json"]
    assert run(*common, *given, "--fail-above", "0.05") == 1
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["verdict"] == "asymmetric"
    assert ("gradient" in found["methods"]) == (ending == "pt2")
    assert found["believed"]["passed"]
    assert found["checks"]["random_weights"]["passed"] is (True if ending == "pt2" else None)
    assert "Sanity checks passed" in capfd.readouterr().out
    code = 0 if ending == "pt2" else 2
    assert run(*common, "--methods", "gradient", "--windows", "2") == code


def test_the_cost_of_many_shapley_values_is_announced(volume, tmp_path, capfd, monkeypatch):
    (tmp_path / "wide_net.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    save_volume(tmp_path / "v.tif", Volume(volume[:8, :32, :32]))
    options = ["--windows", "1", "--tile", "32", "--methods", "shapley"]
    assert run("audit", "wide_net:seven", tmp_path / "v.tif", *options) == 0
    assert "take 127 runs of the network per window" in capfd.readouterr().err
