"""Options and settings files: every wrong key is named, paths are relative to the file."""

import pytest

from evenslice.errors import BadInputError
from evenslice.options import TrainOptions, read_config, read_toml

WRONG = [
    ("stesp = 3", r"stesp is unknown, expected one of .*more.*; did you mean steps\?$"),
    ("zzz = 3\ncrop = 1", r"zzz is unknown.*take it out \(1 more after it\)"),
    ("steps = '3'", "steps is '3', expected a whole number; correct it"),
    ("steps = true", "steps is True, expected a whole number"),
    ("steps = 0", "steps is 0, expected 1 or more; correct it"),
    ("lr = nan", "lr is nan, expected a "),
    ("reverse_z = 1", "reverse_z is 1, expected true or false"),
    ("arch = 5", "arch is 5, expected a text in quotes"),
    ("volume = 'raw.tif'", "volume is unknown"),
    ("schedule = 'cosin'", r"schedule is 'cosin', .*did you mean cosine\?"),
    ("balance = 1.5", "balance is 1.5, expected 1.0 or less"),
    ("clip = 0", "clip is 0, expected a number above 0"),
    ("batch = 4\ndevices = 3", "batch is 4 for 3 devices, expected a multiple of 3"),
    ("validation = 3", "validation is 3, expected a text in quotes; correct it$"),
    ("class_weights = [1, 0]", "class_weights.1 is 0.0, expected a number above 0"),
    ("em = 3", "em is 3, expected a table"),
    ("[em]\nblur = {size = 1}", "augment is 'flips' with strengths in em, expected 'em'"),
    ("augment = 'em'\nem.blr = {size = 1}", r"em.blr is unknown, .*did you mean blur\?"),
    ("augment = 'em'\nem.blur = {size = 11}", "em.blur.size is 11, expected 10.0 or less"),
    ("augment = 'em'\nem.contrast.size = 1.0", "em.contrast.size is 1.0, expected a number below"),
    ("augment = 'em'\nem.shift.size = 1.5", "em.shift.size is 1.5, expected a whole number"),
    ("[[more]]\nvolume = 'a.tif'", "more.0.labels is missing, expected a value for it"),
    (
        "[[more]]\nvolume = 'a.tif'\nlabels = 'b.tif'\nlables = 'c.tif'",
        r"more.0.lables is unknown.*labels",
    ),
    ("[more]\nvolume = 'a.tif'", r"more is \{'volume': 'a.tif'\}, expected a list"),
]


@pytest.mark.parametrize(("text", "message"), WRONG, ids=[text for text, _ in WRONG])
def test_a_wrong_key_is_named(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(BadInputError, match=f"^a.toml: {message}") as error:
        read_config(tmp_path.relative_to(tmp_path) / "a.toml")
    assert "\n" not in str(error.value)


def test_options_win_over_the_file_and_the_rest_is_default(tmp_path):
    (tmp_path / "a.toml").write_text("steps = 7\nlr = 1\naugment = 'em'\n[em]\nblur = {size = 2}\n")
    file = read_config(tmp_path / "a.toml")
    assert file.options() == TrainOptions(steps=7, lr=1, augment="em", em={"blur": {"size": 2}})
    assert file.options(steps=9, seed=3) == file.options().model_copy(
        update={"steps": 9, "seed": 3}
    )
    assert file.options().em.blur.probability == TrainOptions().em.blur.probability
    with pytest.raises(BadInputError, match=r"^--batch is 5 for 2 devices"):
        file.options(batch=5, devices=2)
    (tmp_path / "empty.toml").write_text("")
    assert read_config(tmp_path / "empty.toml").options() == TrainOptions()


def test_changes_win_over_an_options_object():
    options = TrainOptions(steps=7, seed=3)
    assert TrainOptions.of(options, {"steps": 9}) == TrainOptions(steps=9, seed=3)
    assert TrainOptions.of(None, {}) == TrainOptions()


def test_paths_are_relative_to_the_folder_of_the_file(tmp_path):
    (tmp_path / "a.toml").write_text(
        "weights = 'w/a.safetensors'\n[[more]]\nvolume = 'b.h5:/raw'\nlabels = '/abs/c.tif'\n"
    )
    file = read_config(tmp_path / "a.toml")
    assert file.weights == str(tmp_path / "w" / "a.safetensors")
    assert [(one.volume, one.labels) for one in file.more] == [
        (str(tmp_path / "b.h5:/raw"), "/abs/c.tif")
    ]
    for name in ("imagenet", "none"):
        (tmp_path / "a.toml").write_text(f"weights = '{name}'")
        assert read_config(tmp_path / "a.toml").options().weights == name


def test_options_can_be_stored_and_read_again():
    options = TrainOptions(
        augment="em", em={"noise": {"size": 1}}, validation=["0:1", "2:3"], class_weights=[1, 2]
    )
    assert TrainOptions(**options.model_dump()) == options


def test_wrong_options_are_named_as_on_the_command_line():
    with pytest.raises(BadInputError, match=r"^--crop is 16, expected 32 or more; correct it$"):
        TrainOptions(crop=16)
    with pytest.raises(BadInputError, match=r"^--encoder-depth is 9"):
        TrainOptions(encoder_depth=9)
    with pytest.raises(BadInputError, match=r"--target is .magic., expected .auto., "):
        TrainOptions(target="magic")


def test_a_file_that_is_not_toml_is_refused(tmp_path):
    with pytest.raises(BadInputError, match="does not exist, expected a TOML file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("steps 3")
    with pytest.raises(BadInputError, match=r"bad.toml is not TOML .*line 1"):
        read_toml(tmp_path / "bad.toml")
    (tmp_path / "latin.toml").write_bytes(b"arch = '\xff'")
    with pytest.raises(BadInputError, match="is not TOML"):
        read_toml(tmp_path / "latin.toml")
