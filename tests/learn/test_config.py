"""The settings file: every wrong key is named, paths are relative to it, options win."""

import pytest

from evenslice.errors import BadInputError
from evenslice.options import TrainOptions, read_config

WRONG = [
    ("stesp = 3", r"a.toml: stesp is unknown, expected one of .*more.*; did you mean steps\?$"),
    ("steps = '3'", "a.toml: steps is '3', expected a whole number"),
    ("volume = 'raw.tif'", "a.toml: volume is unknown"),
    ("schedule = 'cosin'", r"a.toml: schedule is 'cosin', .*did you mean cosine\?"),
    ("balance = 1.5", "a.toml: balance is 1.5, expected 1.0 or less"),
    ("clip = 0", "a.toml: clip is 0, expected a number above 0"),
    ("batch = 4\ndevices = 3", "a.toml: batch is 4 for 3 devices, expected a multiple of 3"),
    ("validation = 3", "a.toml: validation is 3, expected a text in quotes; correct it$"),
    ("class_weights = [1, 0]", "a.toml: class_weights.1 is 0, expected a number above 0"),
    ("em = 3", "a.toml: em is 3, expected a table"),
    ("[em]\nblur = {size = 1}", "a.toml: augment is 'flips' with strengths in em, expected 'em'"),
    ("augment = 'em'\n[em]\nblr = {size = 1}", r"a.toml: em.blr is unknown, .*did you mean blur\?"),
    (
        "augment = 'em'\n[em]\nblur = {size = 11}",
        "a.toml: em.blur.size is 11, expected 10.0 or less",
    ),
    (
        "augment = 'em'\n[em.contrast]\nsize = 1.0",
        "a.toml: em.contrast.size is 1.0, expected a number below 1",
    ),
    (
        "augment = 'em'\n[em.shift]\nsize = 1.5",
        "a.toml: em.shift.size is 1.5, expected a whole number",
    ),
    (
        "augment = 'em'\n[em.missing]\nprobability = 2",
        "a.toml: em.missing.probability is 2, expected 1.0 or less",
    ),
    ("[[more]]\nvolume = 'a.tif'", "a.toml: more.0.labels is missing, expected a value for it"),
    (
        "[[more]]\nvolume = 'a.tif'\nlabels = 'b.tif'\nlables = 'c.tif'",
        r"a.toml: more.0.lables is unknown.*labels",
    ),
    ("[more]\nvolume = 'a.tif'", r"a.toml: more is \{'volume': 'a.tif'\}, expected a list"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[text for text, _ in WRONG])
def test_a_wrong_key_is_told(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(BadInputError, match=message) as told:
        read_config(tmp_path.relative_to(tmp_path) / "a.toml")
    assert "\n" not in str(told.value)


def test_options_win_over_the_file_and_the_rest_is_default(tmp_path):
    (tmp_path / "a.toml").write_text("steps = 7\nlr = 1\naugment = 'em'\n[em]\nblur = {size = 2}\n")
    file = read_config(tmp_path / "a.toml")
    assert file.recipe() == TrainOptions(steps=7, lr=1, augment="em", em={"blur": {"size": 2}})
    assert file.recipe(steps=9, seed=3) == file.recipe().model_copy(update={"steps": 9, "seed": 3})
    assert file.recipe().em.blur.probability == TrainOptions().em.blur.probability
    with pytest.raises(BadInputError, match=r"^--batch is 5 for 2 devices"):
        file.recipe(batch=5, devices=2)


def test_an_empty_file_is_the_defaults(tmp_path):
    (tmp_path / "a.toml").write_text("")
    assert read_config(tmp_path / "a.toml").recipe() == TrainOptions()


def test_paths_are_meant_from_the_folder_of_the_file(tmp_path):
    (tmp_path / "a.toml").write_text(
        "weights = 'w/a.safetensors'\n[[more]]\nvolume = 'b.h5:/raw'\nlabels = '/abs/c.tif'\n"
    )
    file = read_config(tmp_path / "a.toml")
    assert file.weights == str(tmp_path / "w" / "a.safetensors")
    assert [(one.volume, one.labels) for one in file.more] == [
        (str(tmp_path / "b.h5:/raw"), "/abs/c.tif")
    ]
    for name in ("imagenet", "bundled", "none"):
        (tmp_path / "a.toml").write_text(f"weights = '{name}'")
        assert read_config(tmp_path / "a.toml").recipe().weights == name


def test_a_recipe_is_what_it_says_of_itself():
    recipe = TrainOptions(
        augment="em", em={"noise": {"size": 1}}, validation=["0:1", "2:3"], class_weights=[1, 2]
    )
    assert TrainOptions(**recipe.model_dump()) == recipe
