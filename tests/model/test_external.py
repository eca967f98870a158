"""External networks: found out by running them."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from evenslice.errors import BadInputError
from evenslice.model.external import wrap_external
from evenslice.model.logits import LogitsAdapter
from evenslice.model.opening import check_segments
from evenslice.model.predict import Runner, Settings


class Net(nn.Module):
    """Two layers; ``end`` is what becomes of their answer."""

    def __init__(self, slots=3, classes=1, end=None, stride=1, between=None):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(slots, 4, 3, padding=1), nn.Conv2d(4, classes, 1)
        self.end, self.stride, self.between = end, stride, between

    def forward(self, x):
        if x.shape[-1] % self.stride or x.shape[-2] % self.stride:
            raise ValueError("wrong size")
        middle = self.first(x)
        out = self.last(middle if self.between is None else self.between(middle))
        return out if self.end is None else self.end(out)


def taken(network, **options):
    return wrap_external(network.eval(), "callable", "x:y", **options)


class Only(Net):
    """Takes one size."""

    def __init__(self, height, width, stated=True):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, 1, height, width)) if stated else None
        self.side = (height, width)

    def forward(self, x):
        if x.shape[-2:] != self.side:
            raise ValueError("another size")
        return super().forward(x)


class Single(Net):
    def forward(self, x):
        if len(x) != 1:
            raise ValueError("one image at a time")
        return super().forward(x)


class Spoiler(Net):
    def forward(self, x):
        x -= 0.5
        return super().forward(x)


@pytest.mark.parametrize(
    ("network", "slices", "classes", "answers", "stride"),
    [
        (Net(), 3, 1, "logits", 1),
        (Net(7), 7, 1, "logits", 1),
        (Net(end=nn.Sigmoid()), 3, 1, "probabilities", 1),
        (Net(classes=3, end=nn.Softmax(1)), 3, 3, "probabilities", 1),
        (Net(classes=3, end=nn.LogSoftmax(1)), 3, 3, "logits", 1),
        (Net(end=lambda out: out.sigmoid().half()), 3, 1, "probabilities", 1),
        (Net(classes=3, end=lambda out: out.softmax(1).half()), 3, 3, "probabilities", 1),
        (nn.Sequential(Net(stride=8), nn.AvgPool2d(4)), 3, 1, "logits", 8),
        (Net(stride=32), 3, 1, "logits", 32),
        (Net(end=lambda out: (out.mean((2, 3)), {"out": out})), 3, 1, "logits", 1),
        (Net(classes=2, end=lambda out: out.movedim(1, -1)), 3, 2, "logits", 1),
        (Net(end=lambda out: [F.avg_pool2d(out, 2), out]), 3, 1, "logits", 1),
        (Net(between=nn.BatchNorm2d(4)), 3, 1, "logits", 1),
        (Net(between=nn.InstanceNorm2d(4)), 3, 1, "logits", 1),
        (Net(between=nn.Dropout(0.5)), 3, 1, "logits", 1),
    ],
)
def test_what_a_network_takes_and_answers_is_found(network, slices, classes, answers, stride):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = taken(network)
    found = model.slices, model.spec.classes, model.spec.answers, model.stride
    assert found == (slices, classes, answers, stride)
    assert (model.normalisation, model.size) == (None, None)
    with torch.no_grad():
        out = model.module(torch.randn(2, slices, 64, 96))
    assert out.shape == (2, classes, 64, 96)
    assert out.dtype == torch.float32


def test_what_only_looks_like_probabilities_is_taken_as_logits():
    timid = nn.Conv2d(3, 1, 1)
    nn.init.constant_(timid.weight, 0.05)
    nn.init.constant_(timid.bias, 0.5)
    assert taken(timid).spec.answers == "logits"


@pytest.mark.parametrize("classes", [2, 3])
def test_independent_labels_are_no_classes_and_one_can_be_chosen(classes):
    network = Net(classes=classes, end=nn.Sigmoid())
    model = taken(network)
    assert model.spec.classes == 0
    assert "do not sum to 1" in model.module.reason
    assert f"--answer 0:0, to :{classes - 1}" in model.module.reason
    one = taken(network, answer="0:1")
    x = torch.randn(1, 3, 16, 16)
    assert (one.spec.classes, one.spec.answer) == (1, ":1")
    assert torch.allclose(one.module(x).sigmoid(), network(x)[:, 1:2], atol=1e-6)


@pytest.mark.parametrize("side", [(128, 128), (224, 224), (512, 512), (96, 128)])
def test_a_network_of_one_size_is_known_as_such(side):
    assert taken(Only(*side)).size == side


def test_a_size_that_nothing_states_is_given():
    with pytest.raises(BadInputError, match=r"--probe Y,X"):
        taken(Only(72, 40, stated=False))
    assert taken(Only(72, 40, stated=False), probe=(72, 40)).size == (72, 40)


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Net(end=lambda out: out.mean((2, 3))), r"\(1, 1\) for \(1, 3, 64, 64\)"),
        (Net(end=lambda out: out[..., 1:-1, 1:-1]), r"\(1, 1, 62, 62\) for \(1, 3, 64, 64\)"),
        (Net(end=lambda out: out[..., 16:-16, 16:-16]), "97 x 161 for 129 x 193 pixels and 32"),
        (Net(end=nn.AdaptiveAvgPool2d(16)), "16 x 16 for 129 x 193 pixels and 16 x 16 for 64"),
        (Net(end=lambda out: (out, out.flip(1) * 2)), "each of 0, 1 could be it"),
        (Net(end=lambda out: {"features": out}), "features or mask queries"),
    ],
)
def test_a_network_without_one_prediction_has_no_classes(network, reason):
    model = taken(network)
    assert (model.spec.classes, model.spec.answers) == (0, "no prediction")
    with pytest.raises(BadInputError, match=reason):
        check_segments(model)


def test_an_answer_that_cannot_be_it_is_refused():
    with pytest.raises(BadInputError, match=r"x:y: .*--answer 1"):
        taken(Net(end=lambda out: (out, out.mean((2, 3)))), answer="1")


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.randn_like(x)


class AlwaysDropped(nn.Module):
    def forward(self, x):
        return F.dropout(x, 0.5)


class StaysOn(nn.Dropout):
    def train(self, mode=True):
        return super().train(True)

    def forward(self, x):
        return F.dropout(x, self.p, True)


class Remembers(nn.Module):
    last = 0.0

    def forward(self, x):
        before, self.last = self.last, 50 * x.mean()
        return x + before


@pytest.mark.parametrize("between", [Noise(), AlwaysDropped(), StaysOn(), Remembers()])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_that_answers_differently_each_time_is_refused_by_name(between, seed):
    torch.manual_seed(seed)
    kind = type(between).__name__
    with pytest.raises(BadInputError, match=rf"same input differently .*between \({kind}\)"):
        taken(Net(between=between))


def test_functional_dropout_is_named_by_its_module():
    with pytest.raises(BadInputError, match=r"differently each time \(from Net on\)"):
        taken(Net(end=lambda out: F.dropout(out, 0.1)))


class OverBatch(nn.Module):
    def forward(self, x):
        return x - x.mean(0, keepdim=True)


class OverExtremes(nn.Module):
    def forward(self, x):
        return (x - x.min()) / (x.max() - x.min())


@pytest.mark.parametrize(
    "between", [nn.BatchNorm2d(4, track_running_stats=False), OverBatch(), OverExtremes()]
)
def test_a_network_that_looks_at_the_batch_gets_one_window_at_a_time(between):
    kind = type(between).__name__
    network = Net(between=between)
    with pytest.warns(UserWarning, match=rf"alone and in a batch \(from between \({kind}\) on\)"):
        model = taken(network)
    x = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        alone = torch.cat([network(one[None]) for one in x])
        assert torch.allclose(model.module(x), alone, atol=1e-6)
        assert not torch.allclose(network(x), alone, atol=1e-3)


class Volumes(nn.Module):
    """Takes (B, 1, z, y, x), and (1, z, y, x) without a batch."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv3d(1, 1, 3, padding=1)

    def forward(self, x):
        return self.body(x)


def test_a_network_of_volumes_is_refused():
    with pytest.raises(BadInputError, match=r"3-D network \(body takes the slices for z\)"):
        taken(Volumes())
    with pytest.raises(BadInputError, match="it has 3-D layers"):
        taken(nn.Sequential(nn.BatchNorm3d(1), nn.Conv3d(1, 2, 3)))


def test_a_3d_layer_inside_is_run():
    class Inside(Net):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv3d(1, 4, 3, padding=1)

        def forward(self, x):
            return self.last(self.first(x[:, None])[:, :, 1])

    model = taken(Inside())
    assert (model.slices, model.spec.classes) == (3, 1)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        right = torch.sigmoid(model.network(x))
    found = Runner(model, Settings(threads=torch.get_num_threads())).start(x.numpy()).result()
    assert torch.allclose(torch.from_numpy(found), right, atol=1e-5)


def of_two(network):
    network.image_shape = lambda: (2, 3, None, None)
    return wrap_external(network.eval(), "torch-export", "x.pt2")


def test_a_static_batch_is_kept_to():
    model = of_two(nn.Conv2d(3, 1, 3, padding=1))
    assert isinstance(model.module, LogitsAdapter)
    assert model.module.batch == 2
    scores = of_two(Net(end=lambda out: out.mean((2, 3))))
    assert [tuple(t.shape) for t in scores.module(torch.randn(3, 3, 16, 16))] == [(3, 1)]


def test_a_wrong_number_of_slices_is_said():
    with pytest.raises(BadInputError, match="5 slices, expected 3 as it takes; leave"):
        taken(Net(), slices=5)
    with pytest.raises(BadInputError, match="tried 3, 5, 7, 9, 1 slices; give --slices"):
        taken(nn.Conv2d(2, 1, 3))


def test_a_network_that_takes_one_image_at_a_time_gets_them_so():
    x = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(taken(Single()).module(x), taken(Net()).module(x), atol=1e-5)


def test_a_network_that_changes_its_input_gets_one_of_its_own():
    model = taken(Spoiler())
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    before = x.detach().clone()
    model.module(x).sum().backward()
    assert torch.equal(x, before)
    assert float(x.grad.abs().sum()) > 0
