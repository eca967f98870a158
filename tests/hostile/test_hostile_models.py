"""Model files that are broken: the tensors, the header, the record of evenslice."""

import shutil

import bad_models as made
import pytest
from bad_files import bytes_in
from checking import Case, listed

M = "m.safetensors"
SEGMENT = f"segment {M} raw.tif out.zarr"
CASES = [
    Case("truncated: model", SEGMENT, M, made.cut(M, 0.5)),
    Case("truncated: model of its last byte", f"audit {M} raw.tif", M, made.cut(M, 0.99999)),
    Case("truncated: model in its header", f"inspect {M}", M, made.cut(M, 0.001)),
    Case("truncated: model of eight bytes", f"fix {M} f.safetensors", M, bytes_in(M, b"\x08" + b"\0" * 7)),
    Case("zero-byte: model", f"export {M} out.onnx", M, bytes_in(M, b"")),
    Case("wrong magic: text named safetensors", SEGMENT, M, bytes_in(M, b"not a model\n" * 9)),
    Case("absurd size: model header of 2^60", SEGMENT, M, made.with_header(M, b"{}", 2**60)),
    Case("absurd size: model header of 2^64", f"inspect {M}", M, made.with_header(M, b"{}", 2**64 - 1)),
    Case("absurd size: tensor of 10^12", SEGMENT, M, made.tensors(M, lambda header: made.first(header, shape=[10**12], data_offsets=[0, 4 * 10**12]))),
    Case("absurd size: shape of 10^12 in few bytes", f"audit {M} raw.tif", M, made.tensors(M, lambda header: made.first(header, shape=[10**6, 10**6]))),
    Case("corrupt: header that is no JSON", f"inspect {M}", M, made.with_header(M, b"{nothing}")),
    Case("corrupt: header of a list", SEGMENT, M, made.with_header(M, b"[1]")),
    Case("corrupt: tensor of an unknown type", SEGMENT, M, made.tensors(M, lambda header: made.first(header, dtype="X9"))),
    Case("corrupt: tensors that overlap", SEGMENT, M, made.tensors(M, lambda header: made.first(header, data_offsets=[8, 16]))),
    Case("corrupt: tensor of another name", SEGMENT, (M, "does not fit the network"), made.tensors(M, lambda header: header.update(other=header.pop(next(n for n in header if n != "__metadata__"))))),
    Case("nested: header of 100000 brackets", f"inspect {M}", M, made.with_header(M, b'{"a":' * 100_000)),
    Case("record: none", SEGMENT, (M, "no evenslice record"), made.with_header(M, b"{}")),
    Case("record: no JSON", SEGMENT, M, made.record(M, lambda told: "{nothing")),
    Case("record: 100000 brackets", SEGMENT, M, made.record(M, lambda told: "[" * 100_000)),
    Case("record: a list", f"audit {M} raw.tif", (M, "no table"), made.record(M, lambda told: "[1]")),
    Case("record: a number", f"inspect {M}", (M, "no table"), made.record(M, lambda told: "3")),
    Case("record: another schema", f"fix {M} f.safetensors", (M, "evenslice.model/9"), made.record(M, lambda told: told | {"schema": "evenslice.model/9"})),
    *[Case(f"record: no {key}", SEGMENT, M, made.record(M, made.without(key))) for key in ("schema", "spec", "normalisation", "training", "scores")],
    Case("record: spec of null", SEGMENT, (M, "spec"), made.record(M, lambda told: told | {"spec": None})),
    Case("record: unknown architecture", SEGMENT, M, made.record(M, made.changed("spec", arch="magic"))),
    Case("record: unknown encoder", SEGMENT, M, made.record(M, made.changed("spec", encoder="magic"))),
    Case("record: 4 slices", SEGMENT, M, made.record(M, made.changed("spec", slices=4))),
    Case("record: 10^9 slices", SEGMENT, M, made.record(M, made.changed("spec", slices=10**9))),
    Case("record: 10^9 classes", f"inspect {M}", M, made.record(M, made.changed("spec", classes=10**9))),
    Case("record: no classes", SEGMENT, M, made.record(M, made.changed("spec", classes=0))),
    Case("record: classes of words", SEGMENT, M, made.record(M, made.changed("spec", classes="many"))),
    Case("record: unknown key of the spec", SEGMENT, M, made.record(M, made.changed("spec", magic=1))),
    Case("record: std of 0", SEGMENT, M, made.record(M, made.changed("normalisation", std=[0.0]))),
    Case("record: mean of nan", f"audit {M} raw.tif", M, made.record(M, made.changed("normalisation", mean=[float("nan")]))),
    Case("record: means of words", SEGMENT, M, made.record(M, made.changed("normalisation", mean=["a"]))),
    Case("record: five means", SEGMENT, M, made.record(M, made.changed("normalisation", mean=[1.0] * 5, std=[1.0] * 5))),
    Case("record: slices of words", f"audit {M} raw.tif --tile 32", M, made.record(M, lambda told: told | {"training": {"slices": "many", "fingerprint": 3}})),
    Case("record: training of null", SEGMENT, M, made.record(M, lambda told: told | {"training": None})),
    Case("record: unknown tta", SEGMENT, M, made.record(M, lambda told: told | {"tta": "magic"})),
    Case("weights: file that is none", "train raw.tif labels.tif o.safetensors --weights w.safetensors --encoder resnet18", "w.safetensors", bytes_in("w.safetensors", b"nothing")),
    Case("weights: header of 2^60", "train raw.tif labels.tif o.safetensors --weights w.safetensors --encoder resnet18", "w.safetensors", made.with_header("w.safetensors", b"{}", 2**60)),
    Case("weights: folder", "train raw.tif labels.tif o.safetensors --weights d", "d", lambda place: (place / "d").mkdir()),
    Case("weights: no name", "train raw.tif labels.tif o.safetensors --weights hf-hub:", "hf-hub:"),
    Case("no model: volume", "audit raw.tif raw.tif", "raw.tif is not a model file"),
    Case("no model: module that is not there", "segment nothing.at.all:make raw.tif out.zarr --slices 3", "nothing.at.all:make cannot be imported"),
]  # fmt: skip


@pytest.mark.parametrize("case", listed(CASES))
def test_models(checked, place, whole_model, case):
    shutil.copy(whole_model, made.WHOLE)
    checked(case)
