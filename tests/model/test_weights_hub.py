"""Weights of the hub: what is asked of its client, and what its errors become."""

import json
from unittest.mock import MagicMock

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError
from safetensors.torch import save

from evenslice import build_model, load_model, save_model
from evenslice.errors import BadInputError

WHERE = "hf-hub:lab/a"


class Hub:
    """The hub's client: repositories as ``{"owner/name": {file: bytes}}`` or an error."""

    def __init__(self, folder):
        self.folder, self.repositories, self.requests = folder, {}, []

    def download(self, repo_id, filename, revision=None, **_):
        self.requests.append((repo_id, filename, revision))
        missing = RepositoryNotFoundError("401: not found", response=MagicMock())
        files = self.repositories.get(repo_id, missing)
        if isinstance(files, Exception):
            raise files
        if filename not in files:
            raise EntryNotFoundError(f"404: no {filename}")
        path = self.folder / repo_id.replace("/", "_") / filename
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(files[filename])
        return str(path)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    hub = Hub(tmp_path)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    monkeypatch.setattr("timm.models._hub.hf_hub_download", hub.download)
    return hub


def network(name, **options):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return timm.create_model(name, num_classes=7, **options)


def repository(name, net, **config):
    config = {"architecture": name, "num_classes": 7, "pretrained_cfg": {"tag": "mine"}} | config
    return {"config.json": json.dumps(config).encode(), "model.safetensors": save(net.state_dict())}


def build_small(arch="unet", encoder="test_resnet", **options):
    """Few stages, so that the decoder is small; the encoder is then whole only for dpt."""
    depth = {"unet": 2, "dpt": 1}[arch]
    return build_model(arch, encoder, init="rgb", encoder_depth=depth, **options)


def assert_encoder_is(net, model):
    """Every tensor of the encoder is the one of the whole network, without its head."""
    state = {key.replace("_", "."): tensor for key, tensor in net.state_dict().items()}
    found = model.module.encoder.model.state_dict()
    assert any("conv1.weight" in key or "proj.weight" in key for key in found)
    for key, tensor in found.items():
        if not key.startswith("head"):
            assert torch.equal(tensor, state[key.replace("_", ".")]), key


@pytest.mark.parametrize(
    ("arch", "name", "encoder", "weights"),
    [
        ("unet", "test_resnet", "test_resnet", f"{WHERE}@1a2b"),
        ("dpt", "test_vit", WHERE, "imagenet"),
        pytest.param("dpt", "test_vit", "test_vit", WHERE, marks=pytest.mark.slow),
    ],
)
def test_weights_of_a_repository_are_fetched_loaded_and_named(
    hub, tmp_path, arch, name, encoder, weights
):
    net = network(name)
    hub.repositories["lab/a"] = repository(name, net)
    model = build_small(arch, encoder, weights=weights)
    assert_encoder_is(net, model)
    named = encoder if weights == "imagenet" else weights
    assert (model.spec.encoder, model.spec.options) == (named, {"architecture": name})
    assert {revision for *_, revision in hub.requests} == {"1a2b" if "@" in named else None}
    save_model(tmp_path / "m.safetensors", model)
    hub.requests.clear()
    back = load_model(tmp_path / "m.safetensors")
    assert back.spec == model.spec and not hub.requests, "a model file must not need the hub"


def test_the_architecture_s_options_in_a_repository_are_applied(hub):
    net = network("test_vit", img_size=64)
    args = {"img_size": 64, "num_classes": 7, "in_chans": 3}
    hub.repositories["lab/a"] = repository("test_vit", net, model_args=args)
    model = build_small("dpt", WHERE)
    assert model.spec.options == {"architecture": "test_vit", "img_size": 64}
    assert_encoder_is(net, model)
    hub.requests.clear()
    model = build_small("dpt", WHERE, weights="none")
    assert (model.spec.encoder, model.spec.options) == ("test_vit", {"img_size": 64})
    assert not any("model.safetensors" in request for request in hub.requests)


def test_weights_of_torch_save_are_read(hub, tmp_path):
    net = network("test_resnet")
    torch.save(net.state_dict(), tmp_path / "w.bin")
    files = repository("test_resnet", net)
    files.pop("model.safetensors")
    hub.repositories["lab/a"] = files | {"pytorch_model.bin": (tmp_path / "w.bin").read_bytes()}
    assert_encoder_is(net, build_small(weights=WHERE))


@pytest.mark.parametrize("encoder", ["test_resnet", "test_resnet.r160_in1k"])
def test_imagenet_is_timm_s_pretrained_tag(hub, encoder):
    net = timm.create_model("test_resnet", num_classes=1000)
    files = repository("test_resnet", net, num_classes=1000)
    hub.repositories["timm/test_resnet.r160_in1k"] = files
    model = build_small(encoder=encoder)
    assert_encoder_is(net, model)
    assert model.spec.encoder == "test_resnet.r160_in1k", "the file says which weights these were"


CANNOT = "cannot be fetched from the hub"
GATED = GatedRepoError("403: gated", response=MagicMock())
NO_NETWORK = ConnectionError("no route")


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (None, {"weights": WHERE}, f"{WHERE} {CANNOT} .*401.* log in"),
        (None, {"encoder": WHERE}, f"{WHERE} {CANNOT}"),
        (None, {"encoder": "test_resnet"}, f"test_resnet.r160_in1k {CANNOT} .*401"),
        (GATED, {"weights": WHERE}, f"{CANNOT} .*403.* log in"),
        (NO_NETWORK, {"weights": WHERE}, f"{CANNOT} .*no route.* --encoder tf_efficientnet_lite0"),
        ({"config.json": b'{"architecture": "resnet50"}'}, {"weights": WHERE}, "resnet50, exp"),
        ({"config.json": b"{}"}, {"encoder": WHERE}, "does not say which architecture of timm"),
        ({"config.json": b"{}"}, {"weights": WHERE}, "no weights, expected model.safetensors"),
        ({"config.json": b"{"}, {"weights": WHERE}, "has a damaged config.json"),
        (None, {"encoder": "resnet18.nope"}, "timm has no weights 'nope' of .*a1_in1k"),
        (None, {"encoder": "swinv2_cr_tiny_224"}, "no pretrained weights .* --weights none"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(hub, files, options, message):
    if files is not None:
        hub.repositories["lab/a"] = files
    with pytest.raises(BadInputError, match=message) as caught:
        build_model(**options)
    assert "\n" not in str(caught.value)


def test_the_client_s_offline_mode_is_kept(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for options in ({"weights": WHERE}, {"encoder": "test_resnet"}):
        with pytest.raises(BadInputError, match=f"{CANNOT} .*lite0 or --weights FILE"):
            build_model(**options)
