"""Long runs of `segment` and `study`: whether memory, open files or threads grow.

    python reliability/soak.py segment [--tiles 60000]
    python reliability/soak.py study [--cells 200]

Each run is one process. Memory (resident), open handles and threads are read twice a second; the
first half of the work is left out as warming up: what a reader keeps of its input (64 MiB at most)
is full by then. Growth is the slope of a straight line through the rest. Early and late are the
medians of the first and the last third of the rest.
"""

import argparse
import csv
import math
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from keeping import keep
from scipy.ndimage import gaussian_filter

from evenslice import build_model, open_volume, save_model, save_volume, segment
from evenslice.progress import Step
from evenslice.study.run import study
from evenslice.volume.normalisation import Normalisation

SIDE, TILE, STEP = 256, 64, 48
WARM = 0.5
STUDY = """
name = "soak"
[train]
weights = "imagenet"
encoder_depth = 3
steps = 1
batch = 2
crop = 32
validation_runs = 1
[audit]
windows = 6
methods = ["gradient"]
tile = 32
[datasets.made]
raw = "raw.tif"
labels = "labels.tif"
test = "7:9"
[[grid]]
dataset = "made"
init = ["rgb", "green"]
seed = {seeds}
"""


class Watch:
    """Samples memory, open files and threads of this process."""

    def __init__(self, stage: str) -> None:
        self.stage, self.done, self.total, self.rows = stage, 0, 0, []
        self._began = time.perf_counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Step]:
        """Count the pieces of the stage that is watched."""
        watched = label.startswith(self.stage)
        self.total = total if watched else self.total

        def step(note: str = "") -> None:
            self.done += watched

        yield step

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        page = os.sysconf("SC_PAGE_SIZE") / 2**20
        while not self._stop.wait(0.5):
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * page
            handles, threads = (
                sum(1 for _ in Path("/proc/self", name).iterdir()) for name in ("fd", "task")
            )
            if 0 < self.done < self.total:
                self.rows.append((time.perf_counter() - self._began, resident, handles, threads))

    def found(self, part: float) -> dict[str, float | int]:
        """Return memory, open files and threads after warming up; growth over ``part``."""
        rows = np.array(self.rows[int(WARM * len(self.rows)) :], float)
        third = max(1, len(rows) // 3)
        medians = [np.median(part, axis=0) for part in (rows[:third], rows[-third:])]
        slope = np.polyfit(rows[:, 0], rows[:, 1], 1)[0]
        whole = (self.rows[-1][0] - self.rows[0][0]) * self.total / max(1, self.total - 1)
        tenths = np.array_split(np.array(self.rows)[:, 1], 10)
        return {
            "samples": len(rows),
            "memory_mb_median_of_each_tenth_of_the_time": ", ".join(
                f"{np.median(part):.0f}" for part in tenths
            ),
            "memory_mb_early": round(medians[0][1], 1),
            "memory_mb_late": round(medians[1][1], 1),
            "memory_mb_highest": round(rows[:, 1].max(), 1),
            "growth_mb": round(slope * whole * part, 2),
            "handles_early": int(medians[0][2]),
            "handles_late": int(medians[1][2]),
            "threads_early": int(medians[0][3]),
            "threads_late": int(medians[1][3]),
        }


def made(depth: int, side: int) -> np.ndarray:
    """Smooth noise (z, y, x), uint8."""
    noise = gaussian_filter(
        np.random.default_rng(0).normal(size=(min(depth, 16), side, side)), (1, 2, 2)
    )
    return np.resize(np.uint8(np.clip(128 + 300 * noise, 0, 255)), (depth, side, side))


def soak_segment(folder: Path, tiles: int) -> dict[str, object]:
    """Segment noise in ``tiles`` tiles, and compare three slices with runs of one slice."""
    model = build_model(weights="none", encoder_depth=3, seed=0)
    model.module.eval()
    save_model(
        folder / "m.safetensors",
        replace(model, normalisation=Normalisation((128.0,), (40.0,), "file")),
    )
    depth = math.ceil(tiles / math.ceil((SIDE - TILE + STEP) / STEP) ** 2)
    save_volume(folder / "raw.zarr", made(depth, SIDE))
    began = time.perf_counter()
    with Watch("segmenting") as watch:
        done = segment(
            folder / "m.safetensors",
            folder / "raw.zarr",
            folder / "out.zarr",
            tile=TILE,
            memory=0.5,
            progress=watch.progress,
        )
    took = time.perf_counter() - began
    blocks = done.plan.blocks(
        (depth, SIDE, SIDE), (slice(0, depth), slice(0, SIDE), slice(0, SIDE))
    )
    count = sum(len(block.tiles) * (block.core[0].stop - block.core[0].start) for block in blocks)
    covered = sum(math.prod(part.stop - part.start for part in block.core) for block in blocks)
    whole = open_volume(folder / "out.zarr" / "labels" / "segmentation")
    differ = 0
    for z in (0, depth // 2, depth - 1):
        name = folder / f"one{z}.zarr"
        segment(
            folder / "m.safetensors",
            folder / "raw.zarr",
            name,
            tile=TILE,
            memory=0.5,
            roi=f"{z}:{z + 1},:,:",
        )
        alone = open_volume(name / "labels" / "segmentation").slice_at(0)
        differ += int((alone != whole.slice_at(z)).sum())
    return {
        "tiles": count,
        "blocks": len(blocks),
        "blocks_done": watch.done,
        "voxels": depth * SIDE * SIDE,
        "voxels_written_once": covered,
        "voxels_that_differ_from_runs_of_one_slice": differ,
        "seconds": round(took),
        **watch.found(1000 / count),
        "growth_per": "1000 tiles",
    }


def soak_study(folder: Path, cells: int) -> dict[str, object]:
    """Run a study of so many trainings of one step."""
    raw = made(9, 64)
    save_volume(folder / "raw.tif", raw)
    save_volume(folder / "labels.tif", np.uint8(raw > 128))
    (folder / "soak.toml").write_text(STUDY.format(seeds=list(range(cells // 2))))
    began = time.perf_counter()
    with Watch("study") as watch:
        result = study(folder / "soak.toml", folder / "out", progress=watch.progress)
    took = time.perf_counter() - began
    with (folder / "out" / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {
        "cells": cells,
        "rows": len(rows),
        "different_cells": len({(row["init"], row["seed"]) for row in rows}),
        "failures": sum(bool(row["failure"]) for row in rows),
        "compared": len(result.rows),
        "seconds": round(took),
        **watch.found(100 / cells),
        "growth_per": "100 cells",
    }


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("segment", "study"))
    parser.add_argument("--tiles", type=int, default=60_000)
    parser.add_argument("--cells", type=int, default=200)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if options.what == "segment":
            found = soak_segment(Path(folder), options.tiles)
        else:
            found = soak_study(Path(folder), options.cells)
    for name, value in found.items():
        print(f"{name.replace('_', ' '):45} {value}")
    keep(f"soak-{options.what}", found)


if __name__ == "__main__":
    main()
