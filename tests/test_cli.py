"""The command line: exit codes, one line for each error, nothing left behind."""

import json
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import tifffile
import torch
from safetensors.torch import save_file

from evenslice import save_model, save_volume
from evenslice.cli import app as cli
from evenslice.cli.output import warnings_as_lines
from evenslice.errors import InputWarning

TRAIN = "--weights none --encoder-depth 3 --steps 2 --batch 2 --crop 32"


@pytest.fixture(scope="module")
def model_file(tmp_path_factory, make_model):
    path = tmp_path_factory.mktemp("models") / "model.safetensors"
    save_model(path, make_model())
    return path


@pytest.fixture(scope="module")
def stock(tmp_path_factory):
    """A folder that is filled once."""
    return tmp_path_factory.mktemp("stock")


@pytest.fixture
def place(tmp_path, monkeypatch, grey, model_file, stock):
    """A folder with everything that can be good or bad."""
    if not any(stock.iterdir()):
        fill(stock, grey, model_file)
    shutil.copytree(stock, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def fill(folder, grey, model_file):
    hole = grey.astype(np.float32)
    hole[[4, 6]] = np.nan  # one beyond the reach of the normalisation: between the two parts
    volumes = {
        "raw": grey,
        "labels": (grey > 128).astype(np.uint8),
        "short": (grey[:5] > 128).astype(np.uint8),
        "odd": (grey // 20).astype(np.uint8),
        "wide": np.arange(grey.size, dtype=np.uint32).reshape(grey.shape),
        "constant": np.full_like(grey, 7),
        "hole": hole,
    }
    for name, voxels in volumes.items():
        save_volume(folder / f"{name}.tif", voxels)
    tifffile.imwrite(folder / "flat.tif", grey[0])
    tifffile.imwrite(folder / "rgb.tif", np.zeros((8, 8, 3), np.uint8), photometric="rgb")
    whole = (folder / "raw.tif").read_bytes()
    (folder / "cut.tif").write_bytes(whole[: len(whole) // 2])
    (folder / "text.tif").write_text("not an image")
    (folder / "volume.xyz").write_text("x")
    (folder / "empty").mkdir()
    shutil.copy(model_file, folder / "model.safetensors")
    save_file({"a": torch.zeros(1)}, folder / "foreign.safetensors")
    taken = ("taken.safetensors", "taken.tif", "taken.json", "kept.last.safetensors")
    for name in (*taken, "run.safetensors.run"):
        (folder / name).write_text("mine")


def run(*words):
    with pytest.raises(SystemExit) as stop:
        cli.main(" ".join(map(str, words)).split())
    return stop.value.code


BAD = """
audit model.safetensors none.tif | none.tif does not exist, expected a TIFF stack, a folder of
audit none.safetensors raw.tif | none.safetensors does not exist, expected a .safetensors
audit foreign.safetensors raw.tif | foreign.safetensors holds weights but no evenslice metadata
audit raw.tif raw.tif | raw.tif is not a model file
audit model.safetensors flat.tif | flat.tif is a 2-D image of shape (64, 96), expected a volume
audit model.safetensors rgb.tif | rgb.tif is a colour image
audit model.safetensors cut.tif | cut.tif
audit model.safetensors text.tif | text.tif cannot be read as TIFF
audit model.safetensors volume.xyz | volume.xyz has the unknown ending '.xyz', expected
audit model.safetensors empty | the folder empty holds no images
audit model.safetensors raw.tif --labels short.tif | short.tif has shape (5, 64, 96), expected (9,
audit model.safetensors raw.tif --methods magic | the method magic is unknown
audit model.safetensors raw.tif --windows many | --windows is 'many', expected a whole number
audit model.safetensors raw.tif --mean a --std 1 | --mean is 'a', expected numbers
audit model.safetensors raw.tif --slices 5 | --slices is 5, expected 3
audit model.safetensors raw.tif --json taken.json | taken.json exists, expected a new name
audit model.safetensors raw.tif --json no/where.json | the folder no of where.json does not exist
audit model.safetensors raw.tif --out taken.json | taken.json
train raw.tif short.tif out.safetensors | short.tif has shape (5, 64, 96), expected (9, 64, 96)
train none.tif labels.tif out.safetensors | none.tif does not exist
train raw.tif odd.tif out.safetensors | say what they mean with --target
train raw.tif labels.tif out.safetensors --slices 4 | 4 slices were asked for, expected an odd
train raw.tif labels.tif out.safetensors --encoder resnet19 | the encoder 'resnet19' is unknown
train raw.tif labels.tif out.safetensors --arch vnet | the architecture 'vnet' is unknown
train raw.tif labels.tif out.safetensors --init grey | Invalid value for '--init'
train raw.tif labels.tif out.safetensors --weights none.pt | the weights none.pt do not exist
train raw.tif labels.tif out.safetensors --resume | holds no run to resume
train raw.tif labels.tif out.pt | has the ending '.pt', expected .safetensors
train raw.tif labels.tif taken.safetensors | taken.safetensors exists, expected a new name; choose
train raw.tif labels.tif no/out.safetensors | the folder no of out.safetensors does not exist
train raw.tif labels.tif out.safetensors --steps x | Invalid value for '--steps'
segment model.safetensors raw.tif out.png | out.png has the unknown ending '.png', expected .tif
segment model.safetensors raw.tif taken.tif | taken.tif exists
segment model.safetensors flat.tif out.tif | 2-D image
segment model.safetensors raw.tif out.tif --roi 0:99,:,: | expected a part of 0:9
segment model.safetensors raw.tif out.tif --tile 2 | --tile is 2
evaluate labels.tif short.tif | labels.tif has shape (9, 64, 96), expected (5, 64, 96) like
evaluate raw.tif labels.tif --ignore x | --ignore is 'x', expected a whole number
evaluate labels.tif labels.tif --as objects | Invalid value for '--as'
evaluate labels.tif labels.tif --tolerance -1 | --tolerance is -1.0
evaluate hole.tif labels.tif --as instances | of type float32, expected objects as whole numbers
evaluate wide.tif wide.tif | wide.tif holds more than 255 labels, expected class numbers 0 to 255;
fix model.safetensors taken.safetensors | taken.safetensors exists
fix foreign.safetensors out.safetensors | no evenslice metadata
audit model.safetensors raw.tif --json model.safetensors --force | which this command reads or
train raw.tif labels.tif out.safetensors --json out.safetensors | which this command reads or
evaluate labels.tif labels.tif --json labels.tif --force | which this command reads or writes
evaluate labels.tif labels.tif --json /dev/null --force | /dev/null is a folder or a device
evaluate labels.tif labels.tif --threshold 7 | --threshold is 7.0
evaluate labels.tif labels.tif --threshold nan | --threshold is nan
evaluate raw.tif labels.tif | give probabilities as float from 0 to 1
audit model.safetensors raw.tif --out taken.json --force | taken.json is a file, expected a folder
audit model.safetensors raw.tif --fail-above nan | --fail-above is nan
audit model.safetensors constant.tif | constant.tif is constant
train raw.tif labels.tif kept.safetensors | kept.last.safetensors exists
train raw.tif labels.tif run.safetensors | run.safetensors.run is no folder of a run
train hole.tif labels.tif out.safetensors | NaN or infinite
fix model.safetensors out.safetensors --labels labels.tif | labels were given without a volume
segment model.safetensors raw.tif /proc/out.tif | /proc/out.tif cannot be written
inspect none.safetensors | none.safetensors does not exist
inspect volume.xyz | unknown ending
demo taken.json | taken.json is a file, expected a folder
dance | No such command 'dance'
audit | Missing argument 'MODEL'
"""
CASES = [tuple(line.split(" | ")) for line in BAD.strip().splitlines()]


@pytest.mark.parametrize(("line", "message"), CASES, ids=[line for line, _ in CASES])
def test_bad_input_is_one_line_and_leaves_nothing(place, capfd, line, message):
    words = line.split()
    before = {f: f.read_bytes() for f in place.rglob("*") if f.is_file()}
    untouched = words[0] == "train" and "--steps" not in words and "--weights" not in words
    assert run(line, TRAIN if untouched else "") == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("evenslice: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert {f: f.read_bytes() for f in place.rglob("*") if f.is_file()} == before


def test_the_whole_way(place, capfd):
    assert run("train raw.tif labels.tif new.safetensors", TRAIN, "--json scores.json") == 0
    words = "--tile 32 --windows 8 --methods gradient,ablation --out page --json -"
    assert run("audit new.safetensors raw.tif", words) == 0
    assert run("fix new.safetensors fixed.safetensors --tie mirror") == 0
    assert run("segment fixed.safetensors raw.tif seg.tif") == 0
    capfd.readouterr()
    assert run("evaluate seg.tif labels.tif --json -") == 0
    scores = json.loads(capfd.readouterr().out)
    assert scores["schema"] == "evenslice.scores/1"
    assert json.loads((place / "page" / "audit.json").read_text())["schema"] == "evenslice.audit/1"
    assert "<svg" in (place / "page" / "report.html").read_text()
    assert "Training of new.safetensors" in (place / "new.report.html").read_text()
    assert "Segmentation seg.tif" in (place / "seg.report.html").read_text()
    assert json.loads((place / "scores.json").read_text())["dice"] is not None
    (place / "seg.tif").unlink()
    assert run("segment fixed.safetensors raw.tif seg.tif") == 2
    assert "seg.report.html exists, expected a new name" in capfd.readouterr().err
    assert not (place / "seg.tif").exists()
    assert not [
        f for f in place.iterdir() if f.name.startswith(".") or f.name == "new.safetensors.run"
    ]


def test_objects_are_scored_and_doubts_go_to_stderr(place, capfd):
    labels = np.arange(9 * 64 * 96).reshape(9, 64, 96) // 300 + 1
    save_volume("fine.tif", labels.astype(np.uint32), (30.0, 4.0, 4.0))
    save_volume("coarse.tif", labels.astype(np.uint32), (30.0, 8.0, 8.0))
    assert run("evaluate fine.tif coarse.tif --as instances --ignore none --json -") == 0
    out, err = capfd.readouterr()
    scores = json.loads(out)
    keys = ("adapted_rand_error", "voi_split", "f1", "ignore")
    assert [scores[key] for key in keys] == [0, 0, 1, None]
    assert err.startswith(
        "evenslice: warning: fine.tif has voxels of 30 x 4 x 4 nm, coarse.tif of 30 x 8 x 8 nm"
    )
    assert run("evaluate fine.tif coarse.tif --as instances") == 0
    assert "adapted Rand error" in capfd.readouterr().out
    assert run("evaluate labels.tif labels.tif --tolerance 1 --ignore 7") == 0
    assert "boundary F (1 px)" in capfd.readouterr().out


def test_json_on_standard_output_is_alone_there(place, capfd):
    words = "--tile 32 --windows 4 --methods reversal,gradient --json -"
    assert run("audit model.safetensors raw.tif", words) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["windows"] == 4
    assert err.startswith("Next: evenslice ") and err.count("\n") == 1


def test_a_check_that_fails_exits_with_one(place, make_model):
    model = make_model("rgb")
    model.module.encoder.model.conv1.weight.data[:, 0] *= 5
    save_model("lean.safetensors", model)
    save_model("even.safetensors", make_model("green"))
    words = "raw.tif --tile 32 --windows 12 --methods gradient --fail-above"
    assert run("audit lean.safetensors", words, 0.05) == 1
    assert run("audit even.safetensors", words, 0.05) == 0
    assert run("audit lean.safetensors", words, 1.0) == 0


def test_help_is_help(capfd):
    assert run("--help") == 0
    out, _ = capfd.readouterr()
    for verb in ("audit", "demo", "evaluate", "fix", "inspect", "segment", "train"):
        assert verb in out
    assert run("audit --help") == 0
    assert "--fail-above" in capfd.readouterr().out

    assert run() == 0
    out, err = capfd.readouterr()
    assert "audit" in out and err == ""


def test_a_bug_is_one_line_unless_a_traceback_is_asked_for(place, monkeypatch, capfd):
    import evenslice.verbs.evaluate

    def broken(*_, **__):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(evenslice.verbs.evaluate, "evaluate", broken)
    assert run("evaluate labels.tif labels.tif") == 2
    assert capfd.readouterr().err.count("\n") == 1
    with pytest.raises(RuntimeError, match="two"):
        cli.main(["evaluate", "labels.tif", "labels.tif", "--traceback"])


def test_the_command_is_installed():
    done = subprocess.run(
        [sys.executable, "-m", "evenslice", "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage" in done.stdout


def test_a_warning_of_an_input_is_one_line_and_those_of_libraries_are_not_printed(capsys):
    with warnings_as_lines():
        for _ in range(2):
            warnings.warn("sections 4 and 7\nare missing", InputWarning, stacklevel=1)
        warnings.warn("an argument is deprecated", DeprecationWarning, stacklevel=1)
        warnings.warn("an array is read twice", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "evenslice: warning: sections 4 and 7 are missing\n"
