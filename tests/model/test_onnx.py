"""ONNX models: weights that lie anywhere in a graph, other types, and files that are none."""

import copy
import sys
import warnings

import pytest
import torch
from exports import as_onnx, far, image, network
from torch import nn

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from evenslice import mirror_stem
from evenslice.errors import BadInputError
from evenslice.model.onnx_file import read_onnx, write_onnx
from evenslice.model.opening import model_of
from evenslice.model.stem.find import find_stems


@pytest.fixture(scope="module")
def scaled(tmp_path_factory):
    return as_onnx(network("scaled"), tmp_path_factory.mktemp("onnx") / "scaled.onnx", False)


def test_only_the_stem_and_the_metadata_change_in_the_file(scaled, tmp_path):
    found, _ = read_onnx(scaled)
    write_onnx(tmp_path / "same.onnx", found, {})
    mirror_stem(found, 3)
    write_onnx(tmp_path / "new.onnx", found, {"a": 1})
    write_onnx(tmp_path / "twice.onnx", read_onnx(tmp_path / "new.onnx")[0], {"a": 2})
    same, new, twice = (onnx.load(tmp_path / f"{name}.onnx") for name in ("same", "new", "twice"))
    assert [(p.key, p.value) for p in twice.metadata_props if p.key == "evenslice"] == [
        ("evenslice", '{"a": 2}')
    ]
    assert new.graph == twice.graph and new.graph.node == same.graph.node
    names = [
        a.name for a, b in zip(same.graph.initializer, new.graph.initializer, strict=True) if a != b
    ]
    assert names == ["first.weight"]


def test_copies_are_independent_and_other_types_are_taken_back(scaled):
    found, _ = read_onnx(scaled)
    x = image(False)
    output, other = found(x), copy.deepcopy(found)
    mirror_stem(found, 3)
    assert torch.equal(other(x), output) and not torch.equal(found(x), output)
    assert torch.equal(other.to(torch.float64)(x.double()), output)
    assert other(x.double()).dtype == torch.float32


def edited(source, target, change):
    model = onnx.load(source)
    change(model)
    onnx.save(model, target)
    return target


def weight_of(model, name="first.weight"):
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def as_constant(model):
    """Keep the weight in a Constant node behind an Identity."""
    tensor = weight_of(model)
    model.graph.initializer.remove(tensor)
    nodes = [onnx.helper.make_node("Constant", [], ["held"], value=tensor)]
    nodes.append(onnx.helper.make_node("Identity", ["held"], ["first.weight"]))
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def shared(model):
    """Let the weight be an output as well, which must not change."""
    model.graph.node.append(onnx.helper.make_node("Neg", ["first.weight"], ["negative"]))
    model.graph.output.append(onnx.ValueInfoProto(name="negative"))
    model.graph.output[-1].type.CopyFrom(
        onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, list(weight_of(model).dims))
    )


def quantised(model):
    tensor = weight_of(model)
    values = onnx.numpy_helper.to_array(tensor)
    step = (abs(values).max() / 127).astype(values.dtype)
    whole = onnx.numpy_helper.from_array((values / step).round().astype("int8"), "whole")
    model.graph.initializer.remove(tensor)
    model.graph.initializer.extend([whole, onnx.numpy_helper.from_array(step, "step")])
    model.graph.node.insert(
        0, onnx.helper.make_node("DequantizeLinear", ["whole", "step"], ["first.weight"])
    )


def computed(model):
    weight_of(model).name = "before"
    model.graph.node.insert(0, onnx.helper.make_node("Tanh", ["before"], ["first.weight"]))


def test_a_weight_in_a_constant_node_is_changed_there(scaled, tmp_path):
    found, _ = read_onnx(edited(scaled, tmp_path / "constant.onnx", as_constant))
    mirror_stem(found, 3)
    write_onnx(tmp_path / "new.onnx", found, {})
    again, _ = read_onnx(tmp_path / "new.onnx")
    x = image(False)
    assert far(again(x), found(x)) < 1e-6 and far(again(x.flip(1)), again(x)) < 1e-5
    assert far(found(x), mirror_stem(copy.deepcopy(network("scaled")), 3)(x)) < 1e-5


def test_what_else_uses_a_weight_keeps_it(scaled, tmp_path):
    found, _ = read_onnx(edited(scaled, tmp_path / "shared.onnx", shared))
    before = found(image(False))
    negative = list(before)[1]
    assert torch.equal(before[negative], -found.layers[0].weight)
    for name in ("new", "newer"):
        found.layers[0].weight.data.mul_(2)
        write_onnx(tmp_path / f"{name}.onnx", found, {})
        again, _ = read_onnx(tmp_path / f"{name}.onnx")
        first = next(iter(before))
        assert torch.equal(again(image(False))[negative], before[negative])
        assert far(again(image(False))[first], found(image(False))[first]) < 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            quantised,
            r"the stem '.*' is quantised \(DequantizeLinear\), expected floating-point weights",
        ),
        (computed, "weight of the stem '.*' is computed, expected a plain parameter"),
    ],
)
def test_weights_that_are_none_are_refused_by_name(scaled, tmp_path, change, message):
    found, _ = read_onnx(edited(scaled, tmp_path / "changed.onnx", change))
    with pytest.raises(BadInputError, match=message):
        mirror_stem(found, 3)


def test_other_operations_are_refused_by_name(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.ConvTranspose2d(3, 2, 2)).eval()
    found, _ = read_onnx(as_onnx(module, tmp_path / "transposed.onnx", False, False))
    with pytest.raises(
        BadInputError, match="the slices meet the parameter '0' of OnnxNetwork in ConvTranspose"
    ):
        mirror_stem(found, 3)


class Half(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.first = module.first

    def forward(self, x):
        return self.first(x.half())


def weight_types(path):
    return {
        tensor.data_type for tensor in onnx.load(path).graph.initializer if len(tensor.dims) == 4
    }


def test_half_precision_stays_in_the_file(tmp_path):
    half = copy.deepcopy(network("scaled")).half()
    path = as_onnx(Half(half), tmp_path / "half.onnx", False, False)
    assert weight_types(path) == {onnx.TensorProto.FLOAT16}
    found, _ = read_onnx(path)
    assert {p.dtype for p in found.parameters()} == {torch.float32}
    mirror_stem(found, 3)
    write_onnx(tmp_path / "new.onnx", found, {})
    assert weight_types(tmp_path / "new.onnx") == {onnx.TensorProto.FLOAT16}
    again, _ = read_onnx(tmp_path / "new.onnx")
    x = image(False)
    assert again(x).dtype == torch.float32 and far(again(x.flip(1)), again(x)) < 1e-2


def test_weights_may_lie_in_a_file_of_the_same_folder_only(scaled, tmp_path):
    model, folder = onnx.load(scaled), tmp_path / "folder"
    folder.mkdir()
    options = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
    onnx.save_model(model, folder / "m.onnx", **options)
    found, _ = read_onnx(folder / "m.onnx")
    assert far(found(image(False)), network("scaled")(image(False))) < 1e-5
    (folder / "weights").rename(tmp_path / "weights")
    body = (folder / "m.onnx").read_bytes()
    (folder / "m.onnx").write_bytes(body.replace(b"weights", b"../ghts"))
    (tmp_path / "weights").rename(tmp_path / "ghts")
    with pytest.raises(BadInputError, match=r"m.onnx cannot be read"):
        read_onnx(folder / "m.onnx")


def test_what_is_no_model_is_refused(tmp_path):
    (tmp_path / "text.onnx").write_text("no model")
    with pytest.raises(BadInputError, match=r"text.onnx cannot be read .*, expected an ONNX model"):
        read_onnx(tmp_path / "text.onnx")


def test_without_onnx_it_says_what_to_install(scaled, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "evenslice.model.onnx_file")
    with pytest.raises(
        BadInputError, match=r"onnxruntime is not installed, .* install evenslice\[onnx\]"
    ):
        model_of(scaled)


class ChannelsLast(nn.Module):
    """As Keras makes them: (B, y, x, S) to (B, y, x, C), and a score beside."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)

    def forward(self, x):
        out = self.last(self.first(x.permute(0, 3, 1, 2)))
        return out.mean((2, 3)), out.permute(0, 2, 3, 1)


@pytest.mark.parametrize("dynamic", [True, False])
def test_channels_last_are_turned(tmp_path, dynamic):
    network, axes = ChannelsLast().eval(), {0: "b", 1: "h", 2: "w"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.randn(1, 32, 48, 3),),
            tmp_path / "m.onnx",
            input_names=["x"],
            output_names=["score", "map"],
            dynamic_axes={"x": axes, "map": axes} if dynamic else None,
            dynamo=False,
        )
    model = model_of(tmp_path / "m.onnx")
    assert (model.slices, model.spec.classes, model.spec.answer) == (3, 2, "map")
    assert model.size == (None if dynamic else (32, 48))
    assert [stem.slot_of for stem in find_stems(model.network, 3)] == [(0, 1, 2)]
    x = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        right = network(x.movedim(1, -1))[1].movedim(-1, 1)
    assert torch.allclose(model.module(x), right, atol=1e-5)
    assert float((model.module(x) - model.module(x.flip(1))).abs().max()) > 1e-3
