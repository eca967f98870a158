"""The audit: laws that hold for any model, volume and attribution method."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from evenslice import audit, mirror_stem
from evenslice.errors import BadInputError
from evenslice.evidence.attribution import METHODS
from evenslice.evidence.sampling import draw_windows
from evenslice.model.spec import Model, Spec
from evenslice.options import AuditOptions
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import Normalisation, estimate

NORM = Normalisation((128.0,), (40.0,), "file")
ALL = {"methods": METHODS, "tile": 32}
GRADIENT = {"methods": ["gradient"], "windows": 12, "tile": 32}


@pytest.fixture
def volume(grey):
    return np.concatenate([grey, grey[::-1] // 2 + 40])  # 18 slices, not symmetric in intensity


def model_of(module, slices=3, classes=1, norm=NORM):
    return Model(module.eval(), Spec(slices=slices, classes=classes), norm, stride=1)


def linear(*weights, bias=None):
    torch.manual_seed(0)
    conv = nn.Conv2d(len(weights), 1, 1)
    conv.weight.data = torch.tensor(weights).view(1, -1, 1, 1)
    if bias is not None:
        conv.bias.data[:] = bias
    return model_of(conv, len(weights))


def network(slices=3, classes=1, first=1.0):
    """A network that is not linear; ``first`` multiplies the weights of the first slot."""
    torch.manual_seed(0)
    made = nn.Sequential(
        nn.Conv2d(slices, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, classes, 3, padding=1)
    )
    made[0].weight.data[:, 0] *= first
    return made


def values(found, name="shares"):
    return {m: [i.value for i in getattr(method, name)] for m, method in found.methods.items()}


@pytest.mark.parametrize("weights", [(0.1, 0.2, 1.0, -0.2, 0.3), (2.0,)])
def test_by_gradient_a_linear_model_has_the_shares_of_its_weights(volume, weights):
    found = audit(linear(*weights), volume, windows=12, tile=32)
    sizes, half = np.abs(weights) / np.abs(weights).sum(), len(weights) // 2
    method = found.methods["gradient"]
    np.testing.assert_allclose([s.value for s in method.shares], sizes, rtol=1e-5)
    assert [s.low for s in method.shares] == [s.value for s in method.shares]
    later, earlier = sizes[half + 1 :], sizes[:half][::-1]
    expected = (later - earlier) / (later + earlier)
    np.testing.assert_allclose([p.value for p in method.pairs], expected, rtol=1e-5, atol=1e-7)
    assert found.verdict == ("abstained" if len(weights) == 1 else "asymmetric")
    if len(weights) == 1:
        assert json.loads(found.to_json())["methods"]["gradient"]["mirror_index"] is None


def test_by_every_method_a_linear_model_has_the_shares_of_weights_and_distances(volume):
    """Against sums over the raw voxels, made here without any of the code under test."""
    weights, windows = (1.0, -2.0, 0.5), 8
    found = audit(linear(*weights), volume, windows=windows, **ALL)
    mean, sizes = estimate(Volume(volume)).mean[0], np.abs(weights)
    by_gradient, by_distance, by_copy = [], [], []
    for window in draw_windows(Volume(volume), 3, 32, windows, 0):
        raw = volume[window.z - 1 : window.z + 2, window.y, window.x].astype(float)
        both = [raw, raw[::-1]]
        by_gradient.append(sizes / sizes.sum())
        for shares, effects in (
            (by_distance, [sizes * np.abs(x - mean).sum((1, 2)) for x in both]),
            (by_copy, [sizes * np.abs(x - x[1]).sum((1, 2)) for x in both]),
        ):
            shares.append(np.mean([effect / effect.sum() for effect in effects], axis=0))
    expected = {"gradient": by_gradient, "smoothgrad": by_gradient, "ablation-copy": by_copy}
    for name, shares in values(found).items():
        mean_shares = np.mean(expected.get(name, by_distance), axis=0)
        np.testing.assert_allclose(shares, mean_shares, rtol=2e-4, atol=1e-6)


def test_the_scale_of_the_output_does_not_matter(volume):
    one, other = network(), network()
    other[2].weight.data *= 10
    other[2].bias.data *= 10
    found = [audit(model_of(module), volume, windows=6, **ALL) for module in (one, other)]
    for name, shares in values(found[0]).items():
        np.testing.assert_allclose(shares, values(found[1])[name], atol=1e-5)


@pytest.mark.parametrize("classes", [1, 3])
def test_reading_the_volume_backwards_changes_nothing(volume, classes):
    model, volume = model_of(network(3, classes, 3.0), classes=classes), volume[:9, :32, :64]
    one, back = (audit(model, v, windows=10_000, **ALL) for v in (volume, volume[::-1]))
    assert one.windows == 7 * 2
    for name in ("shares", "pairs"):
        for method, expected in values(one, name).items():
            np.testing.assert_allclose(values(back, name)[method], expected, atol=1e-6)
    assert one.probability_change == pytest.approx(back.probability_change, abs=1e-6)
    assert one.flipped_fraction > 0  # else the target's own order would not be tested


def test_a_uniform_stem_is_symmetric_and_an_rgb_stem_is_not(volume, make_model):
    for init, alike in (("green", True), ("rgb", False)):
        model = make_model(init)
        if not alike:
            model.module.encoder.model.conv1.weight.data[:, 0] *= 3
        before = {k: v.clone() for k, v in model.module.train().state_dict().items()}
        found = audit(model, volume[:, :32, :64], methods=["gradient"], windows=8, tile=32)
        shares = np.array(values(found)["gradient"])
        assert (np.abs(shares - 1 / 3).max() < 1e-6) == alike
        assert found.verdict == ("symmetric" if alike else "asymmetric")
        assert found.checks["mirror_twin"].passed
        assert found.checks["random_weights"].passed
        # The model is left as it was.
        assert model.module.training
        assert all(p.requires_grad for p in model.module.parameters())
        assert all(torch.equal(before[k], v) for k, v in model.module.state_dict().items())


def test_a_mirror_stem_is_symmetric_by_every_method_and_stops_the_sampling(volume):
    found = audit(model_of(mirror_stem(network(first=3.0), 3)), volume, **ALL)
    assert {method.verdict for method in found.methods.values()} == {"symmetric"}
    ends = [end for m in found.methods.values() for p in m.pairs for end in (p.low, p.high)]
    assert max(map(abs, ends)) < 1e-5
    assert found.probability_change < 1e-6
    assert found.flipped_fraction == 0.0
    assert (found.windows, found.sampling.decided, found.sampling.rule) == (6, True, "sequential")
    assert found.believed["passed"]


def test_sampling_goes_on_while_undecided_and_ends_with_the_volume(volume):
    """A margin that lies on the pair found leaves every look open."""
    model, volume, options = model_of(network()), volume[:, :32, :64], {"tile": 32}
    options["methods"] = ["shapley"]
    found = audit(model, volume, windows=32, **options).methods["shapley"]
    wide = audit(model, volume, margin=abs(found.index.value), **options)
    assert wide.sampling.decided is False
    assert wide.windows == wide.sampling.looks[-1] == 32
    assert wide.sampling.confidence_each == pytest.approx(1 - 0.05 / len(wide.sampling.looks))


def test_each_method_stops_when_it_is_decided(volume):
    """A margin that lies on the largest pair leaves that method open, and no other asymmetric."""
    model, options = model_of(network()), {"tile": 32, "methods": ["gradient", "ablation"]}
    options["volume"] = volume[:, :32, :64]
    alone = {
        name: abs(
            audit(model, **options | {"methods": [name]}, windows=32).methods[name].index.value
        )
        for name in options["methods"]
    }
    last, first = max(alone, key=alone.get), min(alone, key=alone.get)
    found = audit(model, margin=alone[last], **options)
    assert found.methods[first].verdict == "symmetric"
    assert found.methods[first].windows < found.methods[last].windows == found.windows == 32
    fewer = audit(model, **options | {"methods": [first]}, margin=alone[last])
    assert fewer.methods[first] == found.methods[first]  # whatever else is measured


def test_an_audit_that_is_decided_asymmetric_skips_what_is_expensive_and_was_not_asked_for(volume):
    model, options = model_of(network(first=9.0)), {"tile": 32, "volume": volume}
    found, asked = audit(model, **options), audit(model, **options, methods=METHODS[:5])
    assert found.verdict == asked.verdict == "asymmetric"
    assert found.sampling.skipped == ("shapley", "integrated-gradients")
    assert set(found.methods) == {"gradient", "ablation", "ablation-copy"}
    assert {name: asked.methods[name] for name in found.methods} == found.methods
    assert asked.sampling.skipped == ()
    assert asked.methods["integrated-gradients"].windows == 6  # its first look alone
    assert found.checks["completeness_shapley"].passed is None


def test_what_one_method_computes_is_not_computed_again_by_the_next(volume, monkeypatch):
    rows, model = [], model_of(network(), norm=NORM)
    forward = nn.Sequential.forward
    monkeypatch.setattr(
        nn.Sequential, "forward", lambda self, x: (rows.append(len(x)), forward(self, x))[1]
    )
    counts = {}
    for methods in (["gradient"], ["ablation"], ["gradient", "ablation", "shapley"]):
        rows.clear()
        audit(model, volume, methods=methods, windows=6, tile=32)
        counts[len(methods), methods[0]] = sum(rows)
    checks = counts[1, "gradient"] - 12  # 6 windows and their reversals
    ablation = counts[1, "ablation"] - checks - 12
    pairs_of_slots, groups = 3 * 12, counts[3, "gradient"] - checks - 12 - ablation - 3 * 12
    assert ablation == 3 * 12
    assert pairs_of_slots + groups < 3 * 12 + 6  # the empty coalition once for each group


def test_a_cyclic_stem_is_caught_by_its_pairs_though_its_index_is_near_zero(volume):
    red, green, blue = 2.0, 1.0, 0.5
    found = audit(linear(red, green, blue, red, green), volume, **GRADIENT)
    assert found.methods["gradient"].index.value == pytest.approx(0.0, abs=1e-6)
    assert values(found, "pairs")["gradient"] == pytest.approx([1 / 3, -1 / 3], abs=1e-5)
    assert found.verdict == "asymmetric"


@pytest.mark.parametrize("outer", [0.009, 0.0])
def test_a_model_that_uses_the_centre_alone_abstains(volume, outer):
    found = audit(linear(outer, 1.0, outer), volume, windows=12, tile=32)
    assert found.verdict == "abstained"
    assert found.windows == 12
    if outer == 0:  # the copy of the centre changes nothing at all
        assert values(found)["ablation-copy"] == [0, 0, 0]
        json.loads(found.to_json())


def test_few_blocks_are_inconclusive(volume):
    found = audit(model_of(network()), volume[:3], windows=40, tile=64)
    assert found.clusters == 1
    assert found.verdict == "inconclusive: too few blocks"


def test_normalisation_by_slot_is_never_certified(volume):
    given = {"mean": [100, 128, 150], "std": [30, 40, 50]}
    found = audit(linear(1.0, 1.0, 1.0), volume, windows=12, **given, **ALL)
    assert found.verdict != "symmetric"
    assert found.probability_change > 1e-4
    check = found.checks["uniform_normalisation"]
    assert (check.passed, check.value) == (False, 50 + 20)
    expected = {"uniform": False, **given, "source": "option"}
    assert found.to_dict()["normalisation"] == expected


def test_latin_tells_whether_all_slots_are_alike(volume):
    options = {"windows": 12, "tile": 32, "methods": ["gradient", "ablation"]}
    equal = audit(linear(1.0, 1.0, 1.0), volume, design="latin", **options)
    mirrored = audit(linear(1.0, 3.0, 1.0), volume, design="latin", **options)
    plain = audit(linear(1.0, 3.0, 1.0), volume, **options)
    assert {latin.verdict for latin in equal.latin.values()} == {"alike"}
    assert {latin.verdict for latin in mirrored.latin.values()} == {"unlike"}
    assert mirrored.verdict == "symmetric"
    for name, shares in values(plain).items():  # the verdict comes from the pairing alone
        assert shares == pytest.approx(values(mirrored)[name], abs=1e-6)
    assert json.loads(mirrored.to_json())["latin"]["gradient"]["verdict"] == "unlike"


@pytest.mark.parametrize("region", ["predicted", "truth", "boundary", "all"])
@pytest.mark.parametrize("classes", [1, 3])
def test_every_region_for_one_class_and_several(volume, region, classes):
    labels = (volume > 128).astype(np.uint8) + (volume > 180) * (classes > 1)
    model = model_of(mirror_stem(network(classes=classes), 3), classes=classes)
    found = audit(model, volume, labels=labels, region=region, windows=6, **ALL)
    assert found.region == region
    assert all(abs(method.index.value) < 1e-5 for method in found.methods.values())


def test_a_box_keeps_windows_inside(volume):
    broken = volume.astype(np.float32)
    broken[:4], broken[:, :20], broken[:, :, 70:] = np.nan, np.nan, np.nan
    with pytest.raises(BadInputError, match="NaN"):
        audit(model_of(network()), broken, windows=6, **ALL)
    broken[:4], broken[:, :20], broken[:, :, 70:] = 128, 128, 128
    roi = "4:18,20:64,0:70"
    inside = audit(model_of(network()), broken, methods=["gradient"], windows=600, tile=32, roi=roi)
    assert (inside.windows, inside.dropped) == ((18 - 4 - 2) * 1 * 2, 0)


@pytest.mark.parametrize(("weights", "late"), [((0.0, 1.0, 0.0), False), ((0.0, 0.5, 1.0), True)])
def test_labels_measure_the_lag(volume, weights, late):
    labels, options = (volume > 128).astype(np.uint8), {**GRADIENT, "windows": 20}
    found = audit(linear(*weights, bias=0.0), volume, labels=labels, **options)
    if late:
        assert found.lag.value > 0.2
        assert found.lag.low > 0.1
    else:
        assert found.lag.value == pytest.approx(0.0, abs=1e-6)
    assert json.loads(found.to_json())["lag"].keys() == {"slices", "low", "high"}


def test_the_json_is_as_designed_and_the_same_for_the_same_seed(volume):
    model = model_of(network())
    options = AuditOptions(seed=1, windows=8, tile=32, methods=METHODS)
    one = audit(model, volume, options).to_json()
    assert one == audit(model, volume, seed=1, windows=8, **ALL).to_json()
    assert one != audit(model, volume, options, seed=2).to_json()
    found = json.loads(one)
    assert found["schema"] == "evenslice.audit/1"
    top = "slices windows clusters seed margin confidence stems normalisation methods reversal lag"
    assert {*top.split(), "checks", "verdict"} <= set(found)
    method = found["methods"]["gradient"]
    ends = [f"{name}{end}" for name in ("shares", "mirror_pairs") for end in ("", "_low", "_high")]
    index = ["mirror_index", "mirror_low", "mirror_high", "centre_share", "verdict", "windows"]
    assert set(method) == {*ends, *index}
    assert set(found["reversal"]) == {"probability_change", "flipped_fraction"}
    assert set(found["stems"][0]) >= {"module", "kind", "norms"}
    fields = {"value", "tolerance", "passed", "reason"}
    assert all(set(check) == fields for check in found["checks"].values())
    assert (found["windows"], found["slices"], found["seed"]) == (8, 3, 1)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32])
def test_any_type_of_voxel_gives_the_same_audit(volume, dtype):
    model = model_of(network())
    one, other = (audit(model, v, **GRADIENT) for v in (volume, volume.astype(dtype)))
    for name, method in one.methods.items():
        assert other.methods[name].index.value == pytest.approx(method.index.value, abs=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["magic"]}, "method magic is unknown, expected reversal, ablation"),
        ({"methods": []}, "method .none. is unknown"),
        ({"windows": "many"}, "--windows"),
        ({"windows": 0}, "0 windows were asked for"),
        ({"region": "truth"}, "there are no labels"),
        ({"region": "here"}, "--region"),
        ({"design": "random"}, "--design"),
        ({"roi": "0:2,:,:"}, "has 2 slices, expected at least 3"),
        ({"margin": 0.0}, "--margin"),
        ({"confidence": 1.0}, "--confidence"),
        ({"mean": [1.0]}, "only one of mean and std"),
        ({"mean": [1.0, 2.0], "std": [1.0, 2.0]}, "2 means were given, expected 1 or 3"),
        ({"mean": [1.0], "std": [0.0]}, "a std above 0"),
        ({"device": "tpu"}, "--device"),
        ({"labels": np.zeros((2, 3, 4), np.uint8)}, r"shape \(2, 3, 4\), expected \(18, 64, 96\)"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_what_cannot_be_used_is_refused(volume, options, message):
    with pytest.raises(BadInputError, match=message):
        audit(model_of(network()), volume, **options)


def test_constant_and_broken_volumes_are_refused(volume):
    with pytest.raises(BadInputError, match="is constant"):
        audit(model_of(network(), norm=None), np.full((9, 64, 64), 7, np.uint8))
    broken = volume.astype(np.float32)
    broken[8] = np.nan
    with pytest.raises(BadInputError, match="NaN or infinite"):
        audit(model_of(network()), broken, windows=200, tile=32)


class Computed:
    """Voxels that are computed when they are read: as large as one likes. Counts what is read."""

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
        pixels = Computed(shape)
        found = audit(model_of(network(first=4.0)), Volume(pixels), methods=["gradient"], tile=64)
        read.append((found.windows, pixels.read))
    assert read[0] == read[1]


def test_windows_with_a_blank_slice_are_no_evidence_and_are_said(volume):
    """As if the windows that hold the lost section had not been drawn."""
    lost = volume.copy()
    lost[4] = 0
    options = {"windows": 64, "tile": 32, "methods": ["gradient", "ablation-copy"]}
    found, whole = (audit(model_of(network()), v, **options) for v in (lost, volume))
    assert whole.windows == found.windows + found.dropped == 64
    assert found.dropped > 8
    (said,) = found.warnings
    assert f"{found.dropped} of 64 windows" in said and "(z 4: lost sections?)" in said
    parts = [(0, 4), (5, 18)]  # the volume without the section
    each = [audit(model_of(network()), volume[a:b], **options) for a, b in parts]
    for name, method in found.methods.items():
        mean = np.average(
            [[s.value for s in one.methods[name].shares] for one in each],
            axis=0,
            weights=[one.windows for one in each],
        )
        assert [s.value for s in method.shares] == pytest.approx(mean, abs=0.03)


def test_intensities_far_from_those_of_the_model_are_said(volume):
    (said,) = audit(model_of(network()), volume.astype(np.uint16) * 257, **GRADIENT).warnings
    assert "(uint16), the model is normalised by mean 128, std 40" in said
    assert audit(model_of(network()), volume, **GRADIENT).warnings == ()


def test_a_foreign_model_gets_the_numbers_of_the_sections_that_are_not_blank(volume):
    lost = volume.copy()
    lost[[4, 9]] = 255
    found = audit(model_of(network(), norm=None), lost, **GRADIENT).normalisation
    assert found.mean == estimate(Volume(np.delete(lost, [4, 9], 0))).mean


def test_ignored_labels_are_not_the_true_class(volume):
    """What is explained of the true class does not depend on the class of ignored voxels."""
    labels = (volume > 128).astype(np.uint8)
    labels[:, :20] = 9
    known, taken = (
        audit(
            replace(model_of(network()), training={"target": "foreground", "recipe": recipe}),
            volume,
            labels=labels,
            region="truth",
            **GRADIENT,
        )
        for recipe in ({"ignore_label": 9}, {})
    )
    assert values(known) != values(taken)


def test_an_audit_along_another_axis_is_that_of_the_turned_volume(tmp_path):
    options = {"methods": ["gradient"], "windows": 8, "tile": 32}
    grey = np.random.default_rng(0).integers(0, 255, (40, 64, 24)).astype(np.uint8)
    model = model_of(network())
    found = audit(model, grey, axis="x", roi="0:40,8:60,2:22", **options)
    turned = audit(model, grey.transpose(2, 1, 0), roi="2:22,8:60,0:40", **options)
    assert found.methods == turned.methods
    with pytest.raises(BadInputError, match="--maps was given with --axis x"):
        audit(model, grey, axis="x", maps=tmp_path / "m.zarr", **options)
