"""The stem: hand-computed weights, and what they promise of any network."""

import copy
import itertools

import pytest
import timm
import torch
from torch import nn

from evenslice import mirror_stem, uniform_stem
from evenslice.model.stem.adapt import bake_stem, tie_of
from evenslice.model.stem.find import Stem, find_stems
from evenslice.model.stem.slots import (
    UNIFORM,
    distances,
    norms_per_slot,
    slot_pattern,
    slot_weights,
)

RGB = torch.tensor([[[[1.0]], [[2.0]], [[4.0]]], [[[3.0]], [[-1.0]], [[0.5]]]])  # (2, 3, 1, 1)


@pytest.mark.parametrize(
    ("init", "slices", "expected"),
    [
        ("green", 3, [[2, 2, 2], [-1, -1, -1]]),
        ("green", 1, [[6], [-3]]),
        ("red", 5, [[0.6] * 5, [1.8] * 5]),
        ("blue", 3, [[4, 4, 4], [0.5, 0.5, 0.5]]),
        ("mean", 3, [[7 / 3] * 3, [2.5 / 3] * 3]),
        ("mean", 1, [[7], [2.5]]),
        ("rgb", 3, [[1, 2, 4], [3, -1, 0.5]]),
        ("rgb", 1, [[7], [2.5]]),
        ("rgb", 5, [[0.6, 1.2, 2.4, 0.6, 1.2], [1.8, -0.6, 0.3, 1.8, -0.6]]),
        # a = <G, R+G+B> / <G, G> = (2 * 7 - 1 * 2.5) / (4 + 1) = 2.3; w = a / 3 * G
        ("green-matched", 3, [[2.3 / 3 * 2] * 3, [-2.3 / 3] * 3]),
    ],
)
def test_slot_weights_by_hand(init, slices, expected):
    found = slot_weights(RGB, slices, init)[..., 0, 0]
    torch.testing.assert_close(
        found, torch.tensor(expected, dtype=torch.float32), rtol=1e-6, atol=1e-6
    )


@pytest.mark.parametrize(
    ("weights", "slot_of", "from_uniform", "from_mirror", "pattern"),
    [
        # w - mean = (2, -1, -1) / 3; w - (w + reversed w) / 2 = (1, 0, -1) / 2
        ([1, 0, 0], (0, 1, 2), 6**0.5 / 3, 2**0.5 / 2, "none"),
        ([1, 0, -1], (0, 1, 2), 1, 1, "none"),
        ([1, 4, 1], (0, 1, 2), (6 / 18) ** 0.5, 0, "mirror"),
        ([1, 1.01, 1], (0, 1, 2), 0.0047, 0, "mirror"),
        ([2, 9, 2, 2], (0, -1, 1, 2), 0, 0, "uniform"),
        ([1, 2, 3, 1, 2], (0, 1, 2, 3, 4), (2.8 / 19) ** 0.5, (1 / 19) ** 0.5, "cyclic"),
        ([1, 2, 1, 2, 1], (0, 1, 2, 3, 4), (1.2 / 11) ** 0.5, 0, "mirror"),
        ([1, 2, 3, 4], (0, 1, 1, 2), 1, 1, "none"),  # slot 1 comes in twice
        ([3], (0,), 0, 0, "one"),
    ],
)
def test_how_far_slots_are_from_symmetric_by_hand(
    weights, slot_of, from_uniform, from_mirror, pattern
):
    layer = nn.Conv2d(len(weights), 1, 1)
    layer.weight = nn.Parameter(torch.tensor(weights, dtype=torch.float32)[None, :, None, None])
    stem = Stem("", layer, "conv", slot_of, max(slot_of) + 1, ((1.0, 0.0),) * len(weights))
    assert distances(stem) == pytest.approx((from_uniform, from_mirror), abs=1e-4)
    assert slot_pattern(stem) == pattern


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    model = timm.create_model("resnet18", pretrained=False)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.weight.data.uniform_(0.5, 1.5)
    return model.eval()


def relative(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("init", UNIFORM)
def test_a_uniform_stem_does_not_see_the_order_of_slices(resnet, init, dtype, tolerance):
    model = uniform_stem(copy.deepcopy(resnet).to(dtype), slices=5, init=init)
    x = torch.randn(1, 5, 32, 32, dtype=dtype, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(x)
        worst = max(
            relative(model(x[:, list(p)]), expected)
            for p in list(itertools.permutations(range(5)))[1::41]
        )
    assert worst < tolerance


@pytest.mark.parametrize("init", ["rgb", "random"])
def test_the_controls_do_see_the_order(resnet, init):
    model = uniform_stem(copy.deepcopy(resnet), slices=5, init=init)
    x = torch.randn(1, 5, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert relative(model(x.flip(1)), model(x)) > 1e-3


@pytest.mark.parametrize("slices", [1, 3, 5, 7, 9])
def test_mean_answers_identical_slices_like_the_grey_photograph(resnet, slices):
    grey = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = resnet(grey.expand(-1, 3, -1, -1))
        found = uniform_stem(copy.deepcopy(resnet), slices, "mean")(grey.expand(-1, slices, -1, -1))
    assert relative(found, expected) < 1e-5


def test_only_the_stem_changes(resnet):
    model = uniform_stem(copy.deepcopy(resnet), 3, "green")
    before, after = resnet.state_dict(), model.state_dict()
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed == ["conv1.weight"]


def test_it_is_the_same_module_in_the_same_mode(resnet):
    model = copy.deepcopy(resnet).train()
    model.layer1.eval()
    model.conv1.weight.requires_grad_(False)
    assert uniform_stem(model, 5) is model
    assert model.training and not model.layer1.training
    assert model.conv1.in_channels == 5 and not model.conv1.weight.requires_grad


class Tokens(nn.Module):
    """A patch embedding by linear layer, channels fastest or slowest within a token."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.last, self.embed, self.head = last, nn.Linear(3 * 16, 8), nn.Linear(8, 2)

    def forward(self, x):
        b, c, h, w = x.shape
        x = x.reshape(b, c, h // 4, 4, w // 4, 4)
        order = (0, 2, 4, 3, 5, 1) if self.last else (0, 2, 4, 1, 3, 5)
        return self.head(self.embed(x.permute(*order).reshape(b, -1, 16 * c)).tanh())


class TwoBranches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.coarse, self.fine = nn.Conv2d(3, 4, 4, 2, 1), nn.Conv2d(3, 4, 3, padding=1, dilation=1)
        self.mix = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        small = nn.functional.interpolate(x, scale_factor=0.5, mode="bilinear")
        up = nn.functional.interpolate(
            self.coarse(nn.functional.interpolate(small, scale_factor=2.0)), scale_factor=2
        )
        return self.mix(torch.cat([up, self.fine(x)], 1).tanh())


@pytest.mark.parametrize("slices", [1, 3, 5])
def test_the_mirror_average_by_hand(slices):
    conv = nn.Conv2d(slices, 1, 1, bias=False)
    conv.weight.data = torch.arange(1.0, slices + 1).view(1, -1, 1, 1) ** 2
    expected = (conv.weight + conv.weight.flip(1)) / 2
    mirror_stem(conv, slices)
    assert torch.equal(conv.weight, expected)


@pytest.mark.parametrize("tie", ["mirror", "uniform"])
@pytest.mark.parametrize(
    "make",
    [lambda: nn.Sequential(nn.Conv2d(5, 4, 3)), lambda: uniform_stem(Tokens(True), 5, "random")],
)
def test_a_tie_holds_through_training_and_is_baked(tie, make):
    torch.manual_seed(0)
    model = mirror_stem(make().double(), 5, tie)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.05)
    x = torch.randn(2, 5, 64, 64, dtype=torch.float64)
    start = model(x).detach()
    for _ in range(20):
        optimiser.zero_grad()
        (model(x).square().mean() + model(x)[..., :1].mean()).backward()
        optimiser.step()
    after = model(x).detach()
    assert relative(start, after) > 1e-2
    assert relative(model(x.flip(1)), after) < 1e-12
    assert (relative(model(x.roll(1, 1)), after) < 1e-12) == (tie == "uniform")
    bake_stem(model)
    assert not any("parametrizations" in name for name in model.state_dict())
    torch.testing.assert_close(model(x), after)


def test_a_uniform_tie_starts_at_the_mean_of_the_slots():
    layer = nn.Conv2d(3, 2, 1)
    mean = layer.weight.detach().mean(1)
    bake_stem(mirror_stem(layer, 3, tie="uniform"))
    for slot in range(3):
        torch.testing.assert_close(layer.weight[:, slot], mean)


def test_baking_a_copy_leaves_the_original_tied():
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 1, 1))
    mirror_stem(network, 3, "mirror")
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = network(x)
    copied = bake_stem(copy.deepcopy(network))
    assert torch.equal(network(x), before)
    assert torch.equal(copied(x), before)
    assert not any("parametrizations" in name for name, _ in copied.named_modules())
    assert any("parametrizations" in name for name, _ in network.named_modules())


@pytest.mark.parametrize("make", [lambda: Tokens(True), lambda: Tokens(False), TwoBranches])
@pytest.mark.parametrize("slices", [3, 5])
def test_other_stems_are_made_uniform(make, slices):
    torch.manual_seed(0)
    model = make().double()
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    assert relative(model(x.flip(1)), model(x)) > 1e-3
    uniform_stem(model, slices)
    x = torch.randn(1, slices, 64, 64, dtype=torch.float64)
    order = torch.randperm(slices, generator=torch.Generator().manual_seed(1))
    assert relative(model(x[:, order]), model(x)) < 1e-12
    for stem in find_stems(model, slices):
        norms = norms_per_slot(stem)
        assert len(norms) == slices and max(norms) - min(norms) < 1e-12


def test_a_tie_takes_the_place_of_the_one_before():
    layer = mirror_stem(mirror_stem(nn.Conv2d(3, 2, 1), 3, "mirror"), 3, "uniform")
    assert tie_of(layer) == "uniform" and len(layer.parametrizations.weight) == 1
    assert tie_of(bake_stem(layer)) == "none" and "weight" in layer._parameters
    torch.testing.assert_close(layer.weight[:, 0], layer.weight[:, 2])


def test_three_slices_and_green_are_the_default():
    network = nn.Conv2d(3, 2, 1)
    green = network.weight.detach()[:, 1].clone()
    uniform_stem(network)
    assert all(torch.equal(network.weight[:, slot], green) for slot in range(3))
    assert tie_of(mirror_stem(network)) == "none"


@pytest.mark.parametrize("learns", [True, False])
def test_a_new_weight_learns_if_the_old_one_did_and_stays_the_same_if_it_can(learns):
    layer = nn.Conv2d(3, 2, 1)
    layer.weight.requires_grad_(learns)
    kept = layer.weight
    assert uniform_stem(layer, 3).weight is kept
    assert uniform_stem(layer, 5).weight is not kept
    assert layer.weight.requires_grad is learns and isinstance(layer.weight, nn.Parameter)


def test_a_wider_layer_says_so_itself():
    network = uniform_stem(Tokens(True), 5)
    assert network.embed.in_features == 5 * 16
    assert "Conv2d(7, 2" in repr(uniform_stem(nn.Conv2d(3, 2, 1), 7))
