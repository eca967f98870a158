"""A network with a wider stem still does what the libraries around it do: rebuild, copy, train."""

import copy

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from torch import nn

from evenslice import initialise_stem, mirror_stem, uniform_stem
from evenslice.errors import BadInputError


def test_timm_s_record_is_a_changed_copy():
    one, other = timm.create_model("resnet18"), timm.create_model("resnet18")
    other.pretrained_cfg = other.default_cfg = one.pretrained_cfg
    original = copy.deepcopy(one.pretrained_cfg)
    uniform_stem(one, 5)
    assert other.pretrained_cfg == original
    assert one.pretrained_cfg is one.default_cfg
    assert one.pretrained_cfg["input_size"] == (5, 224, 224)
    assert one.pretrained_cfg["mean"] == pytest.approx((0.449,) * 5, abs=1e-3)
    assert one.pretrained_cfg["std"] == pytest.approx((0.226,) * 5, abs=1e-3)
    facts = timm.data.resolve_model_data_config(one)
    assert (facts["input_size"], len(facts["mean"])) == ((5, 224, 224), 5)
    again = timm.create_model("resnet18", in_chans=5)
    again.load_state_dict(one.state_dict())


@pytest.mark.parametrize(
    ("slices", "init", "mean"),
    [
        (3, "rgb", (0.2, 0.4, 0.6)),
        (5, "rgb", (0.4,) * 5),
        (3, "random", (0.4,) * 3),
        (3, "green", (0.4,) * 3),
        (1, "rgb", (0.4,)),
    ],
)
def test_only_the_control_of_three_keeps_the_constants_of_the_channels(slices, init, mean):
    network = nn.Sequential(nn.Conv2d(3, 2, 1))
    network.pretrained_cfg = {"input_size": (3, 64, 64), "mean": (0.2, 0.4, 0.6)}
    initialise_stem(network, slices, init)
    assert network.pretrained_cfg["mean"] == pytest.approx(mean)
    assert network.pretrained_cfg["input_size"] == (slices, 64, 64)


@pytest.mark.parametrize(
    "encoder",
    [
        "resnet18",
        pytest.param("tu-resnet18", marks=pytest.mark.slow),
        pytest.param("mit_b0", marks=pytest.mark.slow),
    ],
)
def test_smp_rebuilds_from_its_own_record(tmp_path, encoder):
    network = uniform_stem(smp.Unet(encoder, encoder_weights=None), 5).eval()
    assert network.encoder._in_channels == network.encoder.out_channels[0] == 5
    network.save_pretrained(tmp_path)
    again = smp.from_pretrained(tmp_path).eval()
    x = torch.randn(1, 5, 64, 64)
    with torch.no_grad():
        assert torch.equal(again(x), network(x))


def test_a_refusal_takes_the_records_back():
    class Hard(nn.Module):
        in_chans = None

        def __init__(self):
            super().__init__()
            self.in_chans, self.conv = 3, nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return self.conv(x.reshape(-1, 3, 64, 64))

    network = Hard()
    weight = network.conv.weight
    with pytest.raises(
        BadInputError,
        match=r"Hard does not run on 5 channels .* only the stem knows the number of channels",
    ):
        uniform_stem(network, 5)
    assert (network.in_chans, network.conv.in_channels) == (3, 3) and network.conv.weight is weight


@pytest.fixture
def tied():
    torch.manual_seed(0)
    return mirror_stem(
        initialise_stem(smp.FPN("mobilenet_v2", encoder_weights=None), 5, "random"), 5, "mirror"
    ).eval()


@pytest.fixture
def x():
    return torch.randn(2, 5, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow
def test_a_tied_network_exports_compiles_and_copies(tied, x):
    with torch.no_grad():
        expected = tied(x)
        exported = torch.export.export(tied, (x,)).module()
        compiled = torch.compile(copy.deepcopy(tied), backend="eager")
        for network in (exported, compiled, copy.deepcopy(tied)):
            torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(network(x.flip(1)), expected, rtol=1e-4, atol=1e-5)


def test_an_optimiser_made_before_keeps_the_stem_when_the_shape_stays():
    network = nn.Sequential(nn.Conv2d(3, 2, 3))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
    uniform_stem(network, 3)
    before = network[0].weight.detach().clone()
    network(torch.randn(1, 3, 8, 8)).sum().backward()
    optimiser.step()
    assert not torch.equal(before, network[0].weight)


@pytest.mark.parametrize("kind", [timm.layers.StdConv2d, timm.layers.ScaledStdConv2d])
@pytest.mark.parametrize("slices", [3, 5])
def test_a_weight_standardised_stem_loses_the_scale_in_exact_terms(kind, slices):
    """Each filter answers S identical slices d / d' times as strongly as the grey photograph."""
    torch.manual_seed(0)
    conv = kind(3, 8, 7, bias=False, eps=1e-30).double()
    rgb = conv.weight.detach().clone()
    grey = torch.randn(1, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        expected = conv(grey.expand(-1, 3, -1, -1))
        uniform_stem(conv, slices, "mean")
        found = conv(grey.expand(-1, slices, -1, -1))
    before, after = (w.flatten(1).std(1, correction=0) for w in (rgb, conv.weight))
    scale = (before / after)[:, None, None]
    torch.testing.assert_close(found, expected * scale, rtol=1e-9, atol=1e-12)
    assert (found - expected).abs().max() > 0.05 * expected.abs().max()
