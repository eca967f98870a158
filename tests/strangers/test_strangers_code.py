"""Code: run only where a user names package.module:callable, never because a file, a folder or a setting names it."""

import json
import shutil
import sys

import numpy as np
import pytest
from offers import CODE, RAN, Evil, put, recorded, torch_zip

from evenslice import save_volume
from evenslice.cli import app as cli
from evenslice.errors import BadInputError
from evenslice.learn.fit import _read_state
from evenslice.learn.module import Training
from evenslice.model.external import form_of
from evenslice.model.inputs import model_of
from evenslice.options import TrainOptions, read_config
from evenslice.segmentation.manifest import check_sources
from evenslice.segmentation.predictions import open_prediction, trained_spans
from evenslice.segmentation.run import segment
from evenslice.study.folder import StudyFolder
from evenslice.study.plan import read_study
from evenslice.verbs.inspect import inspect
from evenslice.volume.run_state import RunState, stored_table
from verbs.scenes import blurring

GOOD = "import torch\n\n\ndef make():\n    return torch.nn.Conv2d(3, 1, 3, padding=1)\n"
SOURCES = {
    "a file named so": ("evil:make", ["evil:make"]),
    "a file named as the module": ("evil:make", ["evil"]),
    "a store": ("evil.zarr:make", ["evil.zarr"]),
    "an HDF5 file": ("evil.h5:make", ["evil.h5"]),
    "a path": ("./evil:make", []),
    "a path above": ("../evil:make", []),
    "an absolute path": ("/tmp/evil:make", []),
    "no name": ("evil:", []),
    "no module": (":make", []),
    "two names": ("evil:make:make", []),
    "an expression": ("evil:make()", []),
    "an address": ("https://evil.example:make", []),
    "spaces": ("evil :make", []),
    "a newline": ("evil:make\n", []),
    "a file of python": ("evil.py", []),
}


@pytest.mark.parametrize("case", SOURCES)
def test_what_is_no_callable_is_not_imported(guarded, tmp_path, case):
    source, files = SOURCES[case]
    put(tmp_path / "evil.py", CODE.encode())
    for name in files:
        put(tmp_path / name, b"x")
    guarded()
    assert form_of(source) is None
    with pytest.raises(BadInputError):
        model_of(source)
    with pytest.raises(BadInputError):
        inspect(source)


@pytest.mark.parametrize("verb", ["inspect", "fix", "audit", "segment", "export"])
def test_the_command_line_says_so_before_code_is_run(tmp_path, monkeypatch, capsys, verb):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    put(
        tmp_path / "loud.py",
        b"import sys\nprint('running', file=sys.stderr)\n\n\ndef make():\n    raise SystemExit\n",
    )
    monkeypatch.delitem(sys.modules, "loud", raising=False)
    save_volume(tmp_path / "v.tif", np.zeros((3, 8, 8), np.uint8))
    rest = {
        "inspect": [],
        "fix": ["o.safetensors"],
        "audit": ["v.tif"],
        "segment": ["v.tif", "o.tif"],
    }
    with pytest.raises(SystemExit):
        cli.main([verb, "loud:make", *rest.get(verb, ["o.onnx", "--format", "onnx"])])
    error = capsys.readouterr().err
    assert (
        0
        <= error.index("evenslice: warning: loud:make is code, which is imported and run now")
        < error.index("running")
    )


def test_what_is_imported_later_does_not_come_from_the_folder(tmp_path, monkeypatch):
    """A folder of downloads may hold a file that is called like a package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    put(tmp_path / "own_network.py", GOOD.encode())
    put(tmp_path / "this.py", CODE.encode())
    monkeypatch.delitem(sys.modules, "this", raising=False)
    assert model_of("own_network:make").slices == 3
    assert sys.path[-1] == str(tmp_path) and str(tmp_path) not in sys.path[:-1]
    assert __import__("importlib.util").util.find_spec("this").origin != str(tmp_path / "this.py")


def test_a_module_that_was_found_already_is_not_taken_from_the_folder(guarded, tmp_path):
    put(tmp_path / "torch.py", CODE.encode())
    put(tmp_path / "numpy.py", CODE.encode())
    guarded()
    with pytest.raises(BadInputError, match=r"torch:make cannot be imported .AttributeError"):
        model_of("torch:make")


@pytest.mark.parametrize("ending", [".pt", ".pth", ".pkl", ".ckpt"])
def test_weights_behind_a_callable_are_no_pickle(guarded, tmp_path, ending):
    put(tmp_path / "evil.py", CODE.encode())
    torch_zip(tmp_path / f"w{ending}")
    guarded()
    with pytest.raises(BadInputError, match="could run any code"):
        model_of(f"evil:make@w{ending}")


def test_a_file_that_names_a_callable_is_not_enough(guarded, tmp_path):
    put(tmp_path / "evil.py", CODE.encode())
    spec = {"form": "callable", "source": "evil:make", "slices": 3, "classes": 1, "built": 3}
    put(tmp_path / "m.safetensors", recorded(blurring(), lambda about: about.update(spec=spec)))
    guarded()
    for use in (model_of, inspect):
        with pytest.raises(
            BadInputError, match=r"whose code is not run unless you name it, .* give evil:make@"
        ):
            use("m.safetensors")


TRAINING = {
    "arch: a callable": 'arch = "evil:make"',
    "encoder: a callable": 'encoder = "evil:make"',
    "weights: a number": "weights = 3",
    "weights: a pickle": 'weights = ["evil.pkl"]',
    "steps: 10^400": f"steps = 1{'0' * 400}",
    "steps: text": 'steps = "1000"',
    "lr: NaN": "lr = nan",
    "lr: infinite": "lr = inf",
    "slices: a date": "slices = 1979-05-27",
    "key: of Python": '__class__ = "x"',
    "key: a callable": 'callable = "evil:make"',
    "more: a text": 'more = "x"',
    "more: without labels": '[[more]]\nvolume = "a"',
    "text: nested": "a = " + "[" * 2000 + "]" * 2000,
    "text: tables in tables": ".".join("a" * 3000) + " = 1",
    "text: no UTF-8": "a = '\udcff'",
    "text: NUL": "a = '\0'",
    "text: escapes": '"\\u001b[2J" = 1',
}


@pytest.mark.parametrize("case", TRAINING)
def test_settings_of_a_training(guarded, tmp_path, case):
    put(tmp_path / "evil.py", CODE.encode())
    path = put(tmp_path / "t.toml", TRAINING[case].encode(errors="surrogateescape"))
    guarded()
    if case in (
        "arch: a callable",
        "encoder: a callable",
    ):  # looked up when it is built, see the records of models
        found = read_config(path)
        assert "evil:make" in (found.arch, found.encoder)
        return
    with pytest.raises(BadInputError, match=r"t\.toml"):
        read_config(path)


GRID = '[[grid]]\ndataset = "own"\nseed = 0\n'
OWN = '[datasets.own]\nraw = "a.tif"\nlabels = "b.tif"\n'
STUDIES = {
    "name: missing": OWN + GRID,
    "name: a list": "name = []\n" + GRID,
    "grid: none": 'name = "s"',
    "grid: a number": 'name = "s"\ngrid = 3',
    "grid: empty": 'name = "s"\ngrid = []',
    "grid: a key of Python": 'name = "s"\n' + GRID + '__class__ = "x"',
    "grid: a callable": 'name = "s"\n' + GRID + 'callable = "evil:make"',
    "grid: a table for a seed": 'name = "s"\n[[grid]]\ndataset = "own"\nseed = {a = 1}',
    "grid: 10^12 cells": 'name = "s"\n[[grid]]\ndataset = "own"\n'
    + "".join(f"{key} = {list(range(1, 10001))}\n" for key in ("seed", "steps", "batch")),
    "grid: a dataset of tables": 'name = "s"\n[[grid]]\ndataset = {a = 1}',
    "train: a callable": 'name = "s"\n[train]\ncallable = "evil:make"\n' + GRID,
    "audit: a huge tile": 'name = "s"\n[audit]\ntile = -1\n' + GRID,
    "text: nested": "name = " + "[" * 2000 + "]" * 2000,
}


@pytest.mark.parametrize("case", STUDIES)
def test_studies(guarded, tmp_path, case):
    put(tmp_path / "evil.py", CODE.encode())
    path = put(tmp_path / "s.toml", STUDIES[case].encode())
    guarded()
    with pytest.raises(BadInputError) as caught:
        read_study(path)
    assert "s.toml" in str(caught.value) and len(str(caught.value)) < 2000


ROWS = {
    "row: no JSON": "{",
    "row: a list": "[]",
    "row: without its failure": "{}",
    "row: nested": "[" * 10**5,
    "row: no UTF-8": "\udcff",
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_of_a_study(guarded, tmp_path, case):
    put(tmp_path / "s.toml", ('name = "s"\n' + OWN + GRID).encode())
    plan = read_study(tmp_path / "s.toml")
    folder = StudyFolder(tmp_path / "out", plan)
    folder.of(plan.cells[0]).mkdir()
    put(folder.of(plan.cells[0]) / "row.json", ROWS[case].encode(errors="surrogateescape"))
    guarded()
    for use in (folder.rows, folder.pending, folder.curves):
        with pytest.raises(BadInputError, match=r"row\.json is damaged"):
            use()


MANIFESTS = {
    "json: none": "",
    "json: a list": "[]",
    "json: nested": "[" * 10**5,
    "json: half": '{"asked": {}}',
    "json: of other kinds": '{"asked": [], "chosen": 3}',
    "plan: none": lambda found: found.update(chosen={}),
    "plan: text": lambda found: found["chosen"].update(plan="x"),
    "plan: a cut of text": lambda found: found["chosen"]["plan"].update(cut="x"),
    "plan: a tile of text": lambda found: found["chosen"]["plan"]["cut"].update(tile="ab"),
    "plan: one side of a tile": lambda found: found["chosen"]["plan"]["cut"]["tile"].pop(),
    "plan: a depth of text": lambda found: found["chosen"]["plan"].update(depth="1"),
    "plan: a stride of 0": lambda found: found["chosen"]["plan"]["cut"].update(stride=0),
    "plan: a depth of 0": lambda found: found["chosen"]["plan"].update(depth=0),
    "plan: another key": lambda found: found["chosen"]["plan"].update(callable="evil:make"),
    "plan: a mean of text": lambda found: found["chosen"]["plan"]["normalisation"].update(mean="x"),
    "asked: another model": lambda found: found["asked"].update(model="evil:make"),
}


VOXELS = np.random.default_rng(0).integers(0, 255, (3, 24, 24), np.uint8)


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """The folder of a run that was begun."""
    folder = tmp_path_factory.mktemp("begun")
    assert not segment(blurring(), VOXELS, folder / "o.zarr", shard="1/2").complete
    return folder / "o.zarr.run"


@pytest.mark.parametrize("case", MANIFESTS)
def test_manifests_of_a_run(guarded, tmp_path, begun, case):
    out, change = tmp_path / "o.zarr", MANIFESTS[case]
    put(tmp_path / "evil.py", CODE.encode())
    shutil.copytree(begun, tmp_path / "o.zarr.run")
    manifest = tmp_path / "o.zarr.run" / "manifest.json"
    if callable(change):
        found = json.loads(manifest.read_text())
        change(found)
        change = json.dumps(found)
    manifest.write_text(change)
    with pytest.raises(BadInputError):
        segment(blurring(), VOXELS, out, shard="2/2")
    assert not out.exists() and not (tmp_path / RAN).exists()


@pytest.mark.parametrize("part", ["model", "volume", "slices"])
def test_workers_open_only_what_is_named_now(guarded, tmp_path, part):
    put(tmp_path / "evil.py", CODE.encode())
    sources = {"model": "/m.safetensors", "volume": "/v.tif", "slices": None}
    (tmp_path / "run").mkdir()
    manifest = {"asked": {}, "chosen": {"sources": sources | {part: "evil:make"}}}
    put(tmp_path / "run" / "manifest.json", json.dumps(manifest).encode())
    guarded()
    with pytest.raises(BadInputError, match="holds a run of other files"):
        check_sources(RunState(tmp_path / "run"), sources)
    saved = str(tmp_path / "run" / "model.safetensors")
    manifest["chosen"]["sources"] = sources | {"model": saved}
    run_state = RunState(tmp_path / "run")
    run_state.manifest = manifest
    check_sources(run_state, sources | {"model": None})


STATES = {
    "state: a pickle": "evil",
    "state: a list": [1],
    "state: empty": {},
    "state: another network": {"network": {"x": 1}},
    "state: steps of text": {"done": "x"},
    "state: more steps than there are": {"done": 10**9},
    "state: -1 steps": {"done": -1},
    "state: a network of text": {"network": "x"},
}


@pytest.mark.parametrize("case", STATES)
def test_states_of_a_training(guarded, tmp_path, case):
    change, model = STATES[case], blurring()
    training = Training(model.module, 1, None, TrainOptions(steps=5), 1)
    whole = {
        "done": 1,
        "network": model.module.state_dict(),
        "optimiser": {},
        "schedule": {},
        "scaling": {},
    }
    thing = (
        {"a": Evil()}
        if change == "evil"
        else whole | change
        if isinstance(change, dict) and change
        else change
    )
    torch_zip(tmp_path / "state.ckpt", thing)
    guarded()
    with pytest.raises(BadInputError, match="state"):
        training.go_on(_read_state(tmp_path / "state.ckpt"))


SPANS = {
    "spans: text": "0:9",
    "spans: numbers": [1, 2],
    "spans: to 2^60": [[0, 2**60]],
    "spans: backwards": [[5, 1]],
    "spans: fractions": [[0.5, 1]],
    "spans: a table": {"a": 1},
}


@pytest.mark.parametrize("case", SPANS)
def test_what_a_store_says_of_its_training(guarded, tmp_path, case):
    put(
        tmp_path / "zarr.json",
        json.dumps({"attributes": {"evenslice": {"trained_slices": SPANS[case]}}}).encode(),
    )
    guarded()
    with pytest.raises(BadInputError, match="damaged record"):
        trained_spans(tmp_path)


def test_a_store_that_is_half_a_result(guarded, tmp_path):
    (tmp_path / "p.zarr" / "labels" / "segmentation").mkdir(parents=True)
    (tmp_path / "p.zarr" / "0").mkdir()
    put(tmp_path / "p.zarr" / "0" / "zarr.json", b'{"shape": [[], 1, 2, 3]}')
    guarded()
    with pytest.raises(BadInputError):
        open_prediction(tmp_path / "p.zarr", "semantic")
    with pytest.raises(BadInputError, match="is damaged"):
        stored_table(put(tmp_path / "p.zarr" / "0" / "zarr.json", b"{"))
    put(tmp_path / "p.zarr" / "0" / "zarr.json", b'{"shape": [[], 1, 2, 3]}')
