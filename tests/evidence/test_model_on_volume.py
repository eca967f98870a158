"""What is explained, by hand, and the network left as it was."""

import pytest
import torch
from torch import nn

from evenslice.evidence.model_on_volume import explained_target, explaining, near_boundary


def column(*values):
    return torch.tensor(values).view(1, -1, 1, 1)


def number(logits, *region):
    return float((explained_target(logits, *region) * logits).sum())


def truth(value):
    return torch.tensor([[[value]]])


@pytest.mark.parametrize(
    ("logits", "region", "expected"),
    [
        ((3.0, 0.0, 0.0), (), 3.0),
        ((1.0, 4.0, 2.0), (), 4.0 - 1.5),
        ((-2.0,), (), 2.0),
        ((1.0, 4.0, 2.0), ("truth", truth(2)), 2.0 - 2.5),
        ((1.0, 4.0, 2.0), ("truth", truth(-1)), 0.0),
        ((5.0,), ("truth", truth(0)), -5.0),
        ((5.0,), ("truth", truth(1)), 5.0),
        ((5.0,), ("truth", truth(2)), 5.0),
        ((5.0,), ("truth", truth(-1)), 0.0),
        ((-2.0,), ("all",), -2.0),
        ((1.0, 4.0, 2.0), ("all",), 3.0 - 1.0),
    ],
)
def test_the_number_explained_at_a_pixel(logits, region, expected):
    assert number(column(*logits), *region) == expected


def test_the_boundary_is_within_three_pixels_of_a_change():
    logits = torch.full((1, 1, 1, 12), -1.0)
    logits[..., 6:] = 2.0
    found = explained_target(logits, "boundary")[0, 0, 0]
    assert found.tolist() == [0, 0, 0, -1, -1, -1, 1, 1, 1, 0, 0, 0]
    assert not near_boundary(torch.zeros(1, 1, 5, 5, dtype=torch.int64)).any()


def test_the_network_is_left_as_it_was():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Conv2d(4, 1, 1)
    ).train()
    model[1].eval()
    model[3].weight.requires_grad_(False)
    with explaining(model):
        assert not any(p.requires_grad for p in model.parameters())
        assert not any(m.training for m in model.modules())
    assert [m.training for m in model.modules()] == [True, True, False, True, True]
    assert [p.requires_grad for p in model.parameters()] == [True, True, True, True, False, True]
    with pytest.raises(RuntimeError, match="stop"), explaining(model):
        raise RuntimeError("stop")
    assert model.training
