"""Building: architectures and encoders, and what is said of those that do not go together."""

import pytest
import timm
import torch
from pairs import PAIRS, UNSUPPORTED, check_pair, refusal_of
from safetensors.torch import save_file

from evenslice import build_model, load_model, save_model
from evenslice.errors import BadInputError
from evenslice.model.build import build_network
from evenslice.model.encoders import stride_of
from evenslice.model.predict import logits_of
from evenslice.model.spec import Spec
from evenslice.model.stem.find import find_stems
from evenslice.model.stem.slots import norms_per_slot


@pytest.mark.parametrize(
    ("arch", "encoder", "depth"),
    [
        ("unet", "resnet18", None),
        ("unet", "resnet18", 3),
        pytest.param("fpn", "mobilenetv2_100", None, marks=pytest.mark.slow),
        pytest.param("fpn", "resnet18", 4, marks=pytest.mark.slow),
        pytest.param("unet", "efficientnet_b0", 4, marks=pytest.mark.slow),
        ("unet", "smp:resnet18", 3),
        pytest.param("dpt", "vit_tiny_patch16_224", None, marks=pytest.mark.slow),
        ("dpt", "test_vit", 1),
        ("unetplusplus", "test_resnet", 2),
        ("deeplabv3plus", "test_resnet", 3),
        ("segformer", "smp:mit_b0", 3),
        ("upernet", "test_convnext", 3),
        ("unet", "test_resnet", 1),
        *((arch, "test_resnet", 5) for arch in ("unet", "unetplusplus", "upernet")),
        *((arch, "test_resnet", 3) for arch in ("fpn", "segformer", "upernet")),
        *((arch, "test_resnet", 5) for arch in ("fpn", "deeplabv3plus", "segformer")),
        ("dpt", "test_vit", 4),
    ],
)
def test_networks_give_logits_of_the_window_s_size(arch, encoder, depth):
    model = build_model(arch, encoder, slices=5, classes=2, weights="none", encoder_depth=depth)
    with torch.no_grad():
        out = model.module.eval()(torch.randn(1, 5, 96, 64))
    assert out.shape == (1, 2, 96, 64)
    for stem in find_stems(model.module, 5):  # FPN of three stages also sees the slices themselves
        norms = norms_per_slot(stem)
        assert stem.slots == 5 and max(norms) - min(norms) < 1e-6


def test_facts_of_the_file_are_applied_and_recorded(tmp_path):
    net = timm.create_model("mobilenetv2_100", pad_type="same")
    save_file(net.state_dict(), tmp_path / "m.safetensors", {"pad_type": "same"})
    model = build_model("fpn", "mobilenetv2_100", weights=tmp_path / "m.safetensors")
    assert model.spec.options == {"pad_type": "same"}
    assert type(model.module.encoder.model.conv_stem).__name__ == "Conv2dSame"


def test_the_seed_decides_and_leaves_the_world_alone():
    options = {"weights": "none", "encoder_depth": 2, "init": "random"}
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, two, other = (
        build_model("unet", "test_resnet", **options, seed=seed).module.state_dict()
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(one[k], two[k]) for k in one)
    stem = next(key for key, tensor in one.items() if tensor.ndim == 4)
    assert not torch.equal(one[stem], other[stem])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"arch": "vnet"}, "architecture 'vnet' is unknown, expected one of unet, "),
        ({"encoder": "resnet19"}, "encoder 'resnet19' is unknown, .* did you mean resnet"),
        ({"encoder": "smp:resnet19"}, "encoder 'smp:resnet19' is unknown"),
        ({"arch": "dpt"}, "dpt .* on the encoder 'resnet18', expected a vision transformer"),
        ({"encoder": "test_vit"}, "unet .* on the encoder 'test_vit' .*; use dpt with it, or"),
        (
            {"arch": "unetplusplus", "encoder": "smp:mit_b0"},
            "unetplusplus .*; use unet, fpn, segformer or upernet with it",
        ),
        ({"encoder": "levit_128s"}, "encoder 'levit_128s' .*; choose another encoder, such as"),
        (
            {"arch": "fpn", "encoder": "test_convnext", "encoder_depth": 4},
            "fpn cannot be built on so few stages .* larger",
        ),
        ({"arch": "unetplusplus", "encoder_depth": 1}, "1 cannot .*, expected 2 to 5 for unetplus"),
        ({"encoder_depth": 9}, "9 cannot .*, expected 1 to 5 for unet"),
        (
            {"weights": "nowhere.safetensors"},
            "nowhere.safetensors do not exist, expected a file, 'imagenet' or 'none'",
        ),
        ({"slices": 4}, "4 slices were asked for, expected an odd number"),
        ({"classes": 0}, "number of classes is 0"),
    ],
)
def test_what_cannot_be_built_is_refused(options, words):
    with pytest.raises(BadInputError, match=words):
        build_model(**({"encoder": "resnet18", "weights": "none"} | options))


@pytest.mark.parametrize("depth", [2, 4])
def test_patches_of_14_pixels_take_any_window(depth):
    """segmentation-models-pytorch alone rounds the factors, and fails on every window."""
    spec = Spec("dpt", "test_vit", depth, options={"patch_size": 14, "img_size": 140})
    network = build_network(spec, pretrained=False).eval()
    assert stride_of(network) == 28
    for size in ((56, 84), (64, 50)):
        with torch.no_grad():
            assert logits_of(network, torch.randn(1, 3, *size), 28).shape == (1, 1, *size)


def test_the_answer_of_patches_of_14_pixels_lies_over_the_window():
    """A bright square far from the middle is answered to where it is."""
    spec = Spec("dpt", "test_vit", 2, options={"patch_size": 14, "img_size": 140})
    torch.manual_seed(0)
    network = build_network(spec, pretrained=False).eval()
    x = torch.zeros(1, 3, 280, 280)
    y = x.clone()
    y[..., 196:224, 56:84] = 3.0
    with torch.no_grad():
        change = (network(y) - network(x)).abs()[0, 0]
    change = change.clamp_min(change.quantile(0.99)) - change.quantile(0.99)
    where = [
        float((change.sum(1 - axis) * torch.arange(280)).sum() / change.sum()) for axis in (0, 1)
    ]
    assert where == pytest.approx([210, 70], abs=14)


@pytest.mark.slow
def test_an_encoder_of_one_size_says_which(tmp_path):
    model = build_model("unet", "hiera_tiny_224", weights="none", encoder_depth=3)
    assert (model.stride, model.size) == (224, (224, 224))
    with pytest.raises(
        BadInputError,
        match="hiera_tiny_224 got windows of 448 x 448, expected 224 x 224; use --crop 224, or an",
    ):
        logits_of(model.module, torch.zeros(1, 3, 256, 256), model.stride)
    save_model(tmp_path / "m.safetensors", model)
    assert load_model(tmp_path / "m.safetensors").size == (224, 224)


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "encoder"), [pair for pair in PAIRS if pair not in UNSUPPORTED])
def test_every_pair_that_is_supported_works(arch, encoder):
    assert check_pair(arch, encoder).reversal < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("arch", "encoder"), UNSUPPORTED)
def test_every_other_pair_names_what_would_work(arch, encoder):
    said = refusal_of(arch, encoder)
    assert UNSUPPORTED[arch, encoder] in said and "\n" not in said
