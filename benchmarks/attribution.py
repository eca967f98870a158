"""Gradient shares beside captum's default call: same network, same windows, one process, alternating.

    python benchmarks/attribution.py [--windows 6] [--side 256] [--rounds 5]

Prints the ratio of times (captum / evenslice; above 1 evenslice is faster) and the largest difference of the shares.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from captum.attr import Saliency

from evenslice import build_model
from evenslice.data.phantom import phantom
from evenslice.evidence.attribution import decision, explaining, gradient


def ours(network, pairs, stride):
    with explaining(network):
        return torch.stack([gradient(network, pair, stride)[0].sum((2, 3)) for pair in pairs])


def captums(network, pairs):
    """As its users write it: a scalar of the fixed decision, Saliency's absolute gradients, one window at a time."""
    found = []
    for pair in pairs:
        with torch.no_grad():
            mask = decision(network(pair).mean(0, keepdim=True))
        saliency = Saliency(lambda x, m=mask: (network(x) * m).sum((1, 2, 3)))
        found.append(torch.cat([saliency.attribute(x[None].requires_grad_(True)).sum((2, 3)) for x in pair.clone()]))
    return torch.stack(found)


def shares(importance):
    return (importance / importance.sum(2, keepdim=True)).mean(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=6)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    raw = phantom((given.windows + 2, given.side, given.side)).raw
    x = torch.from_numpy(((raw - raw.mean()) / raw.std()).astype(np.float32))
    pairs = [torch.stack([x[z : z + 3], x[z : z + 3].flip(0)]) for z in range(given.windows)]
    model = build_model(weights="none", init="rgb")
    network = model.module.eval()
    times: dict[str, list[float]] = {"captum": [], "evenslice": []}
    for _ in range(given.rounds + 1):
        for name, call in (
            ("captum", lambda: captums(network, pairs)),
            ("evenslice", lambda: ours(network, pairs, model.stride)),
        ):
            start = time.perf_counter()
            result = call()
            times[name].append(time.perf_counter() - start)
            if name == "captum":
                reference = shares(result)
    difference = float((shares(result) - reference).abs().max())
    ratios = [theirs / mine for theirs, mine in zip(times["captum"][1:], times["evenslice"][1:], strict=True)]
    print(
        f"U-Net on ResNet-18, {given.windows} windows of {given.side} x {given.side} with their reversals, {torch.get_num_threads()} threads"
    )
    for name, seconds in times.items():
        print(f"{name:10s} {statistics.median(seconds[1:]):7.2f} s")
    print(
        f"captum / evenslice: {statistics.median(ratios):.2f} (min {min(ratios):.2f}, max {max(ratios):.2f}); shares differ by {difference:.1e}"
    )


if __name__ == "__main__":
    main()
