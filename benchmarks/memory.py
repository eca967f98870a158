"""Peak memory of `segment` with objects and of `evaluate`, on volumes of 100 MB and of 4 GB.

    python benchmarks/memory.py [--small 25] [--large 1000] [--folder DIR]

Slices are 2048 x 2048 (the VNC volume of ../shared where it is there, else noise, repeated); the
network is one convolution, so that the time goes into streaming. Each run has a process of its own;
its peak is what the system reports. Needs about 15 GB of disk.
"""

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import zarr
from segment import slices
from torch import nn

from evenslice import evaluate, segment
from evenslice.model.spec import Model, Spec
from evenslice.volume.normalisation import Normalisation

SIDE = 2048


def make(path: Path, depth: int) -> None:
    base = slices(min(depth, 38), SIDE)
    array = zarr.create_array(
        str(path), shape=(depth, SIDE, SIDE), chunks=(16, 512, 512), dtype="uint8"
    )
    for z in range(0, depth, 16):
        array[z : z + 16] = base[np.arange(z, min(depth, z + 16)) % len(base)]


def darkness() -> Model:
    """A network that finds dark blobs: a local mean of the centre slice."""
    conv = nn.Conv2d(3, 1, 9, padding=4)
    nn.init.zeros_(conv.weight)
    nn.init.constant_(conv.bias, -1.0)
    conv.weight.data[:, 1] = -1.0 / 81
    return Model(conv.eval(), Spec(slices=3), Normalisation((128.0,), (40.0,), "file"), stride=1)


def work(folder: Path, verb: str) -> None:
    if verb == "segment":
        segment(
            darkness(),
            folder / "in.zarr",
            folder / "o.zarr",
            instances="components",
            min_size=1000,
            precision="fp32",
            force=True,
        )
    elif verb == "evaluate":
        evaluate(folder / "o.zarr", folder / "o.zarr" / "labels" / "segmentation", as_="instances")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", type=int, default=25, help="slices")
    parser.add_argument("--large", type=int, default=1000, help="slices")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        torch.set_num_threads(2)
        work(Path(given.work[0]), given.work[1])
        return
    peaks: dict[str, list[float]] = {}
    for depth in (given.small, given.large):
        folder = Path(tempfile.mkdtemp(dir=given.folder))
        try:
            make(folder / "in.zarr", depth)
            for verb in ("segment", "evaluate"):
                start = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, __file__, "--work", str(folder), verb],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                peaks.setdefault(verb, []).append(float(done.stdout.split()[-1]))
                print(
                    f"{depth * SIDE**2 / 1e9:.2f} GB, {verb}: peak {peaks[verb][-1]:.0f} MiB, "
                    f"{time.perf_counter() - start:.0f} s",
                    flush=True,
                )
        finally:
            shutil.rmtree(folder)
    for verb, (small, large) in peaks.items():
        print(f"{verb}: the large volume needs {large - small:+.0f} MiB")


if __name__ == "__main__":
    main()
