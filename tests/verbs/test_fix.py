"""Fixing models of ours: mirror average, tie, init, ensemble, and what it changes."""

import numpy as np
import pytest
import torch

from evenslice import fix, load_model, save_model, segment
from evenslice.errors import BadInputError
from evenslice.evidence.certificate import certify
from evenslice.model.logits import Ensemble
from evenslice.model.stem.find import find_stems
from evenslice.model.stem.slots import norms_per_slot
from evenslice.options import FixOptions
from evenslice.volume.files import open_volume


def stem(model):
    return find_stems(model.module, model.slices)[0]


def test_the_default_is_the_mirror_average(tmp_path, grey, make_model):
    model = make_model("random")
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    result = fix(model, tmp_path / "f.safetensors", volume=grey[:4])
    fixed = load_model(tmp_path / "f.safetensors")
    weight = stem(model).layer.weight.detach()
    assert torch.equal(stem(fixed).layer.weight.detach(), (weight + weight.flip(1)) / 2)
    assert all(torch.equal(before[k], v) for k, v in model.module.state_dict().items())
    one, two = result.audits
    assert one.probability_change > 1e-4
    assert two.probability_change < 1e-6
    assert two.verdict == "symmetric" or two.verdict.startswith("inconclusive: too few")
    assert result.warnings == ()
    assert fixed.training["fixed"] == "mirror average"
    assert fixed.scores == {"before_fix": {}}
    assert set(result.to_dict()) >= {"stems_before", "stems_after", "audit_before", "audit_after"}


@pytest.mark.parametrize(("tie", "uniform"), [("mirror", False), ("uniform", True)])
def test_a_tie_is_recorded_and_its_weights_are_plain(tmp_path, make_model, tie, uniform):
    fix(make_model("random"), tmp_path / "f.safetensors", FixOptions(tie=tie))
    fixed = load_model(tmp_path / "f.safetensors")
    assert fixed.spec.tie == tie
    norms = norms_per_slot(stem(fixed))
    assert (np.ptp(norms) < 1e-6) == uniform
    assert norms[0] == pytest.approx(norms[2])


def test_an_init_warns_that_retraining_is_needed_and_widens(tmp_path, make_model):
    options = {"init": "mean", "slices": 5, "tie": "mirror"}
    result = fix(make_model("rgb"), tmp_path / "f.safetensors", **options)
    assert "retrain" in result.warnings[0]
    assert np.ptp(result.after[0]["norms"]) < 1e-6
    fixed = load_model(tmp_path / "f.safetensors")
    assert (fixed.slices, fixed.spec.init, fixed.spec.tie) == (5, "mean", "mirror")
    assert fixed.certificate["symmetric"]


def test_what_cannot_be_fixed_is_refused(tmp_path, make_model):
    with pytest.raises(BadInputError, match="sees 5 slices, expected 3"):
        fix(make_model("rgb", slices=5), tmp_path / "f.safetensors", init="green")
    save_model(tmp_path / "m.safetensors", make_model())
    with pytest.raises(BadInputError, match="exists"):
        fix(tmp_path / "m.safetensors", tmp_path / "m.safetensors")
    for more in ({"init": "green"}, {"tie": "mirror"}):
        with pytest.raises(BadInputError, match="choose one"):
            fix(make_model("rgb"), tmp_path / "f.safetensors", tta="reversal", **more)
    assert [f.name for f in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.slow
def test_the_change_is_measured_and_certified(tmp_path, grey, make_model):
    labels = (grey > 128).astype(np.uint8)
    result = fix(make_model("random"), tmp_path / "f.safetensors", volume=grey, labels=labels)
    assert result.certificate.symmetric
    assert result.certificate.real_windows == 4
    assert load_model(tmp_path / "f.safetensors").certificate == result.certificate.to_dict()
    assert result.change["probability_change"] > 0
    assert result.change["batch_norms"] > 5
    assert {"dice_before", "dice_after"} <= set(result.change)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "with_volume", "recalibrated"),
    [({}, False, False), ({"init": "mean"}, True, False), ({}, True, True)],
)
def test_batch_norms_are_recalibrated_by_a_volume_after_the_mirror_average(
    tmp_path, grey, make_model, options, with_volume, recalibrated
):
    model = make_model("random")
    before = model.module.encoder.model.bn1.running_mean.clone()
    volume = grey[:4] if with_volume else None
    fixed = fix(model, tmp_path / "f.safetensors", volume=volume, **options).model
    after = fixed.module.encoder.model.bn1.running_mean
    assert torch.equal(after, before) == (not recalibrated)
    assert torch.equal(model.module.encoder.model.bn1.running_mean, before)


@pytest.mark.slow
def test_the_ensemble_is_recorded_and_used_by_everything(tmp_path, grey, make_model):
    model, out, grey = make_model("rgb"), tmp_path / "f.safetensors", grey[:5, :64, :64]
    labels = (grey > 128).astype(np.uint8)
    result = fix(model, out, tta="reversal", volume=grey, labels=labels)
    loaded = load_model(out)
    assert loaded.tta == "reversal"
    assert isinstance(loaded.module, Ensemble)
    state = loaded.network.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in model.module.state_dict().items())
    assert certify(loaded).symmetric
    assert result.certificate.symmetric
    assert result.change["probability_change"] > 0
    assert {"dice_before", "dice_after"} <= set(result.change)
    before, after = result.audits
    index, left = (abs(one.methods["gradient"].index.value) for one in (before, after))
    assert index > 10 * left
    assert after.probability_change < 1e-6 < before.probability_change

    def predicted(volume, **options):
        place = tmp_path / f"{len(list(tmp_path.iterdir()))}.tif"
        segment(out, volume, place, output="probabilities", **options)
        return open_volume(place).read((slice(None),) * 3).astype(int)

    one, back, single = predicted(grey), predicted(grey[::-1]), predicted(grey, tta="none")
    assert np.abs(one - back[::-1]).max() <= 1
    assert np.abs(one - single).max() > 1
