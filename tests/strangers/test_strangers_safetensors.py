"""Model files of strangers: headers of safetensors, and the record of evenslice in them."""

import json
import re

import pytest
from offers import CODE, deep, headed, pickled, put, recorded, tensor, torch_zip
from safetensors.torch import load_file

from evenslice import load_model, save_model
from evenslice.errors import BadInputError
from evenslice.model.build import build_model
from evenslice.model.checkpoint import KEY
from evenslice.model.inputs import model_of
from evenslice.model.pickles import ADVICE
from evenslice.volume.normalisation import Normalisation


def field(part, **values):
    return lambda about: about[part].update(values)


def whole(**values):
    return lambda about: about.update(values)


HEADERS = {
    "header: empty file": b"",
    "header: seven bytes": b"\1" * 7,
    "header: length of 2^60": headed({}, length=2**60),
    "header: length of 2^63": headed({}, length=2**63),
    "header: longer than the file": headed({}, length=100),
    "header: no JSON": headed(b"{{{{"),
    "header: a list": headed([]),
    "header: invalid UTF-8": headed(b'{"a\xff": 1}'),
    "header: nested 10^5 deep": headed(b'{"a":' + deep(10**5).encode() + b"}"),
    "header: metadata of numbers": headed({"__metadata__": {KEY: 1}}),
    "header: metadata of tables": headed({"__metadata__": {KEY: {}}}),
    "header: unknown type": headed(
        {"a": tensor(dtype="F999"), "__metadata__": {KEY: "{}"}}, bytes(4)
    ),
    "header: overlapping tensors": headed({"a": tensor(), "b": tensor()}, bytes(4)),
    "header: a hole between tensors": headed({"a": tensor(), "b": tensor(span=(8, 12))}, bytes(12)),
    "header: backwards": headed({"a": tensor(span=(4, 0))}, bytes(4)),
    "header: negative offset": headed({"a": tensor(span=(-4, 0))}, bytes(4)),
    "header: negative shape": headed({"a": tensor(shape=(-1,))}, bytes(4)),
    "header: shape that overflows": headed({"a": tensor(shape=(2**62, 2**62))}, bytes(4)),
    "header: shape larger than its bytes": headed({"a": tensor(shape=(2**40,))}, bytes(4)),
    "header: bytes after the end": headed({"a": tensor()}, bytes(400)),
    "header: one name twice": headed(
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        bytes(4),
    ),
    "header: 10^5 tensors": headed({f"t{n}": tensor((0,), span=(0, 0)) for n in range(10**5)}),
}


@pytest.mark.parametrize("case", HEADERS)
def test_headers(guarded, tmp_path, case):
    path = put(tmp_path / "m.safetensors", HEADERS[case])
    guarded()
    with pytest.raises(BadInputError) as caught:
        model_of(path)
    assert (
        "\n" not in str(caught.value)
        and "m.safetensors" in str(caught.value)
        and len(str(caught.value)) < 600
    )


RECORDS = {
    "text: empty": ("", "is not a model file"),
    "text: null": ("null", "it is no table"),
    "text: a number": ("1", "it is no table"),
    "text: nested 40 deep": (deep(40), "nested deeper than 32"),
    "text: nested 10^6 deep": (deep(10**6), "nested deeper than 32"),
    "text: 5 MB": (json.dumps("x" * 5 * 2**20), "at most 4194304 are read"),
    "text: NaN": ('{"a": NaN}', "the number NaN"),
    "text: Infinity": ('{"a": -Infinity}', "the number -Infinity"),
    "text: 1e999": ('{"a": 1e999}', "the number 1e999"),
    "text: 10^4 digits": ('{"a": ' + "9" * 10**4 + "}", "the number 999"),
    "text: half a character": ('{"schema": "\\ud800"}', "the schema"),
}


@pytest.mark.parametrize("case", RECORDS)
def test_texts_of_records(guarded, tmp_path, case):
    text, words = RECORDS[case]
    path = put(
        tmp_path / "m.safetensors", headed({"a": tensor(), "__metadata__": {KEY: text}}, bytes(4))
    )
    guarded()
    with pytest.raises(BadInputError, match=words) as caught:
        load_model(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


CHANGED = {
    "schema: another": (whole(schema="evenslice.model/99"), "the schema"),
    "schema: a list": (whole(schema=[1]), "the schema"),
    "spec: none": (lambda about: about.pop("spec") and None, "it has no spec"),
    "spec: a list": (whole(spec=[]), "it has no spec"),
    "spec: an unknown field": (field("spec", callable="os:system"), "damaged record"),
    "arch: unknown": (field("spec", arch="deathstar"), "architecture 'deathstar' is unknown"),
    "arch: a callable": (field("spec", arch="evil:make"), "architecture 'evil:make' is unknown"),
    "arch: a number": (field("spec", arch=3), "architecture is '3'"),
    "arch: a list": (field("spec", arch=["unet"]), "architecture is"),
    "encoder: unknown": (field("spec", encoder="resnet1e9"), "encoder 'resnet1e9' is unknown"),
    "encoder: of the hub": (
        field("spec", encoder="hf-hub:evil/model"),
        "encoder 'hf-hub:evil/model' is unknown",
    ),
    "encoder: of the hub, timm's way": (
        field("spec", encoder="tu-hf-hub:evil/model"),
        "is unknown",
    ),
    "encoder: a folder": (
        field("spec", encoder="local-dir:/tmp"),
        "encoder 'local-dir:/tmp' is unknown",
    ),
    "encoder: a path": (field("spec", encoder="../../etc/passwd"), "is unknown"),
    "encoder: an address": (field("spec", encoder="https://evil.example/x"), "is unknown"),
    "encoder: a callable": (field("spec", encoder="evil:make"), "encoder 'evil:make' is unknown"),
    "encoder: smp with an address": (
        field("spec", encoder="smp:https://evil.example"),
        "is unknown",
    ),
    "encoder: a long name": (field("spec", encoder="x" * 10**5), "encoder is 'xxx"),
    "encoder: null": (field("spec", encoder=None), "encoder is 'None'"),
    "depth: 0": (field("spec", encoder_depth=0), "encoder depth is '0'"),
    "depth: -1": (field("spec", encoder_depth=-1), "encoder depth is '-1'"),
    "depth: 10^9": (field("spec", encoder_depth=10**9), "encoder depth is '1000000000'"),
    "depth: true": (field("spec", encoder_depth=True), "encoder depth is 'True'"),
    "depth: text": (field("spec", encoder_depth="3"), "encoder depth is '3'"),
    "depth: more than there is": (
        field("spec", encoder_depth=9),
        "encoder depth 9 cannot be built",
    ),
    "slices: -3": (field("spec", slices=-3), "-3 slices"),
    "slices: 10^9 + 1": (field("spec", slices=10**9 + 1), "1000000001 slices"),
    "slices: text": (field("spec", slices="3"), "number of slices is '3'"),
    "slices: a fraction": (field("spec", slices=3.0), "number of slices is '3.0'"),
    "slices: other than the weights": (field("spec", slices=5), "does not fit the network"),
    "classes: 0": (field("spec", classes=0), "0 classes"),
    "classes: -5": (field("spec", classes=-5), "-5 classes"),
    "classes: 10^9": (field("spec", classes=10**9), "number of classes is '1000000000'"),
    "classes: true": (field("spec", classes=True), "number of classes is 'True'"),
    "init: unknown": (field("spec", init="evil"), "init 'evil' is unknown"),
    "init: a table": (field("spec", init={}), "init {} is unknown"),
    "tie: unknown": (field("spec", tie="evil"), "tie 'evil' is unknown"),
    "options: a list": (field("spec", options=[1]), "options is"),
    "options: weights to fetch": (
        field("spec", options={"pretrained": True}),
        "option is 'pretrained'",
    ),
    "options: a checkpoint to read": (
        field("spec", options={"checkpoint_path": "evil.pth"}),
        "option is 'checkpoint_path'",
    ),
    "options: an address": (
        field("spec", options={"pretrained_cfg": {"url": "https://evil.example"}}),
        "option is 'pretrained_cfg'",
    ),
    "options: an overlay": (
        field("spec", options={"pretrained_cfg_overlay": {"url": "x"}}),
        "'pretrained_cfg_overlay'",
    ),
    "options: weights of smp": (
        field("spec", options={"encoder_weights": "imagenet"}),
        "option is 'encoder_weights'",
    ),
    "options: a huge decoder": (
        field("spec", options={"decoder_channels": [2**30] * 3}),
        "option is 'decoder_channels'",
    ),
    "options: a huge number": (field("spec", options={"img_size": 10**9}), "option img_size is"),
    "options: a table": (field("spec", options={"pad_type": {"a": 1}}), "option pad_type is"),
    "options: a long list": (field("spec", options={"depths": [1] * 1000}), "option depths is"),
    "options: no name": (field("spec", options={"a b": 1}), "option is 'a b'"),
    "options: another encoder, of the hub": (
        field("spec", options={"architecture": "hf-hub:evil/model"}),
        "is unknown",
    ),
    "options: another encoder, a number": (
        field("spec", options={"architecture": 3}),
        "is unknown",
    ),
    "options: unknown to the encoder": (field("spec", options={"evil": 1}), "cannot be built"),
    "size: a network of 2 billion numbers": (
        field("spec", arch="dpt", encoder="vit_gigantic_patch14_224", encoder_depth=None),
        r"names a network of \d{10} numbers and holds",
    ),
    "size: an image of 16000 pixels": (
        field(
            "spec",
            arch="dpt",
            encoder="vit_large_patch16_224",
            encoder_depth=None,
            options={"img_size": 16000},
        ),
        r"names a network of \d+ numbers and holds",
    ),
    "form: a callable": (
        whole(
            spec={"form": "callable", "source": "evil:make", "slices": 3, "classes": 1, "built": 3}
        ),
        "whose code is not run unless you name it",
    ),
    "form: onnx": (
        whole(spec={"form": "onnx", "source": "x", "slices": 3, "classes": 1, "built": 3}),
        "damaged record",
    ),
    "form: unknown": (
        whole(spec={"form": "exec", "source": "x", "slices": 3, "classes": 1, "built": 3}),
        "damaged record",
    ),
    "form: a source that is no text": (
        whole(
            spec={
                "form": "callable",
                "source": ["evil:make"],
                "slices": 3,
                "classes": 1,
                "built": 3,
            }
        ),
        "damaged record",
    ),
    "form: 10^9 slices": (
        whole(
            spec={
                "form": "callable",
                "source": "evil:make",
                "slices": 10**9,
                "classes": 1,
                "built": 3,
            }
        ),
        "damaged record",
    ),
    "normalisation: text": (whole(normalisation="x"), "damaged record"),
    "normalisation: letters for numbers": (
        whole(normalisation={"mean": "12", "std": "34"}),
        "in place of numbers",
    ),
    "normalisation: truth values": (
        whole(normalisation={"mean": [True], "std": [True]}),
        "in place of numbers",
    ),
    "normalisation: a std of 0": (
        whole(normalisation={"mean": [1.0], "std": [0.0]}),
        "a std above 0",
    ),
    "normalisation: none": (lambda about: about.pop("normalisation") and None, "damaged record"),
    "normalisation: of 10^5 slots": (
        whole(normalisation={"mean": [1.0] * 10**5, "std": [1.0] * 10**5}),
        "in place of numbers",
    ),
    "training: a list": (whole(training=[1]), "training that is no table"),
    "training: slices of text": (whole(training={"slices": "0:9"}), "slices that are str"),
    "training: slices to 2^60": (
        whole(training={"slices": [[0, 2**60]]}),
        "the span 0:1152921504606846976",
    ),
    "training: slices backwards": (whole(training={"slices": [[9, 0]]}), "the span 9:0"),
    "training: many spans": (
        whole(training={"slices": [[0, 10**7]] * 2}),
        "more than 10000000 slices",
    ),
    "training: volumes that are none": (
        whole(training={"volumes": [1]}),
        "volumes that is no table",
    ),
    "training: a target of code": (
        whole(training={"target": "evil:make"}),
        "the target 'evil:make'",
    ),
    "training: a voxel of 0": (whole(training={"voxel_nm": [0, 1, 1]}), "the voxel size"),
    "training: a recipe of text": (whole(training={"recipe": "x"}), "recipe that is no table"),
    "scores: a list": (whole(scores=[]), "scores that is no table"),
    "scores: a Dice of text": (whole(scores={"dice": "1"}), "a dice of 1"),
    "scores: nested": (whole(scores={"validation": {"dice": []}}), r"a dice of \[\]"),
    "certificate: text": (whole(certificate="even"), "certificate that is no table"),
    "certificate: empty": (whole(certificate={}), "damaged record"),
    "certificate: text for numbers": (
        whole(certificate={"float32": "0", "symmetric": True}),
        "without its numbers",
    ),
    "certificate: text for truth": (
        whole(certificate={"float32": 0.0, "symmetric": "yes"}),
        "without its numbers",
    ),
    "tta: unknown": (whole(tta="evil"), "test-time augmentation 'evil' is unknown"),
    "tta: a list": (whole(tta=[]), r"test-time augmentation \[\] is unknown"),
}


@pytest.fixture(scope="module")
def known():
    model = build_model(encoder="test_resnet", encoder_depth=2, weights="none")
    return model.with_facts(normalisation=Normalisation((128.0,), (40.0,), "file"))


SLOW = {  # alike others, and looked up among all names that there are
    "encoder: a path", "encoder: an address", "encoder: a callable", "encoder: of the hub, timm's way", "encoder: unknown",
    "options: another encoder, of the hub", "size: an image of 16000 pixels",
}  # fmt: skip


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case for case in CHANGED],
)
def test_records(guarded, tmp_path, known, case):
    change, words = CHANGED[case]
    put(tmp_path / "evil.py", CODE.encode())
    path = put(tmp_path / "m.safetensors", recorded(known, change))
    guarded()
    with pytest.raises(BadInputError, match=words) as caught:
        load_model(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_record_as_we_write_it_is_read(guarded, tmp_path, known):
    """The cases above fail by what they changed, not by how they were made."""
    path = put(tmp_path / "m.safetensors", recorded(known))
    guarded()
    assert load_model(path).spec == known.spec


def test_an_infinite_certificate_is_kept(tmp_path, known):
    infinite = known.with_facts(
        certificate={"float32": float("inf"), "symmetric": False}, scores={"dice": float("nan")}
    )
    save_model(tmp_path / "m.safetensors", infinite)
    found = load_model(tmp_path / "m.safetensors")
    assert found.certificate == {"float32": float("inf"), "symmetric": False} and found.scores == {
        "dice": None
    }


PICKLES = {
    "name: .pt": (torch_zip, "m.pt"),
    "name: .pth": (torch_zip, "m.pth"),
    "name: .ckpt": (torch_zip, "m.ckpt"),
    "name: .PTH": (torch_zip, "m.PTH"),
    "name: .pkl": (pickled, "m.pkl"),
    "name: .pickle": (pickled, "m.pickle"),
    "name: .joblib": (pickled, "m.joblib"),
    "name: .dill": (pickled, "m.dill"),
    "name: .bin": (torch_zip, "m.bin"),
    "name: .pth.tar": (torch_zip, "m.pth.tar"),
    "bytes: a pickle as .safetensors": (pickled, "m.safetensors"),
    "bytes: a pickle as .pt2": (pickled, "m.pt2"),
    "bytes: a pickle as .onnx": (pickled, "m.onnx"),
    "bytes: a torch zip as .safetensors": (torch_zip, "m.safetensors"),
    "bytes: a torch zip as .pt2": (torch_zip, "m.pt2"),
    "bytes: a torch zip as .onnx": (torch_zip, "m.onnx"),
}


@pytest.mark.parametrize("case", PICKLES)
def test_pickles(guarded, tmp_path, case):
    make, name = PICKLES[case]
    path = make(tmp_path / name)
    guarded()
    with pytest.raises(BadInputError, match="could run any code") as caught:
        model_of(path)
    assert "\n" not in str(caught.value)
    assert "safetensors.torch as s; s.save_file(torch.load('FILE', weights_only=True)" in str(
        caught.value
    )


def test_the_safe_way_that_is_told_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch_zip(tmp_path / "FILE")
    exec(re.search(r'python -c "(.*?)"', ADVICE)[1], {})
    assert load_file("FILE.safetensors")["a"].shape == (2,)
