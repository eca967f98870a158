"""Attribution beside captum: same network, windows and reversals, alternating; prints ratios.

    python benchmarks/attribution.py [--windows 2] [--side 256] [--rounds 3] [--device cpu]
        [--methods gradient,...]

captum is called as its users call it: a function that returns the fixed margin, default settings
otherwise; Shapley values with one feature per slot. For the gradient both start from the raw
window, and fix the margin themselves. Ratios of time are captum / evenslice (above 1 evenslice is
faster); memory is the growth of the process's peak over one call (of the GPU's on a GPU). The error
of the shares of integrated gradients is against 400 steps of captum.
"""

import argparse
import statistics
import threading
import time
from pathlib import Path

import torch
from captum.attr import IntegratedGradients, Saliency, ShapleyValues

from evenslice import build_model
from evenslice.data.phantom import phantom
from evenslice.evidence.attribution import ablated_margins, integrated_gradients, shapley_values
from evenslice.evidence.measure import importance_by
from evenslice.evidence.model_on_volume import (
    ModelOnVolume,
    batch_size_for,
    explained_target,
    explaining,
)
from evenslice.evidence.sampling import SampledWindow, slice_orders
from evenslice.volume.array import Volume
from evenslice.volume.normalisation import estimate

PAGE = 4096


def model_on_phantom(slices, side, windows, device):
    """Return a U-Net on ResNet-18 with a phantom, and raw windows."""
    raw = phantom((windows + slices - 1, side, side)).raw
    volume = Volume(raw)
    norm = estimate(volume)
    model = build_model(weights="none", init="rgb", slices=slices)
    module = model.module.eval().to(device)
    batch = batch_size_for(module, device, (slices, side, side), model.stride)
    model = ModelOnVolume(module, model.stride, slices, volume, norm, norm.mean[0], device, batch)
    return model, [raw[z : z + slices] for z in range(windows)]


def coefficients_of(model, pair):
    """Fix the margin of a pair: one decision for both."""
    return explained_target(model.logits(pair).mean(0, keepdim=True)).expand(2, -1, -1, -1)


def margins(model, pair, coefficients):
    return (coefficients.double() * model.logits(pair).double()).sum(1)


def shares(slots):
    slots = slots.double().abs()
    return (slots / slots.sum(1, keepdim=True)).mean(0)


def ours(name, model, raw, pair, coefficients):
    """Return the shares of one pair by this package."""
    with explaining(model.module):
        if name == "gradient":
            site = SampledWindow(0, slice(0, raw.shape[1]), slice(0, raw.shape[2]), 0)
            return shares(torch.from_numpy(importance_by(model, "gradient", [(site, raw)], 0)[0]))
        full = margins(model, pair, coefficients)
        if name == "integrated-gradients":
            return shares(
                integrated_gradients(model, pair, coefficients, 2, full)
                .attribution.abs()
                .sum((2, 3))
            )
        ablated = ablated_margins(model, pair, coefficients)
        found, _ = shapley_values(model, pair, coefficients, full, ablated)
        return shares(torch.from_numpy(found))


def captums(name, model, raw, pair, coefficients, steps=50):
    """Return the shares of one pair by captum's default call; Shapley: of the sum over pixels."""
    network = model.module
    if name == "gradient":
        pair = model.normalised(raw[slice_orders(model.slices)])
        with torch.no_grad():
            coefficients = explained_target(network(pair).mean(0, keepdim=True))
    one = coefficients[:1]

    def explained(x):
        return (network(x) * one).sum((1, 2, 3))

    found = []
    for single in pair.split(2 if name == "gradient" else 1):
        x = single.clone().requires_grad_(True)
        if name == "gradient":
            found.append(Saliency(explained).attribute(x).sum((2, 3)))
        elif name == "integrated-gradients":
            options = {} if steps == 50 else {"n_steps": steps, "internal_batch_size": 4}
            found.append(IntegratedGradients(explained).attribute(x, **options).abs().sum((2, 3)))
        else:
            mask = torch.arange(model.slices, device=x.device)[None, :, None, None].expand_as(x)
            found.append(
                ShapleyValues(explained).attribute(x, feature_mask=mask.contiguous())[:, :, 0, 0]
            )
    return shares(torch.cat(found).detach())


def bare(name, model, raw, pair, coefficients):
    """Run forward and backward alone, as often as one gradient of a pair needs."""
    with explaining(model.module):
        x = pair.clone().requires_grad_(True)
        torch.autograd.grad((model.module(x) * coefficients).sum(), x)


class Peak:
    """Growth of memory while something runs: of the process, or as the GPU counts it."""

    def __init__(self, device):
        self.device, self.most, self.stop = device, 0, threading.Event()

    def __enter__(self):
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.start = self._now()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            self.most = torch.cuda.max_memory_allocated()
        self.grown = max(0, self.most - self.start) / 2**20

    def _now(self):
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated()
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE

    def _watch(self):
        while not self.stop.wait(0.005):
            self.most = max(self.most, self._now())


def timed(call, device):
    with Peak(device) as peak:
        start = time.perf_counter()
        found = call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        took = time.perf_counter() - start
    return found, took, peak.grown


def compare(name, slices, given):
    """Print one line: time and memory of both, alternating."""
    device = torch.device(given.device)
    model, raws = model_on_phantom(slices, given.side, given.windows, device)
    pairs = [model.normalised(raw[slice_orders(slices)]) for raw in raws]
    calls = {"captum": captums, "evenslice": ours} | ({"bare": bare} if name == "gradient" else {})
    times, memory, found = ({key: [] for key in calls} for _ in range(3))
    fixed = [coefficients_of(model, pair) for pair in pairs]
    for turn in range(given.rounds + 1):
        for inputs in zip(raws, pairs, fixed, strict=True):
            for key, call in calls.items():
                value, took, grown = timed(lambda c=call, i=inputs: c(name, model, *i), device)
                if turn:
                    times[key].append(took)
                    memory[key].append(grown)
                    found[key].append(value)
    ratios = [a / b for a, b in zip(times["captum"], times["evenslice"], strict=True)]
    line = (
        f"{name}, S={slices}: captum {statistics.median(times['captum']):.2f} s, evenslice "
        f"{statistics.median(times['evenslice']):.2f} s, "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}); peak "
        "memory "
        f"{max(memory['captum']):.0f} and {max(memory['evenslice']):.0f} MiB"
    )
    if name == "gradient":
        over = [a / b for a, b in zip(times["evenslice"], times["bare"], strict=True)]
        line += f"; over the bare passes {statistics.median(over) - 1:+.1%}"
    if name == "integrated-gradients":
        exact = [
            captums(name, model, *inputs, steps=400)
            for inputs in zip(raws, pairs, fixed, strict=True)
        ]
        errors = {
            k: max(
                float((a - b).abs().max())
                for a, b in zip(found[k][: len(exact)], exact, strict=True)
            )
            for k in ("captum", "evenslice")
        }
        line += f"; error of the shares {errors['captum']:.1e} and {errors['evenslice']:.1e}"
    elif name == "gradient":
        apart = max(
            float((a - b).abs().max())
            for a, b in zip(found["captum"], found["evenslice"], strict=True)
        )
        line += f"; shares differ by {apart:.1e}"
    print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--methods", default="gradient,integrated-gradients,shapley")
    given = parser.parse_args()
    print(
        f"U-Net on ResNet-18, {given.windows} windows of {given.side} x {given.side} with their "
        f"reversals, {torch.get_num_threads()} threads, {given.device}"
    )
    for name in given.methods.split(","):
        for slices in (3, 5) if name == "shapley" else (3,):
            compare(name, slices, given)


if __name__ == "__main__":
    main()
