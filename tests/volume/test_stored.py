"""JSON of a run read back: whatever else lies there is one line, not a traceback."""

import json

import pytest

from evenslice.errors import BadInputError
from evenslice.volume import run_state as module
from evenslice.volume.run_state import stored, stored_rows, stored_table


@pytest.fixture
def file(tmp_path):
    return tmp_path / "manifest.json"


@pytest.mark.parametrize("value", [None, 3, "a", [1], {"a": [None]}])
def test_what_was_written_is_read(file, value):
    file.write_text(json.dumps(value))
    assert stored(file) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "Expecting value"),
        (b'{"a": ', "Expecting value"),
        (b"\xff\xfe\x00", "codec can't decode"),
        (b"[" * 100_000, "recursion"),
    ],
)
def test_what_is_no_json_is_damaged(file, text, reason):
    file.write_bytes(text)
    with pytest.raises(
        BadInputError, match=rf"manifest\.json is damaged \(.*{reason}.*start over with --force"
    ):
        stored(file)


def test_a_file_of_absurd_size_is_not_read(file, monkeypatch):
    file.write_text('{"a": 1}')
    monkeypatch.setattr(module, "MOST_BYTES", 8)
    assert stored(file) == {"a": 1}
    monkeypatch.setattr(module, "MOST_BYTES", 7)
    with pytest.raises(BadInputError, match=r"damaged \(more than 7 bytes\)"):
        stored(file)


def test_a_file_that_is_not_there_is_not_damaged(file):
    with pytest.raises(FileNotFoundError):
        stored(file)


def test_a_table_has_its_keys(file):
    file.write_text('{"asked": 1, "chosen": 2}')
    assert stored_table(file, "asked", "chosen") == {"asked": 1, "chosen": 2}
    with pytest.raises(BadInputError) as caught:
        stored_table(file, "asked", "seed", "model")
    assert str(caught.value) == (
        f"{file} is damaged (it lacks seed, model), expected what this run wrote; start over with --force, or remove its folder"
    )
    file.write_text('["asked"]')
    with pytest.raises(BadInputError, match=r"damaged \(it is no table\)"):
        stored_table(file, "asked")


@pytest.mark.parametrize("value", [{"a": 1}, [{"a": 1}, 3], [{"a": 1}, {"b": 2}]])
def test_rows_are_tables_with_their_keys(file, value):
    file.write_text(json.dumps([{"a": 1, "b": 2}, {"a": 3}]))
    assert stored_rows(file, "a") == [{"a": 1, "b": 2}, {"a": 3}]
    file.write_text(json.dumps(value))
    with pytest.raises(BadInputError, match=r"damaged \(it is no list of tables with a\)"):
        stored_rows(file, "a")
