"""Time and memory of adapted Rand error and VOI beside scikit-image: alternating, one thread.

    python benchmarks/metrics.py [--shape 100 1000 1000] [--rounds 3] [--noise 0]

Labels are cells (Voronoi, with membranes of label 0); the prediction is shifted, some cells are
merged, some split. ``--noise`` gives a share of the predicted voxels a random label, which breaks
the runs. scikit-image is called as its documentation shows (one call per score), and once more with
one contingency table for both. Ours is `evenslice.labels`, with the matching of objects beside.
Prints seconds, ratios (theirs / ours), the largest difference of the scores, and the peak of memory
allocated beside the labels (tracemalloc, in a run of its own).
"""

import argparse
import os
import statistics
import time
import tracemalloc

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from skimage.metrics import adapted_rand_error, contingency_table, variation_of_information

from evenslice.labels.blocks import bands
from evenslice.labels.overlap import PairCounter, match_objects, partition_scores

CELL = (20, 80, 80)


def cells(shape, seed):
    """Voronoi cells of a jittered grid (z, y, x), uint32 from 1; 0 between two cells."""
    rng = np.random.default_rng(seed)
    grid = tuple(-(-n // c) + 2 for n, c in zip(shape, CELL, strict=True))
    seeds = rng.uniform(0.05, 0.95, (*grid, 3)).astype(np.float32)
    labels = np.empty(shape, np.uint32)
    y, x = (np.arange(n, dtype=np.float32) / c for n, c in zip(shape[1:], CELL[1:], strict=True))
    cy, cx = (axis.astype(int) + 1 for axis in (y, x))
    for z in range(shape[0]):
        cz = z // CELL[0] + 1
        best, second = (np.full(shape[1:], np.inf, np.float32) for _ in range(2))
        for dz, dy, dx in np.ndindex(3, 3, 3):
            where = np.ix_([cz + dz - 1], cy + dy - 1, cx + dx - 1)
            seed_z, seed_y, seed_x = np.moveaxis(seeds[where][0], -1, 0)
            far = (z / CELL[0] + 1 - (cz + dz - 1 + seed_z)) ** 2
            far = far + (y[:, None] + 1 - ((cy + dy - 1)[:, None] + seed_y)) ** 2
            far = np.sqrt(far + (x + 1 - (cx + dx - 1 + seed_x)) ** 2)
            name = np.ravel_multi_index(np.broadcast_arrays(*where), grid)[0]
            nearer = far < best
            second = np.where(nearer, best, np.minimum(second, far))
            labels[z] = np.where(nearer, name + 1, labels[z])
            best = np.where(nearer, far, best)
        labels[z][second - best < 0.05] = 0
    return labels


def predicted(truth, noise, seed):
    """Shift by (0, 2, 3), merge every tenth cell with the next, split every seventh in half."""
    labels = np.roll(truth, (2, 3), (1, 2))
    labels[(labels % 10 == 0) & (labels > 0)] += 1
    half = labels[:, :, labels.shape[2] // 2 :]
    half[half % 7 == 3] += np.uint32(truth.max() + 2)
    if noise:
        rng = np.random.default_rng(seed)
        for plane in labels:
            wrong = rng.random(plane.shape) < noise
            plane[wrong] = rng.integers(0, truth.max(), np.count_nonzero(wrong))
    return labels


def ours(prediction, truth):
    """The scores by way of `evenslice.labels`, box by box."""
    counter = PairCounter()
    for band in bands(truth.shape):
        counter.add(prediction[band.box], truth[band.box])
    pairs = counter.table()
    found = partition_scores(pairs.without(0))
    match_objects(pairs)
    return found.adapted_rand_error, found.voi_split, found.voi_merge


def two_calls(prediction, truth):
    """scikit-image, one call per score."""
    error = adapted_rand_error(truth, prediction)[0]
    return error, *variation_of_information(truth, prediction, ignore_labels=(0,))


def one_table(prediction, truth):
    """scikit-image, one table for both scores."""
    table = contingency_table(truth, prediction, ignore_labels=(0,), sparse_type="array")
    error = adapted_rand_error(table=table)[0]
    return error, *variation_of_information(truth, prediction, table=table / table.sum())


WAYS = {
    "evenslice": ours,
    "scikit-image, one call per score": two_calls,
    "scikit-image, one table": one_table,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", type=int, nargs=3, default=(100, 1000, 1000))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--noise", type=float, default=0.0)
    given = parser.parse_args()
    truth = cells(tuple(given.shape), 0)
    prediction = predicted(truth, given.noise, 1)
    print(f"{truth.size / 1e6:.0f} Mvoxel, {truth.max()} cells, noise {given.noise:g}", flush=True)
    times, found, peaks = {name: [] for name in WAYS}, {}, {}
    for _ in range(given.rounds):
        for name, way in WAYS.items():
            start = time.perf_counter()
            found[name] = way(prediction, truth)
            times[name].append(time.perf_counter() - start)
    for name, way in WAYS.items():
        tracemalloc.start()
        way(prediction, truth)
        peaks[name] = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
    for name, took in times.items():
        ratios = [theirs / mine for theirs, mine in zip(took, times["evenslice"], strict=True)]
        difference = max(abs(a - b) for a, b in zip(found[name], found["evenslice"], strict=True))
        print(
            f"{name:32s} {statistics.median(took):7.2f} s   / ours "
            f"{statistics.median(ratios):6.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})   peak {peaks[name]:8.1f} MiB   differs by "
            f"{difference:.1e}"
        )
    print("adapted Rand error {:.4f}, VOI split {:.4f}, merge {:.4f}".format(*found["evenslice"]))


if __name__ == "__main__":
    main()
