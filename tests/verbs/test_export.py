"""Exported models: the same answers in their own runtimes, the metadata, the same audit."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from evenslice import audit, mirror_stem, save_model
from evenslice.errors import BadInputError
from evenslice.model.opening import model_of
from evenslice.model.spec import ExternalSpec, Model, Spec
from evenslice.model.stem.adapt import bake_stem
from evenslice.verbs.export import export
from evenslice.volume.normalisation import Normalisation

NORM = Normalisation((128.0,), (40.0,), "file")


def convolutions(slices=3, classes=1):
    torch.manual_seed(0)
    first = nn.Conv2d(slices, 6, 3, 2, padding=1)
    return nn.Sequential(
        first,
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(6, classes, 3, padding=1),
    ).eval()


def model(slices=3, classes=1, network=None, norm=NORM, stride=2, **facts):
    spec = Spec(slices=slices, classes=classes, init="green")
    return Model(network or convolutions(slices, classes), spec, norm, stride=stride, **facts)


def answers(path):
    """Run a file without evenslice."""
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()
        return lambda x: module(x).detach()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(
        session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    )


def metadata_of(path):
    if path.suffix == ".pt2":
        extra = {"evenslice.json": ""}
        torch.export.load(path, extra_files=extra)
        return json.loads(extra["evenslice.json"])
    return {p.key: json.loads(p.value) for p in onnx.load(path).metadata_props}["evenslice"]


def noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(("name", "slices", "classes"), [("m.pt2", 3, 1), ("m.onnx", 5, 3)])
def test_a_file_answers_like_torch_and_says_what_it_is(
    tmp_path, monkeypatch, name, slices, classes
):
    monkeypatch.setattr(sys, "argv", ["evenslice", "export"])  # the command is in the provenance
    given = model(
        slices, classes, training={"volume": "raw.tif", "slices": [[0, 9]], "voxel_nm": [50, 4, 4]}
    )
    done = export(given, tmp_path / name, tile=64)
    assert [p.name for p in tmp_path.iterdir()] == [name]
    run = answers(tmp_path / name)
    for shape in ((1, slices, 64, 64), (3, slices, 70, 98)):
        found, expected = run(noise(*shape)), given.module(noise(*shape)).detach()
        assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert done.difference <= 1e-4 and done.to_dict()["dynamic"] == ["batch", "y", "x"]
    again = model_of(tmp_path / name, trust=True)
    assert (again.slices, again.spec.classes, again.normalisation) == (slices, classes, NORM)
    assert (again.spec.init, again.training) == ("green", given.training)
    assert again.certificate == done.certificate.to_dict() and not done.certificate.symmetric
    metadata = metadata_of(tmp_path / name)
    assert metadata["stem"]["modules"][0]["norms"] == pytest.approx(
        done.to_dict()["stems"][0]["norms"], rel=1e-4
    )  # the exporter folds the batch norm into the stem
    assert (
        metadata["export"]["difference"] == done.difference and metadata["spec"]["slices"] == slices
    )
    assert b".py" not in (tmp_path / name).read_bytes()  # no file of the machine it was made on


@pytest.mark.parametrize(
    ("name", "methods"),
    [pytest.param("m.pt2", None, marks=pytest.mark.slow), ("m.onnx", ("ablation", "shapley"))],
)
def test_an_exported_model_is_audited_like_the_original(tmp_path, grey, name, methods):
    given = model()
    export(given, tmp_path / name, tile=32)
    options = {"tile": 32, "windows": 6, "methods": methods}
    read = model_of(tmp_path / name, trust=True)
    before, after = audit(given, grey, **options), audit(read, grey, **options)
    assert list(before.methods) == list(after.methods) and len(before.methods) >= 2
    for method, found in after.methods.items():
        assert [s.value for s in found.shares] == pytest.approx(
            [s.value for s in before.methods[method].shares], abs=1e-4
        )
    assert after.verdict == before.verdict


def test_a_tied_model_stays_certified_and_says_so(tmp_path):
    even = bake_stem(mirror_stem(convolutions(), 3, "mirror"))
    given = replace(
        model(network=even),
        spec=Spec(tie="mirror"),
        certificate={"float32": 0.0, "symmetric": True},
    )
    save_model(tmp_path / "m.safetensors", given)
    done = export(given, tmp_path / "m.pt2", tile=32)
    assert done.certificate.symmetric and done.certificate.float64 < 1e-12
    assert model_of(tmp_path / "m.pt2", trust=True).spec.tie == "mirror"
    assert done.warnings == ()


def test_the_mean_over_the_reversal_is_in_the_graph(tmp_path):
    norm = Normalisation((100.0, 120.0, 140.0), (30.0, 40.0, 50.0), "file")
    given = model(norm=norm).with_tta("reversal")
    done = export(given, tmp_path / "m.onnx", tile=32)
    raw = 120 + 40 * noise(2, 3, 32, 48).numpy()
    run = answers(tmp_path / "m.onnx")
    one, other = (run(torch.from_numpy(norm.apply(pixels))) for pixels in (raw, raw[:, ::-1]))
    assert (one - other).abs().max() < 1e-5
    assert (one - given.module(torch.from_numpy(norm.apply(raw)))).abs().max() < 1e-4
    assert done.tta == "reversal" and done.certificate.symmetric
    again = model_of(tmp_path / "m.onnx")
    assert again.tta == "none"  # or it would be averaged twice
    assert metadata_of(tmp_path / "m.onnx")["export"]["tta_in_graph"] == "reversal"


class Placed(nn.Module):
    """Takes one size only, as networks with an embedding of places do."""

    def __init__(self):
        super().__init__()
        self.conv, self.place = (
            nn.Conv2d(3, 1, 3, padding=1),
            nn.Parameter(torch.ones(1, 1, 32, 48)),
        )
        self.img_size = (32, 48)

    def forward(self, x):
        return self.conv(x) * self.place


@pytest.mark.parametrize("name", ["m.pt2", pytest.param("m.onnx", marks=pytest.mark.slow)])
def test_a_network_of_one_size_is_exported_at_that_size(tmp_path, name):
    torch.manual_seed(0)
    given = model(network=Placed().eval(), size=(32, 48), stride=1)
    done = export(given, tmp_path / name)
    assert done.shape == (None, 3, 32, 48) and "32 x 48 only" in done.warnings[0]
    assert model_of(tmp_path / name, trust=True).size == (32, 48)


class Timid(nn.Module):
    """Its logits all lie in 0..1, as probabilities do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)
        nn.init.normal_(self.conv.weight, std=1e-3)

    def forward(self, x):
        return self.conv(x).sigmoid()


def test_logits_that_look_like_probabilities_stay_logits(tmp_path):
    given = model(network=Timid().eval(), stride=1)
    export(given, tmp_path / "m.pt2", tile=32)
    again = model_of(tmp_path / "m.pt2", trust=True)
    assert isinstance(again.spec, ExternalSpec) and again.spec.answers == "logits"
    assert torch.allclose(again.module(noise(1, 3, 32, 32)), given.module(noise(1, 3, 32, 32)))


@pytest.mark.slow
def test_an_exported_model_is_exported_again(tmp_path):
    export(model(), tmp_path / "m.pt2", tile=32)
    done = export(model_of(tmp_path / "m.pt2", trust=True), tmp_path / "m.onnx", tile=32)
    assert done.shape == (None, 3, None, None)
    x = noise(2, 3, 34, 66)
    assert (answers(tmp_path / "m.onnx")(x) - model().module(x)).abs().max() < 1e-4


@pytest.mark.slow
def test_a_network_of_one_batch_size_is_exported_for_one_window(tmp_path):
    program = torch.export.export(convolutions(), (torch.zeros(2, 3, 32, 64),))
    torch.export.save(program, tmp_path / "two.pt2")
    done = export(
        model_of(tmp_path / "two.pt2", trust=True), tmp_path / "m.pt2", mean=[128.0], std=[40.0]
    )
    assert done.shape == (1, 3, 32, 64) and len(done.warnings) == 2
    x = noise(1, 3, 32, 64)
    assert torch.allclose(answers(tmp_path / "m.pt2")(x), convolutions()(x), atol=1e-5)


class Counting(nn.Module):
    """Answers differently each time; a trace keeps one of its answers."""

    def __init__(self):
        super().__init__()
        self.conv, self.seen = nn.Conv2d(3, 1, 3, padding=1), []

    def forward(self, x):
        self.seen += [1]
        return self.conv(x) * float(len(self.seen))


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3, padding=1)

    def forward(self, x):
        return self.conv(x) if x.mean() > 0 else self.conv(-x)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Counting, "differs from torch by .* expected at most 0.0001|cannot trace the network"),
        (Branching, "cannot trace the network"),
    ],
)
def test_what_would_answer_differently_is_not_written(tmp_path, network, message):
    torch.manual_seed(0)
    with pytest.raises(BadInputError, match=message):
        export(model(network=network().eval(), stride=1), tmp_path / "m.pt2", tile=32)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("m.onnx", {"format": "torch-export"}, "expected .pt2 for torch-export"),
        ("m.pth", {}, "has the ending '.pth', expected .onnx, .pt2, .zip"),
        ("m.pt2", {"opset": 18}, "--opset 18 was given for torch-export"),
        ("m.onnx", {"opset": 9}, "--opset is 9, expected 16 or more"),
        ("m.onnx", {"tile": 0}, "--tile is 0, expected 1 or more"),
        ("m.onnx", {"authors": ["A"]}, "expected them for bioimageio"),
        ("m.onnx", {"format": "tflite"}, "--format is 'tflite', expected"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, name, options, message):
    with pytest.raises(BadInputError, match=message):
        export(model(), tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_models_that_cannot_be_exported_are_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"")
    with pytest.raises(BadInputError, match=r"is an ONNX model already, expected a \.safetensors"):
        export(tmp_path / "m.onnx", tmp_path / "n.onnx")
    with pytest.raises(BadInputError, match=r"m\.onnx exists"):
        export(model(), tmp_path / "m.onnx")
    with pytest.raises(
        BadInputError, match=r"no normalisation, expected a mean and a std .*--mean and --std"
    ):
        export(model(norm=None), tmp_path / "n.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("name", "missing", "extra"),
    [("m.onnx", "onnxscript", "onnx"), ("m.zip", "bioimageio.core", "bioimageio")],
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, name, missing, extra):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        BadInputError, match=rf"^{missing} is not installed, .*pip install evenslice\[{extra}\]$"
    ):
        export(model(), tmp_path / name)
