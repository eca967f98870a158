"""Exported models of torch: their stems are those of the network they come from."""

import copy

import pytest
import torch
from exports import NETWORKS, as_pt2, far, image, network
from torch import nn

from evenslice import mirror_stem, uniform_stem
from evenslice.errors import BadInputError
from evenslice.model.exported import image_shape, read_exported, write_exported
from evenslice.model.stem.find import find_stems
from evenslice.model.stem.probe import call_of, order_response
from evenslice.model.stem.slots import norms_per_slot

CASES = [
    ("scaled", False),
    ("scaled", True),
    ("space to depth", True),
    ("tokens", True),
    ("tokens without bias", False),
]
CASES += [("two branches", False), ("two branches", True), ("unet", True)]
CASES += [pytest.param("unet", False, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    made = {}

    def file(case, dynamic=False):
        if (case, dynamic) not in made:
            path = tmp_path_factory.mktemp("exported") / f"{case.replace(' ', '')}.pt2"
            made[case, dynamic] = as_pt2(network(case), path, dynamic)
        return made[case, dynamic]

    return file


def described(module):
    return [(stem.name, stem.slot_of, stem.description) for stem in find_stems(module)]


@pytest.mark.parametrize(("case", "dynamic"), CASES)
def test_it_is_what_the_network_is_before_and_after(files, tmp_path, case, dynamic):
    plain, x = copy.deepcopy(network(case)), image(dynamic)
    found, about = read_exported(files(case, dynamic), trust=True)
    assert about == {} and image_shape(found) == (
        (None, 3, None, None) if dynamic else (1, 3, 32, 48)
    )
    stems, expected = find_stems(found), find_stems(plain)
    assert [stem.name for stem in stems] == NETWORKS[case][1]
    for one, other in zip(stems, expected, strict=True):
        assert (one.name, one.slot_of, one.description) == (
            other.name,
            other.slot_of,
            other.description,
        )
        assert norms_per_slot(one) == pytest.approx(norms_per_slot(other))
    with torch.no_grad():
        assert far(found(x), plain(x)) < 1e-5 and far(found(x.flip(1)), found(x)) > 1e-3
        mirror_stem(found, 3), mirror_stem(plain, 3)
        assert far(found(x), plain(x)) < 1e-5
        assert order_response(found, call_of(found, 3), [2, 1, 0]) < 1e-5
        write_exported(tmp_path / "new.pt2", found, files(case, dynamic), {"tie": "none"})
        again, about = read_exported(tmp_path / "new.pt2", trust=True)
        assert about == {"tie": "none"} and torch.equal(again(x), found(x))
        uniform_stem(found, 3, "green"), uniform_stem(plain, 3, "green")
        assert far(found(x), plain(x)) < 1e-5 and far(found(x.roll(1, 1)), found(x)) < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["new.pt2"]


def test_what_was_written_is_read_by_torch_as_well(files, tmp_path):
    found, _ = read_exported(files("scaled"), trust=True)
    mirror_stem(found, 3)
    write_exported(tmp_path / "new.pt2", found, files("scaled"), {})
    program = torch.export.load(tmp_path / "new.pt2")
    assert torch.equal(program.module()(image(False)), found(image(False)))
    before = torch.export.load(files("scaled")).state_dict
    assert [name for name in before if not torch.equal(before[name], program.state_dict[name])] == [
        "first.weight"
    ]


@pytest.mark.parametrize("dynamic", [False, True])
def test_its_number_of_slices_stays_and_ties_are_for_training(files, dynamic):
    found, _ = read_exported(files("scaled", dynamic), trust=True)
    before, x = copy.deepcopy(found.state_dict()), image(dynamic)
    output = found(x)
    with pytest.raises(
        BadInputError,
        match=r"exported with 3 slices, .* change the number of slices before the export",
    ):
        uniform_stem(found, 5)
    with pytest.raises(
        BadInputError,
        match="the exported network takes 3 channels, expected 5; its number of slices is fixed",
    ):
        mirror_stem(found, 5)
    with pytest.raises(
        BadInputError, match=r"the tie 'mirror' is for training, .* on the module before the export"
    ):
        mirror_stem(found, 3, "mirror")
    assert all(torch.equal(before[name], value) for name, value in found.state_dict().items())
    assert torch.equal(found(x), output)


def test_operations_of_the_core_are_stems_too():
    """Decomposed to core ATen, a Conv2d is a convolution and a Linear an addmm of a turned weight."""
    for case in ("scaled", "tokens", "tokens without bias"):
        plain = copy.deepcopy(network(case))
        graph = (
            torch.export.export(plain, (torch.zeros(1, 3, 32, 48),)).run_decompositions().module()
        )
        assert described(graph) == described(plain)
        mirror_stem(graph, 3), mirror_stem(plain, 3)
        assert far(graph(image(False)), plain(image(False))) < 1e-5


def graph_of(module):
    return torch.export.export(module.eval(), (torch.zeros(1, 3, 32, 48),)).module()


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        return self.conv(self.conv(x).tanh())


class Standardised(nn.Conv2d):
    def forward(self, x):
        weight = (self.weight - self.weight.mean((1, 2, 3), True)) / self.weight.std(
            (1, 2, 3), keepdim=True
        )
        return nn.functional.conv2d(x, weight, self.bias)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)),
            "meet the parameter '0.weight' .* in batch_norm",
        ),
        (
            lambda: nn.Sequential(nn.ConvTranspose2d(3, 2, 2)),
            "meet the parameter '0.weight' .* in conv_transpose2d",
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3)),
            r"'0' is a grouped convolution \(groups = 3\)",
        ),
        (
            lambda: nn.Sequential(Standardised(3, 4, 3)),
            "weight of the stem '0' is computed, expected a plain parameter",
        ),
        (Twice, "'conv' is also called on something else than the slices"),
    ],
)
def test_it_is_refused_by_name(make, message):
    torch.manual_seed(0)
    graph = graph_of(make())
    with pytest.raises(BadInputError, match=message):
        mirror_stem(graph, 3)


def test_what_lies_behind_a_stem_does_not_count():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
    with torch.no_grad():
        module[0].weight[:, ::2] = 0.0
    assert [stem.name for stem in find_stems(graph_of(module))] == ["0"]


def test_an_exported_part_is_named():
    with pytest.raises(BadInputError, match=r"exported program inside \(1\), .* give that part"):
        find_stems(nn.Sequential(nn.Identity(), graph_of(nn.Conv2d(3, 4, 3))))


def test_it_is_opened_only_if_trusted(files, tmp_path):
    (tmp_path / "text.pt2").write_text("no archive")
    for path in (files("scaled"), tmp_path / "text.pt2"):
        with pytest.raises(
            BadInputError, match=r"can run code when it is opened, expected --trust"
        ):
            read_exported(path, trust=False)
    with pytest.raises(BadInputError, match=r"cannot load text.pt2 \(BadZipFile"):
        read_exported(tmp_path / "text.pt2", trust=True)


def test_other_files_in_the_archive_are_kept(tmp_path):
    program = torch.export.export(copy.deepcopy(network("scaled")), (image(False),))
    torch.export.save(program, tmp_path / "a.pt2", extra_files={"classes.txt": "mitochondria"})
    found, _ = read_exported(tmp_path / "a.pt2", trust=True)
    write_exported(tmp_path / "b.pt2", found, tmp_path / "a.pt2", {"tie": "mirror"})
    extra = {"classes.txt": "", "evenslice.json": ""}
    torch.export.load(tmp_path / "b.pt2", extra_files=extra)
    assert extra == {"classes.txt": "mitochondria", "evenslice.json": '{"tie": "mirror"}'}
