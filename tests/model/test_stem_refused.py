"""What cannot be made symmetric is refused by name, and left as it was."""

import pytest
import torch
from networks import Before, Twice, conv
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize

from evenslice import initialise_stem, mirror_stem, uniform_stem
from evenslice.errors import BadInputError
from evenslice.model.stem.adapt import tie_of


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.one = conv(1, 2)

    def forward(self, x):
        return torch.cat([self.one(part) for part in x.split(1, 1)], 1)


class Batched(Siamese):
    def forward(self, x):
        return self.one(x.reshape(-1, 1, *x.shape[2:])).reshape(
            x.shape[0], -1, x.shape[2] - 2, x.shape[3] - 2
        )


class Functional(nn.Module):
    def __init__(self, then=None):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.then = then or nn.Identity()

    def forward(self, x):
        return self.then(functional.conv2d(x, self.weight))


class BesideAFunctional(Functional):
    def __init__(self):
        super().__init__(conv(4, 4, 1))
        self.plain = conv(3, 4)

    def forward(self, x):
        return super().forward(x) + self.plain(x)


class Scaled(nn.Module):
    """Learnable constants, one for each slot, all 1 at first."""

    def __init__(self):
        super().__init__()
        self.scale, self.conv = nn.Parameter(torch.ones(1, 3, 1, 1)), conv()

    def forward(self, x):
        return self.conv(x * self.scale)


class Residual(nn.Module):
    """Corrects its centre slice: what it sees beside the stem cannot be made symmetric."""

    def __init__(self):
        super().__init__()
        self.conv = conv(3, 1, padding=1)

    def forward(self, x):
        return x[:, x.shape[1] // 2, None] - self.conv(x)


class CentreOnly(nn.Module):
    def __init__(self):
        super().__init__()
        self.all, self.centre = conv(), conv(1)

    def forward(self, x):
        return self.all(x) + self.centre(x[:, x.shape[1] // 2, None])


class Deep(nn.Module):
    """Gives the slices to a 3-D kernel, as depth."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x):
        return self.conv(x[:, None])[:, :, 0]


def with_ln():
    return Before(
        lambda _, x: x.permute(0, 2, 3, 1), nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 4))
    )


def imagenet():
    return Before(
        lambda net, x: (x - net.mean) / net.std,
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
    )


def partly_exported():
    inside = torch.export.export(nn.Sequential(conv()), (torch.zeros(1, 3, 64, 64),)).module()
    return nn.Sequential(nn.Identity(), inside)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def computed():
    network = nn.Sequential(conv())
    parametrize.register_parametrization(network[0], "weight", Doubled())
    return network


def cat(change, channels):
    return Before(lambda _, x: torch.cat([x, change(x)], 1), conv(channels))


REFUSED = {
    "slots mixed first": (
        lambda: Before(lambda _, x: x.mean(1, keepdim=True), conv(1)),
        "no layer of Before receives its 3 input channels themselves",
    ),
    "grouped": (lambda: nn.Sequential(conv(3, 6, groups=3)), r"'0' is a grouped .*groups = 3"),
    "batch norm first": (lambda: nn.Sequential(nn.BatchNorm2d(3), conv()), "'0', a BatchNorm2d"),
    "layer norm first": (with_ln, "'layer.0', a LayerNorm, .* one mean and one std outside"),
    "3-D": (Deep, "'conv', a Conv3d, .* has no slots; use a 2-D network"),
    "one slice after the other": (Siamese, "'one' is called on the slices one after the other"),
    "slices as a batch": (Batched, "'one' takes the slices one by one"),
    "functional, beside a stem": (
        BesideAFunctional,
        "meet the parameter 'weight' of BesideAFunctional in conv2d, outside of any layer",
    ),
    "learnable constants": (Scaled, "meet the parameter 'scale' of Scaled in mul"),
    "constants for each channel": (
        imagenet,
        r"before the stem 'layer' \(scale 4.367, 4.464, 4.444; shift -2.118, -2.036, -1.804\).*"
        r" one mean and one std \(see mean, std\)",
    ),
    "constants that lie nowhere": (
        lambda: Before(lambda _, x: x * torch.tensor([1.0, 1.0, 2.0]).view(3, 1, 1)),
        r"scale 1, 1, 2; shift .*one mean and one std, or take them out",
    ),
    "a centre of its own": (Residual, r"still depends on the order .* 'conv' made symmetric"),
    "a stem for the centre": (CentreOnly, r"sees the channels \[1\] of 3, .* use mirror_stem"),
    "slot 0 twice": (lambda: cat(lambda x: x[:, :1], 4), "slot 0 in 2 channels and slot 1 in 1"),
    "called on its own output": (Twice, "'conv' is also called on something else"),
    "computed": (computed, "'0' is computed, .* by Doubled; use .*parametrize"),
    "weight norm": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(conv())),
        "'0' is computed, .* by _WeightNorm; use torch.nn.utils.parametrize",
    ),
    "old spectral norm": (
        lambda: nn.Sequential(nn.utils.spectral_norm(conv())),
        "'0' is computed, .* use torch.nn.utils.remove_weight_norm or remove_spectral_norm",
    ),
    "lazy": (lambda: nn.Sequential(nn.LazyConv2d(4, 3)), "'0.weight' is lazy and has no shape"),
    "partly exported": (partly_exported, r"an exported program inside \(1\)"),
    "compiled": (lambda: torch.compile(conv(), backend="eager"), "compiled, .* compile afterwards"),
    "not a network": (lambda: "resnet18", "the network is a str, expected a plain torch.nn.Module"),
    "tied": (lambda: mirror_stem(conv(), 3, "mirror"), r"is tied \(mirror\).* use bake_stem first"),
}


def state_of(network):
    """What a refusal must leave alone: parts, modes, hooks, parameters, and what they hold."""
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules]
    parameters = [p for m in modules for p in m._parameters.values() if p is not None]
    known = [p for p in parameters if not isinstance(p, nn.UninitializedParameter)]
    return (
        [repr(network), [m.training for m in modules], hooks, list(map(id, parameters))],
        [(p.requires_grad, p.detach().clone()) for p in known],
    )


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("slices", [3, 5])
def test_it_is_refused_by_name_and_left_as_it_was(case, slices):
    make, message = REFUSED[case]
    torch.manual_seed(0)
    network = make()
    before, values = state_of(network)
    with pytest.raises(BadInputError, match=message) as caught:
        uniform_stem(network, slices)
    assert "\n" not in str(caught.value)
    after, now = state_of(network)
    assert after == before
    for (learns, value), (learns_now, value_now) in zip(values, now, strict=True):
        assert learns == learns_now and torch.equal(value, value_now)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_scripted_part_is_named():
    network = nn.Sequential(torch.jit.script(nn.Sequential(conv())), nn.Tanh())
    with pytest.raises(
        BadInputError, match=r"no layer of Sequential .*; the part '0' is TorchScript, not watched"
    ):
        uniform_stem(network)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_scripted_network_is_refused():
    with pytest.raises(BadInputError, match="the network is a TorchScript module, expected"):
        uniform_stem(torch.jit.script(nn.Conv2d(3, 2, 3)), 5)


@pytest.mark.parametrize("slices", [0, 2, 4, 11, -1])
def test_slices_must_be_odd_and_few(slices):
    with pytest.raises(BadInputError, match="expected an odd number from 1 to 9"):
        uniform_stem(conv(), slices)


class Fixed(nn.Sequential):
    """A network that says itself which image it takes, as one that runs outside of torch does."""

    def image_shape(self):
        return (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda: uniform_stem(conv(), 3, "grey"), r"init 'grey' is unknown, expected one of rgb"),
        (lambda: mirror_stem(conv(), 3, "glue"), r"tie 'glue' is unknown, expected one of none"),
        (lambda: uniform_stem(Fixed(conv()), 5), r"exported with 3 slices, .* \(found 5\)"),
        (lambda: mirror_stem(Fixed(conv()), 3, "uniform"), "the tie 'uniform' is for training"),
        (lambda: mirror_stem(cat(lambda x: x[:, :1], 4)), "slot 0 in 2 channels and slot 2 in 1"),
        (lambda: mirror_stem(computed()), "'0' is computed, expected a plain parameter"),
        (
            lambda: uniform_stem(Before(lambda _, x: x[:, [0, 1, 2, 2, 1][: x.shape[1]]]), 5),
            "feeds 5 slices into 'layer' in another way than 3 channels",
        ),
    ],
)
def test_more_is_refused(do, message):
    torch.manual_seed(0)
    with pytest.raises(BadInputError, match=message):
        do()


class Around(nn.Module):
    """A convolution ``conv``, and something beside it that sees the slices as well."""

    def __init__(self, beside):
        super().__init__()
        self.beside, self.conv = beside, conv(3, 2, 1)

    def forward(self, x):
        return self.conv(x).tanh() + self.beside(x)


def middle_of(x):
    return x[:, x.shape[1] // 2, None]


def around_the_ring(x):
    """Tell the way round in which the slices follow each other, and not where they begin."""
    return (x * x.roll(-1, 1).square()).sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("beside", "change"),
    [
        (middle_of, lambda network: mirror_stem(network, 5, "uniform")),
        (middle_of, lambda network: uniform_stem(network, 3)),
        (around_the_ring, lambda network: mirror_stem(network, 5)),
        (around_the_ring, lambda network: mirror_stem(network, 5, "uniform")),
        (around_the_ring, lambda network: uniform_stem(network, 5)),
    ],
)
def test_a_way_beside_the_stem_is_seen_and_the_network_left_as_it_was(beside, change):
    torch.manual_seed(0)
    network = Around(beside)
    if change.__code__.co_names == ("mirror_stem",):
        initialise_stem(network, 5, "rgb")
    kept, values = network.conv.weight, network.conv.weight.detach().clone()
    with pytest.raises(BadInputError, match=r"relative change 0\.\d+\) .* at most 0\.0003"):
        change(network)
    assert network.conv.weight is kept and torch.equal(kept, values)
    assert tie_of(network.conv) == "none" and network.conv.in_channels == kept.shape[1]


def test_a_tie_that_cannot_be_kept_leaves_the_one_before():
    torch.manual_seed(0)
    network = mirror_stem(Around(middle_of), 3, "mirror")
    baked = network.conv.weight.detach().clone()
    with pytest.raises(BadInputError, match="still depends on the order"):
        mirror_stem(network, 3, "uniform")
    assert tie_of(network.conv) == "mirror" and torch.equal(network.conv.weight, baked)


def test_constants_for_each_channel_are_refused_for_mirrors_only_where_they_differ():
    network = imagenet()
    network.mean[0, 2], network.std[0, 2] = network.mean[0, 0], network.std[0, 0]
    mirror_stem(network, 3)
    with pytest.raises(BadInputError, match="normalises each channel by its own constants"):
        mirror_stem(network, 3, "uniform")
    with pytest.raises(BadInputError, match="normalises each channel by its own constants"):
        mirror_stem(imagenet(), 3)
    assert initialise_stem(imagenet(), 3, "rgb") is not None


def test_a_centre_of_its_own_does_not_stand_in_the_way_of_a_mirror():
    for network in (Residual(), CentreOnly()):
        mirror_stem(network, 3)
        x = torch.rand(1, 3, 32, 32)
        assert (network(x.flip(1)) - network(x)).abs().max() < 1e-6


class Single(nn.Conv2d):
    """Holds its weights in double precision, and computes in single."""

    def forward(self, x):
        return nn.functional.conv2d(x.float(), self.weight.float()).double()


def test_the_proof_asks_for_as_many_digits_as_are_computed():
    torch.manual_seed(0)
    network = nn.Sequential(Single(3, 2, 5, bias=False).double())
    with pytest.raises(BadInputError, match=r"relative change .*e-0[78].* at most 1e-08;"):
        uniform_stem(network, 9)
    network.computes_in = torch.float32
    uniform_stem(network, 9)
    assert network[0].in_channels == 9
