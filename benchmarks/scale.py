"""Time to verdict on volumes of 40 MB and of 100 GB, made on the fly: same network, alternating.

    python benchmarks/scale.py [--rounds 3]

Prints windows, seconds and the ratio of times (100 GB / 40 MB; 1 means that the volume's size does
not matter).
"""

import argparse
import statistics
import time

import numpy as np

from evenslice import audit, build_model
from evenslice.volume.array import Volume

SHAPES = {"40 MB": (40, 1000, 1000), "100 GB": (1000, 10_000, 10_000)}


class Made:
    """Voxels that are made when they are read."""

    dtype = np.dtype(np.uint8)

    def __init__(self, shape):
        self.shape = shape

    def __getitem__(self, key):
        spans = [np.arange(*part.indices(n)) for part, n in zip(key, self.shape, strict=True)]
        z, y, x = np.ix_(*spans)
        return np.asarray(128 + 60 * np.sin(z * 1.7 + y * 0.31) * np.cos(x * 0.23 + z), np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    model = build_model(weights="none", init="rgb", encoder_depth=3)
    times: dict[str, list[float]] = {name: [] for name in SHAPES}
    windows = {}
    for turn in range(given.rounds + 1):
        for name, shape in SHAPES.items():
            start = time.perf_counter()
            windows[name] = audit(
                model, Volume(Made(shape)), methods=["gradient", "ablation"], tile=128
            ).windows
            if turn:
                times[name].append(time.perf_counter() - start)
    for name, took in times.items():
        print(f"{name:7s} {windows[name]} windows, {statistics.median(took):.2f} s")
    ratios = [big / small for big, small in zip(times["100 GB"], times["40 MB"], strict=True)]
    print(
        f"100 GB / 40 MB: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
