"""Exported models of torch: their stems are those of the network they come from, and nothing in a file is trusted."""

import copy
import io
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from exports import NETWORKS, as_pt2, far, image, network
from torch import nn

from evenslice import mirror_stem, uniform_stem
from evenslice.errors import BadInputError
from evenslice.model.exported import image_shape, read_exported, write_exported
from evenslice.model.expressions import guard_is_plain, symbols_are_plain
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
MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


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
    found, about = read_exported(files(case, dynamic))
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
        again, about = read_exported(tmp_path / "new.pt2")
        assert about == {"tie": "none"} and torch.equal(again(x), found(x))
        uniform_stem(found, 3, "green"), uniform_stem(plain, 3, "green")
        assert far(found(x), plain(x)) < 1e-5 and far(found(x.roll(1, 1)), found(x)) < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["new.pt2"]


def test_what_was_written_is_read_by_torch_as_well(files, tmp_path):
    found, _ = read_exported(files("scaled"))
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
    found, _ = read_exported(files("scaled", dynamic))
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


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def saved(thing):
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    return buffer.getvalue()


def edited(source, target, change, **options):
    """Copy an archive with its records, by name without the folder, changed by a function in place."""
    with zipfile.ZipFile(source) as archive:
        records = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    change(records)
    with zipfile.ZipFile(target, "w", **options) as archive:
        for name, data in records.items():
            archive.writestr(f"archive/{name}", data)
    return target


def in_json(name, change):
    def changed(records):
        found = json.loads(records[name])
        change(found)
        records[name] = json.dumps(found).encode()

    return changed


def pickled_weight(evil):
    def change(records):
        records["data/weights/weight_0"] = saved(evil)
        in_json(
            WEIGHTS, lambda found: next(iter(found["config"].values())).update(use_pickle=True)
        )(records)

    return change


def opaque_constant(evil):
    def change(records):
        records["data/constants/opaque_obj_0"] = pickle.dumps(evil)
        entry = {
            "path_name": "opaque_obj_0",
            "is_param": False,
            "use_pickle": True,
            "tensor_meta": None,
        }
        in_json(
            "data/constants/model_constants_config.json",
            lambda found: found["config"].update(k=entry),
        )(records)

    return change


def code(evil):
    return f"__import__('pathlib').Path({evil.path!r}).touch()"


def graph(found):
    return found["graph_module"]["graph"]


def size(text):
    def change(found):
        graph(found)["tensor_values"]["x"]["sizes"][2] = {
            "as_expr": {"expr_str": text, "hint": {"as_int": 32}}
        }

    return in_json(MODEL, change)


def first_node(**changes):
    return in_json(MODEL, lambda found: graph(found)["nodes"][0].update(changes))


def command(evil):
    arg = {"name": "", "arg": {"as_string": f"touch {evil.path}"}, "kind": 1}
    node = {
        "target": "torch.os.system",
        "inputs": [arg],
        "outputs": [],
        "metadata": {},
        "is_hop_single_tensor_return": None,
    }
    return in_json(MODEL, lambda found: graph(found)["nodes"].insert(0, node | {"name": "first"}))


def spec(evil):
    context = json.dumps({"__enum__": True, "fqn": "this:Evil", "name": "x"})
    tree = json.dumps([1, {"type": "builtins.tuple", "context": context, "children_spec": []}])
    return in_json(
        MODEL,
        lambda found: found["graph_module"]["module_call_graph"][0]["signature"].update(
            out_spec=tree
        ),
    )


def renamed(evil):
    """Call an input so that the line of code that torch writes for it does more."""
    name = f"x=open({evil.path!r}, 'w')"

    def change(records):
        records[MODEL] = records[MODEL].replace(
            b'{"name": "x"}', json.dumps({"name": name}).encode()
        )

    return change


ATTACKS = {
    "a pickled weight": (pickled_weight, "holds a pickle"),
    "a pickled constant": (opaque_constant, "holds an object among its tensors"),
    "pickled sample inputs": (
        lambda evil: (
            lambda records: records.update({"data/sample_inputs/model.pt": saved((evil,))})
        ),
        "has sample inputs that are more than tensors",
    ),
    "weights of an older layout": (
        lambda evil: lambda records: records.update({"data/weights/model.pt": saved({"a": evil})}),
        r"holds a pickle \(data/weights/model.pt\)",
    ),
    "code as a size": (
        lambda evil: size(code(evil)),
        "holds an expression that torch.export does not write",
    ),
    "code as a text in a size": (
        lambda evil: size(f"Add({code(evil)!r}, Integer(1))"),
        "holds an expression that torch.export does not write",
    ),
    "code as a guard": (
        lambda evil: in_json(MODEL, lambda found: found.update(guards_code=[code(evil)])),
        "holds a guard that torch.export does not write",
    ),
    "a command": (
        command,
        r"holds an operation that torch.export does not write for a plain module \('torch.os.system'\)",
    ),
    "a file as a tensor": (
        lambda _: first_node(target="torch.ops.aten.from_file.default"),
        "holds an operation that torch.export",
    ),
    "a library": (
        lambda _: first_node(target="torch.ops.load_library"),
        "holds an operation that torch.export",
    ),
    "an operation of scripts": (
        lambda _: first_node(target="torch.ops.aten.save.default"),
        "holds an operation",
    ),
    "a module to import": (spec, "holds a container that torch.export does not write"),
    "code as a name": (renamed, "holds a name that torch.export does not write"),
    "native code": (
        lambda _: lambda records: records.update({"data/aotinductor/model/model.so": b"\x7fELF"}),
        r"holds native code \(data/aotinductor/model/model.so\)",
    ),
    "two models": (
        lambda _: lambda records: records.update({"models/other.json": records[MODEL]}),
        "holds 2 models .* instead of one called model",
    ),
    "an older layout": (
        lambda _: lambda records: records.pop("archive_format"),
        "has no archive_format pt2",
    ),
    "a huge weight": (
        lambda _: in_json(
            WEIGHTS,
            lambda found: found["config"]["first.weight"]["tensor_meta"]["sizes"][0].update(
                as_int=2**40
            ),
        ),
        r"declares more values for 'first.weight' than the 1800 bytes it holds",
    ),
    "no JSON": (
        lambda _: lambda records: records.update({MODEL: b"["}),
        "has a models/model.json that is not JSON",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_would_run_code_is_refused_and_not_run(files, tmp_path, attack):
    make, message = ATTACKS[attack]
    evil = Evil(tmp_path / "written")
    path = edited(files("scaled"), tmp_path / "bad.pt2", make(evil))
    with pytest.raises(BadInputError, match=message) as caught:
        read_exported(path)
    assert "\n" not in str(caught.value) and "give package.module:callable" in str(caught.value)
    assert not Path(evil.path).exists()


def test_a_copy_that_was_not_changed_is_read(files, tmp_path):
    path = edited(files("scaled"), tmp_path / "good.pt2", lambda records: None)
    assert torch.equal(
        read_exported(path)[0](image(False)), read_exported(files("scaled"))[0](image(False))
    )


def test_what_is_no_archive_is_refused(files, tmp_path):
    (tmp_path / "text.pt2").write_text("no zip")
    torch.save({"a": torch.zeros(1)}, tmp_path / "state.pt2")
    edited(
        files("scaled"),
        tmp_path / "bomb.pt2",
        lambda records: records.update({"extra/zeros": bytes(2**24)}),
        compression=zipfile.ZIP_DEFLATED,
    )
    for name, message in (
        ("text", "cannot be read as a zip"),
        ("state", "state.pt2 is a pickle under the name of a .pt2 file, and could run any code"),
        ("bomb", "would unpack to far more than its own size"),
        ("none", "does not exist"),
    ):
        with pytest.raises(BadInputError, match=message):
            read_exported(tmp_path / f"{name}.pt2")


def test_symbols_and_guards_are_arithmetic_only():
    for text in (
        "Mul(Integer(2), Symbol('s39', positive=True, integer=True))",
        "Max(1, FloorDiv(Symbol('s0'), 2))",
        "-s1",
    ):
        assert symbols_are_plain(text), text
    for text in (
        "exit()",
        "Symbol.mro()",
        "Add('exit()')",
        "(lambda: 1)()",
        "[1 for _ in x]",
        "Symbol('x', commutative=exit())",
        "Pow(Integer(10), Integer(9999999999))",
        "Pow(Pow(Integer(10), Integer(16)), Integer(16))",
        "LShift(1, 9999999999)",
        "Pow(10, oo, 1)",
    ):
        assert not symbols_are_plain(text), text
    assert symbols_are_plain("Pow(Symbol('s0'), Integer(-1))") and guard_is_plain(
        "torch.sym_sum([L['x'].size()[2], 1]) * 2 == 8"
    )
    assert guard_is_plain("L['x'].size()[2] ** 2 <= 65536")
    for text in (
        "L['x'].size()[2] % 8 == 0",
        "L['x'][0].size()[2] == 2 or 2 <= torch.sym_max(1, L['x'].size()[0])",
    ):
        assert guard_is_plain(text), text
    for text in (
        "exit()",
        "L['x'].__class__",
        "L['x'].size()[2] == open('a')",
        "L[exit()]",
        "L['\"+exit()+\"'] == 1",
        "torch.os.system('touch')",
        "torch.load(L)",
        "10**9999999999 == 1",
        "10**10**10 == 1",
        "1 << 9999999999 == 1",
        "[0] * 9999999999 == 1",
        "max([0], [1]) * 9999999999 == 1",
        "'x' * 9999999999 == 1",
    ):
        assert not guard_is_plain(text), text
