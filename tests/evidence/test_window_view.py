"""The comparison of a prediction with the ground truth."""

import numpy as np
import pytest

from evenslice.evidence.window_view import WindowView


def view(prediction, truth=None):
    prediction = np.array([prediction], np.float32)
    truth = None if truth is None else np.array([truth])
    slices = np.zeros((3, 1, prediction.size))
    return WindowView("m", (0, 0, 0), slices, None, prediction, truth, None)


@pytest.mark.parametrize(
    ("prediction", "truth", "numbered", "wrong"),
    [
        # a probability is compared at one half
        ([0.1, 0.9, 0.2, 0.8, 0.5], [0, 1, 1, 0, 0], False, [0, 0, 1, 2, 0]),
        # any label is foreground to a probability, and what is ignored is right
        ([0.9, 0.9, 0.1, 0.1], [7, -1, -1, 7], False, [0, 0, 0, 1]),
        ([0, 1, 2, 2, 0, 1], [0, 1, 1, 0, 2, -1], True, [0, 0, 3, 2, 1, 0]),
    ],
)
def test_pixels_that_are_wrong(prediction, truth, numbered, wrong):
    found = view(prediction, truth)
    assert found.numbered == numbered
    assert found.wrong().tolist() == [wrong]


def test_a_mask_is_a_probability_and_without_ground_truth_nothing_is_compared():
    assert not view([0, 1, 1]).numbered
    assert view([0, 1, 1]).wrong() is None
