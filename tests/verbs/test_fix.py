"""Fixing a trained model."""

import numpy as np
import pytest
import torch

from evenslice import fix, load_model, save_model
from evenslice.errors import BadInputError
from evenslice.model.stem.find import find_stems
from evenslice.model.stem.slots import norms_per_slot


def stem(model):
    return find_stems(model.module, model.slices)[0].layer.weight.detach()


def test_the_default_is_the_mirror_average(tmp_path, grey, make_model):
    model = make_model("random")
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    result = fix(model, tmp_path / "f.safetensors", volume=grey[:4])
    fixed = load_model(tmp_path / "f.safetensors")
    assert torch.equal(stem(fixed), (stem(model) + stem(model).flip(1)) / 2)
    assert all(torch.equal(before[k], v) for k, v in model.module.state_dict().items())
    one, two = result.audits
    assert one.probability_change > 1e-4
    assert two.probability_change < 1e-6
    assert two.verdict == "symmetric" or two.verdict.startswith("inconclusive: too few")
    assert result.warnings == ()
    assert fixed.training["fixed"] == "mirror average"
    assert fixed.scores == {"before_fix": {}}
    assert set(result.to_dict()) >= {"stems_before", "stems_after", "audit_before", "audit_after"}


@pytest.mark.parametrize(("tie", "even"), [("mirror", False), ("uniform", True)])
def test_a_tie_is_recorded_and_its_weights_are_plain(tmp_path, make_model, tie, even):
    fix(make_model("random"), tmp_path / "f.safetensors", tie=tie)
    fixed = load_model(tmp_path / "f.safetensors")
    assert fixed.spec.tie == tie
    norms = norms_per_slot(find_stems(fixed.module, 3)[0])
    assert (np.ptp(norms) < 1e-6) == even
    assert norms[0] == pytest.approx(norms[2])


def test_an_init_warns_that_retraining_is_needed(tmp_path, make_model):
    result = fix(make_model("rgb"), tmp_path / "f.safetensors", init="green")
    assert "retrain" in result.warnings[0]
    assert np.ptp(result.after[0]["norms"]) < 1e-6


def test_what_cannot_be_fixed_is_said(tmp_path, make_model):
    with pytest.raises(BadInputError, match="sees 5 slices, expected 3"):
        fix(make_model("rgb", slices=5), tmp_path / "f.safetensors", init="green")
    save_model(tmp_path / "m.safetensors", make_model())
    with pytest.raises(BadInputError, match="exists"):
        fix(tmp_path / "m.safetensors", tmp_path / "m.safetensors")
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
def test_batch_norms_stay_without_a_volume_and_after_an_init(tmp_path, grey, make_model):
    model = make_model("random")
    before = model.module.encoder.model.bn1.running_mean.clone()
    alone = fix(model, tmp_path / "a.safetensors")
    init = fix(model, tmp_path / "b.safetensors", init="mean", volume=grey[:4])
    measured = fix(model, tmp_path / "c.safetensors", volume=grey[:4])
    assert torch.equal(alone.model.module.encoder.model.bn1.running_mean, before)
    assert torch.equal(init.model.module.encoder.model.bn1.running_mean, before)
    assert not torch.equal(measured.model.module.encoder.model.bn1.running_mean, before)
    assert torch.equal(model.module.encoder.model.bn1.running_mean, before)
