"""How far a watershed by blocks is from that of the whole volume, in bits of VOI.

    python benchmarks/watershed.py

On a phantom, and on ISBI 2012 where ../shared is there. Boundary probabilities are the true
membranes, blurred, with noise; seeds are the same for all. Ground-truth label 0, the membranes, is
left out of the scores.
"""

from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from evenslice import evaluate, open_volume
from evenslice.data.phantom import phantom
from evenslice.labels.blocks import grid_of, with_halo
from evenslice.labels.components import label_box
from evenslice.labels.watershed import FLOOD_HALO, flood_box, seed_distance, seeds_in

VOXEL = (50.0, 4.0, 4.0)
SHARED = Path(__file__).resolve().parent.parent.parent / "shared" / "data" / "isbi2012"
HALOS = ((0, 0, 0), (2, 32, 32), (4, 64, 64), FLOOD_HALO)


def boundaries(membranes: np.ndarray) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=membranes.shape), (0, 2, 2))
    blurred = (
        gaussian_filter(membranes.astype(np.float32), (0, 1.5, 1.5)) + 0.12 * noise / noise.std()
    )
    return np.clip(blurred, 0, 1).astype(np.float32)


def flooded(boundary: np.ndarray, seeds: np.ndarray, block, halo) -> np.ndarray:
    out = np.zeros_like(seeds)
    for box in grid_of(boundary.shape, block):
        read, inside = with_halo(box, halo, boundary.shape)
        out[box] = flood_box(
            boundary[read], seeds[read], inside, 0.5, VOXEL, seed_distance(VOXEL), fill=True
        )
    return out


def measure(name: str, membranes: np.ndarray, neurons: np.ndarray) -> None:
    boundary = boundaries(membranes)
    everything = grid_of(boundary.shape, boundary.shape)[0]
    mask = seeds_in(boundary, everything, 0.5, VOXEL, seed_distance(VOXEL))
    seeds, _ = label_box(mask, everything, boundary.shape)
    whole = flooded(boundary, seeds, boundary.shape, (0, 0, 0))
    print(
        f"{name}: ARE of the whole "
        f"{evaluate(whole, neurons, as_='instances').partition.adapted_rand_error:.4f}"
    )
    for block in ((10, 128, 128), (16, 256, 256)):
        for halo in HALOS:
            found = flooded(boundary, seeds, block, halo)
            apart = evaluate(found, whole, as_="instances", ignore=None).partition
            error = evaluate(found, neurons, as_="instances").partition.adapted_rand_error
            print(
                f"  boxes {block}, halo {halo}: VOI to the whole "
                f"{apart.voi_split + apart.voi_merge:.4f} bits, ARE {error:.4f}",
                flush=True,
            )


def main() -> None:
    made = phantom((30, 384, 384), voxel_nm=VOXEL)
    measure("phantom", made.membranes, made.neurons)
    if SHARED.is_dir():
        box = (slice(None),) * 3
        measure(
            "ISBI 2012",
            *(open_volume(SHARED / f"{name}.tif").read(box) for name in ("membranes", "neurons")),
        )


if __name__ == "__main__":
    main()
