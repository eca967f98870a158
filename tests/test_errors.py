import pickle
import warnings
from dataclasses import dataclass

import pytest

from evenslice.errors import LONGEST, BadInputError, InputWarning, keeps_warnings

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


def test_a_result_has_the_warnings_of_its_run_and_each_is_shown_once():
    @dataclass(frozen=True)
    class Result:
        warnings: tuple[str, ...] = ()

    @keeps_warnings
    def inner():
        for text in ("a", "b", "a"):
            warnings.warn(text, InputWarning, stacklevel=1)
        return Result(("b", "c"))

    @keeps_warnings
    def outer():
        inner()
        return Result(("d",))

    for _ in range(2):  # also the second time in one process
        with pytest.warns(InputWarning) as shown:
            found = inner()
        assert [str(one.message) for one in shown] == list(found.warnings) == ["a", "b", "c"]
    with pytest.warns(InputWarning) as shown:
        found = outer()
    assert len(shown) == 4
    assert found.warnings == ("a", "b", "c", "d")
