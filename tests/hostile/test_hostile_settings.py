"""TOML files of study and train that say what cannot be meant."""

import pytest
from bad_files import both
from checking import Case, listed

STUDY = 'name = "s"\n[[grid]]\ndataset = "phantom"\n'
GIB = 2**30


def toml(body, name="s.toml"):
    return lambda place: (place / name).write_bytes(
        body if isinstance(body, bytes) else body.encode()
    )


def holes(place):
    with (place / "s.toml").open("wb") as file:
        file.truncate(8 * GIB)


def numbers(*names, count=1000):
    return (
        "\n".join(f"{name} = [{', '.join(map(str, range(1, count + 1)))}]" for name in names) + "\n"
    )


WRONG = {
    "empty": ("", "s.toml"),
    "zero bytes": (b"\0" * 50, "s.toml is not TOML"),
    "invalid utf-8": (b'name = "\xff\xfe"', "s.toml is not TOML"),
    "utf-16": ('name = "s"'.encode("utf-16"), "s.toml is not TOML"),
    "not toml": ("name: s\n- a\n", "s.toml is not TOML"),
    "duplicate key": ('name = "a"\nname = "b"\n', "s.toml is not TOML"),
    "duplicate table": (STUDY + "[audit]\n[audit]\n", "s.toml is not TOML"),
    "nested brackets": ("a = " + "[" * 50_000 + "]" * 50_000, ("s.toml", "nested")),
    "nested tables": ("a = " + "{a = " * 5_000 + "1" + "}" * 5_000, ("s.toml", "nested")),
    "nested keys": ("a." * 20_000 + "b = 1", "s.toml"),
}
OF_A_STUDY = {
    "unknown key": (STUDY + "[audit]\nwindow = 3\n", "audit.window is unknown"),
    "unknown key of the grid": (STUDY + "stesp = [1, 2]\n", "stesp is unknown"),
    "unknown table": (STUDY + "[magic]\na = 1\n", "magic is unknown"),
    "wrong type": (STUDY.replace('"s"', "3"), "name is 3, expected a text"),
    "wrong type of the grid": ('name = "s"\ngrid = 3\n', "grid is 3"),
    "grid of numbers": ('name = "s"\ngrid = [1, 2]\n', "grid.0"),
    "no grid": ('name = "s"\n', "grid is missing"),
    "empty grid": ('name = "s"\ngrid = []\n', "grid is []"),
    "empty list": (STUDY + "seed = []\n", "seed is an empty list"),
    "no data set": ('name = "s"\n[[grid]]\nseed = 1\n', "dataset is None"),
    "unknown data set": (STUDY.replace("phantom", "nothing"), "nothing"),
    "data set that is not there": (STUDY.replace("phantom", "own") + '[datasets.own]\nraw = "no.tif"\nlabels = "no.tif"\n', "no.tif does not exist"),
    "half a test volume": (STUDY.replace("phantom", "own") + '[datasets.own]\nraw = "raw.tif"\nlabels = "labels.tif"\ntest_raw = "raw.tif"\n', "datasets.own has only one of"),
    "nan": (STUDY + "lr = nan\n", "lr is nan"),
    "infinite": (STUDY + "lr = [1e-3, inf]\n", "lr is inf"),
    "negative steps": (STUDY + "steps = -1\n", "steps is -1"),
    "huge number": (STUDY + f"seed = {'9' * 5000}\n", "s.toml"),
    "date": (STUDY + "seed = 1979-05-27\n", "seed is"),
    "nested lists": (STUDY + "seed = [[[1]]]\n", "seed is"),
    "name that leaves the folder": (STUDY.replace('"s"', '"../../s"') + "steps = 0\n", "steps is 0"),
    "grid of 10^9 cells": (STUDY + numbers("seed", "steps", "batch"), ("s.toml", "1000000000 cells")),
    "grid of 10^6 cells": (STUDY + numbers("seed", "steps"), ("s.toml", "1000000 cells")),
    "grid of 10^30 cells": (STUDY + numbers(*[f"key_{n}" for n in range(10)]), "s.toml"),
    "grids of many cells": (STUDY + numbers("seed", count=9000) + "".join(f'[[grid]]\ndataset = "phantom"\nsteps = {n}\n' + numbers("seed", count=9000) for n in (1, 2)), ("s.toml", "cells")),
    "ten thousand grids": ('name = "s"\n' + "".join(f'[[grid]]\ndataset = "phantom"\nsteps = {n}\n' for n in range(1, 12000)), ("s.toml", "cells")),
    "null byte in a path": (STUDY.replace("phantom", "own") + '[datasets.own]\nraw = "a\\u0000.tif"\nlabels = "labels.tif"\n', "does not exist"),
    "what a study decides": (STUDY + "validation = '0:3'\n", "validation is given, expected none"),
    "control that is no treatment": ('control = "magic"\n' + STUDY + "weights = 'none'\n", "control is 'magic'"),
}  # fmt: skip
OF_A_TRAINING = {
    "unknown key": ("stesp = 3\n", "stesp is unknown"),
    "wrong type": ('steps = "many"\n', "steps is 'many'"),
    "fraction": ("steps = 1.5\n", "steps is 1.5"),
    "bool for a number": ("steps = true\n", "steps is True"),
    "nan": ("lr = nan\n", "lr is nan"),
    "negative": ("crop = -32\n", "crop is -32"),
    "more of a number": ("more = 3\n", "more is 3"),
    "more without labels": ('[[more]]\nvolume = "raw.tif"\n', "more.0.labels is missing"),
    "more that is not there": (
        '[[more]]\nvolume = "no.tif"\nlabels = "labels.tif"\n',
        "no.tif does not exist",
    ),
    "more that is a folder": (
        '[[more]]\nvolume = "."\nlabels = "labels.tif"\n',
        "labels.tif has shape",
    ),
    "strengths of what is not used": ("em.noise = {size = 1}\n", "augment is 'flips'"),
    "unknown strength": ("augment = 'em'\nem.magic = 1\n", "em.magic is unknown"),
    "strength of nan": ("augment = 'em'\nem.noise = {size = nan}\n", "em.noise.size is nan"),
    "huge size": (f"augment = 'em'\nem.noise = {{size = {10**12}}}\nsteps = 0\n", "steps is 0"),
    "validation of no volume": ("validation = []\n", "--validation"),
}
TRAIN = "train raw.tif labels.tif o.safetensors --config s.toml"
CASES = [
    Case(f"toml: {name} in study", "study s.toml --out done", says, toml(body))
    for name, (body, says) in (WRONG | OF_A_STUDY).items()
]
CASES += [
    Case(f"toml: {name} in train", f"{TRAIN} --weights none", says, toml(body))
    for name, (body, says) in (WRONG | OF_A_TRAINING).items()
    if name not in ("empty",)
]
CASES += [
    Case("toml: dry run of 10^9 cells", "study s.toml --out done --dry-run", ("s.toml", "1000000000 cells"), toml(OF_A_STUDY["grid of 10^9 cells"][0])),
    Case("toml: 8 GB of holes in study", "study s.toml --out done", "s.toml", holes),
    Case("toml: 8 GB of holes in train", TRAIN, "s.toml", holes),
    Case("toml: json is the settings", f"{TRAIN} --json s.toml --force", "--json is s.toml", toml("steps = 1\n")),
    Case("toml: study of another name", "study s.toml --out done", "done holds the study 'other'", both(toml(STUDY), lambda place: ((place / "done").mkdir(), (place / "done/name.txt").write_text("other\n")))),
    Case("toml: study whose folder names none", "study s.toml --out done", "done", both(toml(STUDY), lambda place: ((place / "done").mkdir(), (place / "done/name.txt").write_bytes(b"\xff\xfe\n")))),
]  # fmt: skip


@pytest.mark.parametrize("case", listed(CASES))
def test_settings(checked, case):
    checked(case)
