"""The stem: hand-computed weights, and what they promise of any network."""

import copy
import itertools

import pytest
import timm
import torch
from torch import nn

from evenslice import mirror_stem, uniform_stem
from evenslice.errors import BadInputError
from evenslice.model.external import slot_pattern
from evenslice.model.stem.adapt import INITS, bake_stem, norms_per_slot, slot_weights
from evenslice.model.stem.find import Stem, find_stems
from evenslice.model.stem.slots import distances

EVEN = ("green", "red", "blue", "mean", "green-matched")
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
def test_how_far_slots_are_from_even_by_hand(weights, slot_of, from_uniform, from_mirror, pattern):
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
@pytest.mark.parametrize("init", EVEN)
def test_a_uniform_stem_does_not_see_the_order_of_slices(resnet, init, dtype, tolerance):
    model = uniform_stem(copy.deepcopy(resnet).to(dtype), slices=5, init=init)
    x = torch.randn(1, 5, 64, 64, dtype=dtype, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(x)
        worst = max(
            relative(model(x[:, list(p)]), expected)
            for p in list(itertools.permutations(range(5)))[1::29]
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


def test_running_statistics_stay_as_they_are(resnet):
    model = copy.deepcopy(resnet).train()
    before = model.bn1.running_mean.clone()
    uniform_stem(model, 3)
    assert torch.equal(model.bn1.running_mean, before)


@pytest.mark.parametrize("slices", [0, 2, 4, 11, -1])
def test_slices_must_be_odd_and_few(resnet, slices):
    with pytest.raises(BadInputError, match="expected an odd number from 1 to 9"):
        uniform_stem(copy.deepcopy(resnet), slices)


def test_unknown_names_are_refused(resnet):
    with pytest.raises(BadInputError, match=r"init 'grey' is unknown, expected one of rgb, green"):
        uniform_stem(copy.deepcopy(resnet), 3, "grey")
    with pytest.raises(BadInputError, match=r"tie 'glue' is unknown, expected one of none, mirror"):
        mirror_stem(copy.deepcopy(resnet), 3, "glue")


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


class SpaceToDepth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(12, 6, 3, padding=1)

    def forward(self, x):
        return self.conv(nn.functional.pixel_unshuffle(x, 2)).tanh()


class WithCoordinates(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(5, 6, 3)

    def forward(self, x):
        line = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)
        grid = torch.stack(torch.meshgrid(line, line, indexing="ij")).expand(x.shape[0], -1, -1, -1)
        return self.conv(nn.functional.pad(torch.cat([x, grid], 1), (1, 1, 1, 1)))


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


NETWORKS = {
    "tokens, channels last": (lambda: Tokens(True), ["embed"]),
    "tokens, channels first": (lambda: Tokens(False), ["embed"]),
    "space to depth": (SpaceToDepth, ["conv"]),
    "coordinates beside": (WithCoordinates, ["conv"]),
    "two branches": (TwoBranches, ["coarse", "fine"]),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("slices", [3, 5])
def test_other_stems_are_found_and_made_even(name, slices):
    torch.manual_seed(0)
    make, stems = NETWORKS[name]
    model = make().double()
    assert [stem.name for stem in find_stems(model)] == stems
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    assert relative(model(x.flip(1)), model(x)) > 1e-3
    uniform_stem(model, slices)
    x = torch.randn(1, slices, 64, 64, dtype=torch.float64)
    order = torch.randperm(slices, generator=torch.Generator().manual_seed(1))
    assert relative(model(x[:, order]), model(x)) < 1e-12
    for stem in find_stems(model, slices):
        norms = norms_per_slot(stem)
        assert len(norms) == slices and max(norms) - min(norms) < 1e-12


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Conv2d(3, 6, 3, groups=3)

    def forward(self, x):
        return self.entry(x)


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3)

    def forward(self, x):
        return self.conv((x * torch.tensor([0.3, 0.6, 0.1])[:, None, None]).sum(1, keepdim=True))


class Hard(nn.Module):
    """Only ever takes three channels, whatever its first layer says."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, x):
        return self.conv(x.reshape(x.shape[0], 3, 64, 64))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Grouped(), r"'entry' is a grouped convolution \(groups = 3\)"),
        (Mixed(), "no layer of Mixed receives its 3 input channels themselves"),
        (
            nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 2, 3)),
            "the slices enter '0', a BatchNorm2d",
        ),
        (nn.Conv3d(1, 2, 3), "a Conv3d, expected Conv2d"),
        (Hard(), "does not run on 5 channels"),
    ],
)
def test_what_cannot_be_handled_is_refused_and_left_alone(network, message):
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(BadInputError, match=message):
        uniform_stem(network, 5)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_scripted_module_is_refused():
    with pytest.raises(BadInputError, match="TorchScript"):
        uniform_stem(torch.jit.script(nn.Conv2d(3, 2, 3)), 5)


def test_a_probe_serves_networks_of_a_fixed_size():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 28 * 38, 2))
    with pytest.raises(BadInputError, match="give an example input as probe"):
        uniform_stem(network, 5)
    uniform_stem(network, 5, probe=torch.zeros(2, 3, 30, 40))
    assert network[0].in_channels == 5
    with pytest.raises(
        BadInputError, match=r"probe has shape \(1, 4, 8, 8\), expected \(B, 3, y, x\)"
    ):
        uniform_stem(nn.Conv2d(3, 2, 3), 5, probe=torch.zeros(1, 4, 8, 8))


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


@pytest.mark.slow
def test_every_init_gives_as_many_slots_as_asked_for(resnet):
    for init in INITS:
        [stem] = find_stems(uniform_stem(copy.deepcopy(resnet), 7, init), 7)
        assert (stem.name, stem.kind, stem.slots) == ("conv1", "conv", 7)


def test_a_uniform_tie_starts_at_the_mean_of_the_slots():
    layer = nn.Conv2d(3, 2, 1)
    mean = layer.weight.detach().mean(1)
    bake_stem(mirror_stem(layer, 3, tie="uniform"))
    for slot in range(3):
        torch.testing.assert_close(layer.weight[:, slot], mean)


def test_a_constant_for_the_last_channel_alone_is_named():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 3)

        def forward(self, x):
            return self.conv(x * torch.tensor([1.0, 1.0, 2.0]).reshape(3, 1, 1))

    with pytest.raises(
        BadInputError, match=r"its own constants before the stem 'conv' .scale 1, 1, 2"
    ):
        uniform_stem(Scaled(), 3, "mean")


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
