"""Weights from files: any prefix, half precision, other sizes, and what does not fit."""

import argparse
import datetime
import functools

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from evenslice import build_model
from evenslice.errors import BadInputError
from evenslice.model.checkpoint import load_state
from evenslice.model.weights import load_encoder, load_state_dict


@pytest.fixture(scope="module")
def resnet():
    return network("test_resnet")


def network(name, seed=5, **options):
    """A network of timm with weights that no initialisation gives."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = timm.create_model(name, num_classes=3, **options)
        for parameter in net.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return net


def build(weights, arch="unet", encoder="test_resnet", **options):
    depth = {"unet": 3, "dpt": 1}[arch]
    options = {"encoder_depth": depth, "init": "rgb"} | options
    return build_model(arch, encoder, weights=weights, **options)


def holds(model, net):
    """Whether the encoder holds every tensor of the network that it has."""
    state = {key.replace("_", "."): tensor for key, tensor in net.state_dict().items()}
    found = model.module.encoder.model.state_dict().items()
    return all(
        torch.equal(tensor, state[key.replace("_", ".")])
        for key, tensor in found
        if not key.startswith("head")
    )


PREFIXES = {
    "torchvision, timm": {"": 0},
    "DataParallel": {"module.": 0},
    "compiled": {"_orig_mod.": 0},
    "compiled in DataParallel": {"module._orig_mod.": 0},
    "a model of smp": {"encoder.model.": 0, "decoder.blocks.0.": 1},
    "CEM500K, by MoCo": {"module.encoder_k.": 1, "module.encoder_q.": 0},
    "CEM1.5M, by SwAV": {"module.": 0, "module.projection_head.": 1},
    "MitoNet": {"encoder.": 0, "semantic_decoder.": 1},
    "DINO": {"student.backbone.": 1, "teacher.backbone.": 0},
    "BYOL": {"online.backbone.": 0},
    "a lightning module": {"model.encoder.": 0, "loss.": 1},
}


@pytest.mark.parametrize("parts", PREFIXES.values(), ids=PREFIXES)
@pytest.mark.parametrize("channels", [1, 3])
def test_prefixes_are_found_out(parts, channels, tmp_path):
    net, other = (network("test_resnet", seed=seed, in_chans=channels) for seed in (5, 6))
    state = {}
    for prefix, which in parts.items():
        tensors = list((other if which else net).state_dict().items())
        whole = which == 0 or any(word in prefix for word in ("student", "encoder_k"))
        state |= {prefix + key: tensor for key, tensor in tensors[: None if whole else 5]}
    checkpoint = {"epoch": 1, "arch": "resnet", "state_dict": state, "norms": [0.57, 0.13]}
    torch.save(checkpoint, tmp_path / "w.pth.tar")
    model = build(tmp_path / "w.pth.tar", slices=channels)
    assert model.spec.channels == channels and holds(model, net)


STATE = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "b.c.bias": torch.ones(2, dtype=torch.float16),
}


@pytest.mark.parametrize(
    ("ending", "wrapper", "prefix"),
    [
        ("safetensors", None, ""),
        ("safetensors", None, "module._orig_mod."),
        ("pth", "state_dict", "module."),
        ("pth", "net", ""),
        ("pt", "model", "_orig_mod."),
        ("pt", "model_state_dict", "module._orig_mod."),
        ("bin", "teacher", ""),
        ("bin", None, "module."),
    ],
)
def test_a_state_dict_is_read_without_its_wrappers(tmp_path, ending, wrapper, prefix):
    path, state = tmp_path / f"w.{ending}", {prefix + k: v for k, v in STATE.items()}
    found = {wrapper: state, "epoch": 3, "optimizer": {"lr": 0.1}} if wrapper else state
    save_file(state, path) if ending == "safetensors" else torch.save(found, path)
    found = load_state_dict(path)
    assert set(found) == set(STATE)
    for key, tensor in STATE.items():
        assert found[key].dtype == torch.float32 and torch.equal(found[key], tensor.float())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_network_whose_own_names_have_a_prefix_is_filled(tmp_path, prefix):
    net = torch.nn.DataParallel(torch.nn.Linear(2, 2))
    state = {"weight": torch.full((2, 2), 3.0), "bias": torch.full((2,), 4.0)}
    torch.save({prefix + key: tensor for key, tensor in state.items()}, tmp_path / "w.pth")
    load_state(net, tmp_path / "w.pth")
    assert all(torch.equal(net.module.state_dict()[key], tensor) for key, tensor in state.items())


def test_settings_in_a_checkpoint_are_read_over_and_objects_refused(tmp_path, resnet):
    path, state = tmp_path / "w.pth", resnet.state_dict()
    torch.save({"model": state, "args": argparse.Namespace(lr=0.1)}, path)
    assert holds(build(path), resnet)
    torch.save({"model": state, "when": datetime.date(2025, 1, 1)}, path)
    with pytest.raises(BadInputError, match=r"datetime.date, which is not run.*expected tensors"):
        build(path)


# Sizes


def by_hand(embedding, prefix, old, new):
    """A position embedding (1, N, C) on another grid: bicubic, antialiased, as timm's."""
    tokens = embedding[:, prefix:].reshape(1, *old, -1).movedim(-1, 1)
    grid = interpolate(tokens, size=new, mode="bicubic", antialias=True)
    return torch.cat([embedding[:, :prefix], grid.flatten(2).movedim(1, 2)], 1)


@pytest.mark.parametrize(
    ("encoder", "options", "prefix"),
    [
        ("test_vit", {}, 1),
        ("test_vit", {"reg_tokens": 4, "no_embed_class": True}, 0),
        ("test_vit", {"reg_tokens": 4}, 5),
        ("test_vit", {"class_token": False, "global_pool": "avg"}, 0),
        ("deit_tiny_distilled_patch16_224", {"depth": 1, "embed_dim": 48}, 2),
    ],
    ids=["class token", "registers apart", "registers within", "no class token", "two tokens"],
)
def test_position_embeddings_are_resampled_as_by_hand(encoder, options, prefix):
    small, large = (network(encoder, img_size=side, **options) for side in (96, 160))
    expected = by_hand(small.pos_embed, prefix, (6, 6), (10, 10))
    load_encoder(large, small.state_dict(), "w")
    assert large.pos_embed.shape == expected.shape
    assert torch.allclose(large.pos_embed, expected, atol=1e-6)
    for name in ("cls_token", "reg_token"):
        if getattr(small, name, None) is not None:
            assert torch.equal(getattr(large, name), getattr(small, name))


def test_registers_are_read_as_the_authors_of_dinov2_write_them():
    options = {"reg_tokens": 4, "no_embed_class": True}
    net, fresh = (network("test_vit", seed=seed, **options) for seed in (5, 6))
    of_class = torch.full((1, 1, 64), 0.5)
    state = net.state_dict() | {
        "mask_token": torch.zeros(1, 64),
        "register_tokens": net.reg_token.detach(),
        "pos_embed": torch.cat([of_class, net.pos_embed.detach()], 1),
    }
    del state["reg_token"]
    load_encoder(fresh, state, "w")
    assert torch.equal(fresh.reg_token, net.reg_token)
    assert torch.equal(fresh.pos_embed, net.pos_embed)
    assert torch.equal(fresh.cls_token, net.cls_token + of_class)


def test_a_grid_that_is_not_square_is_stated_by_the_file(tmp_path):
    net, path = network("test_vit", img_size=(64, 160)), tmp_path / "w.safetensors"
    save_file(net.state_dict(), path, {"img_size": "64,160"})
    model = build(path, "dpt", "test_vit")
    assert model.spec.options == {"img_size": [64, 160]} and holds(model, net)
    save_file(net.state_dict(), path)
    with pytest.raises(
        BadInputError, match=r"pos_embed of shape \(1, 41, 64\), expected \(1, 101,"
    ):
        build(path, "dpt", "test_vit")


def test_tables_of_another_window_are_resampled():
    def swin(side, make=network, **options):
        small = {"embed_dim": 24, "depths": (1,) * 4, "num_heads": (1,) * 4}
        name = "swin_tiny_patch4_window7_224"
        return make(name, window_size=side, strict_img_size=False, **small, **options)

    wide = swin(8)
    with torch.no_grad():
        wide.layers[0].blocks[0].attn.relative_position_bias_table.copy_(
            torch.linspace(-1, 1, 15)[:, None].expand(15, 15).reshape(-1, 1)
        )
    narrow = swin(7, timm.create_model, features_only=True, out_indices=(0, 1))
    load_encoder(narrow, wide.state_dict(), "w", lambda: swin(7))
    after = narrow.layers_0.blocks[0].attn.relative_position_bias_table.view(13, 13)
    assert torch.allclose(after[6], torch.zeros(13), atol=1e-5)
    assert torch.allclose(after, -after.flip(0), atol=1e-5)
    assert torch.allclose(after, after[:, :1].expand(13, 13), atol=1e-5)
    assert (after.diff(dim=0) > 0.05).all()
    found, expected = narrow.layers_1.blocks[0].mlp.fc1, wide.layers[1].blocks[0].mlp.fc1
    assert torch.equal(found.weight, expected.weight)


def test_names_of_the_authors_are_known_to_timm():
    net = network("convnext_atto")
    changes = {
        "stages.1.downsample": "downsample_layers.1",
        "stem.": "downsample_layers.0.",
        ".blocks.": ".",
        "conv_dw": "dwconv",
        "mlp.fc1": "pwconv1",
        "mlp.fc2": "pwconv2",
        "head.norm": "norm",
        "head.fc": "head",
    }
    state = {}
    for name, tensor in net.state_dict().items():
        key = functools.reduce(lambda key, change: key.replace(*change), changes.items(), name)
        state[key] = tensor.flatten(1) if "pwconv" in key and key.endswith("weight") else tensor
    encoder = timm.create_model("convnext_atto", features_only=True, out_indices=(0, 1))
    load_encoder(encoder, state, "w", lambda: network("convnext_atto"))
    found, expected = encoder.stages_1, net.stages[1]
    assert torch.equal(found.downsample[1].weight, expected.downsample[1].weight)
    assert torch.equal(found.blocks[0].mlp.fc1.weight, expected.blocks[0].mlp.fc1.weight)


# What does not fit


@pytest.mark.parametrize(
    ("name", "facts", "words"),
    [
        ("resnet34", {}, r"hold more than .* \(layer1.2.*\), expected the same; name the encoder"),
        ("resnet50", {}, "hold layer1.0.conv1.weight of shape .*, expected .*; name the encoder"),
        (
            "test_vit",
            {},
            r"lack 100 of .* found cls_token, pos_embed, patch_embed.proj.weight, \.\.\., expected "
            r"conv1.weight, bn1.weight, bn1.bias, \.\.\.; .* fewer stages with --encoder-depth",
        ),
        ("test_resnet", {"timm": "my_resnet"}, "their file names my_resnet; name the encoder"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_three_of_their_names(name, facts, words):
    encoder = timm.create_model("resnet18", features_only=True)
    before = {key: tensor.clone() for key, tensor in encoder.state_dict().items()}
    state = timm.create_model(name).state_dict()
    with pytest.raises(BadInputError, match=f"the weights w.pth .*{words}"):
        load_encoder(encoder, state, "w.pth", metadata=facts)
    assert all(torch.equal(tensor, before[key]) for key, tensor in encoder.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_program_is_not_run_for_its_weights(tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "MitoNet.pth")
    with pytest.raises(BadInputError, match=r"a TorchScript program, which is not run, .*\.load\("):
        build(tmp_path / "MitoNet.pth")


# Other channels


def weights_of(folder, channels, **metadata):
    net = network("test_resnet", in_chans=channels)
    save_file(net.state_dict(), folder / "w.safetensors", metadata)
    return folder / "w.safetensors", net.conv1[0].weight.detach()


@pytest.mark.parametrize("slices", [1, 3, 5])
@pytest.mark.parametrize("init", ["green", "mirror", "centre"])
def test_a_grey_encoder_is_widened(tmp_path, slices, init):
    path, grey = weights_of(tmp_path, 1)
    model = build(path, slices=slices, init=init)
    wide = model.module.encoder.model.conv1[0].weight
    expected = torch.zeros_like(wide)
    if init == "centre":
        expected[:, slices // 2] = grey[:, 0]
    else:
        expected += grey / slices
    assert torch.equal(wide, expected)
    assert model.module.encoder.out_channels[0] == slices


@pytest.mark.parametrize("channels", [2, 5])
def test_an_encoder_of_other_channels_takes_their_mean(tmp_path, channels):
    path, several = weights_of(tmp_path, channels)
    model = build(path, init="mean", slices=3)
    expected = several.sum(1, keepdim=True).expand(-1, 3, -1, -1) / 3
    torch.testing.assert_close(model.module.encoder.model.conv1[0].weight.detach(), expected)
    with pytest.raises(BadInputError, match=rf"on {channels} channels, expected .* mean or random"):
        build(path, init="centre")


@pytest.mark.parametrize(
    ("encoder", "facts", "words"),
    [
        ("test_vit", {"img_size": "large"}, "img_size = 'large' .*, expected one number of pixels"),
        ("test_vit", {"img_size": "0"}, "img_size = '0'"),
        ("test_vit", {"img_size": "64,64,64"}, "img_size = '64,64,64'"),
        ("test_resnet", {"pad_type": "round"}, "'round' .*expected 'same' or 'valid'"),
        ("test_resnet", {"pad_type": "same"}, "an encoder that has it, found test_resnet; name"),
        ("smp:resnet18", {"pad_type": "same"}, "an encoder that has it, found smp:resnet18"),
    ],
)
def test_facts_that_cannot_be_are_refused(tmp_path, encoder, facts, words):
    save_file({"a": torch.zeros(2)}, tmp_path / "w.safetensors", facts)
    with pytest.raises(BadInputError, match=words):
        build_model(encoder=encoder, weights=tmp_path / "w.safetensors")


def test_an_image_size_says_nothing_to_an_encoder_of_any_size(tmp_path, resnet):
    save_file(resnet.state_dict(), tmp_path / "w.safetensors", {"img_size": "160", "pad_type": ""})
    model = build(tmp_path / "w.safetensors")
    assert model.spec.options == {} and holds(model, resnet)
