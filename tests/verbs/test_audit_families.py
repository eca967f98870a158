"""The audit by all families of evidence: laws, sampling, maps, and models of other people."""

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
from evenslice.evidence.methods import METHODS, default_methods
from evenslice.evidence.sampling import plan_sites
from evenslice.model.spec import Model, Spec
from evenslice.model.stem.adapt import mirror_stem
from evenslice.volume.array import Volume
from evenslice.volume.files import save_volume
from evenslice.volume.normalisation import Normalisation, estimate
from their_networks import NETWORKS

NORM = Normalisation((128.0,), (40.0,), "file")
ALL = {"methods": METHODS, "tile": 32}


@pytest.fixture
def volume(grey):
    return np.concatenate([grey, grey[::-1] // 2 + 40])


def model_of(module, slices=3, classes=1, norm=NORM):
    return Model(module.eval(), Spec(slices=slices, classes=classes), norm, stride=1)


def linear(weights, scale=1.0):
    conv = nn.Conv2d(len(weights), 1, 1)
    conv.weight.data = scale * torch.tensor(weights).view(1, -1, 1, 1)
    conv.bias.data *= scale
    return conv


def bent(slices=3, classes=1, lean=1.0):
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(slices, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, classes, 3, padding=1)
    )
    network[0].weight.data[:, 0] *= lean
    return network


def values(found, name="shares"):
    return {m: [i.value for i in getattr(method, name)] for m, method in found.methods.items()}


def test_a_linear_model_has_the_shares_of_weights_and_distances(volume):
    """Every family against sums over the raw voxels, made here without any of its code."""
    weights, windows = [1.0, -2.0, 0.5], 8
    found = audit(model_of(linear(weights)), volume, windows=windows, **ALL)
    mean, sizes = estimate(Volume(volume)).mean[0], np.abs(weights)
    by_gradient, by_distance, by_copy = [], [], []
    for site in plan_sites(volume.shape, 3, 32, windows, 0):
        raw = volume[site.z - 1 : site.z + 2, site.y, site.x].astype(float)
        both = [raw, raw[::-1]]
        by_gradient.append(sizes / sizes.sum())
        for kept, effects in (
            (by_distance, [sizes * np.abs(x - mean).sum((1, 2)) for x in both]),
            (by_copy, [sizes * np.abs(x - x[1]).sum((1, 2)) for x in both]),
        ):
            kept.append(np.mean([effect / effect.sum() for effect in effects], axis=0))
    expected = {"gradient": by_gradient, "smoothgrad": by_gradient, "ablation-copy": by_copy}
    for name, shares in values(found).items():
        np.testing.assert_allclose(
            shares, np.mean(expected.get(name, by_distance), axis=0), rtol=2e-4, atol=1e-6
        )


def test_the_scale_of_the_output_does_not_matter(volume):
    one, other = bent(), bent()
    other[2].weight.data *= 10
    other[2].bias.data *= 10
    found = [audit(model_of(network), volume, windows=6, **ALL) for network in (one, other)]
    for name, shares in values(found[0]).items():
        np.testing.assert_allclose(shares, values(found[1])[name], atol=1e-5)


@pytest.mark.parametrize("classes", [1, 3])
def test_reading_the_volume_backwards_changes_nothing_in_any_family(volume, classes):
    model, volume = model_of(bent(classes=classes, lean=3.0), classes=classes), volume[:9, :32, :64]
    one, back = (audit(model, v, windows=10_000, **ALL) for v in (volume, volume[::-1]))
    assert one.windows == 7 * 2
    for name, shares in values(one).items():
        np.testing.assert_allclose(values(back)[name], shares, atol=1e-6)
        assert back.methods[name].index.value == pytest.approx(
            one.methods[name].index.value, abs=1e-6
        )


def test_a_mirror_stem_is_even_in_every_family_and_stops_the_search(volume):
    model = model_of(mirror_stem(bent(lean=3.0), 3))
    found = audit(model, volume, **ALL)
    assert {method.verdict for method in found.methods.values()} == {"symmetric"}
    assert (
        max(abs(end) for m in found.methods.values() for p in m.pairs for end in (p.low, p.high))
        < 1e-5
    )
    assert (found.windows, found.sampling.decided, found.sampling.rule) == (12, True, "sequential")
    assert found.believed["passed"]


def test_the_search_goes_on_while_it_is_open_and_ends_with_the_volume(volume):
    """A margin that lies on the pair found leaves every look open."""
    model, options = model_of(bent()), {"methods": ["shapley"], "tile": 32}
    on_it = abs(
        audit(model, volume[:, :32, :64], windows=32, **options).methods["shapley"].index.value
    )
    wide = audit(model, volume[:, :32, :64], margin=on_it, **options)
    assert wide.sampling.decided is False
    assert wide.windows == wide.sampling.looks[-1] == 32
    assert wide.sampling.confidence_each == pytest.approx(1 - 0.05 / len(wide.sampling.looks))


def test_a_cyclic_stem_is_caught_by_its_pairs_though_its_index_is_near_zero(volume):
    red, green, blue = 2.0, 1.0, 0.5
    model = model_of(linear([red, green, blue, red, green]), 5)
    found = audit(model, volume, methods=["gradient"], windows=12, tile=32)
    method = found.methods["gradient"]
    assert method.index.value == pytest.approx(0.0, abs=1e-6)
    assert [pair.value for pair in method.pairs] == pytest.approx([1 / 3, -1 / 3], abs=1e-5)
    assert found.verdict == "asymmetric"


def test_normalisation_by_slot_is_never_certified_in_any_family(volume):
    norm = Normalisation((100.0, 128.0, 150.0), (30.0, 40.0, 50.0), "option")
    found = audit(model_of(linear([1.0, 1.0, 1.0]), norm=norm), volume, windows=12, **ALL)
    assert found.verdict != "symmetric"
    assert found.checks["uniform_normalisation"].passed is False


def test_latin_says_whether_all_slots_are_alike(volume):
    options = {"design": "latin", "windows": 12, "tile": 32, "methods": ["gradient", "ablation"]}
    even = audit(model_of(linear([1.0, 1.0, 1.0])), volume, **options)
    assert {latin.verdict for latin in even.latin.values()} == {"alike"}
    mirrored = audit(model_of(linear([1.0, 3.0, 1.0])), volume, **options)
    assert mirrored.verdict == "symmetric"
    assert {latin.verdict for latin in mirrored.latin.values()} == {"unlike"}
    plain = audit(model_of(linear([1.0, 3.0, 1.0])), volume, **(options | {"design": "reversal"}))
    for name, shares in values(plain).items():  # the verdict comes from the pairing alone
        assert shares == pytest.approx(values(mirrored)[name], abs=1e-6)
    assert json.loads(mirrored.to_json())["latin"]["gradient"]["verdict"] == "unlike"


@pytest.mark.parametrize("region", ["predicted", "truth", "boundary", "all"])
@pytest.mark.parametrize("classes", [1, 3])
def test_every_region_for_one_class_and_several(volume, region, classes):
    labels = (volume > 128).astype(np.uint8) + (volume > 180) * (classes > 1)
    network = mirror_stem(bent(classes=classes), 3)
    found = audit(
        model_of(network, classes=classes), volume, labels=labels, region=region, windows=6, **ALL
    )
    assert found.region == region
    assert all(abs(method.index.value) < 1e-5 for method in found.methods.values())


def test_a_box_keeps_windows_inside(volume):
    broken = volume.astype(np.float32)
    broken[:4], broken[:, :20], broken[:, :, 70:] = np.nan, np.nan, np.nan
    with pytest.raises(BadInputError, match="NaN"):
        audit(model_of(bent()), broken, windows=6, **ALL)
    broken[:4], broken[:, :20], broken[:, :, 70:] = 128, 128, 128
    inside = audit(model_of(bent()), broken, windows=600, roi="4:18,20:64,0:70", **ALL)
    assert (inside.windows, inside.dropped) == ((18 - 4 - 2) * 1 * 2, 0)


def test_labels_stratify_the_windows_and_measure_the_lag(volume):
    labels = (volume > 128).astype(np.uint8)
    network = linear([0.0, 1.0, 0.0])
    network.bias.data[:] = 0.0
    still = audit(
        model_of(network), volume, labels=labels, windows=20, methods=["gradient"], tile=32
    )
    assert still.lag.value == pytest.approx(0.0, abs=1e-6)
    leaning = linear([0.0, 0.5, 1.0])
    leaning.bias.data[:] = 0.0
    found = audit(
        model_of(leaning), volume, labels=labels, windows=20, methods=["gradient"], tile=32
    )
    assert found.lag.value > 0.2
    assert found.lag.low > 0.1
    assert json.loads(found.to_json())["lag"].keys() == {"slices", "low", "high"}


def test_the_same_seed_gives_the_same_json(volume):
    one, two = (
        audit(model_of(bent()), volume, seed=3, windows=8, **ALL).to_json() for _ in range(2)
    )
    assert one == two


def test_default_families_follow_the_model():
    assert default_methods(3, True) == METHODS[:5]
    assert "shapley" not in default_methods(7, True)
    assert "ablation-copy" not in default_methods(1, True)
    assert default_methods(3, False) == METHODS[:3]


class Made:
    """Voxels that are made when they are read: as large as one likes. Counts what is read."""

    dtype = np.dtype(np.uint8)

    def __init__(self, shape):
        self.shape, self.read = shape, 0

    def __getitem__(self, key):
        spans = [range(*part.indices(n)) for part, n in zip(key, self.shape, strict=True)]
        z, y, x = np.ix_(*(np.asarray(span) for span in spans))
        self.read += z.size * y.size * x.size
        return np.asarray(128 + 60 * np.sin(z * 1.7 + y * 0.31) * np.cos(x * 0.23 + z), np.uint8)


def test_the_cost_does_not_grow_with_the_volume():
    read = []
    for shape in ((40, 1000, 1000), (1000, 10_000, 10_000)):  # 40 MB, 100 GB
        pixels = Made(shape)
        found = audit(model_of(bent(lean=4.0)), Volume(pixels), methods=["gradient"], tile=64)
        read.append((found.windows, pixels.read))
    assert read[0] == read[1]


def test_maps_are_a_valid_image_over_windows_and_slots(volume, tmp_path):
    source, store = Volume(volume, (50.0, 4.0, 4.0)), tmp_path / "maps.zarr"
    found = audit(
        model_of(bent(lean=3.0)), source, methods=["gradient"], windows=5, tile=32, maps=store
    )
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
    with pytest.raises(BadInputError, match="exists, expected a new name"):
        audit(model_of(bent()), source, methods=["gradient"], windows=2, tile=32, maps=store)
    audit(
        model_of(bent()), source, methods=["gradient"], windows=2, tile=32, maps=store, force=True
    )
    assert zarr.open_group(str(store), mode="r")["0"].shape[0] == 2
    (tmp_path / "mine").mkdir()
    with pytest.raises(BadInputError, match="is no Zarr store"):
        audit(
            model_of(bent()),
            source,
            methods=["gradient"],
            tile=32,
            maps=tmp_path / "mine",
            force=True,
        )
    assert sorted(f.name for f in tmp_path.iterdir()) == ["maps.zarr", "mine"]


def test_a_failed_audit_leaves_no_maps(volume, tmp_path):
    broken = volume.astype(np.float32)
    broken[8] = np.nan
    with pytest.raises(BadInputError, match="NaN"):
        audit(
            model_of(bent()),
            broken,
            methods=["gradient"],
            windows=200,
            tile=32,
            maps=tmp_path / "m.zarr",
        )
    assert list(tmp_path.iterdir()) == []


def test_an_audit_shows_itself_in_a_notebook(volume):
    found = audit(model_of(bent(lean=3.0)), volume, windows=6, **ALL)
    shown = found._repr_html_()
    assert shown.startswith("<p>")
    assert all(f"<td>{name}</td>" in shown for name in METHODS)
    assert len(found.plot().axes) == 2


def run(*words):
    with pytest.raises(SystemExit) as stop:
        cli.main([str(word) for word in words])
    return stop.value.code


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_exported_networks_are_audited_in_one_command(volume, tmp_path, capfd, ending):
    path, x = tmp_path / f"m.{ending}", (torch.rand(1, 3, 32, 64),)
    if ending == "pt2":
        torch.export.save(torch.export.export(bent(lean=3.0).eval(), x), path)
    else:
        torch.onnx.export(bent(lean=3.0).eval(), x, path, dynamo=False, input_names=["x"])
    save_volume(tmp_path / "v.tif", Volume(volume))
    words = [
        "audit",
        path,
        tmp_path / "v.tif",
        "--windows",
        "8",
        "--mean",
        "128",
        "--std",
        "40",
        "--json",
        tmp_path / "a.json",
        "--trust",
    ]
    assert run(*words, "--fail-above", "0.05") == 1
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["verdict"] == "asymmetric"
    assert ("gradient" in found["methods"]) == (ending == "pt2")
    assert found["believed"]["passed"]
    assert found["checks"]["random_weights"]["passed"] is (True if ending == "pt2" else None)
    assert "Sanity checks passed" in capfd.readouterr().out
    words = [
        "audit",
        path,
        tmp_path / "v.tif",
        "--methods",
        "gradient",
        "--windows",
        "2",
        "--trust",
    ]
    assert run(*words) == (0 if ending == "pt2" else 2)


def test_the_cost_of_many_exact_values_is_announced(volume, tmp_path, capfd, monkeypatch):
    (tmp_path / "wide_net.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    save_volume(tmp_path / "v.tif", Volume(volume[:8, :32, :32]))
    words = [
        "audit",
        "wide_net:seven",
        tmp_path / "v.tif",
        "--windows",
        "1",
        "--tile",
        "32",
        "--methods",
        "shapley",
    ]
    assert run(*words) == 0
    assert "take 127 runs of the network for every window" in capfd.readouterr().err
