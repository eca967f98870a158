"""What cannot be handled is refused by name and left as it was; what looks like it and can be, is."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from evenslice import mirror_stem, uniform_stem
from evenslice.errors import BadInputError
from evenslice.model.stem.find import find_stems


def conv(inputs=3, outputs=2, size=3, **options):
    return nn.Conv2d(inputs, outputs, size, **options)


class Before(nn.Module):
    """A network that does something to its input before its first layer."""

    def __init__(self, do, layer=None, **buffers):
        super().__init__()
        self.do = do
        self.layer = conv(3, 4) if layer is None else layer
        for name, value in buffers.items():
            self.register_buffer(name, torch.tensor(value).view(1, -1, 1, 1))

    def forward(self, x):
        out = self.layer(self.do(self, x)).tanh()
        return out * torch.linspace(0.5, 1.5, out.shape[-1], dtype=out.dtype)


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
    """Corrects its centre slice: what it sees beside the stem cannot be made even."""

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


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = conv(3, 3, padding=1)

    def forward(self, x):
        return self.conv(self.conv(x).tanh())


class Deep(nn.Module):
    """Gives the slices to a 3-D kernel, as depth."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x):
        return self.conv(x[:, None])[:, :, 0]


def with_bn():
    return nn.Sequential(nn.BatchNorm2d(3), conv())


def with_ln():
    return Before(
        lambda _, x: x.permute(0, 2, 3, 1), nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 4))
    )


def with_old_weight_norm():
    return nn.Sequential(nn.utils.spectral_norm(conv()))


def with_weight_norm():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(conv()))


def imagenet():
    return Before(
        lambda net, x: (x - net.mean) / net.std,
        mean=[0.485, 0.456, 0.406],
        std=[0.229, 0.224, 0.225],
    )


def partly_exported():
    inside = torch.export.export(nn.Sequential(conv()), (torch.zeros(1, 3, 64, 64),)).module()
    return nn.Sequential(nn.Identity(), inside)


def doubled():
    return Before(lambda _, x: torch.cat([x, x.flip(1)], 1), conv(6))


REFUSED = {
    "slots mixed first": (
        lambda: Before(lambda _, x: x.mean(1, keepdim=True), conv(1)),
        r"no layer of Before receives its 3 input channels themselves; .* give the part of the network that starts with it",
    ),
    "grouped": (
        lambda: nn.Sequential(conv(3, 6, groups=3)),
        r"'0' is a grouped convolution \(groups = 3\) that keeps slices in",
    ),
    "batch norm first": (
        with_bn,
        r"enter '0', a BatchNorm2d, .* one mean and one std outside of the network",
    ),
    "layer norm first": (
        with_ln,
        r"enter 'layer.0', a LayerNorm, .* one mean and one std outside of the network",
    ),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(3, 2, 2)),
        "enter '0', a ConvTranspose2d, expected Conv2d",
    ),
    "3-D": (
        Deep,
        "enter 'conv', a Conv3d, .* a 3-D kernel moves along the slices and has no slots; use a 2-D network",
    ),
    "one slice after the other": (
        Siamese,
        "'one' is called on the slices one after the other and keeps them in separate",
    ),
    "slices as a batch": (
        Batched,
        "'one' takes the slices one by one and keeps them in separate outputs; .* plain convolution",
    ),
    "rows by a linear layer": (
        lambda: nn.Sequential(nn.Linear(64, 8)),
        "'0' takes the slices one by one",
    ),
    "functional, in a leaf": (Functional, r"the slices (enter|meet) .*Functional.*expected"),
    "functional, beside a stem": (
        BesideAFunctional,
        "meet the parameter 'weight' of BesideAFunctional in conv2d, outside of any layer; .* make that parameter the weight of one",
    ),
    "learnable constants": (
        Scaled,
        "meet the parameter 'scale' of Scaled in mul, outside of any layer",
    ),
    "constants for each channel": (
        imagenet,
        r"normalises each channel by its own constants before the stem 'layer' \(scale 4.367, 4.464, 4.444; shift -2.118, -2.036, "
        r"-1.804\), .* set them to one mean and one std \(see mean, std\)",
    ),
    "a centre of its own": (
        Residual,
        r"the output still depends on the order of the slices .* with 'conv' made even",
    ),
    "a stem for the centre": (
        CentreOnly,
        r"'centre' sees the channels \[1\] of 3, .* use mirror_stem",
    ),
    "called on its own output": (Twice, "'conv' is also called on something else than the slices"),
    "weight norm": (
        with_weight_norm,
        r"'0' is computed, .* by _WeightNorm; use torch.nn.utils.parametrize.remove_parametrizations first",
    ),
    "old spectral norm": (
        with_old_weight_norm,
        r"'0' is computed, .* use torch.nn.utils.remove_weight_norm or remove_spectral_norm",
    ),
    "lazy": (
        lambda: nn.Sequential(nn.LazyConv2d(4, 3)),
        "'0.weight' is lazy and has no shape yet, .* run it once on an RGB input",
    ),
    "partly exported": (
        partly_exported,
        r"one with an exported program inside \(1\), .* or the network before torch.export",
    ),
    "compiled": (
        lambda: torch.compile(conv(), backend="eager"),
        "the network is compiled, .* compile afterwards",
    ),
    "not a network": (
        lambda: "resnet18",
        "the network is a str, expected a plain torch.nn.Module; pass the network itself",
    ),
    "tied": (
        lambda: mirror_stem(conv(), 3, "mirror"),
        r"is tied \(mirror\), expected plain weights for an init; use bake_stem first",
    ),
    "slots in both orders": (
        doubled,
        r"'layer' mixes the channels in the order \(0, 1, 2, 2, 1, 0\), expected R, G, B in turn",
    ),
}


def training_state(network):
    if not isinstance(network, nn.Module):
        return None
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())
    flags = [m.training for m in network.modules()], [p.requires_grad for p in network.parameters()]
    return (
        flags,
        hooks,
        [
            m.in_channels
            for m in network.modules()
            if isinstance(m, nn.Conv2d) and "0" not in repr(m.in_channels)
        ],
    )


@pytest.mark.filterwarnings("ignore:.*deprecated.*")
@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("slices", [3, 5])
def test_it_is_refused_by_name_and_left_as_it_was(case, slices):
    make, message = REFUSED[case]
    torch.manual_seed(0)
    network = make()
    lazy = "lazy" in case
    before = (
        training_state(network),
        None if lazy or isinstance(network, str) else copy.deepcopy(network.state_dict()),
    )
    parameters = list(network.parameters()) if isinstance(network, nn.Module) else []
    with pytest.raises(BadInputError, match=message) as caught:
        uniform_stem(network, slices)
    assert "\n" not in str(caught.value)
    assert training_state(network) == before[0]
    assert all(
        one is other
        for one, other in zip(parameters, network.parameters() if parameters else (), strict=True)
    )
    for name, value in (before[1] or {}).items():
        assert torch.equal(network.state_dict()[name], value)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_scripted_part_is_named():
    network = nn.Sequential(torch.jit.script(nn.Sequential(conv())), nn.Tanh())
    with pytest.raises(
        BadInputError,
        match=r"no layer of Sequential .*; the part '0' is TorchScript and cannot be watched",
    ):
        uniform_stem(network)


def unfolded(_, x):
    return functional.unfold(x, 4, stride=4, padding=2).transpose(1, 2)


def with_grid(_, x):
    line = torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype, device=x.device)
    return torch.cat([x, line.expand_as(x[:, :1]), line[:, None].expand_as(x[:, :1])], 1)


HANDLED = {
    "scaled by numbers": (lambda _, x: (x - 0.45) / 0.225, None),
    "scaled as bytes": (lambda _, x: 2 * (x / 255.0) - 1, None),
    "inverted": (lambda _, x: 1 - x, None),
    "standardised as a whole": (
        lambda _, x: (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True),
        None,
    ),
    "one constant as a buffer": (lambda net, x: x - net.mean.mean(), None),
    "unfolded": (unfolded, lambda: nn.Linear(48, 6)),
    "channels last": (lambda _, x: x.permute(0, 2, 3, 1), lambda: nn.Linear(3, 6)),
    "reflected": (lambda _, x: functional.pad(x, (3, 3, 3, 3), mode="reflect"), None),
    "replicated": (lambda _, x: functional.pad(x, (3, 1, 3, 1), mode="replicate"), None),
    "padded by a constant": (lambda _, x: functional.pad(x, (2, 2, 2, 2), value=0.7), None),
    "enlarged": (lambda _, x: functional.interpolate(x, scale_factor=2, mode="bicubic"), None),
    "pooled": (lambda _, x: functional.avg_pool2d(x, 2), None),
    "beside coordinates": (with_grid, lambda: conv(5)),
    "space to depth": (lambda _, x: functional.pixel_unshuffle(x, 2), lambda: conv(12)),
    "strided and dilated": (
        lambda _, x: x,
        lambda: conv(stride=2, dilation=3, padding_mode="circular", padding=2),
    ),
}


@pytest.mark.parametrize("case", HANDLED)
@pytest.mark.parametrize("slices", [1, 3, 5, 9])
def test_it_is_found_through_what_comes_before(case, slices):
    if slices == 1 and "as a whole" in case:
        return  # the mean of one constant slice is the slice itself: nothing is left to see
    torch.manual_seed(0)
    do, layer = HANDLED[case]
    network = Before(do, layer and layer(), mean=[0.4, 0.4, 0.4]).double()
    x = torch.rand(1, 3, 64, 64, dtype=torch.float64)
    assert (network(x.flip(1)) - network(x)).abs().max() > 1e-6
    assert [stem.name for stem in find_stems(uniform_stem(network, slices), slices)] == ["layer"]
    x = torch.rand(1, slices, 64, 64, dtype=torch.float64)
    order = torch.randperm(slices, generator=torch.Generator().manual_seed(1))
    assert (network(x[:, order]) - network(x)).abs().max() < 1e-12
    mirror_stem(uniform_stem(network, 3, "random") if slices == 3 else network, slices)
    assert (network(x.flip(1)) - network(x)).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("slices", [3, 9])
def test_every_floating_type_is_found(dtype, slices):
    network = Before(
        lambda _, x: (x - 0.45) / 0.225, nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 2))
    ).to(dtype)
    [stem] = find_stems(uniform_stem(network, slices), slices)
    assert (
        stem.name == "layer.0"
        and stem.layer.weight.dtype == dtype
        and stem.layer.weight.shape[1] == slices
    )
    assert all(scale == pytest.approx(1 / 0.225, rel=0.03) for scale, _ in stem.maps)


def test_constants_for_each_channel_are_refused_for_mirrors_only_where_they_differ():
    network = imagenet()
    network.mean[0, 2], network.std[0, 2] = network.mean[0, 0], network.std[0, 0]
    mirror_stem(network, 3)
    with pytest.raises(BadInputError, match="normalises each channel by its own constants"):
        mirror_stem(network, 3, "uniform")
    with pytest.raises(BadInputError, match="normalises each channel by its own constants"):
        mirror_stem(imagenet(), 3)
    assert uniform_stem(imagenet(), 3, "rgb") is not None


def test_a_centre_of_its_own_does_not_stand_in_the_way_of_a_mirror():
    for network in (Residual(), CentreOnly()):
        mirror_stem(network, 3)
        x = torch.rand(1, 3, 32, 32)
        assert (network(x.flip(1)) - network(x)).abs().max() < 1e-6
    assert [len(stem.channels_of(0)) for stem in find_stems(CentreOnly())] == [1, 0]


class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = conv()

    def forward(self, mask, *, pixels=None, factor=1.0):
        return self.conv(pixels) * mask * factor


def test_a_probe_may_be_a_tuple_or_a_dict():
    probe = {"mask": torch.ones(1, 1, 6, 6), "pixels": torch.zeros(1, 3, 8, 8), "factor": 2.0}
    network = uniform_stem(Named(), 5, probe=probe)
    assert network.conv.in_channels == 5
    assert [
        s.name for s in find_stems(network, 5, probe | {"pixels": torch.zeros(1, 5, 8, 8)})
    ] == ["conv"]
    pair = Before(lambda _, x: x)
    pair.forward = lambda x, scale: pair.layer(x) * scale
    assert uniform_stem(pair, 5, probe=(torch.zeros(2, 3, 8, 8), 0.5)).layer.in_channels == 5
    with pytest.raises(
        BadInputError, match=r"probe has shape \(1, 1, 6, 6\), expected \(B, 3, y, x\)"
    ):
        uniform_stem(Named(), 5, probe={"mask": probe["mask"]})
    with pytest.raises(
        BadInputError, match=r"Named does not run on a probe with an image of shape \(1, 3, 8, 8\)"
    ):
        uniform_stem(Named(), 5, probe={"pixels": probe["pixels"]})


def test_a_layer_shared_by_two_scales_is_one_stem():
    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(padding=1)

        def forward(self, x):
            return self.conv(x)[..., ::2, ::2] + self.conv(functional.avg_pool2d(x, 2))

    assert [s.name for s in find_stems(uniform_stem(Pyramid(), 5), 5)] == ["conv"]


def test_a_weight_that_two_layers_share_stays_shared():
    network = nn.ModuleDict({"a": conv(), "b": conv(bias=False)})
    network.forward = lambda x: network["a"](x).tanh() + network["b"](x)
    network["b"].weight = network["a"].weight
    uniform_stem(network, 5)
    assert network["a"].weight is network["b"].weight


def test_luck_is_left_alone():
    network = nn.Sequential(conv(), nn.Dropout())
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    uniform_stem(network, 5)
    assert torch.equal(torch.rand(1), expected)


def test_what_lies_behind_a_stem_does_not_count():
    """A filter that takes one slot only hands that slot on; the layers behind it are no stems all the same."""
    network = nn.Sequential(conv(3, 4, 1, bias=False), nn.BatchNorm2d(4), conv(4, 2))
    with torch.no_grad():
        network[0].weight[:, ::2] = 0.0
    assert [stem.name for stem in find_stems(network)] == ["0"]
    assert [stem.name for stem in find_stems(uniform_stem(network, 1), 1)] == ["0"]
