"""Exported models of strangers: .onnx graphs that lie, loop, or name what is not known, and .pt2 archives that are not what they say."""

import json
import os
import zipfile

import onnx
import pytest
import torch
from offers import CODE, bomb, deep, put
from onnx import TensorProto, helper, numpy_helper

from evenslice.errors import BadInputError
from evenslice.model.archive import checked_archive
from evenslice.model.checkpoint import KEY
from evenslice.model.inputs import model_of

FLOAT = TensorProto.FLOAT


def graph(nodes=None, shape=(1, 3, 16, 16), weights=None, **options):
    """A model of one convolution, or of some nodes."""
    conv = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    kernel = numpy_helper.from_array(
        torch.randn(1, 3, 3, 3, generator=torch.Generator().manual_seed(0)).numpy(), "w"
    )
    made = helper.make_graph(
        [conv] if nodes is None else nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [kernel] if weights is None else weights,
    )
    opsets = options.pop("opsets", [("", 17)])
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid(*one) for one in opsets], **options
    )
    model.ir_version = 9
    return model


def noted(text):
    model = graph()
    model.metadata_props.add(key=KEY, value=text)
    return model


def external(location, size=108, **more):
    """A model whose weight lies in another file."""
    model = graph()
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "length": str(size), **more}.items():
        weight.external_data.add(key=key, value=value)
    return model


def sparse_outside():
    """A constant of a kind that is easily overlooked, which lies in another file."""
    values, places = (numpy_helper.from_array(torch.ones(1).numpy(), n) for n in ("v", "i"))
    places = numpy_helper.from_array(torch.zeros(1, dtype=torch.int64).numpy(), "i")
    values.ClearField("raw_data")
    values.data_location = TensorProto.EXTERNAL
    values.external_data.add(key="location", value="/etc/passwd")
    node = helper.make_node("Constant", [], ["c"])
    tensor = onnx.SparseTensorProto(values=values, indices=places, dims=[4])
    node.attribute.append(helper.make_attribute("sparse_value", tensor))
    return graph([node, helper.make_node("Identity", ["x"], ["y"])])


def lying(dims, **fields):
    model = graph()
    weight = model.graph.initializer[0]
    del weight.dims[:]
    weight.dims.extend(dims)
    for key, value in fields.items():
        setattr(weight, key, value)
    return model


def nested(levels):
    """Branches within branches."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["o"])],
        "i",
        [],
        [helper.make_tensor_value_info("o", FLOAT, None)],
    )
    for level in range(levels):
        condition = helper.make_node(
            "Constant",
            [],
            ["c"],
            value=numpy_helper.from_array(torch.tensor(True).numpy(), f"c{level}"),
        )
        branch = helper.make_node(
            "If",
            ["c"],
            ["o"],
            then_branch=inner,
            else_branch=inner
            if level < 2
            else helper.make_graph(
                [helper.make_node("Identity", ["x"], ["o"])],
                "e",
                [],
                [helper.make_tensor_value_info("o", FLOAT, None)],
            ),
        )
        inner = helper.make_graph(
            [condition, branch], f"g{level}", [], [helper.make_tensor_value_info("o", FLOAT, None)]
        )
    return inner


def deep_branches(levels):
    inner = nested(levels)
    return graph([*inner.node, helper.make_node("Identity", ["o"], ["y"])])


def trained():
    model = graph()
    model.training_info.add().initialization.CopyFrom(external("/etc/passwd").graph)
    return model


def function_outside():
    """A function of the model's own, which holds a constant that lies in another file."""
    value = external("/etc/passwd").graph.initializer[0]
    node = helper.make_node("Constant", [], ["k"])
    node.attribute.append(helper.make_attribute("value", value))
    made = helper.make_function("own", "F", ["x"], ["k"], [node], [helper.make_opsetid("", 17)])
    model = graph(
        [helper.make_node("F", ["x"], ["y"], domain="own")], opsets=[("", 17), ("own", 1)]
    )
    model.functions.append(made)
    return model


def conv(**attributes):
    return [helper.make_node("Conv", ["x", "w"], ["y"], **attributes)]


ONNX = {
    "outside: an absolute path": (external("/etc/passwd"), "expected a file in its own folder"),
    "outside: the folder above": (external("../secret.bin"), "expected a file in its own folder"),
    "outside: through a folder and back": (external("sub/../../secret.bin"), "expected a file in its own folder"),
    "outside: a link": (external("link.bin"), "expected a file in its own folder"),
    "outside: a folder that is a link": (external("away/secret.bin"), "expected a file in its own folder"),
    "outside: nothing": (external(""), "expected a file in its own folder"),
    "outside: the folder itself": (external("."), "expected a file in its own folder"),
    "outside: an address": (external("https://evil.example/w"), "expected a file in its own folder"),
    "outside: a name with NUL": (external("a\0b"), "expected a file in its own folder"),
    "outside: a name of 5000 letters": (external("a" * 5000), "expected a file in its own folder"),
    "outside: a device": (external("/dev/zero"), "expected a file in its own folder"),
    "outside: a negative offset": (external("beside.bin", offset="-1"), "declares more values"),
    "outside: an offset of 2^62": (external("beside.bin", offset=str(2**62)), "declares more values"),
    "outside: an offset of text": (external("beside.bin", offset="x"), "declares more values"),
    "outside: another length": (external("beside.bin", 2**40), "declares more values"),
    "outside: a sparse constant": (sparse_outside(), "expected a file in its own folder"),
    "outside: in a function": (function_outside(), "expected a file in its own folder"),
    "size: 2^40 values": (lying([2**40]), "declares more values"),
    "size: overflowing": (lying([2**62, 2**62]), "declares more values"),
    "size: negative": (lying([-1, 3, 3, 3]), "declares more values"),
    "size: of an unknown type": (lying([1, 3, 3, 3], data_type=999), r"m\.onnx|onnxruntime cannot run the model|the ONNX model takes"),
    "size: of texts": (lying([2**30], data_type=TensorProto.STRING), "declares more values"),
    "image: 10^6 pixels a side": (graph(shape=(1, 3, 10**6, 10**6)), "expected at most 256 at once of 16384 pixels"),
    "image: 10^9 at once": (graph(shape=(10**9, 3, 16, 16)), "expected at most 256 at once of 16384 pixels"),
    "image: 10^9 slices": (graph(shape=(1, 10**9 + 1, 16, 16)), "1000000001 slices"),
    "image: two slices": (graph(shape=(1, 2, 16, 16)), "2 slices were asked for"),
    "image: no sides": (graph(shape=(1, 3)), "expected one image"),
    "graph: no nodes": (graph([], weights=[]), r"m\.onnx|onnxruntime cannot run the model|the ONNX model takes"),
    "graph: an unknown domain": (
        graph([helper.make_node("Evil", ["x"], ["y"], domain="evil.example")], opsets=[("", 17), ("evil.example", 1)]),
        "onnxruntime cannot run the model",
    ),
    "graph: an unknown operation": (graph([helper.make_node("Evil", ["x"], ["y"])]), "onnxruntime cannot run the model"),
    "graph: an opset of the future": (graph(opsets=[("", 9999)]), "onnxruntime cannot run the model"),
    "graph: a cycle": (
        graph([helper.make_node("Add", ["x", "b"], ["y"]), helper.make_node("Identity", ["y"], ["b"])]),
        "onnxruntime cannot run the model",
    ),
    "graph: one name twice": (
        graph([helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["y"])]),
        "onnxruntime cannot run the model",
    ),
    "graph: branches 12 deep, of another type": (deep_branches(12), r"m\.onnx|onnxruntime cannot run"),
    "graph: pads of text": (graph(conv(pads="abc")), r"m\.onnx|onnxruntime cannot run the model|the ONNX model takes"),
    "graph: two pads": (graph(conv(pads=[1, 1])), r"m\.onnx|onnxruntime cannot run the model|the ONNX model takes"),
    "graph: strides of 0": (graph(conv(strides=[0, 0])), r"m\.onnx .*Conv with strides 0, 0"),
    "graph: a group of 0": (graph(conv(group=0)), r"m\.onnx .*Conv with group 0"),
    "graph: a group of -1": (graph(conv(group=-1)), r"m\.onnx|onnxruntime cannot run the model|the ONNX model takes"),
    "graph: no inputs": (graph([helper.make_node("Conv", [], ["y"])]), r"m\.onnx|onnxruntime cannot run the model|the ONNX model takes"),
    "note: no JSON": (noted("{{"), "damaged record"),
    "note: nested 10^5 deep": (noted(deep(10**5)), "nested deeper than 32"),
    "note: NaN": (noted('{"normalisation": NaN}'), "the number NaN"),
    "note: 5 MB": (noted(json.dumps("x" * 5 * 2**20)), "at most 4194304 are read"),
    "note: a callable": (noted('{"spec": {"form": "callable", "source": "evil:make"}}'), "damaged record"),
    "note: half a record": (noted('{"normalisation": null}'), "damaged record"),
}  # fmt: skip


@pytest.mark.parametrize("case", ONNX)
def test_onnx(guarded, tmp_path, case):
    model, words = ONNX[case]
    put(tmp_path.parent / "secret.bin", bytes(108))
    put(tmp_path / "beside.bin", bytes(108))
    put(tmp_path / "evil.py", CODE.encode())
    (tmp_path / "link.bin").symlink_to(tmp_path.parent / "secret.bin")
    (tmp_path / "away").symlink_to(tmp_path.parent)
    path = put(tmp_path / "m.onnx", model.SerializeToString())
    guarded()
    with pytest.raises(BadInputError, match=words) as caught:
        model_of(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 800


@pytest.mark.parametrize("case", ["as it is", "beside", "what was noted for its training"])
def test_onnx_as_it_should_be(guarded, tmp_path, case):
    model = {
        "as it is": graph,
        "beside": lambda: external("beside.bin"),
        "what was noted for its training": trained,
    }[case]()
    put(tmp_path / "beside.bin", graph().graph.initializer[0].raw_data)
    path = put(tmp_path / "m.onnx", model.SerializeToString())
    guarded()
    assert model_of(path).slices == 3


BYTES = {
    "bytes: none": b"",
    "bytes: zeros": bytes(1000),
    "bytes: text": b"pretend",
    "bytes: a group that never ends": b"\x0b" * 10_000,
    "bytes: a length of 2 GB": b"\x3a\xff\xff\xff\xff\x07",
    "bytes: a length of 2^63": b"\x3a" + b"\xff" * 9 + b"\x01",
}


@pytest.mark.parametrize("case", BYTES)
def test_bytes_of_onnx(guarded, tmp_path, case):
    path = put(tmp_path / "m.onnx", BYTES[case])
    guarded()
    with pytest.raises(BadInputError, match=r"m\.onnx|the ONNX model takes nothing"):
        model_of(path)


def test_a_protobuf_of_absurd_depth(guarded, tmp_path):
    body = b""
    for _ in range(5000):
        body = bytes([0x3A]) + varint(len(body)) + body  # a graph in a graph
    path = put(tmp_path / "m.onnx", body)
    guarded()
    with pytest.raises(BadInputError, match="the ONNX model takes nothing"):
        model_of(path)


def varint(number):
    found = b""
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])


def archived(path, names, **more):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("a/archive_format", *names):
            archive.writestr(name, b"pt2")
    return path


def linked(path):
    info = zipfile.ZipInfo("a/models/model.json")
    info.create_system, info.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/archive_format", b"pt2")
        archive.writestr(info, "/etc/passwd")
    return path


def encrypted(path):
    archived(path, ["a/byteorder"])
    body = bytearray(path.read_bytes())
    at = -1
    while (at := body.find(b"PK\x01\x02", at + 1)) >= 0:
        body[at + 8] |= 1
    at = -1
    while (at := body.find(b"PK\x03\x04", at + 1)) >= 0:
        body[at + 6] |= 1
    return put(path, bytes(body))


def corrupt_metadata(path, what):
    archived(path, ["a/byteorder"])
    body = path.read_bytes()
    return put(path, what(body))


def twice(path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        return archived(path, ["a/archive_format"])


ARCHIVES = {
    "name: the folder above": (lambda p: archived(p, ["a/../../evil"]), "a record that torch.export does not write"),
    "name: up, below extra": (lambda p: archived(p, ["a/extra/../../../evil"]), "a record that torch.export does not write"),
    "name: absolute": (lambda p: archived(p, ["/etc/passwd"]), "a zip without one folder"),
    "name: absolute, within": (lambda p: archived(p, ["a//etc/passwd"]), "a record that torch.export does not write"),
    "name: backslashes": (lambda p: archived(p, ["a/extra/..\\..\\evil"]), "a record that torch.export does not write"),
    "name: NUL": (lambda p: corrupt_metadata(archived(p, []), lambda b: b.replace(b"byteorder", b"byte\0rder")), "a record that"),
    "name: escape sequence": (lambda p: archived(p, ["a/models/\x1b[2J"]), "a record that torch.export does not write"),
    "name: a newline": (lambda p: archived(p, ["a/extra/x\ny"]), "a record that torch.export does not write"),
    "name: another folder": (lambda p: archived(p, ["b/version"]), "a zip without one folder"),
    "name: twice": (twice, "names a file twice"),
    "kind: a link": (linked, "a link or device"),
    "kind: encrypted": (encrypted, "cannot be read as a zip"),
    "kind: wrong checksum": (lambda p: corrupt_metadata(p, lambda b: b.replace(b"pt2PK", b"ptXPK")), "cannot be read as a zip"),
    "kind: cut off": (lambda p: corrupt_metadata(p, lambda b: b[: len(b) // 2]), "cannot be read as a zip"),
    "kind: no zip": (lambda p: put(p, b"PK\x03\x04" + bytes(100)), "cannot be read as a zip"),
    "size: a bomb": (lambda p: bomb(p, "a/archive_format"), "far more than its own size"),
    "size: a bomb in a list of weights": (
        lambda p: corrupt_metadata(p, lambda b: b) and nested_bomb(p), "far more than its own size",
    ),
    "code: a shared library": (lambda p: archived(p, ["a/data/aotinductor/model/m.so"]), "native code"),
    "code: python": (lambda p: archived(p, ["a/code/evil.py"]), "a record that torch.export does not write"),
    "code: a script of torch": (lambda p: archived(p, ["a/constants.pkl"]), "a record that torch.export does not write"),
    "note: nothing else": (lambda p: archived(p, []), "holds 0 models"),
}  # fmt: skip


def nested_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/archive_format", b"pt2")
        archive.writestr("a/data/weights/weight_0", bytes(2**26))
    return path


@pytest.mark.parametrize("case", ARCHIVES)
def test_archives(guarded, tmp_path, case):
    make, words = ARCHIVES[case]
    path = make(tmp_path / "m.pt2")
    guarded()
    with pytest.raises(BadInputError, match=words) as caught:
        checked_archive(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert not (tmp_path.parent / "evil").exists() and not os.path.lexists("/evil")
