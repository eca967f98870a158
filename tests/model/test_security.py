"""Files from others: no pickle is ever opened, and code runs only where the user asks for it."""

import ast
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

import evenslice
from evenslice import save_volume
from evenslice.cli import app as cli
from evenslice.errors import BadInputError
from evenslice.model.checkpoint import KEY, baked_state, model_metadata
from evenslice.model.export import read_exported
from evenslice.model.opening import model_of
from evenslice.model.spec import FORBIDDEN, Spec
from evenslice.model.weights import load_state_dict
from verbs.scenes import blurring

SOURCES = sorted(Path(evenslice.__file__).parent.rglob("*.py"))
NETWORK = "import torch\n\n\ndef make():\n    return torch.nn.Conv2d(3, 1, 3, padding=1)\n"


class Evil:
    """Makes a file in the current folder when it is unpickled."""

    def __reduce__(self):
        return open, ("RAN", "w")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_network.py").write_text(NETWORK)
    yield tmp_path
    assert not (tmp_path / "RAN").exists()
    sys.modules.pop("own_network", None)


@pytest.mark.parametrize("name", ["m.safetensors", "m.onnx", "m.pth", "own_network:make@m.pth"])
def test_a_pickle_is_not_opened_as_a_model(folder, name):
    for write in (
        lambda path: path.write_bytes(pickle.dumps(Evil())),
        lambda path: torch.save({"a": Evil()}, path),
    ):
        write(folder / name.rpartition("@")[2])
        with pytest.raises(BadInputError):
            model_of(name)


@pytest.mark.parametrize("name", ["w.pth", "w.bin", "w.safetensors"])
def test_what_is_damaged_or_dangerous_is_not_opened_as_weights(folder, name):
    torch.save({"a": torch.zeros(2), "b": Evil()}, folder / name)
    for content in ((folder / name).read_bytes(), pickle.dumps(Evil()), b"", b"not weights at all"):
        (folder / name).write_bytes(content)
        with pytest.raises(BadInputError, match=f"the weights .*{name} cannot be read"):
            load_state_dict(folder / name)


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}


def test_torch_loads_weights_only_and_nothing_is_evaluated():
    for file in SOURCES:
        if file.parent.name == "learn":  # its processes hand data to each other over pipes
            continue
        for name, options in calls(ast.parse(file.read_text())):
            assert name not in ("eval", "exec", "pickle.load", "os.system"), file
            assert name != "torch.load" or options.get("weights_only") == "True", file
            assert options.get("allow_pickle", "False") == "False", file


def test_an_exported_program_needs_trust(folder):
    program = torch.export.export(torch.nn.Conv2d(3, 1, 3, padding=1), (torch.rand(1, 3, 64, 64),))
    torch.export.save(program, folder / "m.pt2")
    with pytest.raises(BadInputError, match=r"can run code when it is opened, expected --trust"):
        model_of("m.pt2")
    with pytest.raises(BadInputError, match="--trust"):
        read_exported(folder / "m.pt2", trust=False)
    assert model_of("m.pt2", trust=True).slices == 3


@pytest.mark.parametrize("verb", ["inspect", "audit"])
def test_a_callable_is_said_to_run_before_it_runs(folder, monkeypatch, capsys, verb):
    (folder / "loud.py").write_text(
        "import sys\nprint('running', file=sys.stderr)\n\n\ndef make():\n    raise SystemExit\n"
    )
    monkeypatch.delitem(sys.modules, "loud", raising=False)
    save_volume("v.tif", np.arange(5 * 16 * 16, dtype=np.uint16).reshape(5, 16, 16))
    with pytest.raises(SystemExit):
        cli.main([verb, "loud:make", *(["v.tif"] if verb == "audit" else [])])
    error = capsys.readouterr().err
    assert 0 <= error.index("warning: loud:make is code") < error.index("running")


def test_a_file_that_names_a_callable_is_not_enough(folder):
    model = blurring()
    spec = {"form": "callable", "source": "own_network:make", "slices": 3, "classes": 1, "built": 3}
    metadata = model_metadata(model) | {"spec": spec}
    Path("m.safetensors").write_bytes(save(baked_state(model.network), {KEY: json.dumps(metadata)}))
    with pytest.raises(BadInputError, match=r"not run unless you name it, .* own_network:make@"):
        model_of("m.safetensors")
    assert "own_network" not in sys.modules


def test_what_is_imported_later_does_not_come_from_the_folder(folder):
    assert model_of("own_network:make").slices == 3
    assert sys.path[-1] == str(folder) and str(folder) not in sys.path[:-1]


@pytest.mark.parametrize("option", FORBIDDEN)
def test_a_model_file_cannot_ask_for_other_files(option):
    with pytest.raises(BadInputError, match="names a file"):
        Spec(options={option: "evil.pth"})
