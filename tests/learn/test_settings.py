"""Settings: every wrong key is told with where it is, what it holds and what was expected."""

import pytest

from evenslice.errors import BadInputError
from evenslice.options import TrainOptions, read_toml


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stesp": 3}, r"f.toml: stesp is unknown, expected one of .*; did you mean steps\?"),
        ({"zzz": 3, "crop": 1}, r"f.toml: zzz is unknown.*take it out \(1 more after it\)"),
        ({"steps": "3"}, "f.toml: steps is '3', expected a whole number; correct it"),
        ({"steps": True}, "f.toml: steps is True, expected a whole number"),
        ({"steps": 0}, "f.toml: steps is 0, expected 1 or more; correct it"),
        ({"encoder_depth": 6}, "f.toml: encoder_depth is 6, expected 5 or less"),
        ({"lr": float("nan")}, "f.toml: lr is nan, expected a "),
        ({"init": "gren"}, r"f.toml: init is 'gren', expected .*; did you mean green\?"),
        ({"reverse_z": 1}, "f.toml: reverse_z is 1, expected true or false"),
        ({"arch": 5}, "f.toml: arch is 5, expected a text in quotes"),
    ],
)
def test_a_wrong_key_is_told(values, message):
    with pytest.raises(BadInputError, match=message):
        TrainOptions.read(values, "f.toml")


def test_whole_numbers_are_numbers():
    assert TrainOptions(lr=1).lr == 1.0


def test_a_recipe_names_its_options():
    with pytest.raises(BadInputError, match=r"^--crop is 16, expected 32 or more; correct it$"):
        TrainOptions(crop=16)
    with pytest.raises(BadInputError, match=r"^--encoder-depth is 9"):
        TrainOptions(encoder_depth=9)


def test_a_file_that_is_not_toml_is_told(tmp_path):
    with pytest.raises(BadInputError, match="does not exist, expected a TOML file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("steps 3")
    with pytest.raises(BadInputError, match=r"bad.toml is not TOML .*line 1"):
        read_toml(tmp_path / "bad.toml")
    (tmp_path / "latin.toml").write_bytes(b"arch = '\xff'")
    with pytest.raises(BadInputError, match="is not TOML"):
        read_toml(tmp_path / "latin.toml")
