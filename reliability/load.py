"""Four processes at once: they share the work or refuse; the result is that of one process.

    python reliability/load.py

Each line compares the result of four processes, started together, with that of one.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from keeping import keep
from soak import STUDY, made

from evenslice import build_model, open_volume, save_model, save_volume
from evenslice.volume.normalisation import Normalisation

PROCESSES = 4
SEGMENT = ["segment", "m.safetensors", "raw.zarr"]
AUDIT = [
    "audit",
    "m.safetensors",
    "raw.tif",
    "--windows",
    "12",
    "--tile",
    "64",
    "--methods",
    "gradient,ablation",
]


def together(folder: Path, commands: Sequence[Sequence[str]]) -> list[tuple[int, str]]:
    """Run commands of evenslice at once; return exit codes and stderr."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "evenslice", *words],
            cwd=folder,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for words in commands
    ]
    errors = [process.communicate()[1] for process in running]
    return [(process.returncode, text) for process, text in zip(running, errors, strict=True)]


def arrays(store: Path) -> list[np.ndarray]:
    """Read the labels and probabilities of a store."""
    labels = open_volume(store / "labels" / "segmentation")
    chances = open_volume(store)
    return [one.read((slice(None),) * 3) for one in (labels, chances)]


def equal(one: Path, other: Path) -> bool:
    """Whether two stores are equal."""
    return all(np.array_equal(a, b) for a, b in zip(arrays(one), arrays(other), strict=True))


def rows(file: Path) -> list[dict[str, str]]:
    """Read the rows of a study without their times."""
    with file.open() as stream:
        found = [
            {key: value for key, value in row.items() if key != "seconds"}
            for row in csv.DictReader(stream)
        ]
    return sorted(found, key=lambda row: (row["init"], row["seed"]))


def shards(folder: Path) -> dict[str, object]:
    """Four shards of one output."""
    together(folder, [[*SEGMENT, "one.zarr", "--instances", "components"]])
    parts = [
        [*SEGMENT, "four.zarr", "--instances", "components", "--shard", f"{n}/{PROCESSES}"]
        for n in range(1, 5)
    ]
    ended = together(folder, parts)
    return {
        "codes": [code for code, _ in ended],
        "equal": equal(folder / "one.zarr", folder / "four.zarr"),
    }


def same_output(folder: Path) -> dict[str, object]:
    """Four runs of one output: one writes it, the others fail with one line."""
    ended = together(folder, [[*SEGMENT, "wanted.zarr", "--instances", "components"]] * PROCESSES)
    refused = [text for code, text in ended if code == 2]
    lines = all(
        len([line for line in text.splitlines() if "error:" in line]) == 1 for text in refused
    )
    codes = sorted(code for code, _ in ended)
    same = equal(folder / "one.zarr", folder / "wanted.zarr")
    return {"codes": codes, "equal": same and lines and codes == [0, 2, 2, 2]}


def studies(folder: Path) -> dict[str, object]:
    """Four processes that share the cells of one study."""
    together(folder, [["study", "s.toml", "--out", "study-one"]])
    ended = together(folder, [["study", "s.toml", "--out", "study-four"]] * PROCESSES)
    one, four = rows(folder / "study-one" / "rows.csv"), rows(folder / "study-four" / "rows.csv")
    return {"codes": [code for code, _ in ended], "cells": len(four), "equal": one == four}


def audits(folder: Path) -> dict[str, object]:
    """Four audits at once."""
    together(folder, [[*AUDIT, "--out", "audit-one"]])
    ended = together(folder, [[*AUDIT, "--out", f"audit-{n}"] for n in range(PROCESSES)])
    found = [
        json.loads((folder / f"audit-{n}" / "audit.json").read_text())
        for n in ("one", *range(PROCESSES))
    ]
    for one in found:
        del one["provenance"]
    return {"codes": [code for code, _ in ended], "equal": all(one == found[0] for one in found)}


def main() -> None:
    """Run all four, and keep what they found."""
    model = build_model(weights="none", encoder_depth=3, seed=0)
    model.module.eval()
    model = replace(model, normalisation=Normalisation((128.0,), (40.0,), "file"))
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_model(folder / "m.safetensors", model)
        save_volume(folder / "raw.zarr", made(32, 256))
        raw = made(9, 64)
        save_volume(folder / "raw.tif", raw)
        save_volume(folder / "labels.tif", np.uint8(raw > 128))
        (folder / "s.toml").write_text(STUDY.format(seeds=list(range(4))))
        for work in (shards, same_output, studies, audits):
            began = time.perf_counter()
            found[work.__name__] = work(folder) | {"seconds": round(time.perf_counter() - began)}
            print(f"{work.__name__:12} {found[work.__name__]}")
    keep("load", {"processes": PROCESSES, "work": found})


if __name__ == "__main__":
    main()
