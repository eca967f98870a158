"""Throughput of `segment`, disk to disk, beside the bare network and MONAI; alternating.

    python benchmarks/segment.py [--rounds 3] [--slices 24] [--large 3] [--threads N]

U-Net on ResNet-18 (four stages), three slices. Slices are 1024 x 1024 (the VNC volume of ../shared
where it is there, else noise), repeated in z; tiles are measured on slices of 4096 x 4096 with 2 GB
of memory. Ratios above 1 are in favour of evenslice.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from evenslice import build_model, open_volume, save_volume, segment
from evenslice.model.predict import Runner, Settings
from evenslice.volume.normalisation import Normalisation

SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def slices(count: int, side: int) -> np.ndarray:
    """Real slices where they are at hand, repeated."""
    file = SHARED / "data" / "vnc" / "raw.tif"
    if file.exists():
        base = open_volume(file).read((slice(None),) * 3)
    else:
        base = np.random.default_rng(0).integers(0, 255, (4, 1024, 1024), np.uint8)
    times = -(-side // base.shape[1])
    order = np.abs((np.arange(count) + len(base) - 1) % (2 * len(base) - 2) - len(base) + 1)
    return np.ascontiguousarray(np.tile(base[order], (1, times, times))[:, :side, :side])


def network():
    weights = SHARED / "weights" / "resnet18_conv1-layer3.safetensors"
    model = build_model(
        weights=str(weights) if weights.exists() else "none", encoder_depth=4, init="green"
    )
    return replace(model, normalisation=Normalisation((128.0,), (40.0,), "file"))


def timed(run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def bare(model, precision: str, batch_of: list[np.ndarray]) -> None:
    """Run the network alone, on windows that lie in memory, in our layout and in one precision."""
    runner = Runner(model, Settings("cpu", precision, torch.get_num_threads()))
    for windows in batch_of:
        runner.start(windows).result()


def monai(model, window: np.ndarray, precision: str | None) -> np.ndarray:
    """Predict one slice by MONAI's sliding window: in its defaults, or our precision and layout."""
    from monai.inferers import sliding_window_inference

    x = torch.from_numpy(window)
    net = model.module.to(
        memory_format=torch.contiguous_format if precision is None else torch.channels_last
    )
    if precision is not None:
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        return (
            sliding_window_inference(x, (256, 256), 4, net, overlap=0.25).float().sigmoid().numpy()
        )


def windows_of(volume: np.ndarray, count: int) -> list[np.ndarray]:
    norm = Normalisation((128.0,), (40.0,), "file")
    return [norm.apply(volume[z - 1 : z + 2][None]) for z in range(1, count + 1)]


def whole_slices(model, volume: np.ndarray, rounds: int, folder: Path) -> None:
    save_volume(folder / "in.tif", volume)
    windows = windows_of(volume, len(volume) - 2)
    times: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        for precision in ("fp32", "bf16"):
            runs = {
                "bare": lambda p=precision: bare(model, p, windows),
                "segment": lambda p=precision: segment(
                    model, folder / "in.tif", folder / "o.zarr", precision=p, force=True
                ),
                "monai": lambda p=precision: [monai(model, w, p) for w in windows[:4]],
            }
            for name, run in runs.items():
                took = timed(run)
                if turn:
                    times.setdefault(f"{name} {precision}", []).append(took)
        took = timed(lambda: [monai(model, w, None) for w in windows[:4]])
        if turn:
            times.setdefault("monai default", []).append(took)
    voxels = windows[0][0, 0].size
    speed = {
        name: voxels
        * {"b": len(windows), "s": len(volume), "m": 4}[name[0]]
        / statistics.median(took)
        / 1e6
        for name, took in times.items()
    }
    for name, value in speed.items():
        print(f"  {name:14s} {value:6.2f} Mvoxel/s")
    for precision in ("fp32", "bf16"):
        print(
            f"whole slices, disk to disk / bare network, {precision}: "
            f"{speed[f'segment {precision}'] / speed[f'bare {precision}']:.2f}"
        )
    for precision in ("fp32", "bf16"):
        print(
            f"segment / MONAI in the same precision and layout, {precision}: "
            f"{speed[f'segment {precision}'] / speed[f'monai {precision}']:.2f}"
        )
    print(
        "segment / MONAI, default against default: "
        f"{speed['segment bf16'] / speed['monai default']:.2f}"
    )


def differences(model, volume: np.ndarray, folder: Path) -> None:
    save_volume(folder / "one.tif", volume[:3])
    window = windows_of(volume, 1)[0]
    whole = (
        Runner(model, Settings("cpu", "fp32", torch.get_num_threads())).start(window).result()[0, 0]
    )
    segment(model, folder / "one.tif", folder / "t.zarr", precision="fp32", tile=512, force=True)
    ours = open_volume(folder / "t.zarr").slice_at(1)
    theirs = monai(model, window, None)[0, 0]
    print(
        "largest difference to a whole slice: evenslice in tiles of 512 "
        f"{np.abs(ours - whole).max():.1e}, MONAI {np.abs(theirs - whole).max():.1e}"
    )


def tiles(folder: Path, count: int, precision: str) -> None:
    """Run in a process of its own, so that 2 GB are all that there is."""
    model, norm = network(), Normalisation((128.0,), (40.0,), "file")
    start = time.perf_counter()
    done = segment(
        model, folder / "large.tif", folder / "l.zarr", precision=precision, memory=2.0, force=True
    )
    took = time.perf_counter() - start
    status = Path(
        "/proc/self/status"
    ).read_text()  # what rusage says includes the process this one was started from
    peak = int(status.split("VmHWM:")[1].split()[0]) / 2**20
    volume = open_volume(folder / "large.tif")
    one = (slice(0, 1), slice(0, 4096), slice(0, 4096))
    reads = [tile.read for block in done.plan.blocks(volume.shape, one) for tile in block.tiles]
    parts = [norm.apply(volume.read((slice(0, 3), *read))[None]) for read in reads]
    bare(model, precision, parts[:1])
    alone = timed(lambda: bare(model, precision, parts)) * count
    computed = sum(part[0, 0].size for part in parts)
    print(
        f"tiles of {done.plan.cut.tile[0]} with a halo of {done.plan.cut.halo} "
        f"({1 - 4096**2 / computed:.0%} of what is computed is halo), "
        f"{precision}, peak {peak:.2f} GiB: disk to disk / bare network over the same tiles "
        f"{alone / took:.2f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slices", type=int, default=24)
    parser.add_argument(
        "--large", type=int, default=3, help="slices of 4096 x 4096, 3 or more; 0 leaves tiles out"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.work:
        tiles(Path(given.work[0]), int(given.work[1]), given.work[2])
        return
    model, folder = network(), Path(tempfile.mkdtemp())
    try:
        print(f"{given.threads} threads, {given.slices} slices of 1024 x 1024")
        whole_slices(model, slices(given.slices, 1024), given.rounds, folder)
        differences(model, slices(4, 1024), folder)
        if given.large:
            save_volume(folder / "large.tif", slices(max(3, given.large), 4096))
        for precision in ("fp32", "bf16") if given.large else ():
            words = [
                "--work",
                str(folder),
                str(max(3, given.large)),
                precision,
                "--threads",
                str(given.threads),
            ]
            subprocess.run([sys.executable, __file__, *words], check=True)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
