"""Scores of any whole numbers, against the simplest way to compute them."""

import math
from collections import Counter

import numpy as np
from fuzzing import fuzz
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from evenslice.labels.metrics import confusion, scores_of
from evenslice.labels.overlap import PairCounter, match_objects, partition_scores
from evenslice.verbs.evaluate import evaluate
from evenslice.volume.array import Volume

TYPES = st.sampled_from(
    ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "bool"]
)


@st.composite
def labels(draw, shape, least=0):
    """Whole numbers of any type, few or many different ones."""
    dtype = np.dtype(draw(TYPES))
    if dtype.kind == "b":
        return draw(arrays.arrays(dtype, shape))
    info = np.iinfo(dtype)
    some = st.sampled_from(
        [
            0,
            1,
            2,
            3,
            info.max,
            info.max - 1,
            *([-1, info.min] if least < 0 and info.min < 0 else []),
        ]
    )
    return draw(
        arrays.arrays(dtype, shape, elements=some | st.integers(max(least, info.min), info.max))
    )


@st.composite
def pairs(draw, least=0):
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6)))
    return draw(labels(shape, least)), draw(labels(shape, least))


def close(found, wanted):
    assert (found is None) == (wanted is None), (found, wanted)
    assert found is None or math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-9), (found, wanted)


def entropy(joint, whole, side):
    total = sum(joint.values())
    return sum(n / total * math.log2(whole[pair[side]] / n) for pair, n in joint.items())


@fuzz(25)
@given(pairs(), st.sampled_from([None, 0, 1, 255, -1]))
def test_objects(executions, pair, ignore):
    guess, real = pair
    voxels = [
        (int(t), int(p))
        for t, p in zip(real.ravel(), guess.ravel(), strict=True)
        if ignore is None or t != ignore
    ]
    joint = Counter(voxels)
    truth, predicted = (Counter(v[side] for v in voxels) for side in (0, 1))

    def count():
        counted = PairCounter(ignore)
        half = max(1, real.shape[0] // 2)
        for part in (slice(0, half), slice(half, None)):  # in any parts the same
            counted.add(guess[part], real[part])
        return counted.table()

    def laws(table):
        found = {
            (int(t), int(p)): int(n)
            for t, p, n in zip(table.truth, table.prediction, table.count, strict=True)
        }
        assert found == dict(joint)
        scores, matching = partition_scores(table), match_objects(table)
        if not joint:
            assert scores.adapted_rand_error is None
            return
        within = [sum(n * (n - 1) for n in counts.values()) for counts in (joint, truth, predicted)]
        close(
            scores.adapted_rand_error,
            1 - 2 * within[0] / (within[1] + within[2]) if within[1] + within[2] else 0.0,
        )
        close(scores.adapted_rand_precision, within[0] / within[2] if within[2] else None)
        close(scores.adapted_rand_recall, within[0] / within[1] if within[1] else None)
        close(scores.voi_split, entropy(joint, truth, 0))
        close(scores.voi_merge, entropy(joint, predicted, 1))
        ious = {
            (t, p): n / (truth[t] + predicted[p] - n)
            for (t, p), n in joint.items()
            if t != 0 and p != 0
        }
        for percent, hits in matching.matched.items():
            assert hits == sum(
                100 * n > percent * (truth[t] + predicted[p] - n)
                for (t, p), n in joint.items()
                if t and p
            )
        assert matching.truth_objects == len(
            set(truth) - {0}
        ) and matching.predicted_objects == len(set(predicted) - {0})
        good = [iou for iou in ious.values() if iou > 0.5]
        close(matching.mean_iou, sum(good) / len(good) if good else None)

    executions(count, laws)


@fuzz(25)
@given(st.data(), st.integers(2, 5), st.sampled_from([None, 0, 1]))
def test_classes(executions, data, classes, ignore):
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6)))
    guess, real = (
        data.draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, classes - 1)))
        for _ in range(2)
    )

    def laws(table):
        scores = scores_of(table)
        keep = np.ones(shape, bool) if ignore is None else real != ignore
        assert scores.voxels == keep.sum()
        present = [c for c in range(1, classes) if (real[keep] == c).any()]
        assert sorted(scores.per_class) == present
        for c in present:
            a, b = (real == c) & keep, (guess == c) & keep
            close(scores.per_class[c]["dice"], 2 * (a & b).sum() / (a.sum() + b.sum()))
            close(scores.per_class[c]["iou"], (a & b).sum() / (a | b).sum())
        close(
            scores.dice,
            np.mean([scores.per_class[c]["dice"] for c in present]) if present else None,
        )

    executions(lambda: confusion(guess, real, classes, ignore), laws)


@fuzz(20)
@given(
    pairs(least=-9),
    st.sampled_from(["semantic", "instances"]),
    st.sampled_from(["auto", None, 0, 7, -1]),
    st.floats(-1, 200),
)
def test_any_volumes(executions, pair, as_, ignore, tolerance):
    def laws(scores):
        for value in (scores.dice, scores.iou):
            assert value is None or 0 <= value <= 1
        assert (
            scores.to_dict()["schema"] == "evenslice.scores/1"
            and 0 <= scores.voxels <= pair[0].size
        )

    volumes = [Volume(voxels, meaning="labels") for voxels in pair]
    executions(lambda: evaluate(*volumes, as_=as_, ignore=ignore, tolerance=tolerance), laws)
