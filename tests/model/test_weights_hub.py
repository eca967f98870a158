"""Weights of the hub, from a server on this machine that answers as the hub does."""

import json
import os
import subprocess
import sys

import pytest
import timm
import torch
from hub_server import hub_server
from safetensors.torch import save

from evenslice import build_model, load_model, save_model
from evenslice.errors import BadInputError


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An empty hub that the hub's client asks in place of the real one, with an empty cache."""
    from huggingface_hub import constants, file_download

    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with hub_server() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        for module in (constants, file_download):  # where older clients keep a copy
            template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
            monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


def network(name, seed=5, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return timm.create_model(name, num_classes=7, **options)


def repository(name, net, **config):
    about = {"architecture": name, "num_classes": 7, "pretrained_cfg": {"tag": "mine"}} | config
    return {"config.json": json.dumps(about).encode(), "model.safetensors": save(net.state_dict())}


def build_small(arch="unet", encoder="test_resnet", **options):
    """Few stages, so that the decoder is small; the encoder is then whole only for dpt."""
    return build_model(
        arch, encoder, init="rgb", encoder_depth={"unet": 2, "dpt": 1}[arch], **options
    )


def assert_holds(model, net):
    """Every tensor of the encoder is the one of the whole network that is not its head."""
    state, found = net.state_dict(), model.module.encoder.model.state_dict()
    assert any("conv1.weight" in key or "proj.weight" in key for key in found)
    plain = {key.replace("_", "."): key for key in state}
    for key, tensor in found.items():
        if not key.startswith("head"):
            assert torch.equal(tensor, state[plain[key.replace("_", ".")]]), key


@pytest.mark.parametrize(
    ("arch", "name", "how"),
    [
        ("unet", "test_resnet", "weights"),
        ("dpt", "test_vit", "encoder"),
        pytest.param("unet", "test_resnet", "both", marks=pytest.mark.slow),
        pytest.param("dpt", "test_vit", "weights", marks=pytest.mark.slow),
    ],
)
def test_weights_of_a_repository_are_fetched_loaded_and_named(hub, tmp_path, arch, name, how):
    net = network(name)
    hub.repositories["lab/em-photos"] = repository(name, net)
    where = "hf-hub:lab/em-photos"
    encoder = {"weights": name, "encoder": where, "both": where}[how]
    model = build_small(arch, encoder, weights="imagenet" if how == "encoder" else where)
    assert_holds(model, net)
    assert (model.spec.encoder, model.spec.options) == (where, {"architecture": name})
    save_model(tmp_path / "m.safetensors", model)
    hub.asked.clear()
    back = load_model(tmp_path / "m.safetensors")
    assert back.spec == model.spec and not hub.asked, "a model file must not need the hub"


def test_a_revision_can_be_named(hub):
    net = network("test_resnet")
    hub.repositories["lab/a"] = repository("test_resnet", net)
    where = f"hf-hub:lab/a@{'a' * 40}"
    assert_holds(build_small(weights=where), net)
    with pytest.raises(BadInputError, match=r"lab/a@other cannot be fetched .*404"):
        build_model(encoder="test_resnet", weights="hf-hub:lab/a@other")


def test_an_encoder_of_the_hub_without_its_weights_is_only_built(hub):
    hub.repositories["lab/a"] = repository(
        "test_vit", network("test_vit", img_size=64), model_args={"img_size": 64}
    )
    model = build_small("dpt", "hf-hub:lab/a", weights="none")
    assert (model.spec.encoder, model.spec.options) == ("test_vit", {"img_size": 64})
    assert not any("model.safetensors" in path for path in hub.asked)


def test_what_the_hub_says_of_the_architecture_is_applied(hub):
    net = network("test_vit", img_size=64)
    hub.repositories["lab/a"] = repository(
        "test_vit", net, model_args={"img_size": 64, "num_classes": 7, "in_chans": 3}
    )
    model = build_small("dpt", "hf-hub:lab/a")
    assert model.spec.options == {"architecture": "test_vit", "img_size": 64}
    assert_holds(model, net)


def test_pickled_weights_are_read(hub, tmp_path):
    net = network("test_resnet")
    torch.save(net.state_dict(), tmp_path / "w.bin")
    files = repository("test_resnet", net)
    files.pop("model.safetensors")
    hub.repositories["lab/a"] = files | {"pytorch_model.bin": (tmp_path / "w.bin").read_bytes()}
    assert_holds(build_small(weights="hf-hub:lab/a"), net)


@pytest.mark.parametrize(
    ("encoder", "tag"),
    [("test_resnet", "r160_in1k"), ("test_resnet.r160_in1k", "r160_in1k")],
    ids=["default", "named"],
)
def test_imagenet_is_timm_s_pretrained_tag(hub, tmp_path, encoder, tag):
    net = timm.create_model("test_resnet", num_classes=1000)
    hub.repositories[f"timm/test_resnet.{tag}"] = repository("test_resnet", net, num_classes=1000)
    model = build_small(encoder=encoder)
    assert_holds(model, net)
    assert model.spec.encoder == f"test_resnet.{tag}", (
        "the model file says which weights these were"
    )
    save_model(tmp_path / "m.safetensors", model)
    hub.asked.clear()
    assert load_model(tmp_path / "m.safetensors").spec == model.spec and not hub.asked


def other_architecture(hub):
    hub.repositories["lab/a"] = repository("test_resnet", network("test_resnet")) | {
        "config.json": b'{"architecture": "resnet50"}'
    }


def gated(hub):
    hub.refused["lab/a"] = (403, "GatedRepo")


def of_transformers(hub):
    hub.repositories["lab/a"] = {"config.json": b'{"architectures": ["ViTModel"]}'}


def corrupt_metadata(hub):
    hub.repositories["lab/a"] = {"config.json": b"{"}


CANNOT = "cannot be fetched from the hub"


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (None, {"weights": "hf-hub:lab/a"}, f"hf-hub:lab/a {CANNOT} .*401.* log in"),
        (None, {"encoder": "hf-hub:lab/a"}, f"hf-hub:lab/a {CANNOT}"),
        (None, {"encoder": "test_resnet"}, f"test_resnet.r160_in1k {CANNOT} .*401"),
        (gated, {"weights": "hf-hub:lab/a"}, f"{CANNOT} .*403.* log in"),
        (None, {"weights": "hf-hub:a/b/c"}, f"{CANNOT} .*expected .*hf-hub:OWNER/NAME"),
        (
            other_architecture,
            {"weights": "hf-hub:lab/a"},
            "of resnet50, expected those of resnet18",
        ),
        (of_transformers, {"encoder": "hf-hub:lab/a"}, "does not say which architecture of timm"),
        (of_transformers, {"weights": "hf-hub:lab/a"}, "holds no weights, expected model.safet"),
        (corrupt_metadata, {"weights": "hf-hub:lab/a"}, "has a damaged config.json"),
    ],
)
def test_what_the_hub_refuses_is_said_in_a_line(hub, make, options, message):
    if make is not None:
        make(hub)
    with pytest.raises(BadInputError, match=message) as caught:
        build_model(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"weights": "hf-hub:lab/a"}, {"encoder": "hf-hub:lab/a"}, {"encoder": "test_resnet"}],
)
def test_offline_the_error_names_the_other_weights(hub, monkeypatch, options):
    from huggingface_hub import constants, utils

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    getattr(utils, "reset_sessions", list)()  # older clients ask once per session
    with pytest.raises(
        BadInputError, match=r"cannot be fetched .* --weights bundled or --weights FILE"
    ):
        build_model(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"encoder": "resnet18.nope"},
            "timm has no weights 'nope' of resnet18, expected .*a1_in1k",
        ),
        (
            {"encoder": "swinv2_cr_tiny_224"},
            "timm has no pretrained weights for the encoder 'swinv2_cr_tiny_224', .* --weights none",
        ),
    ],
)
def test_weights_that_timm_does_not_have_are_not_asked_for(hub, options, message):
    with pytest.raises(BadInputError, match=message):
        build_model(**options)
    assert not hub.asked


@pytest.mark.slow
def test_the_endpoint_of_the_environment_is_asked(hub, tmp_path):
    net = network("test_resnet")
    hub.repositories["lab/a"] = repository("test_resnet", net)
    code = (
        "from evenslice import build_model, save_model; import sys;"
        "save_model(sys.argv[1], build_model(encoder='hf-hub:lab/a', init='rgb', encoder_depth=2))"
    )
    environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "m.safetensors")], env=environment, check=True
    )
    assert_holds(load_model(tmp_path / "m.safetensors"), net)
