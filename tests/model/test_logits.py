"""Networks around a network, against answers worked out by hand."""

import re
from collections import deque, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from evenslice.errors import BadInputError
from evenslice.model.logits import (
    AllOutputs,
    Ensemble,
    LogitsAdapter,
    Picture,
    duplicate,
    find_picture,
    plain,
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


Pair = namedtuple("Pair", ["out", "aux"])
WHOLE = Picture("", "bcyx", 1)
IMAGE = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
MASK, OTHER = IMAGE[:, :1] * 3, IMAGE[:, 1:2]
SCORE, FEATURES = torch.zeros(1, 7), torch.ones(1, 64, 8, 8)
COARSE, QUARTER = OTHER[..., ::2, ::2], OTHER[..., ::4, ::4]


@pytest.mark.parametrize(
    ("returned", "name", "layout"),
    [
        (MASK, "", "bcyx"),
        (MASK[:, 0], "", "byx"),
        (MASK.movedim(1, -1), "", "byxc"),
        (MASK[:, :, None], "", "bc1yx"),
        ((MASK, SCORE), "0", "bcyx"),
        ((SCORE, MASK), "1", "bcyx"),
        ([[SCORE], {"x": MASK}], "1.x", "bcyx"),
        ({"aux": OTHER, "out": MASK}, "out", "bcyx"),
        (Pair(MASK, OTHER), "out", "bcyx"),
        (Holder(SCORE, MASK), "logits", "bcyx"),
        ({"loss": torch.tensor(1.0), "logits": MASK, "hidden_states": (FEATURES,)}, "logits", ...),
        ({"labels": MASK.long(), "x": MASK}, "x", "bcyx"),
        ((torch.zeros(1, 5, 8), MASK), "1", "bcyx"),
        ({"features": FEATURES, "y": MASK}, "y", "bcyx"),
        ([MASK, COARSE, QUARTER], "0", "bcyx"),
        ([QUARTER, COARSE, MASK], "2", "bcyx"),
        ({"out": [QUARTER, MASK], "aux_out": MASK}, "out.1", "bcyx"),
        ((MASK.sigmoid(), MASK), "0", "bcyx"),
        ((IMAGE, MASK), "1", "bcyx"),
        ([COARSE, QUARTER], "0", "bcyx"),
    ],
)
def test_the_prediction_is_found_by_size_name_and_meaning(returned, name, layout):
    found = find_picture(returned, IMAGE)
    assert found.name == name
    assert layout in (..., found.layout)
    right = MASK if found.factor == 1 else COARSE
    assert any(torch.equal(found.of(returned), one) for one in (right, right.sigmoid()))


@pytest.mark.parametrize(
    ("returned", "candidates"),
    [
        ((FEATURES, MASK), "0 (1, 64, 8, 8), 1 (1, 1, 8, 8)"),
        ((MASK, FEATURES[..., ::2, ::2]), "0 (1, 1, 8, 8), 1 (1, 64, 4, 4)"),
        ((MASK, OTHER), "0 (1, 1, 8, 8), 1 (1, 1, 8, 8)"),
        ((MASK, OTHER, MASK + OTHER), "each of 0, 1, 2 could be it"),
        ({"x": MASK, "y": OTHER}, "x (1, 1, 8, 8), y (1, 1, 8, 8)"),
        ({"out": MASK, "mask": OTHER}, "each of out, mask could be it"),
    ],
)
def test_where_two_could_be_the_prediction_both_are_named(returned, candidates):
    with pytest.raises(BadInputError, match=re.escape(candidates) + r".*--answer"):
        find_picture(returned, IMAGE)


@pytest.mark.parametrize(
    "returned",
    [
        SCORE,
        {"scores": SCORE},
        "text",
        (),
        {"features": FEATURES},
        torch.zeros(1, 10, 1, 1),
        torch.zeros(1, 6, 6),
        torch.zeros(1, 8, 4),
        torch.zeros(1, 1, 3, 8, 8),
        torch.zeros(2, 1, 8, 8),
        {"class_queries_logits": torch.zeros(1, 5, 3), "masks_queries_logits": FEATURES[:, :5]},
        (torch.zeros(1, 5, 3), FEATURES[:, :5, ::2, ::2]),
    ],
)
def test_what_is_no_prediction_is_not_taken_for_one(returned):
    with pytest.raises(BadInputError, match=r"expected a prediction \(B, classes, y, x\)"):
        find_picture(returned, IMAGE)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("mask", MASK),
        ("0", MASK),
        ("heads.1", MASK),
        ("heads", MASK),
        ("3", FEATURES),
        ("features:5", FEATURES[:, 5:6]),
    ],
)
def test_an_answer_is_chosen_by_name_or_number(answer, right):
    returned = {"mask": MASK, "heads": [COARSE, MASK], "features": FEATURES}
    found = find_picture(returned, IMAGE, answer)
    assert torch.equal(found.of(returned), right)
    assert torch.equal(find_picture(returned, IMAGE, found.answer).of(returned), right)


def test_one_channel_of_a_single_output_is_chosen():
    assert torch.equal(find_picture(FEATURES, IMAGE, "0:3").of(FEATURES), FEATURES[:, 3:4])


@pytest.mark.parametrize("answer", ["2", "seg", "mask:1", "mask:x", "score"])
def test_an_answer_that_there_is_not_is_refused(answer):
    with pytest.raises(BadInputError, match=f"--answer.*{answer}|--answer is {answer}"):
        find_picture({"mask": MASK, "score": SCORE}, IMAGE, answer)


def test_a_coarse_prediction_is_laid_over_the_input():
    half = LogitsAdapter(nn.AvgPool2d(2), Picture("", "bcyx", 2))
    out = half(torch.full((1, 2, 8, 16), 3.0))
    assert out.shape == (1, 2, 8, 16)
    assert bool((out == 3).all())


@pytest.mark.parametrize(
    "keep",
    [
        lambda out: out,
        lambda out: {"heads": [out]},
        lambda out: deque([(out,)], 3),
        lambda out: SimpleNamespace(out=out),
        lambda out: Holder(out, out * 2),
    ],
)
def test_a_network_that_keeps_its_outputs_is_copied(keep):
    class Keeps(nn.Conv2d):
        def forward(self, x):
            out = super().forward(x)
            self.kept = keep(out)
            return out

    network = Keeps(3, 1, 1)
    network(IMAGE).sum().backward()
    copied = duplicate(network)
    assert torch.equal(copied(IMAGE), network(IMAGE))
    assert copied.weight is not network.weight


def test_probabilities_become_log_odds():
    network = nn.Sequential(Weighted([0.2, -0.4, 1.0]), nn.Sigmoid())
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    assert torch.allclose(
        LogitsAdapter(network, WHOLE, probabilities=True)(x), network[0](x), atol=1e-12
    )
    several = nn.Sequential(Weighted([0.2, -0.4, 1.0], [1.0, 1.0, 0.0]), nn.Softmax(1))
    found = LogitsAdapter(several, WHOLE, probabilities=True)(x)
    assert torch.allclose(found.softmax(1), several(x), atol=1e-12)


def test_certain_probabilities_become_large_but_finite():
    for classes in (1, 3):
        certain = LogitsAdapter(nn.Identity(), WHOLE, probabilities=True)(
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
    assert torch.equal(LogitsAdapter(Two(), WHOLE, batch=2)(x), x[:, :1])
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
    assert plain(Ensemble(LogitsAdapter(network, WHOLE))) is network
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
