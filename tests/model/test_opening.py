"""Opening models of any form: by name, from code, with weights."""

import sys

import pytest
import torch

from evenslice.errors import BadInputError
from evenslice.model.checkpoint import save_model
from evenslice.model.opening import model_of
from evenslice.model.source import form_of
from evenslice.options import ModelOptions

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
class Heads(Net):
    def forward(self, x):
        if x.shape[-2:] != (36, 40):
            raise ValueError("another size")
        out = super().forward(x)
        return {"boundary": out, "distance": out * 2}
def heads(): return Heads()
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "other_net.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield "other_net"
    sys.modules.pop("other_net", None)


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
        ("other_net.make", "is not a model file"),
    ],
)
def test_what_is_no_network_is_refused(module, name, message):
    with pytest.raises(BadInputError, match=message):
        model_of(name)


def test_what_their_code_prints_stays_out_of_standard_output(module, capsys):
    model_of(f"{module}:talks")
    assert capsys.readouterr() == ("", "hello\n")


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
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "net.module."])
def test_a_plain_state_dict_is_loaded_behind_a_callable(module, tmp_path, wrap, prefix):
    other = model_of(f"{module}:make").network
    torch.nn.init.normal_(other.first.weight, generator=torch.Generator().manual_seed(1))
    state = {f"{prefix}{name}": tensor for name, tensor in other.state_dict().items()}
    torch.save(wrap(state), tmp_path / "w.pth")
    found = model_of(f"{module}:make@w.pth")
    assert torch.equal(found.network.first.weight, other.first.weight)


def test_a_file_with_a_colon_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw:stack").write_text("")
    assert form_of("raw:stack") is None


def test_weights_that_do_not_fit_are_said_by_three_names(module, tmp_path):
    state = model_of(f"{module}:make").network.state_dict()
    wrong = {"first.weight": torch.zeros(4, 5, 3, 3), "rest": torch.zeros(1)}
    torch.save(wrong, tmp_path / "w.pth")
    with pytest.raises(BadInputError) as caught:
        model_of(f"{module}:make@w.pth")
    assert "lacks first.bias, last.weight, last.bias;" in str(caught.value)
    assert "also holds rest;" in str(caught.value)
    assert "first.weight (4, 5, 3, 3) for (4, 3, 3, 3)" in str(caught.value)
    torch.save({f"x{n}": torch.zeros(1) for n in range(5)} | state, tmp_path / "w.pth")
    with pytest.raises(BadInputError, match=r"\(also holds x0, x1, x2 and 2 more\)"):
        model_of(f"{module}:make@w.pth")


def test_the_answer_and_the_probe_are_kept_in_the_file(module, tmp_path):
    options = ModelOptions(answer="boundary", probe="36,40", mean=0.0, std=1.0)
    model = model_of(f"{module}:heads", options)
    assert (model.spec.answer, model.spec.probe, model.size) == ("boundary", (36, 40), (36, 40))
    save_model(tmp_path / "w.safetensors", model)
    again = model_of(f"{module}:heads@w.safetensors")
    assert again.spec == model.spec
    x = torch.randn(1, 3, 36, 40)
    with torch.no_grad():
        assert torch.equal(again.module(x), model.module(x))
        other = model_of(f"{module}:heads@w.safetensors", ModelOptions(answer="1"))
        assert torch.equal(other.module(x), model.network(x)["distance"])


@pytest.mark.parametrize(
    "options", [{"probe": "36"}, {"probe": "0,40"}, {"probe": "a,b"}, {"probe": (1, 2, 3)}]
)
def test_a_probe_is_two_numbers(options):
    with pytest.raises(BadInputError, match="two numbers of pixels"):
        ModelOptions(**options)
