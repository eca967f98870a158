"""The stem: hand-computed weights, and what they promise of any network."""

import copy
import itertools
from functools import partial

import pytest
import torch
from exports import Tokens, TwoBranches
from torch import nn

from evenslice import initialise_stem, mirror_stem, uniform_stem
from evenslice.errors import BadInputError
from evenslice.model.stem.adapt import INITS, bake_stem, tie_of
from evenslice.model.stem.find import Stem, find_stems
from evenslice.model.stem.slots import (
    MIRRORED,
    UNIFORM,
    distances,
    norms_per_slot,
    slot_pattern,
    slot_weights,
    stem_asymmetry,
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
        ("mirror", 3, [[2.5, 2, 2.5], [1.75, -1, 1.75]]),
        ("mirror", 5, [[1.25, 1.25, 2, 1.25, 1.25], [0.875, 0.875, -1, 0.875, 0.875]]),
        ("mirror", 1, [[7], [2.5]]),
        ("centre", 5, [[0, 0, 7, 0, 0], [0, 0, 2.5, 0, 0]]),
        ("centre", 1, [[7], [2.5]]),
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
        ([0, 0, 3, 0, 0], (0, 1, 2, 3, 4), 0.8**0.5, 0, "centre"),
        ([1, 1, 2, 1, 1], (0, 1, 2, 3, 4), 0.1**0.5, 0, "mirror"),
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


def relative(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


NETWORKS = [partial(Tokens, last=True), Tokens, TwoBranches]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("init", INITS)
def test_a_uniform_stem_does_not_see_the_order_of_slices(make, init, dtype, tolerance):
    torch.manual_seed(0)
    model = initialise_stem(make().to(dtype), slices=5, init=init)
    x = torch.randn(1, 5, 32, 32, dtype=dtype)
    with torch.no_grad():
        expected = model(x)
        orders = list(itertools.permutations(range(5)))[1::29]
        worst = max(relative(model(x[:, list(order)]), expected) for order in orders)
    assert worst < tolerance if init in UNIFORM else worst > 1e-3
    norms = [norms_per_slot(stem) for stem in find_stems(model, 5)]
    assert all(max(each) == pytest.approx(min(each)) for each in norms) or init not in UNIFORM
    with torch.no_grad():
        reversal = relative(model(x.flip(1)), expected)
    assert reversal < tolerance if init in (*UNIFORM, *MIRRORED) else reversal > 1e-3


@pytest.mark.parametrize("slices", [1, 3, 5, 7, 9])
@pytest.mark.parametrize("init", ["mean", "mirror", "centre"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("make", NETWORKS)
def test_identical_slices_are_answered_like_the_grey_photograph(make, channels, init, slices):
    torch.manual_seed(0)
    model, grey = make(channels=channels).double(), torch.randn(1, 1, 32, 32).double()
    with torch.no_grad():
        expected = model(grey.expand(-1, channels, -1, -1))
        found = initialise_stem(model, slices, init)(grey.expand(-1, slices, -1, -1))
    assert relative(found, expected) < 1e-12


@pytest.mark.parametrize("make", NETWORKS)
def test_mirror_is_the_symmetric_stem_nearest_to_the_pretrained_one(make):
    torch.manual_seed(0)
    network = make().double()
    [*_, stem] = find_stems(network, 3)
    pretrained = stem.layer.weight.detach().clone()
    initialise_stem(network, 3, "mirror")
    mirror = stem.layer.weight.detach()
    for size in torch.logspace(-3, 1, 40):
        other = mirror + size * torch.randn_like(mirror)
        other[:, stem.channels_of(2)] = other[:, stem.channels_of(0)]
        assert (other - pretrained).norm() > (mirror - pretrained).norm()


@pytest.mark.parametrize("init", MIRRORED)
@pytest.mark.parametrize("tie", ["mirror", "none"])
def test_previous_is_red_centre_green_and_next_blue(init, tie):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1)).double()
    before = copy.deepcopy(network.state_dict())
    red, green, blue = before["0.weight"].unbind(1)
    tied = mirror_stem(initialise_stem(network, 3, init), 3, tie)
    side, centre = {"mirror": ((red + blue) / 2, green), "centre": (0 * red, red + green + blue)}[
        init
    ]
    torch.testing.assert_close(
        tied[0].weight.detach(), torch.stack([side, centre, side], 1), rtol=0, atol=1e-15
    )
    after = bake_stem(tied).state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name != "0.weight")


def test_a_stem_of_one_channel_fills_every_slot_or_the_centre():
    grey = RGB[:, :1]  # 1 and 3
    for init in INITS:
        found = slot_weights(grey, 5, init)[..., 0, 0]
        if init == "centre":
            assert found.tolist() == [[0, 0, 1, 0, 0], [0, 0, 3, 0, 0]]
        elif init != "random":
            torch.testing.assert_close(found, torch.tensor([[0.2] * 5, [0.6] * 5]))


def test_a_stem_of_other_channels_takes_the_mean_or_random_weights():
    conv = nn.Conv2d(4, 2, 3)
    total = conv.weight.detach().sum(1, keepdim=True)
    for init in set(INITS) - {"mean", "random"}:
        with pytest.raises(BadInputError, match=r"on 4 channels, .*; use mean or random"):
            initialise_stem(conv, 3, init)
    torch.testing.assert_close(
        initialise_stem(conv, 5, "mean").weight.detach(), (total / 5).expand(-1, 5, -1, -1)
    )


@pytest.mark.parametrize("init", sorted(set(INITS) - set(UNIFORM)))
def test_uniform_stem_takes_uniform_inits(init):
    with pytest.raises(BadInputError, match=f"init {init!r} is not uniform, .*initialise_stem"):
        uniform_stem(nn.Conv2d(3, 2, 1), 3, init)


def test_it_is_the_same_module_in_the_same_mode():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout()).train()
    model[2].eval()
    mean = model[1].running_mean.clone()
    assert uniform_stem(model, 5) is model
    assert model.training and model[1].training and not model[2].training
    assert torch.equal(model[1].running_mean, mean)


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
    [
        lambda: nn.Sequential(nn.Conv2d(5, 4, 3)),
        lambda: initialise_stem(Tokens(last=True), 5, "random"),
    ],
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
    network = uniform_stem(Tokens(last=True), 5)
    assert network.embed.in_features == 5 * 16
    assert "Conv2d(7, 2" in repr(uniform_stem(nn.Conv2d(3, 2, 1), 7))


def test_the_asymmetry_of_a_stem_is_that_of_its_mirrored_kernels():
    conv = nn.Conv2d(3, 2, 2, bias=False)
    conv.weight.data.zero_()
    conv.weight.data[0, 0] = torch.tensor([[1.0, -1.0], [1.0, -1.0]])  # no level, norm 2
    conv.weight.data[0, 2] = torch.tensor([[1.0, 1.0], [1.0, 1.0]])  # level 4, norm 2
    found = stem_asymmetry(find_stems(conv, 3)[0])
    assert found["kernels"] == pytest.approx([8**0.5 / 4])
    assert found["sums"] == pytest.approx([1.0])
    assert found["norms"] == pytest.approx([0.0])
    mirror_stem(conv, 3)
    assert stem_asymmetry(find_stems(conv, 3)[0]) == {"kernels": [0], "sums": [0], "norms": [0]}
