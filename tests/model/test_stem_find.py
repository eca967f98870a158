"""Stems are found through what comes before them, and by any way a network is called."""

import pytest
import torch
from networks import Before, conv
from torch import nn
from torch.nn import functional

from evenslice import initialise_stem, mirror_stem, uniform_stem
from evenslice.errors import BadInputError
from evenslice.model.stem.find import find_stems


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
    mirror_stem(initialise_stem(network, 3, "random") if slices == 3 else network, slices)
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
        BadInputError, match=r"does not run on a probe with an image of shape \(1, 1, 6, 6\)"
    ):
        uniform_stem(Named(), 5, probe={"mask": probe["mask"]})
    with pytest.raises(
        BadInputError, match=r"Named does not run on a probe with an image of shape \(1, 3, 8, 8\)"
    ):
        uniform_stem(Named(), 5, probe={"pixels": probe["pixels"]})


@pytest.mark.parametrize("change", [uniform_stem, mirror_stem])
def test_a_probe_serves_networks_of_a_fixed_size(change):
    network = nn.Sequential(conv(3, 4), nn.Flatten(), nn.Linear(4 * 28 * 38, 2))
    with pytest.raises(BadInputError, match="an example input as probe"):
        change(network)
    change(network, probe=torch.zeros(2, 3, 30, 40))
    assert torch.equal(network[0].weight, network[0].weight.flip(1))


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


def test_the_random_state_is_left_alone():
    network = nn.Sequential(conv(), nn.Dropout())
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    uniform_stem(network, 5)
    assert torch.equal(torch.rand(1), expected)
