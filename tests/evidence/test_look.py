import numpy as np

from evenslice.evidence.window_view import WindowView


def look(prediction, truth):
    prediction = np.array([prediction], np.float32)
    truth = None if truth is None else np.array([truth])
    return WindowView(
        "m", (0, 0, 0), np.zeros((3, 1, prediction.size)), None, prediction, truth, None
    )


def test_a_probability_is_compared_at_one_half():
    assert look([0.1, 0.9, 0.2, 0.8, 0.5], [0, 1, 1, 0, 0]).wrong().tolist() == [[0, 0, 1, 2, 0]]


def test_any_label_is_foreground_to_a_probability_and_what_is_ignored_is_right():
    assert look([0.9, 0.9, 0.1, 0.1], [7, -1, -1, 7]).wrong().tolist() == [[0, 0, 0, 1]]


def test_classes_are_told_apart():
    found = look([0, 1, 2, 2, 0, 1], [0, 1, 1, 0, 2, -1])
    assert found.numbered
    assert found.wrong().tolist() == [[0, 0, 3, 2, 1, 0]]


def test_a_mask_is_a_probability_and_no_truth_is_no_comparison():
    assert not look([0, 1, 1], None).numbered
    assert look([0, 1, 1], None).wrong() is None
