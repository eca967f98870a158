"""Models, and all that they and runs say of themselves: what is read is sound, or told in one line, and nothing is fetched or run."""

import contextlib
import io
import json
import zipfile

import pytest
import torch
from fuzzing import TEXTS, document, edited, edits, fuzz
from hypothesis import given
from hypothesis import strategies as st

from evenslice.model.archive import MODEL, checked_archive
from evenslice.model.exported import read_exported
from evenslice.model.expressions import guard_is_plain, symbols_are_plain
from evenslice.model.external import form_of
from evenslice.model.inputs import model_of


def sound(model):
    """What holds for every model that was read."""
    spec, norm = model.spec, model.normalisation
    assert spec.slices in (1, 3, 5, 7, 9) and spec.classes >= 0
    assert norm is None or (len(norm.mean) == len(norm.std) and min(norm.std) > 0)


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(3, 2, 3, padding=1)

    def forward(self, x):
        return self.first((x - 0.45) / 0.225) * x.shape[2]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("pt2") / "a.pt2"
    torch.manual_seed(0)
    height = 8 * torch.export.Dim("h", min=2, max=20)
    program = torch.export.export(
        Small().eval(), (torch.zeros(1, 3, 16, 16),), dynamic_shapes=({2: height},)
    )
    torch.export.save(program, path)
    return path.read_bytes()


def repacked(body, change):
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(body)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            new.writestr(name, change(name.partition("/")[2], old.read(name)))
    return buffer.getvalue()


def spoilt(data, body):
    if data.draw(st.integers(0, 3)) == 0:
        return edited(body, data.draw(edits(len(body))))
    part = data.draw(
        st.sampled_from(
            [MODEL, MODEL, "data/weights/model_weights_config.json", "data/sample_inputs/model.pt"]
        )
    )

    def change(name, record):
        if name != part:
            return record
        if name.endswith(".json"):
            return json.dumps(document(data.draw, json.loads(record))).encode()
        return edited(record, data.draw(edits(len(record))))

    return repacked(body, change)


@fuzz(25)
@given(data=st.data())
def test_archives_of_torch(executions, tmp_path, archive, data):
    path = tmp_path / "a.pt2"
    path.write_bytes(spoilt(data, archive))
    executions(lambda: checked_archive(path), lambda records: records[MODEL] and None)
    assert list(tmp_path.iterdir()) == [path]


@fuzz(6)
@given(data=st.data())
def test_archives_of_torch_whole(executions, tmp_path, archive, data):
    path = tmp_path / "a.pt2"
    path.write_bytes(spoilt(data, archive))
    executions(
        lambda: read_exported(path), lambda found: isinstance(found[0], torch.nn.Module) or 1 / 0
    )


def onnx_file():
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(
        torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(0)).numpy(), "w"
    )
    shape = [1, 3, "h", "w"]
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes,
        "g",
        [value("x", TensorProto.FLOAT, shape)],
        [value("y", TensorProto.FLOAT, None)],
        [weight],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    model.metadata_props.add(key="note", value="x")
    return model.SerializeToString()


ONNX = onnx_file()


@fuzz(10)
@given(changes=edits(len(ONNX)))
def test_bytes_of_onnx(executions, tmp_path, changes):
    path = tmp_path / "m.onnx"
    path.write_bytes(edited(ONNX, changes))
    executions(lambda: model_of(path), sound)
    assert list(tmp_path.iterdir()) == [path]


ATOMS = [
    "s0",
    "1",
    "2",
    "16",
    "99",
    "'s1'",
    "L['x'].size()[2]",
    "oo",
    "exit()",
    "open('a', 'w')",
    "__import__('os')",
    "[0]",
    "().__class__",
]
SHAPES = [
    "Add({}, {})",
    "Mul({}, {})",
    "Pow({}, {})",
    "({} + {})",
    "({} * {})",
    "({} ** {})",
    "({} << {})",
    "max({}, {})",
    "{} == {}",
    "Symbol({}, integer={})",
]
EXPRESSIONS = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.tuples(st.sampled_from(SHAPES), inner, inner).map(
        lambda t: t[0].format(t[1], t[2])
    ),
    max_leaves=6,
)


@fuzz(25)
@given(st.one_of(EXPRESSIONS, st.text(max_size=20)))
def test_expressions(executions, text):
    def laws(plain):
        if any(plain):
            assert not any(word in text for word in ("exit", "open", "__", "import"))
            # What is let through is quick, and calls nothing else.
            with contextlib.suppress(TypeError, ArithmeticError, ValueError, IndexError):
                eval(text, {"__builtins__": {}}, Numbers())

    executions(lambda: (symbols_are_plain(text), guard_is_plain(text)), laws)


class Numbers(dict):
    """Names as in an expression of sizes."""

    def __missing__(self, name):
        if name in ("Add", "Mul", "Pow", "Symbol", "max"):
            return lambda *given, **options: 2
        if name == "L":
            return {"x": torch.zeros(1, 1, 8, 8)}
        return 3


@fuzz(25)
@given(
    st.one_of(
        TEXTS,
        st.text(max_size=30),
        st.lists(st.sampled_from(["a", ":", "@", "/", ".", "b", "\n", " "]), max_size=9).map(
            "".join
        ),
    )
)
def test_names_of_models(executions, name):
    def laws(form):
        assert form in (None, "evenslice", "torch-export", "onnx", "callable")
        assert form != "callable" or (
            name.count(":") >= 1 and "/" not in name.partition("@")[0] and not name[0].isdigit()
        )

    executions(lambda: form_of(name), laws)
