"""Units of length as files spell them."""

import pytest

from evenslice.volume.voxel_size import nm_of


@pytest.mark.parametrize(
    ("nm", "spellings"),
    [
        (1, ["nm", "NM", " nm ", "nanometers", "nanometres", b"nm"]),
        (0.1, ["\N{ANGSTROM SIGN}", "\N{LATIN CAPITAL LETTER A WITH RING ABOVE}", "Angstroms"]),
        (1e3, ["um", "\N{MICRO SIGN}m", "\N{GREEK SMALL LETTER MU}m", r"\u00B5m", "Microns"]),
        (1e6, ["mm", "millimeter"]),
        (1e7, ["cm", "centimetres"]),
    ],
)
def test_a_unit_is_understood_however_it_is_spelled(nm, spellings):
    assert [nm_of(word) for word in spellings] == [nm] * len(spellings)


@pytest.mark.parametrize("word", ["", "pixel", "pixels", "inch", "Mm", "Pm", "s", None, 1.0])
def test_other_units_are_unknown_rather_than_guessed(word):
    assert nm_of(word) != nm_of(word)  # NaN
