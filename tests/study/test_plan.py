"""The study file: grids expanded, every wrong key told, names and pairs."""

from pathlib import Path

import pytest

from evenslice.errors import BadInputError
from evenslice.study.data import check_data, data_of
from evenslice.study.plan import read_study

STUDIES = Path(__file__).resolve().parents[2] / "studies"
LEAST = 'name = "x"\n[[grid]]\ndataset = "phantom"\n'


def planned(tmp_path, text):
    (tmp_path / "s.toml").write_text(text)
    return read_study(tmp_path / "s.toml")


def test_every_combination_is_a_cell_and_no_cell_is_there_twice(tmp_path):
    text = (
        LEAST
        + 'init = ["rgb", "green"]\nseed = [0, 1, 2]\n[[grid]]\ndataset = "phantom"\n'
        + 'init = "green"\nslices = [3, 5]\n'
    )
    cells = planned(tmp_path, text).cells
    assert [(c.options.init, c.options.seed, c.options.slices) for c in cells] == [
        *(("rgb", s, 3) for s in range(3)),
        *(("green", s, 3) for s in range(3)),
        ("green", 0, 5),
    ]
    assert len({cell.name for cell in cells}) == 7
    assert set(cells[0].varied) == {"init", "slices", "seed"}


def test_what_all_share_comes_from_train_and_a_grid_wins(tmp_path):
    plan = planned(
        tmp_path,
        'name = "x"\nprecision = "bf16"\n[train]\nsteps = 7\ncrop = 64\n'
        '[[grid]]\ndataset = "phantom"\ncrop = 32\n',
    )
    recipe = plan.cells[0].options
    assert (recipe.steps, recipe.crop, recipe.precision, recipe.keep) == (7, 32, "bf16", "last")


def test_treatments_are_named_and_compared_with_what_shares_the_rest(tmp_path):
    text = LEAST + 'init = ["rgb", "green"]\nweights = "imagenet"\n'
    text += '[[grid]]\ndataset = "phantom"\ninit = "rgb"\nweights = "none"\n'
    text += '[[grid]]\ndataset = "phantom"\ninit = "rgb"\ntie = "mirror"\naugment_reversal = true\n'
    text += '[[grid]]\ndataset = "phantom"\ninit = "rgb"\nfreeze = "stem"\nslices = 1\n'
    text += '[[grid]]\ndataset = "phantom"\ninit = "rgb"\nseed = 1\n'
    cells = planned(tmp_path, text).cells
    assert [cell.treatment for cell in cells] == [
        "rgb",
        "green",
        "random weights",
        "rgb, mirror tie, reverse-z",
        "rgb, frozen stem, one slice",
        "rgb",
    ]
    assert [cell.context == cells[0].context for cell in cells] == [True] * 5 + [False]
    assert {cell.network for cell in cells} == {"unet tf_efficientnet_lite0"}


def test_several_weights_of_one_encoder_are_several_networks(tmp_path):
    cells = planned(tmp_path, LEAST + 'weights = ["imagenet", "hf-hub:lab/a", "none"]\n').cells
    assert [cell.network for cell in cells] == [
        "unet tf_efficientnet_lite0 (imagenet)",
        "unet tf_efficientnet_lite0 (hf-hub:lab/a)",
        "unet tf_efficientnet_lite0",
    ]


def test_weights_and_data_lie_beside_the_file(tmp_path):
    text = (
        LEAST.replace("phantom", "mine")
        + 'weights = "w/a.safetensors"\n[datasets.mine]\nraw = "raw.tif"\nlabels = "l.tif"\n'
    )
    plan = planned(tmp_path, text)
    assert plan.cells[0].options.weights == str(tmp_path / "w" / "a.safetensors")
    assert plan.cells[0].weights == "a.safetensors"
    assert data_of(plan, "mine", tmp_path).raw == str(tmp_path / "raw.tif")
    moved = planned(tmp_path, text.replace("w/a", "v/a"))
    assert moved.cells[0].name == plan.cells[0].name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"s.toml: name is missing"),
        ('name = "x"', r"s.toml: grid is missing"),
        ('name = "x"\ngrid = []', r"s.toml: grid is \[\], expected a list of at least 1"),
        (LEAST + "stesp = 3", r"s.toml: grid.0: stesp is unknown, .*did you mean steps\?"),
        (
            LEAST + 'init = ["rgb", "gren"]',
            r"grid.0: init is 'gren', expected .*did you mean green\?",
        ),
        (LEAST + "seed = []", r"grid.0.seed is an empty list"),
        (LEAST + 'steps = ["a"]', r"grid.0: steps is 'a', expected a whole number"),
        (LEAST + 'validation = "0:3"', r"grid.0.validation is given, expected none"),
        ('name = "x"\n[[grid]]\ninit = "rgb"', r"grid.0.dataset is None, expected a name"),
        (LEAST + "[audit]\nwindow = 3", r"s.toml: audit.window is unknown.*did you mean windows"),
        ('nmae = "x"\n' + LEAST, r"nmae is unknown, .*did you mean name\?"),
        (
            LEAST + "[datasets.a]\nraw = 3\nlabels = 'l'",
            r"datasets.a.raw is 3, expected a text in quotes",
        ),
        (LEAST + "tile = 3", r"grid.0: tile is 3, expected 16 or more"),
    ],
)
def test_an_error_names_its_key(tmp_path, text, message):
    with pytest.raises(BadInputError, match=message):
        planned(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            LEAST.replace("phantom", "snemi"),
            r"snemi is not complete .*evenslice data fetch 'SNEMI3D' --to",
        ),
        (LEAST.replace("phantom", "nothing"), r"the dataset 'nothing' is unknown"),
        (
            LEAST.replace("phantom", "a") + "[datasets.a]\nraw='r.tif'\nlabels='l.tif'",
            r"a is not complete \(.*r.tif does not exist",
        ),
        (
            LEAST.replace("phantom", "a") + "[datasets.a]\nraw='r'\nlabels='l'\ntest_raw='t'",
            "only one of test_raw and test_labels",
        ),
    ],
)
def test_data_that_are_not_there_are_told_before_any_work(tmp_path, monkeypatch, text, message):
    monkeypatch.setenv("EVENSLICE_DATA", str(tmp_path / "data"))
    with pytest.raises(BadInputError, match=message):
        check_data(planned(tmp_path, text), tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "count"),
    [("smoke", 8), ("small", 30), ("steps", 6), ("paper", 9 * (8 * 3 + 3 + 2 * 3 + 3 + 5))],
)
def test_the_studies_of_the_project_are_whole(name, count):
    plan = read_study(STUDIES / f"{name}.toml")
    assert len(plan.cells) == count
    assert plan.table.control in {cell.treatment for cell in plan.cells}
    assert "green" in {cell.treatment for cell in plan.cells}
    pairs = {cell.context for cell in plan.cells if cell.treatment == plan.table.control}
    assert all(cell.context in pairs for cell in plan.cells)
