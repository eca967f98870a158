"""External networks: found out by running them."""

import sys

import pytest
import torch
from torch import nn

from evenslice.errors import BadInputError
from evenslice.model.external import form_of, load_callable, wrap_external
from evenslice.model.inputs import model_of
from evenslice.model.logits import LogitsAdapter

MODULE = """
import sys
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, slots=3, classes=1, end=None, stride=1):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.end, self.stride = nn.Conv2d(slots, 4, 3, padding=1), end, stride
        self.last = nn.Conv2d(4, classes, 1)
    def forward(self, x):
        if x.shape[-1] % self.stride or x.shape[-2] % self.stride:
            raise ValueError("wrong size")
        out = self.last(self.first(x))
        return out if self.end is None else self.end(out)

def make(): return Net()
def seven(): return Net(7)
def odds(): return Net(end=nn.Sigmoid())
def classes(): return Net(classes=3, end=nn.Softmax(1))
def coarse(): return nn.Sequential(Net(stride=8), nn.AvgPool2d(4))
def tupled(): return Net(end=lambda out: (out.mean((2, 3)), {"out": out}))
def scores(): return Net(end=lambda out: out.mean((2, 3)))
def fails(): raise RuntimeError("no weights here")
def number(): return 3
class Holder:
    make = staticmethod(make)
thing = 7
network = Net()
def exits(): sys.exit(0)
def talks():
    print("hello")
    return Net()
def uncopied():
    made = Net()
    made.rest = (n for n in "abc")
    return made
def nothing(): return Net(end=lambda out: None)
def labels(): return Net(classes=3, end=lambda out: out.argmax(1))
def empty(): return Net(end=lambda out: out[:, :0])
def nan(): return Net(end=lambda out: out * float("nan"))
def quits(): return Net(end=lambda out: sys.exit(5))
def half(): return Net().half()
class Single(Net):
    def forward(self, x):
        if len(x) != 1:
            raise ValueError("one image at a time")
        return super().forward(x)
class Spoiler(Net):
    def forward(self, x):
        x -= 0.5
        return super().forward(x)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "other_net.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "other_net"
    sys.modules.pop("other_net", None)


@pytest.mark.parametrize(
    ("name", "slices", "classes", "answers", "stride"),
    [
        ("make", 3, 1, "logits", 1),
        ("Holder.make", 3, 1, "logits", 1),
        ("seven", 7, 1, "logits", 1),
        ("odds", 3, 1, "probabilities", 1),
        ("classes", 3, 3, "probabilities", 1),
        ("coarse", 3, 1, "logits", 8),
        ("tupled", 3, 1, "logits", 1),
    ],
)
def test_what_a_network_takes_and_answers_is_found(module, name, slices, classes, answers, stride):
    model, weights = load_callable(f"{module}:{name}")
    found = model.slices, model.spec.classes, model.spec.answers, model.stride
    assert found == (slices, classes, answers, stride)
    assert (weights, model.normalisation, model.size) == (None, None, None)
    with torch.no_grad():
        out = model.module(torch.randn(2, slices, 40, 48))
    assert out.shape == (2, classes, 40, 48)


def test_probabilities_are_turned_to_logits(module):
    odds, _ = load_callable(f"{module}:odds")
    logits, _ = load_callable(f"{module}:make")
    x = torch.randn(1, 3, 32, 32)
    assert torch.allclose(odds.module(x), logits.module(x), atol=1e-4)


def test_what_only_looks_like_probabilities_is_taken_as_logits():
    timid = nn.Conv2d(3, 1, 1)
    nn.init.constant_(timid.weight, 0.05)
    nn.init.constant_(timid.bias, 0.5)
    assert wrap_external(timid.eval(), "callable", "x:y").spec.answers == "logits"
    several = nn.Sequential(
        nn.Conv2d(3, 2, 1), nn.Sigmoid()
    )  # each class for itself: they do not sum to 1
    assert wrap_external(several.eval(), "callable", "x:y").spec.answers == "logits"


def test_a_network_of_one_size_is_known_as_such():
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 2, 3, padding=1)

        def forward(self, x):
            assert x.shape[-2:] == (224, 224)
            return self.first(x)

    model = wrap_external(Fixed().eval(), "callable", "x:y")
    assert (model.size, model.spec.classes) == ((224, 224), 2)


def test_a_network_without_a_prediction_has_no_classes(module):
    model, _ = load_callable(f"{module}:scores")
    assert (model.spec.classes, model.spec.answers) == (0, "no prediction")


def test_a_static_batch_is_kept_to():
    model = wrap_external(
        nn.Conv2d(3, 1, 3, padding=1), "torch-export", "x.pt2", shape=(2, 3, None, None)
    )
    assert isinstance(model.module, LogitsAdapter)
    assert model.module.batch == 2


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other_net:fails", "other_net:fails failed .RuntimeError: no weights here"),
        ("other_net:number", "returned a int, expected a torch.nn.Module"),
        ("other_net:thing", "is a int, expected a function"),
        ("other_net:missing", "cannot be imported .AttributeError"),
        ("other_net:network", "is a Net, expected a function"),
        ("other_net:exits", "other_net:exits failed .SystemExit: 0"),
        ("sys:exit", "sys:exit failed .SystemExit"),
        ("other_net:uncopied", "cannot be copied .cannot pickle 'generator' object"),
        ("other_net:nothing", "answers no floating-point numbers for each image"),
        ("other_net:labels", "answers no floating-point numbers for each image"),
        ("other_net:empty", "answers no floating-point numbers for each image"),
        ("other_net:nan", "answers NaN for noise"),
        ("other_net:quits", "it exits with 5"),
        ("nowhere_at_all:make", "cannot be imported .ModuleNotFoundError"),
        ("other_net.make", "expected package.module:callable"),
    ],
)
def test_what_is_no_network_is_refused(module, name, message):
    with pytest.raises(BadInputError, match=message):
        load_callable(name)


def test_a_wrong_number_of_slices_is_said(module):
    with pytest.raises(
        BadInputError, match="does not run on 5 slices, expected 3 as it takes; leave --slices out"
    ):
        load_callable(f"{module}:make", 5)
    with pytest.raises(BadInputError, match="tried 3, 5, 7, 9, 1 slices; give --slices"):
        wrap_external(torch.nn.Conv2d(2, 1, 3), "callable", "x:y")


def test_what_their_code_prints_stays_out_of_standard_output(module, capsys):
    load_callable(f"{module}:talks")
    assert capsys.readouterr() == ("", "hello\n")


def test_a_network_that_takes_one_image_at_a_time_gets_them_so(module):
    one, _ = load_callable(f"{module}:Single")
    plain, _ = load_callable(f"{module}:make")
    x = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(one.module(x), plain.module(x), atol=1e-5)


def test_a_network_that_changes_its_input_gets_one_of_its_own(module):
    model, _ = load_callable(f"{module}:Spoiler")
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    before = x.detach().clone()
    model.module(x).sum().backward()
    assert torch.equal(x, before)
    assert float(x.grad.abs().sum()) > 0


def test_half_precision_becomes_float32(module):
    model, _ = load_callable(f"{module}:half")
    assert model.network.first.weight.dtype == torch.float32


def test_a_network_without_a_prediction_keeps_to_its_batch(module):
    model = wrap_external(
        load_callable(f"{module}:scores")[0].network,
        "torch-export",
        "x.pt2",
        shape=(2, 3, None, None),
    )
    found = model.module(torch.randn(3, 3, 16, 16))
    assert [tuple(t.shape) for t in found] == [(3, 1)]


@pytest.mark.parametrize(
    ("source", "form"),
    [
        ("a.safetensors", "evenslice"),
        ("folder/a.pt2", "torch-export"),
        ("a.ONNX", "onnx"),
        ("package.module:make", "callable"),
        ("package.module:Class.make@weights.safetensors", "callable"),
        ("raw.tif", None),
        ("store.h5:/raw", None),
        ("C:/raw.tif", None),
    ],
)
def test_a_form_is_known_by_its_name(source, form):
    assert form_of(source) == form


@pytest.mark.parametrize("ending", ["pt", "pth", "ckpt", "pkl", "bin"])
def test_weights_alone_are_no_model(ending):
    with pytest.raises(BadInputError, match=f"give package.module:callable@model.{ending}"):
        form_of(f"model.{ending}")


@pytest.mark.parametrize("wrap", [dict, lambda state: {"state_dict": state}])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_plain_state_dict_is_loaded_behind_a_callable(module, tmp_path, wrap, prefix):
    other = load_callable(f"{module}:make")[0].network
    torch.nn.init.normal_(other.first.weight, generator=torch.Generator().manual_seed(1))
    state = {f"{prefix}{name}": tensor for name, tensor in other.state_dict().items()}
    torch.save(wrap(state), tmp_path / "w.pth")
    found = model_of(f"{module}:make@w.pth")
    assert torch.equal(found.network.first.weight, other.first.weight)


def test_a_file_with_a_colon_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw:stack").write_text("")
    assert form_of("raw:stack") is None
