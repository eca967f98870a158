"""Networks around a network, against answers worked out by hand."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from evenslice.errors import BadInputError
from evenslice.model.logits import (
    AllOutputs,
    Ensemble,
    LogitsAdapter,
    find_prediction,
    plain,
    resize_prediction,
    window_tensors,
)
from evenslice.volume.normalisation import Normalisation


class Weighted(nn.Module):
    """Answers the weighted sum of the slots, once a class."""

    def __init__(self, *weights):
        super().__init__()
        self.weights = nn.Parameter(torch.tensor(weights, dtype=torch.float64))

    def forward(self, x):
        return torch.einsum("bsyx,cs->bcyx", x, self.weights)


@dataclass
class Holder:
    score: torch.Tensor
    logits: torch.Tensor


PICTURE, SCORE = torch.arange(16.0).reshape(1, 1, 4, 4), torch.zeros(1, 7)


@pytest.mark.parametrize(
    "answer",
    [
        PICTURE,
        PICTURE[:, 0],
        (SCORE, PICTURE),
        [[SCORE], {"x": PICTURE}],
        {"aux": PICTURE + 1, "out": PICTURE},
        Holder(SCORE, PICTURE),
        {"labels": PICTURE.long() + 1, "x": PICTURE},
        (torch.zeros(1, 5, 8), PICTURE),
        {"features": torch.ones(1, 9, 4, 4), "logits": PICTURE},
    ],
)
def test_the_picture_is_found_in_any_answer(answer):
    assert torch.equal(find_prediction(answer), PICTURE)


@pytest.mark.parametrize("answer", [SCORE, {"scores": SCORE}, "text", ()])
def test_an_answer_without_a_picture_is_refused(answer):
    with pytest.raises(BadInputError, match=r"expected a prediction \(B, classes, y, x\)"):
        find_prediction(answer)


def test_a_coarse_answer_is_laid_over_the_input():
    out = resize_prediction(torch.full((1, 2, 4, 8), 3.0), (16, 32))
    assert out.shape == (1, 2, 16, 32)
    assert bool((out == 3).all())
    for size in ((15, 32), (2, 8)):
        with pytest.raises(BadInputError, match="the network answers 4 x 8"):
            resize_prediction(torch.zeros(1, 2, 4, 8), size)


def test_probabilities_become_log_odds():
    network = nn.Sequential(Weighted([0.2, -0.4, 1.0]), nn.Sigmoid())
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    assert torch.allclose(LogitsAdapter(network, probabilities=True)(x), network[0](x), atol=1e-12)
    several = nn.Sequential(Weighted([0.2, -0.4, 1.0], [1.0, 1.0, 0.0]), nn.Softmax(1))
    found = LogitsAdapter(several, probabilities=True)(x)
    assert torch.allclose(found.softmax(1), several(x), atol=1e-12)


def test_certain_probabilities_become_large_but_finite():
    for classes in (1, 3):
        certain = LogitsAdapter(nn.Identity(), probabilities=True)(
            torch.eye(4).reshape(1, 1, 4, 4).expand(1, classes, 4, 4)
        )
        assert bool(certain.isfinite().all())
        assert float(certain.max() - certain.min()) > 15


def test_a_fixed_batch_is_filled_and_cut():
    seen = []

    class Two(nn.Module):
        def forward(self, x):
            seen.append(len(x))
            return x[:, :1]

    x = torch.randn(5, 3, 4, 4)
    assert torch.equal(LogitsAdapter(Two(), batch=2)(x), x[:, :1])
    assert seen == [2, 2, 2]


def test_the_ensemble_is_the_mean_probability_of_both_directions():
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    one = Weighted([0.2, -0.4, 3.0])
    mean = (one(x).sigmoid() + one(x.flip(1)).sigmoid()) / 2
    assert torch.allclose(Ensemble(one)(x).sigmoid(), mean, atol=1e-14)
    several = Weighted([0.2, -0.4, 3.0], [0.0, 1.0, -1.0])
    mean = (several(x).softmax(1) + several(x.flip(1)).softmax(1)) / 2
    assert torch.allclose(Ensemble(several)(x).softmax(1), mean, atol=1e-14)
    assert torch.allclose(Ensemble(several)(x), Ensemble(several)(x.flip(1)), atol=1e-14)


def test_the_ensemble_does_not_saturate():
    certain = Ensemble(Weighted([100.0, 0.0, 80.0]))(torch.ones(1, 3, 2, 2, dtype=torch.float64))
    assert torch.allclose(certain, torch.full_like(certain, 180.0))


def test_the_ensemble_reverses_raw_slices_where_slots_are_normalised_differently():
    norm = Normalisation((10.0, 20.0, 30.0), (1.0, 2.0, 4.0))
    raw = 50 * torch.rand(1, 3, 4, 5, dtype=torch.float64)
    network = Weighted([0.2, -0.4, 1.0])
    mean, std = (torch.tensor(v)[:, None, None] for v in (norm.mean, norm.std))
    expected = (
        network((raw - mean) / std).sigmoid() + network((raw.flip(1) - mean) / std).sigmoid()
    ) / 2
    assert torch.allclose(
        Ensemble(network, norm)((raw - mean) / std).sigmoid(), expected, atol=1e-7
    )


def test_plain_is_the_network_inside():
    network = Weighted([1.0])
    assert plain(Ensemble(LogitsAdapter(network))) is network
    assert plain(network) is network


def test_all_numbers_with_a_row_for_each_window_are_kept():
    rows, other = torch.ones(2, 7), torch.ones(3, 2)
    found = window_tensors(
        {"a": [rows, (other,)], "b": torch.zeros(2, 0), "c": rows.long(), "d": torch.tensor(1.0)}, 2
    )
    assert [id(t) for t in found] == [id(rows)]


def test_answers_without_a_picture_are_put_together_again():
    class Two(nn.Module):
        def forward(self, x):
            assert len(x) == 2
            return {"mean": x.mean((1, 2, 3)), "slots": [x.mean((2, 3)), "text"]}

    x = torch.randn(5, 3, 4, 4)
    mean, slots = AllOutputs(Two(), 2)(x)
    assert torch.equal(mean, x.mean((1, 2, 3)))
    assert torch.equal(slots, x.mean((2, 3)))
