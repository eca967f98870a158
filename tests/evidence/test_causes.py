"""Which causes of an asymmetry a training record leaves possible, and never more than it says."""

import pytest

from evenslice.evidence.causes import causes_of

SAME, APART = ([{"kernels": [value], "sums": [0.0], "norms": [0.0]}] for value in (0.0, 0.4))
TOWARD = {"verdict": "asymmetric toward previous", "text": "fit the previous slice better, -0.46"}
ALIKE = {"verdict": "symmetric", "text": "symmetric, +0.01"}


@pytest.mark.parametrize(
    ("training", "before", "says", "not_"),
    [
        ({"stem_before": SAME, "label_asymmetry": TOWARD}, False, "-0.46", "--z-order"),
        ({"stem_before": SAME, "label_asymmetry": ALIKE}, False, "Other seeds", "--z-order"),
        ({"stem_before": APART, "label_asymmetry": TOWARD}, True, "0.40 apart", "Other seeds"),
        ({"stem_before": APART, "label_asymmetry": ALIKE}, True, "--z-order reversed", "previous"),
        ({"stem_before": [None]}, None, "is not recorded", "previous"),
        ({"slices": [[0, 9]]}, None, "is not recorded", "resent before training:"),
        ({"stem_before": SAME, "volumes": [{"label_asymmetry": TOWARD}]}, False, "-0.46", "alike"),
    ],
)
def test_no_more_is_said_than_was_recorded(training, before, says, not_):
    found = causes_of(training, "asymmetric")
    assert found["before_training"] is before
    assert says in found["text"] and not_ not in found["text"]


def test_nothing_is_said_without_asymmetry_or_training():
    record = {"stem_before": APART, "label_asymmetry": TOWARD}
    assert causes_of(record, "symmetric") is causes_of(record, "inconclusive") is None
    assert causes_of({}, "asymmetric") is None
