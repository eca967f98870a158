"""Settings of trainings and studies: any TOML is settings that hold what they must, or one line that names a key."""

import json
import math
import tomllib

import pytest
from fuzzing import NUMBERS, TEXTS, edited, edits, fuzz
from hypothesis import example, given
from hypothesis import strategies as st

from evenslice.learn.module import cosine_part
from evenslice.options import TrainFile, TrainOptions, read_config
from evenslice.study.plan import DatasetTable, StudyTable, read_study

GOOD = {
    "weights": ["imagenet", "none"], "init": ["rgb", "green"], "tie": ["none", "mirror"], "schedule": ["cosine"], "loss": ["ce"],
    "augment": ["em", "none"], "precision": ["fp32"], "keep": ["last"], "target": ["boundary"], "validation": ["0:3"], "crop": [64],
    "arch": ["unet", "fpn"], "encoder": ["resnet18"], "warmup": [0.5],
}  # fmt: skip
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-9, 9),
    st.sampled_from([n for n in NUMBERS if n < 2**63]),
    st.floats(),
    TEXTS,
    st.dates(),
    st.sampled_from([v for vs in GOOD.values() for v in vs]),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
KEYS = st.one_of(
    st.sampled_from(
        [*TrainOptions.model_fields, "em", "more", "dataset", "tile", "int", "list[str]"]
    ),
    TEXTS,
)


def toml(value):
    """Write a value as TOML; tables inline."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
        )
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, float):
        return (
            "nan"
            if math.isnan(value)
            else "inf"
            if value == math.inf
            else "-inf"
            if value == -math.inf
            else repr(value)
        )
    if isinstance(value, str):
        return json.dumps(value)
    return str(value)


def written(table):
    return "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in table.items())


@st.composite
def fitting(draw):
    """Keys of a recipe with values that fit, often, or any."""
    table = draw(st.dictionaries(st.sampled_from(sorted(GOOD)), st.none(), max_size=5))
    table = {
        key: draw(
            st.one_of(st.sampled_from(GOOD[key]), TREES)
            if draw(st.integers(0, 3)) == 0
            else st.sampled_from(GOOD[key])
        )
        for key in table
    }
    return table | draw(
        st.dictionaries(KEYS, TREES, max_size=2) if draw(st.booleans()) else st.just({})
    )


def sound(recipe):
    """What holds for every recipe."""
    assert (
        1 <= recipe.steps <= 10**9
        and 32 <= recipe.crop <= 2**14
        and recipe.batch % recipe.devices == 0
    )
    assert (
        0 < recipe.lr < math.inf
        and 0 <= recipe.weight_decay < math.inf
        and 0 <= recipe.balance <= 1
    )
    assert 0 <= cosine_part(0, recipe.steps, recipe.warmup) <= 1 and isinstance(recipe.arch, str)
    assert TrainOptions(**recipe.model_dump()) == recipe
    json.dumps(recipe.model_dump(mode="json"), allow_nan=False)


@example({"int": 1})
@example({"\x1b[2J": 1})
@example({"\n": []})
@example({"steps": 10**18})
@fuzz(25)
@given(fitting())
def test_trainings(executions, tmp_path, table):
    path = tmp_path / "t.toml"
    path.write_text(written(table))
    executions(lambda: read_config(path), lambda found: sound(found.recipe()))
    executions(
        lambda: TrainFile(
            **{
                f"{key}": value
                for key, value in table.items()
                if key.isidentifier() and key != "source"
            }
        )
    )
    assert list(tmp_path.iterdir()) == [path]


STUDY = """name = "s"
title = "A study"
dice_margin = 0.02
[train]
steps = 10
crop = 64
[audit]
windows = 6
methods = ["gradient"]
[datasets.own]
raw = "a.tif"
labels = "b.tif"
test = "0:3"
[[grid]]
dataset = ["own"]
init = ["rgb", "green"]
seed = [0, 1, 2]
"""


@st.composite
def studies(draw):
    """A study with a few parts put in, taken out or replaced."""
    found = tomllib.loads(STUDY)
    for _ in range(draw(st.integers(1, 3))):
        part = draw(
            st.sampled_from(
                [
                    found,
                    found.get("train"),
                    found.get("audit"),
                    (found.get("grid") or [None])[0],
                    found.get("datasets"),
                ]
            )
        )
        if not isinstance(part, dict):
            continue
        names = [*StudyTable.model_fields, *DatasetTable.model_fields, *part, "own"]
        key = draw(st.one_of(st.sampled_from(names), KEYS))
        if draw(st.integers(0, 4)) == 0:
            part.pop(key, None)
        else:
            part[key] = draw(st.one_of(TREES, st.lists(SCALARS, max_size=3)))
    return found


@fuzz(25)
@given(studies())
def test_studies(executions, tmp_path, table):
    path = tmp_path / "s.toml"
    path.write_text(written(table))

    def laws(plan):
        assert plan.cells and len({cell.name for cell in plan.cells}) == len(plan.cells)
        for cell in plan.cells:
            sound(cell.recipe)
            assert (
                cell.name.isprintable()
                and "/" not in cell.name
                and "\\" not in cell.name
                and len(cell.name) < 120
            )
            assert isinstance(cell.treatment, str) and len(cell.context) == 8

    executions(lambda: read_study(path), laws)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("read", [read_config, read_study])
@fuzz(20)
@given(changes=edits(len(STUDY)))
def test_bytes(executions, tmp_path, read, changes):
    path = tmp_path / "s.toml"
    path.write_bytes(edited(STUDY.encode(), changes))
    executions(lambda: read(path))
