import pickle

import pytest

from evenslice.errors import LONGEST, BadInputError

PATH = "/".join(["a" * 255] * 12)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a is 3, expected 4; correct it", "a is 3, expected 4; correct it"),
        (f"{PATH} is no volume", f"{PATH} is no volume"),
        (
            f"the name '{'é' * 10_000}', expected another",
            f"the name '{'é' * 199}...{'é' * 98}', expected another",
        ),
        ("x " * 10_000 + "; end", "x " * 1497 + "x ...  " + "x " * 497 + "; end"),
    ],
)
def test_a_message_keeps_both_ends_and_never_fills_the_screen(text, shown):
    error = BadInputError(text)
    assert str(error) == shown
    assert len(shown) <= LONGEST
    assert str(pickle.loads(pickle.dumps(error))) == shown
