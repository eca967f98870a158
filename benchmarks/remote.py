"""Volumes on a server beside the same on the disk: time, bytes and memory.

    python benchmarks/remote.py [--slices 64] [--side 768]

A loopback server hands out the chunks of an OME-Zarr store, and of a volume of 107 GB that it makes
on the fly; each measured run has a process of its own. Bytes needed are those of the chunks that
hold the box. The network is a U-Net on the default encoder, without weights.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from evenslice import audit, build_model, open_volume, save_volume, segment
from evenslice.data.phantom import phantom
from evenslice.volume.normalisation import Normalisation
from volume.server import serving

HUGE, CHUNK = (4096, 5120, 5120), 64
REGION = (slice(1024, 1088), slice(2048, 2560), slice(2048, 2560))
ROUNDS = 2


def work(verb: str, volume: str, out: str, roi: str) -> None:
    """Do one thing, and print its seconds and peak memory in MiB."""
    started = time.perf_counter()
    if verb == "read":
        import tensorstore

        spec = {"driver": "zarr3", "kvstore": f"{volume}/"}
        tensorstore.open(spec).result()[REGION].read().result()
    else:
        model = build_model(weights="none", encoder_depth=3)
        model = replace(model, normalisation=Normalisation((128.0,), (40.0,), "file"))
        started = time.perf_counter()
        if verb == "audit":
            audit(model, volume, windows=16, tile=128, methods=("gradient", "ablation"))
        else:
            segment(model, volume, out, roi=roi or None, precision="fp32", force=True)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps([seconds, peak]))


def measure(*words: str) -> tuple[float, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--work", *words], check=True, capture_output=True, text=True
    )
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak


def compare(folder: Path, slices: int, side: int) -> None:
    made = phantom()
    reps = [-(-n // size) for n, size in zip((slices, side, side), made.raw.shape, strict=True)]
    raw = np.tile(made.raw, reps)[:slices, :side, :side]
    save_volume(folder / "raw.zarr", raw, (8.0, 8.0, 8.0))
    needed = sum(file.stat().st_size for file in (folder / "raw.zarr/0/c").rglob("*/*/*"))
    with serving(folder) as server:
        places = {"local": str(folder / "raw.zarr"), "http": f"{server.address}/raw.zarr"}
        seconds: dict[str, list[float]] = {name: [] for name in places}
        for _ in range(ROUNDS):
            for name, place in places.items():
                server.read.clear()
                seconds[name].append(measure("segment", place, str(folder / "o.zarr"), "")[0])
        moved = sum(size for _, _, size in server.read)
    local, http = (min(seconds[name]) for name in places)
    print(f"segment {slices} x {side} x {side}: local {local:.1f} s, http {http:.1f} s")
    print(f"  http / local {http / local:.3f} (at most 1.15)")
    print(f"  bytes moved / needed {moved / needed:.3f} (at most 1.05)")


def made_on_the_fly(folder: Path) -> None:
    made = phantom(shape=(CHUNK, CHUNK * 2, CHUNK * 2)).raw
    metadata = json.dumps(
        {
            "zarr_format": 3,
            "node_type": "array",
            "shape": HUGE,
            "data_type": "uint8",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [CHUNK] * 3}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0,
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "attributes": {"resolution": [8, 8, 8], "units": "nm"},
        }
    ).encode()

    @cache
    def chunk(y: int, x: int) -> bytes:
        return made[:, y * CHUNK :, x * CHUNK :][:, :CHUNK, :CHUNK].tobytes()

    def content(path: str) -> bytes | None:
        if path == "huge/zarr.json":
            return metadata
        parts = path.split("/")
        return chunk(int(parts[-2]) % 2, int(parts[-1]) % 2) if parts[1:2] == ["c"] else None

    with serving(content) as server:
        place, out = f"{server.address}/huge", str(folder / "region.zarr")
        roi = ",".join(f"{part.start}:{part.stop}" for part in REGION)
        print(f"volume of {np.prod(HUGE) / 1e9:.0f} GB made on the fly")
        for verb in ("read", "segment", "audit"):
            server.read.clear()
            seconds, peak = measure(verb, place, out, roi)
            moved = sum(size for _, _, size in server.read) / 2**20
            print(f"  {verb}: {seconds:.1f} s, {moved:.0f} MiB moved, peak {peak:.0f} MiB")
        assert open_volume(out).shape == (1, 64, 512, 512)[1:]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--slices", type=int, default=64)
    parser.add_argument("--side", type=int, default=768)
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(*given.work)
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), given.slices, given.side)
        made_on_the_fly(Path(folder))


if __name__ == "__main__":
    main()
