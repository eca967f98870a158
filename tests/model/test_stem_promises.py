"""What the stem promises when it says no: the whole message, and the network as it was. Small networks, cases by hand."""

import re

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from evenslice import mirror_stem, uniform_stem
from evenslice.errors import BadInputError
from evenslice.model.stem.adapt import bake_stem
from evenslice.model.stem.find import find_stems
from evenslice.model.stem.slots import norms_per_slot
from evenslice.model.stem.tie import tie_of


class Around(nn.Module):
    """A convolution ``conv``, what is done to the slices before it, and what comes beside it."""

    def __init__(self, before=None, beside=None, channels=3):
        super().__init__()
        self.before, self.beside = before, beside
        self.conv = nn.Conv2d(channels, 2, 1)

    def forward(self, x):
        out = self.conv(x if self.before is None else self.before(self, x)).tanh()
        return out if self.beside is None else out + self.beside(x)


class Fixed(Around):
    """A network that says itself which image it takes, as one that runs outside of torch does."""

    def image_shape(self):
        return (1, 3, 32, 32)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def twice_the_first():
    """Take slot 0 in two channels."""
    return Around(lambda _, x: torch.cat([x, x[:, :1]], 1), channels=4)


def with_constants(mean, std=(1.0, 1.0, 1.0), **noted):
    """Normalise each channel by constants that also lie in buffers and attributes of the network."""
    network = Around(lambda net, x: (x - net.mean) / net.std)
    network.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
    network.register_buffer("std", torch.tensor(std).view(3, 1, 1))
    for name, value in noted.items():
        setattr(network, name, value)
    return network


def with_hidden_constants():
    """Normalise each channel by constants that lie nowhere."""
    return Around(lambda _, x: x * torch.tensor([1.0, 2.0, 0.25]).view(3, 1, 1))


def doubled_weight(times=1):
    network = Around()
    for _ in range(times):
        parametrize.register_parametrization(network.conv, "weight", Doubled())
    return network


def doubled_and_tied():
    network = doubled_weight()
    parametrize.register_parametrization(network.conv, "bias", Doubled())
    return network


def middle_of(x):
    return x[:, x.shape[1] // 2, None]


def around_the_ring(x):
    """Tell the way round in which the slices follow each other, and not where they begin."""
    return (x * x.roll(-1, 1).square()).sum(1, keepdim=True)


SAID = "the output still depends on the order of the slices (relative change {}) with 'conv' made even, expected at most {}; the slices reach the output by another way; give the part of the network that starts with the stem"
OWN_CONSTANTS = "the network normalises each channel by its own constants before the stem 'conv' (scale {}; shift {}), expected the same for all slices, since an even stem behind them would not be even; set them to one mean and one std{}, or take them out of the network"
REFUSED = {
    "init": (
        lambda: uniform_stem(Around(), 3, "grey"),
        "the init 'grey' is unknown, expected one of rgb, green, red, blue, mean, green-matched, random; choose one",
    ),
    "tie": (
        lambda: mirror_stem(Around(), 3, "glue"),
        "the tie 'glue' is unknown, expected one of none, mirror, uniform; choose one",
    ),
    "slices of a fixed network": (
        lambda: uniform_stem(Fixed(), 5),
        "the network is exported with 3 slices, expected to keep them (found 5); change the number of slices before the export",
    ),
    "tie of a fixed network": (
        lambda: mirror_stem(Fixed(), 3, "uniform"),
        "the network is exported, and the tie 'uniform' is for training, expected tie = 'none'; use it on the module before the export",
    ),
    "tied": (
        lambda: uniform_stem(mirror_stem(Around(), 3, "uniform")),
        "the stem 'conv' is tied (uniform), expected plain weights for an init; use bake_stem first, and mirror_stem(..., tie=...) "
        "again afterwards",
    ),
    "computed by a parametrisation": (
        lambda: uniform_stem(doubled_weight()),
        "the weight of the stem 'conv' is computed, expected a plain parameter; it is made by Doubled; use "
        "torch.nn.utils.parametrize.remove_parametrizations first",
    ),
    "computed by two": (
        lambda: uniform_stem(doubled_weight(times=2)),
        "the weight of the stem 'conv' is computed, expected a plain parameter; it is made by Doubled, Doubled; use "
        "torch.nn.utils.parametrize.remove_parametrizations first",
    ),
    "computed, for a mirror": (
        lambda: mirror_stem(doubled_and_tied()),
        "the weight of the stem 'conv' is computed, expected a plain parameter; it is made by Doubled; use "
        "torch.nn.utils.parametrize.remove_parametrizations first",
    ),
    "computed by a hook": (
        lambda: uniform_stem(nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(3, 2, 1)))),
        "the weight of the stem '0' is computed, expected a plain parameter; it is made from other parameters, as weight_norm and "
        "spectral_norm do; use torch.nn.utils.remove_weight_norm or remove_spectral_norm first",
    ),
    "some channels": (
        lambda: uniform_stem(Around(lambda _, x: x[:, :2], channels=2)),
        "the stem 'conv' sees the channels [0, 1] of 3, expected all of R, G and B; an init cannot make a network even that treats its "
        "channels differently; use mirror_stem, or a plain network",
    ),
    "more channels of one slot": (
        lambda: mirror_stem(twice_the_first()),
        "the stem 'conv' sees slot 0 in 2 channels and slot 2 in 1, expected as many of each; use a plain stem",
    ),
    "more channels of the last slot": (
        lambda: uniform_stem(Around(lambda _, x: torch.cat([x, x[:, 2:]], 1), channels=4)),
        "the stem 'conv' sees slot 0 in 1 channels and slot 2 in 2, expected as many of each; use a plain stem",
    ),
    "more channels of one slot, for a uniform tie": (
        lambda: mirror_stem(twice_the_first(), 3, "uniform"),
        "the stem 'conv' sees slot 0 in 2 channels and slot 1 in 1, expected as many of each; use a plain stem",
    ),
    "constants in buffers and attributes": (
        lambda: mirror_stem(
            with_constants(
                (0.5, 0.25, 0.25),
                (0.5, 0.5, 0.25),
                scale=[2.0, 2.0, 4.0],
                size=(3, 3, 3),
                pair=[0.5] * 2,
            )
        ),
        OWN_CONSTANTS.format("2, 2, 4", "-1, -0.5, -1", " (see mean, std, scale)"),
    ),
    "equal constants are not named": (
        lambda: uniform_stem(with_constants((0.5, 0.25, 0.25))),
        OWN_CONSTANTS.format("1, 1, 1", "-0.5, -0.25, -0.25", " (see mean)"),
    ),
    "a constant of its own for the middle": (
        lambda: uniform_stem(with_constants((0.25, 0.5, 0.25)), 3, "mean"),
        OWN_CONSTANTS.format("1, 1, 1", "-0.25, -0.5, -0.25", " (see mean)"),
    ),
    "four names are enough": (
        lambda: uniform_stem(
            with_constants((0.5, 0.5, 0.25), a=[0.5] * 3, b=(0.5,) * 3, c=[0.5] * 3, d=[0.5] * 3)
        ),
        OWN_CONSTANTS.format("1, 1, 1", "-0.5, -0.5, -0.25", " (see mean, a, b, c)"),
    ),
    "constants that lie nowhere": (
        lambda: uniform_stem(with_hidden_constants()),
        OWN_CONSTANTS.format("1, 2, 0.25", "0, 0, 0", ""),
    ),
    "another order for five": (
        lambda: uniform_stem(Around(lambda _, x: x if x.shape[1] == 3 else x.flip(1)), 5),
        "the network feeds 5 slices into 'conv' in another order than three; expected the same layout",
    ),
}


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
@pytest.mark.parametrize("case", REFUSED)
def test_the_message_says_what_was_found_what_was_expected_and_what_to_do(case):
    do, message = REFUSED[case]
    torch.manual_seed(0)
    with pytest.raises(BadInputError) as caught:
        do()
    assert str(caught.value).replace("shift 0, 0, -0", "shift 0, 0, 0") == message


@pytest.mark.parametrize(
    ("beside", "change"),
    [
        (middle_of, lambda network: mirror_stem(network, 5, "uniform")),
        (middle_of, lambda network: uniform_stem(network, 5)),
        (around_the_ring, lambda network: mirror_stem(network, 5)),
        (around_the_ring, lambda network: mirror_stem(network, 5, "uniform")),
        (around_the_ring, lambda network: uniform_stem(network, 5)),
    ],
)
def test_a_way_beside_the_stem_is_seen_and_the_network_left_as_it_was(beside, change):
    torch.manual_seed(0)
    network = Around(beside=beside)
    if change.__code__.co_names == ("mirror_stem",):
        uniform_stem(network, 5, "rgb")
    kept, values = network.conv.weight, network.conv.weight.detach().clone()
    with pytest.raises(BadInputError) as caught:
        change(network)
    said = re.escape(SAID.format("NUMBER", "0.0003")).replace("NUMBER", r"0\.\d+")
    assert re.fullmatch(said, str(caught.value))
    assert (
        network.conv.weight is kept and torch.equal(kept, values) and tie_of(network.conv) == "none"
    )
    assert network.conv.in_channels == kept.shape[1]


def test_all_stems_are_named_that_were_made_even():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 1, 1), nn.Conv2d(3, 1, 1)

        def forward(self, x):
            return self.a(x) + self.b(x) + middle_of(x)

    with pytest.raises(BadInputError, match="with 'a', 'b' made even"):
        uniform_stem(Two())


def test_a_mirror_does_not_ask_for_all_orders():
    network = mirror_stem(Around(beside=middle_of), 3)
    assert torch.equal(network.conv.weight, network.conv.weight.flip(1))


def test_a_tie_that_cannot_be_kept_leaves_the_one_before():
    torch.manual_seed(0)
    network = mirror_stem(Around(beside=middle_of), 3, "mirror")
    original, baked = (
        network.conv.parametrizations.weight.original,
        network.conv.weight.detach().clone(),
    )
    with pytest.raises(BadInputError, match="still depends on the order"):
        mirror_stem(network, 3, "uniform")
    assert tie_of(network.conv) == "mirror" and torch.equal(network.conv.weight, baked)
    assert any(
        parameter.shape == original.shape and parameter.requires_grad
        for parameter in network.parameters()
    )
    mirror_stem(network, 3, "none")
    assert tie_of(network.conv) == "none"


def test_a_tie_takes_the_place_of_the_one_before():
    torch.manual_seed(0)
    network = mirror_stem(mirror_stem(Around(), 3, "mirror"), 3, "uniform")
    assert tie_of(network.conv) == "uniform"
    assert max(norms_per_slot(find_stems(network)[0])) == pytest.approx(
        min(norms_per_slot(find_stems(network)[0]))
    )
    assert tie_of(bake_stem(network).conv) == "none"


def test_three_slices_and_green_are_what_is_meant_without_a_word():
    torch.manual_seed(0)
    network = Around()
    green = network.conv.weight.detach()[:, 1].clone()
    uniform_stem(network)
    assert all(torch.equal(network.conv.weight[:, slot], green) for slot in range(3))
    assert tie_of(mirror_stem(network).conv) == "none"


def test_a_probe_serves_a_mirror_of_a_network_of_a_fixed_size():
    network = nn.Sequential(nn.Conv2d(5, 2, 3), nn.Flatten(), nn.Linear(2 * 28 * 38, 1))
    with pytest.raises(BadInputError, match="give an example input as probe"):
        mirror_stem(network, 5)
    mirror_stem(network, 5, probe=torch.zeros(1, 5, 30, 40))
    assert torch.equal(network[0].weight, network[0].weight.flip(1))


def test_a_mirror_needs_a_network():
    with pytest.raises(
        BadInputError,
        match=r"^the network is a str, expected a plain torch.nn.Module; pass the network",
    ):
        mirror_stem("resnet18")


@pytest.mark.parametrize("change", [uniform_stem, mirror_stem])
def test_fixed_networks_may_be_made_even_for_as_many_slices(change):
    torch.manual_seed(0)
    network = change(Fixed())
    assert torch.equal(network.conv.weight, network.conv.weight.flip(1))


def test_a_wider_layer_says_so_itself():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(3 * 64, 4)

        def forward(self, x):
            b, c, h, w = x.shape
            tokens = x.reshape(b, c, h // 8, 8, w // 8, 8).permute(0, 2, 4, 1, 3, 5)
            return self.embed(tokens.reshape(b, -1, c * 64)).tanh()

    assert uniform_stem(Tokens(), 5).embed.in_features == 5 * 64
    layer = uniform_stem(nn.Sequential(nn.Conv2d(3, 2, 1)), 7)[0]
    assert layer.in_channels == 7 and "Conv2d(7, 2" in repr(layer)
    assert not hasattr(layer, "in_features")


@pytest.mark.parametrize("learns", [True, False])
def test_a_new_weight_learns_if_the_old_one_did_and_an_old_one_stays_the_same_parameter(learns):
    network = Around()
    network.conv.weight.requires_grad_(learns)
    kept = network.conv.weight
    assert uniform_stem(network, 3).conv.weight is kept
    assert uniform_stem(network, 5, "random" if learns else "mean").conv.weight is not kept
    assert network.conv.weight.requires_grad is learns and isinstance(
        network.conv.weight, nn.Parameter
    )


class Single(nn.Conv2d):
    """Holds its weights in double precision, and computes in single."""

    def forward(self, x):
        return nn.functional.conv2d(x.float(), self.weight.float()).double()


def test_the_proof_asks_for_as_many_digits_as_are_computed():
    torch.manual_seed(0)
    network = Around()
    network.conv = Single(3, 2, 5, bias=False).double()
    with pytest.raises(BadInputError, match=r"relative change .*e-0[78].* expected at most 1e-08;"):
        uniform_stem(network, 9)
    network.computes_in = torch.float32
    uniform_stem(network, 9)
    assert network.conv.in_channels == 9


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
def test_only_the_control_of_three_keeps_the_noted_constants_of_the_channels(slices, init, mean):
    network = Around()
    network.pretrained_cfg = {"input_size": (3, 64, 64), "mean": (0.2, 0.4, 0.6)}
    uniform_stem(network, slices, init)
    assert network.pretrained_cfg["mean"] == pytest.approx(mean)
    assert network.pretrained_cfg["input_size"] == (slices, 64, 64)
