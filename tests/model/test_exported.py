"""Exported networks, .pt2 and .onnx: their stems are those of the network they come from."""

import copy

import pytest
import torch
from exports import NETWORKS, as_onnx, as_pt2, far, image, network
from networks import Twice
from torch import nn

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from evenslice import mirror_stem, uniform_stem
from evenslice.errors import BadInputError
from evenslice.model.export import read_exported, write_exported
from evenslice.model.onnx_file import read_onnx, write_onnx
from evenslice.model.stem.find import find_stems
from evenslice.model.stem.probe import call_of, image_shape, order_response
from evenslice.model.stem.slots import norms_per_slot

FORMS = {  # how a network is exported; whether a norm behind the stem is folded into it
    "pt2": (as_pt2, ()),
    "dynamo.onnx": (as_onnx, ("scaled", "unet")),
    "script.onnx": (lambda *args: as_onnx(*args, dynamo=False), ("scaled", "unet")),
}
CASES = [
    ("scaled", "pt2", False),
    ("scaled", "pt2", True),
    ("space to depth", "pt2", True),
    ("tokens", "pt2", True),
    ("tokens without bias", "pt2", False),
    ("two branches", "pt2", False),
    pytest.param("unet", "pt2", True, marks=pytest.mark.slow),
    ("scaled", "dynamo.onnx", True),
    ("scaled", "script.onnx", False),
    ("space to depth", "dynamo.onnx", True),
    ("tokens", "dynamo.onnx", True),
    ("tokens", "script.onnx", False),
    ("tokens without bias", "dynamo.onnx", False),
    ("two branches", "script.onnx", True),
    pytest.param("unet", "dynamo.onnx", True, marks=pytest.mark.slow),
]


def read(path):
    return read_exported(path, trust=True) if path.suffix == ".pt2" else read_onnx(path)


def write(path, module, source, metadata):
    if path.suffix == ".pt2":
        write_exported(path, module, source, metadata)
    else:
        write_onnx(path, module, metadata)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    made = {}

    def file(case, form, dynamic=False):
        if (case, form, dynamic) not in made:
            path = tmp_path_factory.mktemp("exported") / f"m.{form}"
            made[case, form, dynamic] = FORMS[form][0](network(case), path, dynamic)
        return made[case, form, dynamic]

    return file


def described(module):
    return [(stem.name, stem.slot_of, stem.kind) for stem in find_stems(module)]


@pytest.mark.parametrize(("case", "form", "dynamic"), CASES)
def test_it_is_what_the_network_is_before_and_after(files, tmp_path, case, form, dynamic):
    plain, x, source = copy.deepcopy(network(case)), image(dynamic), files(case, form, dynamic)
    found, metadata = read(source)
    assert metadata == {}
    assert image_shape(found) == ((None, 3, None, None) if dynamic else (1, 3, 32, 48))
    assert described(found) == described(plain)
    assert [stem.name for stem in find_stems(found)] == NETWORKS[case][1]
    if case not in FORMS[form][1]:
        for one, other in zip(find_stems(found), find_stems(plain), strict=True):
            assert norms_per_slot(one) == pytest.approx(norms_per_slot(other))
            assert one.description == other.description
    near = 1e-5 if form == "pt2" else 1e-4
    out = tmp_path / f"new{source.suffix}"
    with torch.no_grad():
        assert far(found(x), plain(x)) < near and far(found(x.flip(1)), found(x)) > 1e-3
        mirror_stem(found, 3), mirror_stem(plain, 3)
        assert far(found(x), plain(x)) < near
        write(out, found, source, {"tie": "none"})
        again, metadata = read(out)
        assert metadata == {"tie": "none"} and far(again(x), found(x)) < 1e-5
        assert order_response(again, call_of(again, 3), [2, 1, 0]) < 1e-5
        uniform_stem(found, 3, "green"), uniform_stem(plain, 3, "green")
        assert far(found(x), plain(x)) < near and far(found(x.roll(1, 1)), found(x)) < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize("form", ["pt2", "dynamo.onnx"])
def test_its_number_of_slices_stays_and_ties_are_for_training(files, form):
    found, _ = read(files("scaled", form))
    before = copy.deepcopy(found.state_dict())
    with pytest.raises(BadInputError, match="exported with 3 slices"):
        uniform_stem(found, 5)
    with pytest.raises(BadInputError, match="takes 3 channels, expected 5"):
        mirror_stem(found, 5)
    with pytest.raises(BadInputError, match=r"the tie 'mirror' is for training"):
        mirror_stem(found, 3, "mirror")
    assert all(torch.equal(before[name], value) for name, value in found.state_dict().items())
    assert far(found(image(False)), network("scaled")(image(False))) < 1e-5


def test_only_the_stem_changes_and_other_files_are_kept(tmp_path):
    program = torch.export.export(copy.deepcopy(network("scaled")), (image(False),))
    torch.export.save(program, tmp_path / "a.pt2", extra_files={"classes.txt": "mitochondria"})
    found, _ = read(tmp_path / "a.pt2")
    mirror_stem(found, 3)
    write_exported(tmp_path / "b.pt2", found, tmp_path / "a.pt2", {"tie": "mirror"})
    extra = {"classes.txt": "", "evenslice.json": ""}
    after = torch.export.load(tmp_path / "b.pt2", extra_files=extra).state_dict
    assert extra == {"classes.txt": "mitochondria", "evenslice.json": '{"tie": "mirror"}'}
    changed = [n for n, v in program.state_dict.items() if not torch.equal(v, after[n])]
    assert changed == ["first.weight"]


def test_what_cannot_be_loaded_is_refused(tmp_path):
    (tmp_path / "text.pt2").write_text("no archive")
    with pytest.raises(BadInputError, match=r"cannot load text.pt2 \(BadZipFile"):
        read_exported(tmp_path / "text.pt2", trust=True)


def test_operations_of_the_core_are_stems_too():
    """Decomposed to core ATen, a Conv2d is a convolution, a Linear an addmm of a turned weight."""
    for case in ("scaled", "tokens", "tokens without bias"):
        plain = copy.deepcopy(network(case))
        program = torch.export.export(plain, (torch.zeros(1, 3, 32, 48),))
        graph = program.run_decompositions().module()
        assert described(graph) == described(plain)
        mirror_stem(graph, 3), mirror_stem(plain, 3)
        assert far(graph(image(False)), plain(image(False))) < 1e-5


def graph_of(module):
    return torch.export.export(module.eval(), (torch.zeros(1, 3, 32, 48),)).module()


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return nn.functional.conv2d(x, weight, self.bias)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), "'0.weight' .* in batch_no"),
        (lambda: nn.ConvTranspose2d(3, 2, 2), "meet the parameter 'weight' .* in conv_transpose2d"),
        (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3)), "'0' is a grouped convolution"),
        (lambda: nn.Sequential(Standardised(3, 4, 3)), "stem '0' is computed, expected a plain"),
        (Twice, "'conv' is also called on something else than the slices"),
    ],
)
def test_it_is_refused_by_name(make, message):
    torch.manual_seed(0)
    graph = graph_of(make())
    with pytest.raises(BadInputError, match=message):
        mirror_stem(graph, 3)


class Skipping(nn.Module):
    """A filter that hands slot 1 on, and a layer behind it that sees the slices, too."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1, bias=False), nn.Conv2d(7, 2, 3)
        with torch.no_grad():
            self.first.weight[:, ::2] = 0.0

    def forward(self, x):
        return self.second(torch.cat([self.first(x), x], 1))


def test_what_lies_behind_a_stem_does_not_count(tmp_path):
    torch.manual_seed(0)
    plain = Skipping().eval()
    found, _ = read_onnx(as_onnx(plain, tmp_path / "skip.onnx", False, False))
    expected = [("first", (0, 1, 2)), ("second", (-1, -1, -1, -1, 0, 1, 2))]
    for module in (plain, graph_of(plain), found):
        assert [(stem.name, stem.slot_of) for stem in find_stems(module)] == expected
