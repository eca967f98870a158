"""What is explained, by hand."""

import torch

from evenslice.evidence.target import decision, near_boundary


def column(*values):
    return torch.tensor(values).view(1, -1, 1, 1)


def test_the_margin_of_the_class_predicted():
    logits = column(3.0, 0.0, 0.0)
    assert (decision(logits) * logits).sum() == 3.0
    logits = column(1.0, 4.0, 2.0)
    assert (decision(logits) * logits).sum() == 4.0 - 1.5
    assert (decision(column(-2.0)) * -2.0).sum() == 2.0


def test_the_margin_of_the_true_class_and_none_where_it_is_unknown():
    logits = column(1.0, 4.0, 2.0)
    assert (decision(logits, "truth", torch.tensor([[[2]]])) * logits).sum() == 2.0 - 2.5
    assert (decision(logits, "truth", torch.tensor([[[-1]]])) * logits).sum() == 0.0
    assert [
        float(decision(column(5.0), "truth", torch.tensor([[[t]]]))) for t in (0, 1, 2, -1)
    ] == [-1, 1, 1, 0]


def test_all_is_the_foreground_whatever_is_predicted():
    assert float(decision(column(-2.0), "all")) == 1.0
    logits = column(1.0, 4.0, 2.0)
    assert (decision(logits, "all") * logits).sum() == 3.0 - 1.0


def test_the_boundary_is_within_three_pixels_of_a_change():
    logits = torch.full((1, 1, 1, 12), -1.0)
    logits[..., 6:] = 2.0
    found = decision(logits, "boundary")[0, 0, 0]
    assert found.tolist() == [0, 0, 0, -1, -1, -1, 1, 1, 1, 0, 0, 0]
    assert not near_boundary(torch.zeros(1, 1, 5, 5, dtype=torch.int64)).any()
