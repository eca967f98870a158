"""Speed of a training step from disk beside a plain torch loop on tensors in memory; alternating.

    python benchmarks/train.py [--rounds 5] [--steps 6] [--precision fp32|bf16] [--threads 1]

U-Net on ResNet-18, three slices, 4 x 256 x 256, AdamW and one-cycle, cross-entropy plus Dice: the
same in both. Ours is the Lightning loop of `evenslice train`, with its log, its patches cut and
augmented from a uint8 TIFF or OME-Zarr (the VNC volume of ../shared where it is there, else noise,
20 x 1024 x 1024). `held`: read into memory first, as `train` does if it fits; `lazy`: every patch
from the file. A ratio is the speed of ours over that of the plain loop right before it, by the wall
clock and by the processor time of the whole process, which other programs disturb less.
"""

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from evenslice import build_model, open_volume, save_volume
from evenslice.labels.targets import Target
from evenslice.learn.fit import PLUGINS, ValidationResult, fit
from evenslice.learn.losses import segmentation_loss
from evenslice.learn.module import Training
from evenslice.learn.multi_volume import MultiVolume
from evenslice.learn.patches import PatchSource
from evenslice.model.spec import ExternalSpec, Model
from evenslice.options import TrainOptions
from evenslice.volume.normalisation import Normalisation

SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "vnc"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WARM = 2
Times = tuple[float, float]


def data(folder: Path) -> None:
    """Write the volumes."""
    if (SHARED / "raw.tif").exists():
        raw, labels = (
            open_volume(SHARED / f"{n}.tif").read((slice(None),) * 3) for n in ("raw", "membranes")
        )
    else:
        raw = np.random.default_rng(0).integers(0, 255, (20, 1024, 1024), np.uint8)
        labels = (raw > 128).astype(np.uint8)
    for ending in ("tif", "zarr"):
        save_volume(folder / f"raw.{ending}", raw)
        save_volume(folder / f"labels.{ending}", labels)


def patches(folder: Path, ending: str, augment: str, lazy: bool) -> MultiVolume:
    volume, labels = (open_volume(folder / f"{name}.{ending}") for name in ("raw", "labels"))
    options = TrainOptions(augment=augment)
    source = PatchSource(
        volume,
        labels,
        tuple(range(16)),
        3,
        (256, 256),
        Target("foreground", 1),
        Normalisation((128.0,), (40.0,)),
        em=options.em if augment == "em" else None,
    )
    found = MultiVolume((source,))
    return found if lazy else found.preloaded(TrainOptions(steps=10**9), 10**12)


def now() -> Times:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter(), time.process_time()


def per_step(begin: Times, end: Times, steps: int) -> Times:
    return (end[0] - begin[0]) / steps, (end[1] - begin[1]) / steps


def network() -> torch.nn.Module:
    return build_model(weights="none").module.to(DEVICE)


def ours(source: MultiVolume, precision: str, steps: int, folder: Path) -> Times:
    marks = []

    class Marked(Training):
        def on_train_batch_start(self, *_: object) -> None:
            if self.done in (WARM, steps + WARM - 1):
                marks.append(now())

    model = Model(network(), ExternalSpec("callable", "unet", 3, 1, 3), stride=32)
    options = TrainOptions(weights="none", steps=steps + WARM, precision=precision)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    fit(
        Marked(model, source, options, steps + WARM),
        DEVICE,
        precision,
        folder,
        lambda *_: ValidationResult(0.5),
    )
    return per_step(*marks, steps - 1)


def plain(batches: list[tuple[torch.Tensor, torch.Tensor]], precision: str, steps: int) -> Times:
    net = network().train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps + WARM)
    for step in range(steps + WARM - 1):
        if step == WARM:
            begin = now()
        windows, target = batches[step % len(batches)]
        with torch.autocast(
            DEVICE.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False
        ):
            loss = segmentation_loss(net(windows).float(), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return per_step(begin, now(), steps - 1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--precision", choices=[n for n in PLUGINS if n != "fp16"], default="fp32")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    folder = Path(tempfile.mkdtemp())
    try:
        data(folder)
        cases = {
            f"{ending} {augment} {'from file' if lazy else 'in memory'}": patches(
                folder, ending, augment, lazy
            )
            for ending in ("tif", "zarr")
            for augment in ("flips", "em")
            for lazy in (False, True)
        }
        rng = np.random.default_rng(0)
        drawn = [[cases["tif flips in memory"].draw(rng) for _ in range(4)] for _ in range(4)]
        batches = [
            tuple(torch.from_numpy(np.stack(part)).to(DEVICE) for part in zip(*one, strict=True))
            for one in drawn
        ]
        print(
            f"{DEVICE.type}, {given.threads} threads, {given.precision}, {given.rounds} rounds of "
            f"{given.steps} steps"
        )
        ratios: dict[str, list[Times]] = {}
        seconds = []
        for _ in range(given.rounds):
            for name, source in cases.items():
                alone = plain(batches, given.precision, given.steps)
                full = ours(source, given.precision, given.steps, folder / "run")
                ratios.setdefault(name, []).append((alone[0] / full[0], alone[1] / full[1]))
                seconds.append(alone[0])
        print(f"a step of the plain loop takes {statistics.median(seconds):.2f} s")
        for name, found in ratios.items():
            wall, cpu = (statistics.median(values) for values in zip(*found, strict=True))
            print(
                f"  {name:20s} ours / plain loop: {wall:.3f} by the clock, {cpu:.3f} by processor "
                "time",
                flush=True,
            )
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
